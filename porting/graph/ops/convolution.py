"""Convolutions and dense layers."""

from collections.abc import Mapping
from typing import Any

from porting.graph.axes import Value, axis_of
from porting.graph.ops.attention import contraction
from porting.graph.ops.elementwise import added
from porting.graph.plan import Dim, Parameter
from porting.weights.layouts import Transform, rearranged

Pair = tuple[int, int]


def _conv2d(call: Any) -> Value:
    x, weight = call.image("input"), call.parameter("weight")
    outputs, inputs, *kernel = weight.shape
    groups, strides, dilation = call["groups"], call.pair("stride"), call.pair("dilation")
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    pads = _pads(call, reach)
    padding, tensor = "valid", x.tensor
    if any(map(any, pads)):
        # Keras' "same" pads as torch does where there is no stride, if both sides get as much.
        if strides == (1, 1) and all(
            2 * a == 2 * b == r for (a, b), r in zip(pads, reach, strict=True)
        ):
            padding = "same"
        else:
            tensor = padded(call, tensor, pads)
    # Keras refuses strides beside dilation: the rows and columns between are computed and left out.
    skipped = strides if max(strides) > 1 and max(dilation) > 1 else (1, 1)
    options = {
        "kernel_size": tuple(kernel),
        "strides": strides if skipped == (1, 1) else (1, 1),
        "dilation_rate": dilation,
        "padding": padding,
        "data_format": call.data_format,
    }
    # A depthwise kernel of Keras has one stride for both axes.
    if inputs == 1 and groups > 1 and options["strides"][0] == options["strides"][1]:
        weights = _weights(call, Transform("depthwise_conv", (groups,)))
        options |= {"depth_multiplier": outputs // groups}
        tensor = call.layer("DepthwiseConv2D", tensor, weights, **options, **_biased(weights))
    else:
        weights = _weights(call, Transform("conv"))
        options |= {"filters": outputs, "groups": groups}
        tensor = call.layer("Conv2D", tensor, weights, **options, **_biased(weights))
    if skipped != (1, 1):
        every = [slice(None, None, step) for step in skipped]
        last = call.data_format == "channels_last"
        at = (slice(None), *every) if last else (slice(None), slice(None), *every)
        tensor = call.op("get_item", tensor, at, aside=True)
    return call.map_of(tensor, x)


def _pads(call: Any, reach: list[int]) -> list[Pair]:
    """Return the rows and columns of zeros before and behind a map."""
    padding = call["padding"]
    if padding == "valid":
        return [(0, 0), (0, 0)]
    if padding == "same":
        return [(total // 2, total - total // 2) for total in reach]
    return [(pad, pad) for pad in call.pair("padding")]


def padded(call: Any, tensor: Any, pads: list[Pair]) -> Any:
    """Return a map with zeros around it."""
    return call.layer(
        "ZeroPadding2D", tensor, padding=tuple(pads), data_format=call.data_format, aside="pad"
    )


def _weights(call: Any, kernel: Transform) -> dict[str, tuple[Parameter, Transform]]:
    weights = {"kernel": (call.parameter("weight"), kernel)}
    if (bias := call.parameter("bias")) is not None:
        weights["bias"] = (bias, Transform("vector"))
    return weights


def _biased(weights: Mapping[str, Any]) -> dict[str, bool]:
    return {"use_bias": "bias" in weights}


def _linear(call: Any) -> Value:
    if not call.is_parameter("weight"):
        x, kernel = call.network_value("input"), call.network_value("weight")
        letters = [f"axis{i}" for i in range(len(x.axes) - 1)]
        result = contraction(call, x, kernel, [*letters, "in"], ["out", "in"], [*letters, "out"])
        return result if call.get("bias") is None else added(call, result, call.value("bias"))
    if not call.is_parameter("bias"):
        return added(call, _dense(call, {}), call.value("bias"))
    bias = call.parameter("bias")
    return _dense(call, {} if bias is None else {"bias": (bias, Transform("vector"))})


def _dense(call: Any, bias: dict[str, tuple[Parameter, Transform]]) -> Value:
    x, weight = call.network_value("input"), call.parameter("weight")
    axis = x.axes[-1]
    x = call.mover.last(x, len(x.axes) - 1)
    units, inputs = weight.shape
    held = x.order[-1]
    order = [axis.index(factor) for factor in held]
    sizes = [factor.dim.static for factor in axis]
    kernel = Transform("dense")
    if order == [1, 2, 0] and len(sizes) == 3:  # (C, H, W) held as (H, W, C)
        kernel = Transform("flat_dense", tuple(sizes))
    elif order != sorted(order):
        columns = [1 + i for i in order]
        kernel = rearranged([units, *sizes], [*columns, 0], (inputs, units), weight.shape)
    weights = {"kernel": (weight, kernel), **bias}
    tensor = call.layer("Dense", x.tensor, weights, units=units, **_biased(weights))
    new = axis_of(Dim(units))
    return Value(tensor, (*x.axes[:-1], new), (*x.order[:-1], new))


RULES = {"conv2d": _conv2d, "linear": _linear}
