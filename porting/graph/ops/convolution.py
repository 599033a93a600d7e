"""Convolutions and dense layers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from porting.graph.axes import Value, axis_of, length
from porting.graph.ops.attention import contraction
from porting.graph.ops.elementwise import added
from porting.graph.plan import ONE, Dim, Parameter
from porting.weights.layouts import Transform, rearranged

Pair = tuple[int, int]


def _conv2d(call: Any) -> Value:
    x = call.image("input")
    computed = None if call.is_parameter("weight") else call.network_value("weight")
    kernel_shape = call.parameter("weight").shape if computed is None else _static(computed)
    outputs, inputs, *kernel = kernel_shape
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
    settings = {
        "strides": strides if skipped == (1, 1) else (1, 1),
        "dilation_rate": dilation,
        "padding": padding,
        "data_format": call.data_format,
    }
    # A depthwise kernel of Keras has one stride for both axes.
    apart = inputs == 1 and groups > 1 and settings["strides"][0] == settings["strides"][1]
    if computed is not None:
        tensor = _with_computed_kernel(call, tensor, computed, settings, apart)
    elif apart:
        weights = _weights(call, Transform("depthwise_conv", (groups,)))
        more = {"kernel_size": tuple(kernel), "depth_multiplier": outputs // groups}
        tensor = call.layer(
            "DepthwiseConv2D", tensor, weights, **settings, **more, **_biased(weights)
        )
    else:
        weights = _weights(call, Transform("conv"))
        more = {"kernel_size": tuple(kernel), "filters": outputs, "groups": groups}
        tensor = call.layer("Conv2D", tensor, weights, **settings, **more, **_biased(weights))
    if skipped != (1, 1):
        every = [slice(None, None, step) for step in skipped]
        last = call.data_format == "channels_last"
        at = (slice(None), *every) if last else (slice(None), slice(None), *every)
        tensor = call.op("get_item", tensor, at, aside=True)
    result = call.map_of(tensor, x)
    if computed is None or call.get("bias") is None:
        return result
    bias = call.value("bias")
    return added(call, result, replace(bias, axes=(*bias.axes, (), ())))


def _static(value: Value) -> tuple[int, ...]:
    return tuple(dim.static for dim in value.shape)


def _with_computed_kernel(
    call: Any, tensor: Any, kernel: Value, settings: Mapping[str, Any], apart: bool
) -> Any:
    """Convolve with a kernel that is computed from parameters, as weight standardisation has it."""
    outputs, inputs, *size = kernel.axes
    # A file holds pairs as lists, which TensorFlow's does not take.
    settings = {
        name: value[0] if isinstance(value, tuple) and value[0] == value[1] else value
        for name, value in settings.items()
    }
    if apart:  # (channels * multiplier, 1, h, w) -> (h, w, channels, multiplier)
        count = tensor.shape[-1 if call.data_format == "channels_last" else 1]
        multiplier = length(outputs).static // count
        shape = (Dim(count), Dim(multiplier), *kernel.shape[2:])
        kernel = call.mover.view(kernel, shape)
        channels, times, *size = kernel.axes
        kernel = call.mover.arrange(kernel, (*size, channels, times))
        return call.op("depthwise_conv", tensor, kernel.tensor, **settings)
    kernel = call.mover.arrange(kernel, (*size, inputs, outputs))
    if call["groups"] == 1:
        return call.op("conv", tensor, kernel.tensor, **settings)
    axis = -1 if call.data_format == "channels_last" else 1
    maps = call.op("split", tensor, call["groups"], axis=axis, aside=True)
    kernels = call.op("split", kernel.tensor, call["groups"], axis=-1, aside=True)
    parts = [call.op("conv", *both, **settings) for both in zip(maps, kernels, strict=True)]
    return call.op("concatenate", parts, axis=axis, aside=True)


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


def _conv1d(call: Any) -> Value:
    x, weight = call.network_value("input"), call.parameter("weight")
    outputs, inputs, size = weight.shape
    (stride,), (dilation,), (padding,) = call["stride"], call["dilation"], call["padding"]
    if isinstance(padding, str) or call["groups"] > 1:
        raise call.fail("a convolution of rows in groups or with a named padding is not supported")
    batch, channels, rows = x.axes
    x = call.mover.arrange(x, (batch, rows, channels))
    tensor = x.tensor
    if padding:
        tensor = call.layer("ZeroPadding1D", tensor, padding=padding, aside="pad")
    kernel = rearranged([outputs, inputs, size], [2, 1, 0], (size, inputs, outputs))
    weights = _weights(call, kernel)
    tensor = call.layer(
        "Conv1D",
        tensor,
        weights,
        filters=outputs,
        kernel_size=size,
        strides=stride,
        dilation_rate=dilation,
        **_biased(weights),
    )
    axes = (batch, axis_of(Dim(outputs)), axis_of(call.shape[2]))
    return Value(tensor, axes, (batch, axes[2], axes[1]))


def _conv_transpose2d(call: Any) -> Value:
    x, weight = call.image("input"), call.parameter("weight")
    inputs, outputs, *kernel = weight.shape
    groups, strides = call["groups"], call.pair("stride")
    if call.pair("dilation") != (1, 1) or groups not in (1, inputs):
        raise call.fail(
            "a transposed convolution with dilation, or in groups of several channels, is not "
            "supported"
        )
    whole = {"kernel_size": tuple(kernel), "data_format": call.data_format}
    if groups == 1:
        weights = _weights(call, Transform("transposed_conv"))
        tensor = call.layer(
            "Conv2DTranspose",
            x.tensor,
            weights,
            filters=outputs,
            strides=strides,
            **whole,
            **_biased(weights),
        )
    else:
        # Each number of the result is of as many numbers, between zeros, of its own channel.
        tensor = _spread(call, x, strides)
        around = [(k - 1, max(k - s, 0)) for k, s in zip(kernel, strides, strict=True)]
        tensor = padded(call, tensor, around)
        weights = _weights(call, Transform("flipped_depthwise_conv"))
        tensor = call.layer(
            "DepthwiseConv2D",
            tensor,
            weights,
            depth_multiplier=outputs,
            **whole,
            **_biased(weights),
        )
    # A kernel that is shorter than the stride leaves the rest of the last one empty.
    reach = [max(s - k, 0) for s, k in zip(strides, kernel, strict=True)]
    cuts = []
    for pad, more, left, size in zip(
        call.pair("padding"), call.pair("output_padding"), reach, call.shape[2:], strict=True
    ):
        if more - pad > left:
            raise call.fail("an output padding beyond what the kernel reaches is not supported")
        cuts.append(slice(pad, pad + size.static))
    last = call.data_format == "channels_last"
    at = (slice(None), *cuts) if last else (slice(None), slice(None), *cuts)
    tensor = call.op("get_item", tensor, at, aside=True)
    return call.map_of(tensor, x)


def _spread(call: Any, x: Value, strides: Pair) -> Any:
    """Return maps with zeros behind each of their numbers, as many as make up a stride."""
    tensor, sizes = x.tensor, list(map(length, x.order))
    first = 1 if call.data_format == "channels_last" else 2
    for at, stride in enumerate(strides, first):
        if stride > 1:
            tensor = call.reshape(tensor, (*sizes[: at + 1], ONE, *sizes[at + 1 :]))
            widths = [(0, stride - 1) if i == at + 1 else (0, 0) for i in range(5)]
            tensor = call.op("pad", tensor, widths, aside=True)
            sizes[at] = Dim(sizes[at].static * stride)
            tensor = call.reshape(tensor, tuple(sizes))
    return tensor


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


RULES = {
    "conv1d": _conv1d,
    "conv2d": _conv2d,
    "conv_transpose2d": _conv_transpose2d,
    "linear": _linear,
}
