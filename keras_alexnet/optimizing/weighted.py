"""Converters of layers that scale, weigh or rectify, and what every converter reads of a layer."""

from dataclasses import replace
from typing import Any

import numpy as np

from keras_alexnet.errors import ConfigurationError
from keras_alexnet.layers import keras
from keras_alexnet.optimizing import operations as op
from keras_alexnet.optimizing.plan_builder import Builder

Tensors = list[Any]


def unsupported(layer: Any, setting: str) -> ConfigurationError:
    """Return the error about a setting of a layer that no operation has."""
    return ConfigurationError(
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
    return _affine(layer, plan, tensors[0], scale, -mean * scale)


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
    return _affine(layer, plan, tensors[0], *parts)


def batch_norm(layer: Any, plan: Builder, tensors: Tensors) -> int:
    """Add batch normalisation as inference computes it, with the moving statistics."""
    rank = len(tensors[0].shape)
    if layer.axis % rank != (plan.channel_axis if rank == 4 else 1):
        raise unsupported(layer, f"axis={layer.axis} in a {plan.data_format} model")
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


def _affine(layer: Any, plan: Builder, x: Any, scale: np.ndarray, offset: np.ndarray) -> int:
    """Add x * scale + offset, given in float64, (C,) or (); into the operation before if it can."""
    if (before := plan.fusible(x, op.Conv, op.Dense)) and not before.relu:
        return plan.replace(x, op.scaled(before, scale, offset, layer.name))
    if before := plan.fusible(x, op.Affine):
        return plan.replace(x, op.composed(before, scale, offset, layer.name))
    return plan.add(op.Affine(layer.name, (plan.value(x),), scale, offset))


def conv(layer: Any, plan: Builder, tensors: Tensors) -> int:
    """Add a convolution, with the zero padding before it where nothing else reads that."""
    (x,) = tensors
    if tuple(layer.dilation_rate) != (1, 1):
        raise unsupported(layer, f"dilation_rate={layer.dilation_rate}")
    kernel = _array(layer.kernel)
    bias = _array(layer.bias) if layer.use_bias else np.zeros(layer.filters, np.float32)
    padding = own_padding(layer, plan, x, kernel.shape[:2])
    inputs: tuple[int, ...] = (plan.value(x),)
    pad = plan.fusible(x, op.Pad) if layer.padding == "valid" else None
    if pad is not None:
        padding, inputs = pad.padding, pad.inputs
    made = op.Conv(layer.name, inputs, kernel, bias, pair(layer.strides), padding, layer.groups)
    number = plan.add(made) if pad is None else plan.replace(x, made)
    return _activate(layer, plan, number)


def dense(layer: Any, plan: Builder, tensors: Tensors) -> int:
    """Add a dense layer over (N, features)."""
    if len(tensors[0].shape) != 2:
        raise unsupported(layer, f"an input of {len(tensors[0].shape)} axes; it may have 2")
    bias = _array(layer.bias) if layer.use_bias else np.zeros(layer.units, np.float32)
    inputs = (plan.value(tensors[0]),)
    return _activate(
        layer, plan, plan.add(op.Dense(layer.name, inputs, _array(layer.kernel), bias))
    )


def _activate(layer: Any, plan: Builder, number: int) -> int:
    """Add the activation that a convolution or dense layer has of its own."""
    function = _function(layer)
    if function == "linear":
        return number
    if function == "relu":
        plan.operations[number - 1] = replace(plan.operations[number - 1], relu=True)  # type: ignore[call-arg]
        return number
    return plan.add(op.Activation(layer.name, (number,), function))


def activation(layer: Any, plan: Builder, tensors: Tensors) -> int:
    """Add an activation by its name; a ReLU goes into the operation before if it can."""
    function = _function(layer)
    if function == "linear":
        return plan.value(tensors[0])
    if function == "relu":
        return _rectify(layer, plan, tensors[0])
    if function == "softmax" and len(tensors[0].shape) == 4 and plan.channel_axis != 3:
        raise unsupported(layer, "softmax along the last axis of a channels_first map")
    return plan.add(op.Activation(layer.name, (plan.value(tensors[0]),), function))


def relu(layer: Any, plan: Builder, tensors: Tensors) -> int:
    """Add a plain max(x, 0)."""
    if layer.max_value is not None or layer.negative_slope or layer.threshold:
        raise unsupported(layer, "max_value, negative_slope or threshold")
    return _rectify(layer, plan, tensors[0])


def _rectify(layer: Any, plan: Builder, x: Any) -> int:
    if before := plan.fusible(x, op.Conv, op.Dense):
        return plan.replace(x, replace(before, name=layer.name, relu=True))
    return plan.add(op.Activation(layer.name, (plan.value(x),), "relu"))


def _function(layer: Any) -> str:
    known = {keras.activations.get(name): name for name in (*op.ACTIVATIONS, "linear")}
    if layer.activation not in known:
        name = getattr(layer.activation, "__name__", layer.activation)
        raise unsupported(layer, f"the activation {name!r}; there are {', '.join(op.ACTIVATIONS)}")
    return known[layer.activation]


def _array(variable: Any) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(variable), np.float32)
