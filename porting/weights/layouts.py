"""Array layouts of torch and Keras, and the way between them. Pure NumPy.

Axes: O and I are output and input channels, H and W a kernel's or a map's height and width.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

CHW = tuple[int, int, int]

# Columns whose rows stay in a processor's cache while they are written.
_BLOCK = 64


def contiguous(view: np.ndarray) -> np.ndarray:
    """Return a transposed view as an array in C order.

    In blocks of the last axis it takes a quarter of NumPy's time for a large array.
    """
    if view.flags.c_contiguous or not any(view.strides):  # one number, repeated, has any order
        return view
    array = np.empty(view.shape, view.dtype)
    for start in range(0, view.shape[-1], _BLOCK):
        array[..., start : start + _BLOCK] = view[..., start : start + _BLOCK]
    return array


def conv_to_keras(kernel: np.ndarray) -> np.ndarray:
    """Convolution kernel, (O, I, H, W) -> (H, W, I, O)."""
    return kernel.transpose(2, 3, 1, 0)


def conv_to_torch(kernel: np.ndarray) -> np.ndarray:
    """Convolution kernel, (H, W, I, O) -> (O, I, H, W)."""
    return kernel.transpose(3, 2, 0, 1)


def dense_to_keras(kernel: np.ndarray) -> np.ndarray:
    """Dense kernel, (O, I) -> (I, O)."""
    return kernel.transpose(1, 0)


def dense_to_torch(kernel: np.ndarray) -> np.ndarray:
    """Dense kernel, (I, O) -> (O, I)."""
    return kernel.transpose(1, 0)


def flat_dense_to_keras(kernel: np.ndarray, chw: CHW) -> np.ndarray:
    """Kernel of the dense layer after a flatten, (O, C*H*W) -> (H*W*C, O).

    Args:
        kernel: The kernel in torch's layout.
        chw: Channels, height and width of the feature map that is flattened.
    """
    c, h, w = chw
    view = kernel.reshape(-1, c, h, w).transpose(2, 3, 1, 0)
    return contiguous(view).reshape(h * w * c, -1)


def flat_dense_to_torch(kernel: np.ndarray, chw: CHW) -> np.ndarray:
    """Kernel of the dense layer after a flatten, (H*W*C, O) -> (O, C*H*W).

    Args:
        kernel: The kernel in Keras' layout.
        chw: Channels, height and width of the feature map that is flattened.
    """
    c, h, w = chw
    return kernel.reshape(h, w, c, -1).transpose(3, 2, 0, 1).reshape(-1, c * h * w)


def nchw_to_nhwc(batch: np.ndarray) -> np.ndarray:
    """Batch of feature maps, (N, C, H, W) -> (N, H, W, C)."""
    return batch.transpose(0, 2, 3, 1)


def nhwc_to_nchw(batch: np.ndarray) -> np.ndarray:
    """Batch of feature maps, (N, H, W, C) -> (N, C, H, W)."""
    return batch.transpose(0, 3, 1, 2)


class Transform(NamedTuple):
    """A layout change and its inverse; both take the array and the flattened map's (C, H, W)."""

    to_keras: Callable[[np.ndarray, CHW | None], np.ndarray]
    to_torch: Callable[[np.ndarray, CHW | None], np.ndarray]


def _chw(chw: CHW | None) -> CHW:
    if chw is None:
        raise ValueError("the transform 'flat_dense' needs the (C, H, W) of the flattened map")
    return chw


TRANSFORMS: dict[str, Transform] = {
    "vector": Transform(lambda a, _: a, lambda a, _: a),
    "conv": Transform(lambda a, _: conv_to_keras(a), lambda a, _: conv_to_torch(a)),
    "dense": Transform(lambda a, _: dense_to_keras(a), lambda a, _: dense_to_torch(a)),
    "flat_dense": Transform(
        lambda a, chw: flat_dense_to_keras(a, _chw(chw)),
        lambda a, chw: flat_dense_to_torch(a, _chw(chw)),
    ),
}
