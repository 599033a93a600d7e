"""Windows over maps as axes of their own, and back: what attention over neighbourhoods is made of.

A window's places are looked up by constant indices; overlapping ones are added up by products with
constant matrices of zeros and ones.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from porting.graph.axes import Value, axes_of, image_order
from porting.graph.ops.convolution import Pair, padded
from porting.graph.ops.indexing import taken
from porting.graph.ops.resizing import multiplied
from porting.graph.plan import Dim


def _places(outputs: int, size: int, stride: int, dilation: int) -> np.ndarray:
    """Return the places (size, outputs) that windows along an axis read."""
    return np.arange(size)[:, None] * dilation + np.arange(outputs)[None, :] * stride


def _unfold(call: Any) -> Value:
    """`Tensor.unfold`: windows along an axis, their places as a last axis."""
    x = call.network_value("input")
    i = call["dimension"] % len(x.axes)
    size, step = call["size"], call["step"]
    outputs = (x.shape[i].static - size) // step + 1
    windows = taken(call, x, i, _places(outputs, size, step, 1).T)  # (..., outputs, size, ...)
    order = [*range(i + 1), *range(i + 2, len(windows.axes)), i + 1]
    return windows.permuted(order)


def _im2col(call: Any) -> Value:
    """`F.unfold`: the windows of maps (N, C, H, W) as (N, C h w, windows)."""
    x = call.image("input")
    sizes, strides, dilations, pads = _geometry(call)
    x = _padded(call, x, pads)
    rows, columns = _windows([n.static for n in x.shape[2:]], sizes, strides, dilations)
    x = taken(call, x, 3, columns)  # (N, C, H, w, columns)
    x = taken(call, x, 2, rows)  # (N, C, h, rows, w, columns)
    return call.mover.view(x.permuted((0, 1, 2, 4, 3, 5)), call.shape)


def _col2im(call: Any) -> Value:
    """`F.fold`: the sums of windows (N, C h w, windows) where they lie in maps (N, C, H, W)."""
    sizes, strides, dilations, pads = _geometry(call)
    lengths = [n.static for n in call.shape[2:]]
    grown = [n + 2 * pad for n, pad in zip(lengths, pads, strict=True)]
    windows = _windows(grown, sizes, strides, dilations)
    x = call.network_value("input")
    counts = [Dim(places.shape[1]) for places in windows]
    shape = (x.shape[0], call.shape[1], *map(Dim, sizes), *counts)
    x = call.mover.view(x, shape).permuted((0, 2, 4, 3, 5, 1))
    x = call.mover.plain(x)  # (N, h, rows, w, columns, C)
    merged = (x.shape[0], *(Dim(places.size) for places in windows), call.shape[1])
    tensor = call.reshape(x.tensor, merged)
    belongs = {  # (size * windows, length)
        letter: (places.reshape(-1, 1) - pad == np.arange(n)).astype(np.float32)
        for letter, places, pad, n in zip("hw", windows, pads, lengths, strict=True)
    }
    tensor = multiplied(call, tensor, "nhwc", belongs)
    batch = x.axes[0]
    axes = (batch, *axes_of(call.shape[1:]))
    return Value(tensor, axes, (batch, axes[2], axes[3], axes[1]))


def _geometry(call: Any) -> list[tuple[int, int]]:
    return [call.pair(name) for name in ("kernel_size", "stride", "dilation", "padding")]


def _windows(
    lengths: Sequence[int], sizes: Pair, strides: Pair, dilations: Pair
) -> list[np.ndarray]:
    """Return the places (size, windows) of all windows along each axis."""
    return [
        _places((n - dilation * (size - 1) - 1) // stride + 1, size, stride, dilation)
        for n, size, stride, dilation in zip(lengths, sizes, strides, dilations, strict=True)
    ]


def _padded(call: Any, x: Value, pads: Pair) -> Value:
    if not any(pads):
        return x
    tensor = padded(call, x.tensor, [(pad, pad) for pad in pads])
    sizes = [Dim(n.static + 2 * pad) for n, pad in zip(x.shape[2:], pads, strict=True)]
    axes = (*x.axes[:2], *axes_of(sizes))
    return Value(tensor, axes, image_order(axes, call.data_format), x.nonnegative)


RULES = {"unfold": _unfold, "im2col": _im2col, "col2im": _col2im}
