"""Converters of layers that scale, weigh or rectify, and what every converter reads of a layer."""

from dataclasses import replace
from typing import Any

import numpy as np

from keras_alexnet.errors import ConfigurationError
from keras_alexnet.layers import keras
from keras_alexnet.optimizing import operations as op
from keras_alexnet.optimizing.plan_builder import Builder

Tensors = list[Any]


class UnsupportedError(ConfigurationError):
    """No operation has a setting of a layer; Keras may compute it nevertheless."""


def unsupported(layer: Any, setting: str) -> UnsupportedError:
    """Return the error about a setting of a layer that no operation has."""
    return UnsupportedError(
        f"layer {layer.name!r} ({type(layer).__name__}) cannot be optimized with {setting}"
    )


def pair(value: Any) -> op.Pair:
    """Return a setting for height and width, which may be one number for both."""
    height, width = (value, value) if isinstance(value, int) else value
    return int(height), int(width)


def own_padding(layer: Any, plan: Builder, x: Any, window: op.Pair) -> op.Padding | None:
    """Return the padding of a layer's own, None where the size of the map decides it."""
    strides = pair(layer.strides)
    if layer.padding == "valid":
        return op.NO_PADDING
    if layer.padding != "same":
        raise unsupported(layer, f"padding={layer.padding!r}")
    height, width = plan.spatial(x)
    if strides == (1, 1):
        return op.same_padding(window, window, strides)
    if height is None or width is None:
        return None
    return op.same_padding((height, width), window, strides)


def normalization(layer: Any, plan: Builder, tensors: Tensors) -> int:
    """Add what the statistics of a normalisation come to: x * scale + offset by channel."""
    axes = [axis % 4 for axis in layer.axis]
    if layer.invert or axes not in ([], [plan.channel_axis]):
        raise unsupported(layer, f"axis={layer.axis}, invert={layer.invert}")
    mean, variance = (
        np.asarray(keras.ops.convert_to_numpy(value), np.float64).reshape(-1 if axes else ())
        for value in (layer.mean, layer.variance)
    )
    scale = 1 / np.maximum(np.sqrt(variance), keras.config.epsilon())
    return affine(layer, plan, tensors[0], scale, -mean * scale)


def rescaling(layer: Any, plan: Builder, tensors: Tensors) -> int:
    """Add x * scale + offset, each one number or one by channel."""
    rank = len(tensors[0].shape)
    parts = []
    for value in (layer.scale, layer.offset):
        array = np.asarray(value, np.float64)
        # A plain vector is placed by the global image format of the moment.
        channels = array.ndim == rank - 1 and array.shape[plan.channel_axis - 1] == array.size
        if array.size > 1 and not channels:
            raise unsupported(layer, f"a scale or offset of shape {array.shape}")
        parts.append(array.reshape(-1 if array.size > 1 else ()))
    return affine(layer, plan, tensors[0], *parts)


def batch_norm(layer: Any, plan: Builder, tensors: Tensors) -> int:
    """Add batch normalisation as inference computes it, with the moving statistics."""
    if layer.axis % len(tensors[0].shape) != plan.last_axis(tensors[0]):
        raise unsupported(layer, f"axis={layer.axis} in a {plan.data_format} model")
    mean, variance = (
        array(v).astype(np.float64) for v in (layer.moving_mean, layer.moving_variance)
    )
    scale = 1 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        scale *= array(layer.gamma)
    offset = -mean * scale
    if layer.center:
        offset += array(layer.beta)
    return affine(layer, plan, tensors[0], scale, offset)


def affine(layer: Any, plan: Builder, x: Any, scale: np.ndarray, offset: np.ndarray) -> int:
    """Add x * scale + offset, given in float64, (C,) or (); into the operation before if it can."""
    before = plan.fusible(x, op.Conv, op.Dense)
    if before and before.activation == "linear" and len(before.inputs) == 1:
        return plan.replace(x, op.scaled(before, scale, offset, layer.name))
    if before := plan.fusible(x, op.Affine):
        return plan.replace(x, op.composed(before, scale, offset, layer.name))
    return plan.add(op.Affine(layer.name, (plan.value(x),), scale, offset))


def conv(layer: Any, plan: Builder, tensors: Tensors) -> int:
    """Add a convolution, with the zero padding before it where nothing else reads that."""
    (x,) = tensors
    if tuple(layer.dilation_rate) != (1, 1):
        raise unsupported(layer, f"dilation_rate={layer.dilation_rate}")
    function = _function(layer)
    if function == "softmax" and plan.is_reordered(x):
        raise unsupported(layer, "softmax along the last axis of a channels_first map")
    kernel, groups = array(layer.kernel), getattr(layer, "groups", 1)
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        height, width, groups, multiplier = kernel.shape
        kernel = kernel.reshape(height, width, 1, groups * multiplier)
    bias = array(layer.bias) if layer.use_bias else np.zeros(kernel.shape[-1], np.float32)
    padding = own_padding(layer, plan, x, kernel.shape[:2])
    inputs: tuple[int, ...] = (plan.value(x),)
    pad = plan.fusible(x, op.Pad) if layer.padding == "valid" else None
    if pad is not None:
        padding, inputs = pad.padding, pad.inputs
    made = op.Conv(layer.name, inputs, kernel, bias, pair(layer.strides), padding, groups)
    number = plan.add(made) if pad is None else plan.replace(x, made)
    return _end(layer, plan, number, function)


def dense(layer: Any, plan: Builder, tensors: Tensors) -> int:
    """Add a dense layer along the last axis."""
    (x,) = tensors
    if plan.is_reordered(x):
        raise unsupported(layer, "the last axis of a channels_first map")
    bias = array(layer.bias) if layer.use_bias else np.zeros(layer.units, np.float32)
    function, inputs = _function(layer), (plan.value(x),)
    number = plan.add(op.Dense(layer.name, inputs, array(layer.kernel), bias))
    return _end(layer, plan, number, function)


def _end(layer: Any, plan: Builder, number: int, function: str) -> int:
    """Let the operation of a layer end with the layer's own activation."""
    if function == "linear":
        return number
    if function == "softmax":
        return plan.add(op.Activation(layer.name, (number,), function))
    made = plan.operations[number - 1]
    plan.operations[number - 1] = replace(made, activation=function)  # type: ignore[call-arg]
    return number


def layer_norm(layer: Any, plan: Builder, tensors: Tensors) -> int:
    """Add layer normalisation along the last axis."""
    (x,) = tensors
    axes = [axis % len(x.shape) for axis in np.atleast_1d(layer.axis)]
    if axes != [len(x.shape) - 1] or plan.is_reordered(x) or getattr(layer, "rms_scaling", False):
        raise unsupported(layer, f"axis={layer.axis} of {x.shape}")
    features = x.shape[-1]
    gamma = array(layer.gamma) if layer.scale else np.ones(features, np.float32)
    beta = array(layer.beta) if layer.center else np.zeros(features, np.float32)
    return plan.add(op.LayerNorm(layer.name, (plan.value(x),), gamma, beta, layer.epsilon))


def activation(layer: Any, plan: Builder, tensors: Tensors) -> int:
    """Add an activation by its name, into the operation before if it can."""
    return _activate(layer, plan, tensors[0], _function(layer))


def relu(layer: Any, plan: Builder, tensors: Tensors) -> int:
    """Add a plain max(x, 0), which may end at 6."""
    if layer.max_value not in (None, 6) or layer.negative_slope or layer.threshold:
        raise unsupported(layer, "max_value, negative_slope or threshold")
    return _activate(layer, plan, tensors[0], "relu" if layer.max_value is None else "relu6")


def gelu(layer: Any, plan: Builder, tensors: Tensors) -> int:
    """Add Keras' operation of the same name."""
    return _activate(layer, plan, tensors[0], "gelu_tanh" if layer.approximate else "gelu")


def _activate(layer: Any, plan: Builder, x: Any, function: str) -> int:
    if function == "linear":
        return plan.value(x)
    if function == "softmax":
        if plan.is_reordered(x):
            raise unsupported(layer, "softmax along the last axis of a channels_first map")
    else:
        before = plan.fusible(x, op.Conv, op.Dense, op.Elementwise)
        if before and before.activation == "linear":
            return plan.replace(x, replace(before, name=layer.name, activation=function))
    return plan.add(op.Activation(layer.name, (plan.value(x),), function))


def _function(layer: Any) -> str:
    named = {name for name in op.ACTIVATIONS if name != "gelu_tanh"} | {"linear"}
    known = {keras.activations.get(name): name for name in named}
    if layer.activation not in known:
        name = getattr(layer.activation, "__name__", layer.activation)
        raise unsupported(layer, f"the activation {name!r}")
    return known[layer.activation]


def array(variable: Any) -> np.ndarray:
    """Return a variable's value, a copy in float32."""
    return np.array(keras.ops.convert_to_numpy(variable), np.float32)
