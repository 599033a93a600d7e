"""Images that are near each other in a model's features (Krizhevsky et al. 2012, section 6.1)."""

import numpy as np


def nearest(features: np.ndarray, among: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of one array that are nearest to each row of another, the nearest first.

    Args:
        features: (N, F).
        among: (M, F).
        count: How many of them; all where there are fewer.

    Returns:
        Their indices in `among`, int64 (N, count), and their Euclidean distances, float64.
    """
    # Row by row, not by the product of both, whose rounding makes equal rows differ.
    distances = np.stack(
        [np.linalg.norm(among.astype(np.float64) - row, axis=1) for row in features]
    )
    order = np.argsort(distances, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(distances, order, axis=1)
