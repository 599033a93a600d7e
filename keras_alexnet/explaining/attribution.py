"""What a score rests on, as arithmetic on arrays: the model comes as functions.

Maps are channels-last whatever the model is. Each function names the paper whose formula it is.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from keras_alexnet.errors import ConfigurationError
from keras_alexnet.specs.preprocessing import Preprocessing

_SQUARES = 7  # of occlusion, along the image's shorter side; they overlap by half


def grad_cam(maps: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Return where feature maps speak for a class (Selvaraju et al. 2017, equations 1 and 2).

    A channel's weight is the mean over its pixels of the score's gradient; the weighted sum of the
    maps is cut off below 0, where they speak for something else.

    Args:
        maps: A layer's output, (N, h, w, C).
        gradients: The gradient of a score with respect to it, in the same shape.

    Returns:
        float32 (N, h, w), from 0 up, in units of the score.
    """
    weights = gradients.mean(axis=(1, 2), keepdims=True)  # (N, 1, 1, C)
    return np.maximum((weights * maps).sum(axis=-1), 0).astype(np.float32)


def integrated_gradients(
    gradient: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    baseline: np.ndarray,
    *,
    steps: int,
) -> np.ndarray:
    """Return how much each number of an input adds to a score (Sundararajan et al. 2017, eq. 1).

    The gradient is averaged along the straight line from the baseline and multiplied by the way.
    The results sum to score(x) - score(baseline), but for the error of the average, which is a
    Gauss-Legendre quadrature.

    Args:
        gradient: Returns the score's gradients at a batch (steps, ...), in its shape.
        x: The input, (...).
        baseline: An input that shows nothing, in the same shape.
        steps: Points on the line.

    Returns:
        float64, in the shape of `x`, in units of the score.
    """
    points, weights = np.polynomial.legendre.leggauss(steps)  # on [-1, 1]
    way = x.astype(np.float64) - baseline
    shares = ((points + 1) / 2).reshape(-1, *[1] * x.ndim)
    gradients = gradient((baseline + shares * way).astype(np.float32))
    return way * np.tensordot(weights / 2, gradients.astype(np.float64), axes=1)


def occlusion(
    score: Callable[[np.ndarray], np.ndarray],
    image: np.ndarray,
    fill: np.ndarray,
    *,
    window: int,
    stride: int,
) -> np.ndarray:
    """Return how far a score drops where a square hides the image (Zeiler and Fergus 2014, 4.2).

    Args:
        score: Returns the scores (B,) of images (B, h, w, C).
        image: (h, w, C).
        fill: The square's colour, (C,).
        window: Its side in pixels; it is cut off at the image's right and lower edge.
        stride: Pixels from one place of the square to the next, at most `window`.

    Returns:
        float32 (h, w): the mean drop over all squares that hide a pixel, in units of the score.
    """
    squares = [*_squares(image.shape[0], image.shape[1], window, stride)]
    hidden = np.repeat(image[None], len(squares) + 1, axis=0).astype(np.float32)
    for picture, square in zip(hidden[1:], squares, strict=True):
        picture[square] = fill
    whole, *others = score(hidden).astype(np.float64)
    drops, counts = np.zeros(image.shape[:2]), np.zeros(image.shape[:2])
    for square, other in zip(squares, others, strict=True):
        drops[square] += whole - other
        counts[square] += 1
    return (drops / counts).astype(np.float32)


def occluder(
    preprocessing: Preprocessing, size: tuple[int, int], window: int | None, stride: int | None
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


def _squares(height: int, width: int, window: int, stride: int) -> Iterator[tuple[slice, slice]]:
    rows, columns = (math.ceil(max(side - window, 0) / stride) + 1 for side in (height, width))
    for row in range(rows):
        for column in range(columns):
            top, left = row * stride, column * stride
            yield slice(top, top + window), slice(left, left + window)
