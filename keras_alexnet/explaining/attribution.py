"""What a score rests on, as arithmetic on arrays: the model comes as functions.

Maps are channels-last whatever the model is. Each function names the paper whose formula it is.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_alexnet.errors import ConfigurationError
from keras_alexnet.specs.preprocessing import Preprocessing

_SQUARES = 7  # of occlusion, along the image's shorter side; they overlap by half


def even_batches(count: int, most: int) -> tuple[int, int]:
    """Return the number and size of the fewest batches of one size that hold `count` examples.

    The size is `most` or less. A backend compiles for each size of a batch: the last one is to be
    filled up.
    """
    number = math.ceil(count / most)
    return number, math.ceil(count / number)


def grad_cam(maps: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Return where feature maps speak for a class (Selvaraju et al. 2017, equations 1 and 2).

    A channel's weight is the mean over its pixels of the score's gradient; the weighted sum of the
    maps is cut off below 0, where they speak for something else.

    Args:
        maps: A layer's output, (..., h, w, C).
        gradients: The gradients of scores with respect to it, in the same shape, or in one that
            it is broadcast to.

    Returns:
        float32 (..., h, w), from 0 up, in units of the score.
    """
    weights = gradients.mean(axis=(-3, -2), keepdims=True)  # (..., 1, 1, C)
    return np.maximum((weights * maps).sum(axis=-1), 0).astype(np.float32)


def integrated_gradients(
    gradient: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    baseline: np.ndarray,
    *,
    steps: int,
    batch_size: int,
) -> np.ndarray:
    """Return how much each number of an input adds to scores (Sundararajan et al. 2017, eq. 1).

    The gradient is averaged along the straight line from the baseline and multiplied by the way.
    The results sum to score(x) - score(baseline), but for the error of the average, which is a
    Gauss-Legendre quadrature.

    Args:
        gradient: Returns the gradients (B, K, ...) of K scores at a batch (B, ...).
        x: The input, (...).
        baseline: An input that shows nothing, in the same shape.
        steps: Points on the line.
        batch_size: How many of them `gradient` gets at a time, at most.

    Returns:
        float64 (K, ...), in units of the scores.
    """
    number, size = even_batches(steps, batch_size)
    points, weights = np.polynomial.legendre.leggauss(steps)  # on [-1, 1]
    filled = (0, number * size - steps)  # points of no weight
    points, weights = np.pad((points + 1) / 2, filled), np.pad(weights / 2, filled)
    way = x.astype(np.float64) - baseline
    mean: np.ndarray | float = 0.0
    for start in range(0, number * size, size):
        here = slice(start, start + size)
        line = baseline + points[here].reshape(-1, *[1] * x.ndim) * way
        mean = mean + np.tensordot(weights[here], gradient(line.astype(np.float32)), axes=1)
    return way * mean


def occlusion(
    score: Callable[[np.ndarray], np.ndarray],
    image: np.ndarray,
    fill: np.ndarray,
    *,
    window: int,
    stride: int,
    batch_size: int,
) -> np.ndarray:
    """Return how far scores drop where a square hides the image (Zeiler and Fergus 2014, 4.2).

    Args:
        score: Returns K scores (B, K) of each of the images (B, h, w, C).
        image: (h, w, C).
        fill: The square's colour, (C,).
        window: Its side in pixels; it is cut off at the image's right and lower edge.
        stride: Pixels from one place of the square to the next, at most `window`.
        batch_size: How many images `score` gets at a time, at most.

    Returns:
        float32 (K, h, w): the mean drop over all squares that hide a pixel, in units of the score.
    """
    nothing = (slice(0), slice(0))
    squares = [nothing, *_squares(image.shape[0], image.shape[1], window, stride)]
    number, size = even_batches(len(squares), batch_size)
    places = [*squares, *[nothing] * (number * size - len(squares))]
    parts = [
        score(_hidden(image, fill, places[start : start + size]))
        for start in range(0, len(places), size)
    ]
    scores = np.concatenate(parts)[: len(squares)].astype(np.float64)  # (squares, K)
    drops = np.zeros((scores.shape[1], *image.shape[:2]))
    counts = np.zeros(image.shape[:2])
    for square, other in zip(squares, scores, strict=True):
        drops[:, *square] += (scores[0] - other)[:, None, None]
        counts[square] += 1
    return (drops / counts).astype(np.float32)


def occluder(
    preprocessing: Preprocessing, size: Sequence[int], window: int | None, stride: int | None
) -> dict[str, Any]:
    """Return what `occlusion` hides photos of a size with: its `fill`, `window` and `stride`.

    The colour is the mean that the preprocessing subtracts. By default the window is a seventh of
    the photo's shorter side, and the stride half a window.

    Raises:
        ConfigurationError: The square is larger than the photo, or would leave pixels out.
    """
    shorter = min(size)
    window = max(round(shorter / _SQUARES), 1) if window is None else window
    stride = max(window // 2, 1) if stride is None else stride
    if not 1 <= stride <= window <= shorter:
        raise ConfigurationError(
            f"a window of {window} pixels and a stride of {stride} do not fit: wanted is "
            f"1 <= stride <= window <= {shorter}, the photo's shorter side"
        )
    mean = preprocessing.scale * np.asarray(preprocessing.mean, np.float32)
    fill = mean[::-1] if preprocessing.channels == "BGR" else mean
    return {"fill": fill, "window": window, "stride": stride}


def _hidden(
    image: np.ndarray, fill: np.ndarray, squares: Sequence[tuple[slice, slice]]
) -> np.ndarray:
    """Return an image once for each square that hides it, float32 (B, h, w, C)."""
    pictures = np.repeat(image[None].astype(np.float32), len(squares), axis=0)
    for picture, square in zip(pictures, squares, strict=True):
        picture[square] = fill
    return pictures


def _squares(height: int, width: int, window: int, stride: int) -> Iterator[tuple[slice, slice]]:
    rows, columns = (math.ceil(max(side - window, 0) / stride) + 1 for side in (height, width))
    for row in range(rows):
        for column in range(columns):
            top, left = row * stride, column * stride
            yield slice(top, top + window), slice(left, left + window)
