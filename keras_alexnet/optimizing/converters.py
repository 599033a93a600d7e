"""The table of layers: what each one becomes in a plan, fused into what comes before it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from keras.src.ops.numpy import Flip

from keras_alexnet.errors import ConfigurationError
from keras_alexnet.layers import LocalResponseNormalization, keras
from keras_alexnet.optimizing.fusion import Builder
from keras_alexnet.optimizing.operations import (
    ACTIVATIONS,
    LRN,
    NO_PADDING,
    Activation,
    AdaptiveAvgPool,
    Affine,
    AvgPool,
    Concat,
    Conv,
    Dense,
    Flatten,
    GlobalPool,
    MaxPool,
    Pad,
    Padding,
    Pair,
    Repeat,
    composed,
    same_padding,
    scaled,
)

layers = keras.layers
Tensors = list[Any]
Converter = Callable[[Any, Builder, Tensors], int]


def convert(layer: Any, plan: Builder, tensors: Tensors) -> int:
    """Add a layer to a plan.

    Args:
        layer: A Keras layer or operation.
        plan: The plan so far.
        tensors: The Keras tensors that it reads.

    Returns:
        The value that it computes.

    Raises:
        ConfigurationError: No operation stands for it, or for a setting of it.
    """
    converter = next((_CONVERTERS[kind] for kind in _kinds(layer) if kind in _CONVERTERS), None)
    if converter is None:
        raise ConfigurationError(
            f"layer {layer.name!r} ({type(layer).__name__}) cannot be optimized; the layers that "
            f"can are {', '.join(sorted(kind.__name__ for kind in _CONVERTERS))}"
        )
    return converter(layer, plan, tensors)


def _kinds(layer: Any) -> list[type]:
    """Return the class of a layer, and for one of this package's what it is made from too.

    Anybody else's subclass of a Keras layer may compute something else.
    """
    kind = type(layer)
    return list(kind.__mro__) if kind.__module__.startswith("keras_alexnet.") else [kind]


def _unsupported(layer: Any, setting: str) -> ConfigurationError:
    return ConfigurationError(
        f"layer {layer.name!r} ({type(layer).__name__}) cannot be optimized with {setting}"
    )


def _array(variable: Any) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(variable), np.float32)


def _input(layer: Any, plan: Builder, tensors: Tensors) -> int:
    raise ConfigurationError(f"the output of the model depends on a second input, {layer.name!r}")


def _same(layer: Any, plan: Builder, tensors: Tensors) -> int:
    return plan.value(tensors[0])


def _flip(layer: Any, plan: Builder, tensors: Tensors) -> int:
    axes = (layer.axis,) if isinstance(layer.axis, int) else layer.axis
    if [axis % 4 for axis in axes or ()] != [plan.channel_axis]:
        raise _unsupported(layer, f"axis={layer.axis}; it may reverse the channels")
    one, zero = np.ones(()), np.zeros(())
    return plan.add(Affine(layer.name, (plan.value(tensors[0]),), one, zero, reverse=True))


def _affine(layer: Any, plan: Builder, x: Any, scale: np.ndarray, offset: np.ndarray) -> int:
    """Add x * scale + offset, given in float64, (C,) or (); into the operation before if it can."""
    if (before := plan.fusible(x, Conv, Dense)) and not before.relu:
        return plan.replace(x, scaled(before, scale, offset, layer.name))
    if before := plan.fusible(x, Affine):
        return plan.replace(x, composed(before, scale, offset, layer.name))
    return plan.add(Affine(layer.name, (plan.value(x),), scale, offset))


def _normalization(layer: Any, plan: Builder, tensors: Tensors) -> int:
    axes = [axis % 4 for axis in layer.axis]
    if layer.invert or axes not in ([], [plan.channel_axis]):
        raise _unsupported(layer, f"axis={layer.axis}, invert={layer.invert}")
    mean, variance = (
        np.asarray(keras.ops.convert_to_numpy(value), np.float64).reshape(-1 if axes else ())
        for value in (layer.mean, layer.variance)
    )
    scale = 1 / np.maximum(np.sqrt(variance), keras.config.epsilon())
    return _affine(layer, plan, tensors[0], scale, -mean * scale)


def _rescaling(layer: Any, plan: Builder, tensors: Tensors) -> int:
    rank = len(tensors[0].shape)
    parts = []
    for value in (layer.scale, layer.offset):
        array = np.asarray(value, np.float64)
        # A plain vector is placed by the global image format of the moment.
        channels = array.ndim == rank - 1 and array.shape[plan.channel_axis - 1] == array.size
        if array.size > 1 and not channels:
            raise _unsupported(layer, f"a scale or offset of shape {array.shape}")
        parts.append(array.reshape(-1 if array.size > 1 else ()))
    return _affine(layer, plan, tensors[0], *parts)


def _batch_norm(layer: Any, plan: Builder, tensors: Tensors) -> int:
    rank = len(tensors[0].shape)
    if layer.axis % rank != (plan.channel_axis if rank == 4 else 1):
        raise _unsupported(layer, f"axis={layer.axis} in a {plan.data_format} model")
    mean, variance = (
        _array(v).astype(np.float64) for v in (layer.moving_mean, layer.moving_variance)
    )
    scale = 1 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        scale *= _array(layer.gamma)
    offset = -mean * scale
    if layer.center:
        offset += _array(layer.beta)
    return _affine(layer, plan, tensors[0], scale, offset)


def _zero_padding(layer: Any, plan: Builder, tensors: Tensors) -> int:
    return plan.add(Pad(layer.name, (plan.value(tensors[0]),), layer.padding))


def _padding(layer: Any, plan: Builder, x: Any, window: Pair) -> Padding | None:
    """Return the padding of a layer's own, None where the size of the map decides it."""
    strides = _pair(layer.strides)
    if layer.padding == "valid":
        return NO_PADDING
    if layer.padding != "same":
        raise _unsupported(layer, f"padding={layer.padding!r}")
    height, width = plan.spatial(x)
    if strides == (1, 1):
        return same_padding(window, window, strides)
    if height is None or width is None:
        return None
    return same_padding((height, width), window, strides)


def _conv(layer: Any, plan: Builder, tensors: Tensors) -> int:
    (x,) = tensors
    if tuple(layer.dilation_rate) != (1, 1):
        raise _unsupported(layer, f"dilation_rate={layer.dilation_rate}")
    kernel = _array(layer.kernel)
    bias = _array(layer.bias) if layer.use_bias else np.zeros(layer.filters, np.float32)
    padding = _padding(layer, plan, x, kernel.shape[:2])
    inputs: tuple[int, ...] = (plan.value(x),)
    pad = plan.fusible(x, Pad) if layer.padding == "valid" else None
    if pad is not None:
        padding, inputs = pad.padding, pad.inputs
    conv = Conv(layer.name, inputs, kernel, bias, _pair(layer.strides), padding, layer.groups)
    number = plan.add(conv) if pad is None else plan.replace(x, conv)
    return _activate(layer, plan, number)


def _dense(layer: Any, plan: Builder, tensors: Tensors) -> int:
    if len(tensors[0].shape) != 2:
        raise _unsupported(layer, f"an input of {len(tensors[0].shape)} axes; it may have 2")
    bias = _array(layer.bias) if layer.use_bias else np.zeros(layer.units, np.float32)
    inputs = (plan.value(tensors[0]),)
    return _activate(layer, plan, plan.add(Dense(layer.name, inputs, _array(layer.kernel), bias)))


def _activate(layer: Any, plan: Builder, number: int) -> int:
    """Add the activation that a convolution or dense layer has of its own."""
    function = _function(layer)
    if function == "linear":
        return number
    if function == "relu":
        plan.operations[number - 1] = replace(plan.operations[number - 1], relu=True)  # type: ignore[call-arg]
        return number
    return plan.add(Activation(layer.name, (number,), function))


def _function(layer: Any) -> str:
    known = {keras.activations.get(name): name for name in (*ACTIVATIONS, "linear")}
    if layer.activation not in known:
        name = getattr(layer.activation, "__name__", layer.activation)
        raise _unsupported(layer, f"the activation {name!r}; there are {', '.join(ACTIVATIONS)}")
    return known[layer.activation]


def _activation(layer: Any, plan: Builder, tensors: Tensors) -> int:
    function = _function(layer)
    if function == "linear":
        return plan.value(tensors[0])
    if function == "relu":
        return _rectify(layer, plan, tensors[0])
    if function == "softmax" and len(tensors[0].shape) == 4 and plan.channel_axis != 3:
        raise _unsupported(layer, "softmax along the last axis of a channels_first map")
    return plan.add(Activation(layer.name, (plan.value(tensors[0]),), function))


def _relu(layer: Any, plan: Builder, tensors: Tensors) -> int:
    if layer.max_value is not None or layer.negative_slope or layer.threshold:
        raise _unsupported(layer, "max_value, negative_slope or threshold")
    return _rectify(layer, plan, tensors[0])


def _rectify(layer: Any, plan: Builder, x: Any) -> int:
    if before := plan.fusible(x, Conv, Dense):
        return plan.replace(x, replace(before, name=layer.name, relu=True))
    return plan.add(Activation(layer.name, (plan.value(x),), "relu"))


def _max_pool(layer: Any, plan: Builder, tensors: Tensors) -> int:
    (x,) = tensors
    size, strides = _pair(layer.pool_size), _pair(layer.strides)
    padding = _padding(layer, plan, x, size)
    pad = plan.fusible(x, Pad) if layer.padding == "valid" else None
    # Zeros are as neutral as minus infinity beside what is never negative, but for a window that
    # holds nothing else.
    if (
        pad is not None
        and all(max(sides) < width for sides, width in zip(pad.padding, size, strict=True))
        and plan.never_negative(pad.inputs[0])
    ):
        return plan.replace(x, MaxPool(layer.name, pad.inputs, size, strides, pad.padding))
    return plan.add(MaxPool(layer.name, (plan.value(x),), size, strides, padding))


def _avg_pool(layer: Any, plan: Builder, tensors: Tensors) -> int:
    if layer.padding != "valid":
        raise _unsupported(layer, f"padding={layer.padding!r}")
    size, strides = _pair(layer.pool_size), _pair(layer.strides)
    if size == strides == (1, 1):
        return plan.value(tensors[0])
    return plan.add(AvgPool(layer.name, (plan.value(tensors[0]),), size, strides))


def _adaptive_avg_pool(layer: Any, plan: Builder, tensors: Tensors) -> int:
    size = _pair(layer.output_size)
    return plan.add(AdaptiveAvgPool(layer.name, (plan.value(tensors[0]),), size))


def _global_pool(layer: Any, plan: Builder, tensors: Tensors) -> int:
    largest = isinstance(layer, layers.GlobalMaxPooling2D)
    inputs = (plan.value(tensors[0]),)
    return plan.add(GlobalPool(layer.name, inputs, largest, bool(layer.keepdims)))


def _up_sampling(layer: Any, plan: Builder, tensors: Tensors) -> int:
    if layer.interpolation != "nearest":
        raise _unsupported(layer, f"interpolation={layer.interpolation!r}")
    return plan.add(Repeat(layer.name, (plan.value(tensors[0]),), _pair(layer.size)))


def _flatten(layer: Any, plan: Builder, tensors: Tensors) -> int:
    if len(tensors[0].shape) == 2:
        return plan.value(tensors[0])
    return plan.add(Flatten(layer.name, (plan.value(tensors[0]),)))


def _concatenate(layer: Any, plan: Builder, tensors: Tensors) -> int:
    rank = len(tensors[0].shape)
    if layer.axis % rank != (plan.channel_axis if rank == 4 else 1):
        raise _unsupported(layer, f"axis={layer.axis} in a {plan.data_format} model")
    return plan.add(Concat(layer.name, tuple(map(plan.value, tensors))))


def _lrn(layer: Any, plan: Builder, tensors: Tensors) -> int:
    inputs = (plan.value(tensors[0]),)
    return plan.add(LRN(layer.name, inputs, layer.size, layer.alpha, layer.beta, layer.k))


def _pair(value: Any) -> Pair:
    height, width = (value, value) if isinstance(value, int) else value
    return int(height), int(width)


_CONVERTERS: dict[type, Converter] = {
    layers.InputLayer: _input,
    Flip: _flip,
    layers.Normalization: _normalization,
    layers.Rescaling: _rescaling,
    layers.ZeroPadding2D: _zero_padding,
    layers.Conv2D: _conv,
    layers.BatchNormalization: _batch_norm,
    LocalResponseNormalization: _lrn,
    layers.ReLU: _relu,
    layers.Activation: _activation,
    layers.MaxPooling2D: _max_pool,
    layers.AveragePooling2D: _avg_pool,
    layers.AdaptiveAveragePooling2D: _adaptive_avg_pool,
    layers.GlobalAveragePooling2D: _global_pool,
    layers.GlobalMaxPooling2D: _global_pool,
    layers.UpSampling2D: _up_sampling,
    layers.Concatenate: _concatenate,
    layers.Flatten: _flatten,
    layers.Dropout: _same,
    layers.Dense: _dense,
}
