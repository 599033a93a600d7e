"""Pooling, with torch's padding, ceil mode and divisors."""

from typing import Any

import numpy as np

from porting.graph.axes import Value, axis_of
from porting.graph.ops.convolution import Pair, padded
from porting.graph.plan import ONE


def _max_pool2d(call: Any) -> Value:
    x = call.image("input")
    if call.pair("dilation") != (1, 1):
        raise call.fail("a max pool with dilation has no counterpart in Keras")
    return _pool(call, x, "MaxPooling2D", nonnegative=x.nonnegative)


def _avg_pool2d(call: Any) -> Value:
    x = call.image("input")
    result = _pool(call, x, "AveragePooling2D", nonnegative=x.nonnegative)
    sizes = x.shape[2:]
    pads, (size, strides) = call.pair("padding"), _window(call)
    divisor = call.get("divisor_override")
    padding = call["count_include_pad"]
    uneven = any(behind > before or (before and not padding) for before, behind in _pads(call, x))
    if uneven and any(n.unknown for n in sizes):
        raise call.fail(
            "an average pool with padding or ceil mode divides by windows whose number only the "
            "images tell; convert for images of one size"
        )
    # Keras divides by the whole window, torch by the part of it that counts.
    rows, columns = (
        [float(k)] if n.unknown else _counted(n.static, k, s, p, out.static, padding)
        for n, k, s, p, out in zip(sizes, size, strides, pads, call.shape[2:], strict=True)
    )
    parts = (
        np.outer(np.array(rows), np.array(columns))
        if divisor is None
        else np.full((1, 1), float(divisor))
    )
    factor = call.array(size[0] * size[1] / parts)
    if (factor == 1).all():
        return result
    last = call.data_format == "channels_last"
    return result.with_tensor(
        call.op(
            "multiply", result.tensor, factor[None, :, :, None] if last else factor[None, None]
        ),
        nonnegative=x.nonnegative,
    )


def _window(call: Any) -> tuple[Pair, Pair]:
    size = call.pair("kernel_size")
    return size, call.pair("stride") if call.get("stride") else size


def _counted(n: int, size: int, stride: int, pad: int, outputs: int, padding: bool) -> list[float]:
    """Return how many rows each window of an average counts."""
    starts = [i * stride - pad for i in range(outputs)]
    ends = [min(start + size, n + pad) for start in starts]
    if padding:
        return [float(end - start) for start, end in zip(starts, ends, strict=True)]
    return [float(min(end, n) - max(start, 0)) for start, end in zip(starts, ends, strict=True)]


def _pads(call: Any, x: Value) -> list[Pair]:
    """Return the rows and columns before and behind a map that its windows reach."""
    size, strides = _window(call)
    pads = []
    for n, out, k, s, p in zip(
        x.shape[2:], call.shape[2:], size, strides, call.pair("padding"), strict=True
    ):
        if not n.unknown:
            behind = max(0, (out.static - 1) * s + k - n.static - 2 * p)
        elif not call["ceil_mode"]:
            behind = 0
        elif p <= k - s:  # then no window begins in the padding behind, where torch leaves it out
            behind = s - 1
        else:
            raise call.fail("a ceil mode like this one needs images of one size; name it")
        pads.append((p, p + behind))
    return pads


def _pool(call: Any, x: Value, layer: str, *, nonnegative: bool) -> Value:
    size, strides = _window(call)
    tensor, pads = x.tensor, _pads(call, x)
    if any(map(any, pads)):
        if layer == "MaxPooling2D" and not nonnegative:
            last = call.data_format == "channels_last"
            around = [(0, 0), *pads, (0, 0)] if last else [(0, 0), (0, 0), *pads]
            lowest = float(np.finfo(np.float32).min)
            tensor = call.op("pad", tensor, around, constant_values=lowest, aside=True)
        else:
            tensor = padded(call, tensor, pads)
    tensor = call.layer(
        layer, tensor, pool_size=size, strides=strides, data_format=call.data_format
    )
    return call.map_of(tensor, x, x.axes[1], nonnegative=nonnegative)


def _avg_pool1d(call: Any) -> Value:
    x = call.network_value("input")
    (size,), (stride,) = call["kernel_size"], call.get("stride") or call["kernel_size"]
    if any(call["padding"]) or call["ceil_mode"]:
        raise call.fail("an average pool of rows with padding or ceil mode is not supported")
    batch, channels, rows = x.axes
    x = call.mover.arrange(x, (batch, rows, channels))
    tensor = call.layer("AveragePooling1D", x.tensor, pool_size=size, strides=stride)
    new = axis_of(call.shape[2])
    return Value(tensor, (batch, channels, new), (batch, new, channels), x.nonnegative)


def _avg_pool3d(call: Any) -> Value:
    """Averages along one axis, which is what torch's LRN is made of: (N, 1, C, H, W) over C."""
    size, stride = call["kernel_size"], call.get("stride") or call["kernel_size"]
    whole = any(call["padding"]) or call["ceil_mode"] or call.get("divisor_override")
    if size[1:] != [1, 1] or stride[1:] != [1, 1] or whole:
        raise call.fail("only averages along the first of its axes, without padding, are supported")
    x, at = call.mover.isolate(call.network_value("input"), 2)
    count = call.shape[2].static
    total = None
    for start in range(size[0]):
        places = slice(start, start + (count - 1) * stride[0] + 1, stride[0])
        part = call.op("get_item", x.tensor, (*[slice(None)] * at, places), aside=True)
        total = part if total is None else call.op("add", total, part, aside=True)
    tensor = call.op("multiply", total, 1 / size[0])
    new = axis_of(call.shape[2])
    axes = (*x.axes[:2], new, *x.axes[3:])
    return Value(tensor, axes, (*x.order[:at], new, *x.order[at + 1 :]), x.nonnegative)


def _adaptive_avg_pool2d(call: Any) -> Value:
    x = call.image("input")
    wanted, sizes = call.shape[2:], x.shape[2:]
    if wanted == sizes:
        return x
    options = {"data_format": call.data_format}
    both = list(zip(sizes, wanted, strict=True))
    if all(n == ONE for n in wanted):
        tensor = call.layer("GlobalAveragePooling2D", x.tensor, keepdims=True, **options)
    elif all(not n.unknown and n.static % out.static == 0 for n, out in both):
        steps = tuple(n.static // out.static for n, out in both)
        tensor = call.layer("AveragePooling2D", x.tensor, pool_size=steps, strides=steps, **options)
    else:
        out = tuple(n.static for n in wanted)
        tensor = call.layer("AdaptiveAveragePooling2D", x.tensor, output_size=out, **options)
    return call.map_of(tensor, x, x.axes[1], nonnegative=x.nonnegative)


RULES = {
    "max_pool2d": _max_pool2d,
    "avg_pool1d": _avg_pool1d,
    "avg_pool2d": _avg_pool2d,
    "avg_pool3d": _avg_pool3d,
    "adaptive_avg_pool2d": _adaptive_avg_pool2d,
}
