"""The table of layers: what each one becomes in a plan, fused into what comes before it.

The layers that hold numbers of their own are converted in `weighted`. What has no row, or a setting
that its row does not know, is called as Keras has it.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from keras_alexnet.core.keras_internals import call_node, maker_of, takes_phase
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.layers import LocalResponseNormalization, keras
from keras_alexnet.optimizing import operations as op
from keras_alexnet.optimizing.plan_builder import Builder
from keras_alexnet.optimizing.weighted import (
    Tensors,
    UnsupportedError,
    activation,
    affine,
    batch_norm,
    conv,
    dense,
    gelu,
    layer_norm,
    normalization,
    own_padding,
    pair,
    relu,
    rescaling,
    unsupported,
)

layers = keras.layers
Converter = Callable[[Any, Builder, Tensors], int]


def convert(layer: Any, node: Any, plan: Builder) -> None:
    """Add a Keras layer or operation, as its node calls it, to a plan, and name its results.

    Raises:
        ConfigurationError: It is a second input, or a layer that is no copy of itself.
    """
    tensors = node.input_tensors
    known = _converters()
    converter = next((known[kind] for kind in _kinds(layer) if kind in known), None)
    reason = f"layer {layer.name!r} ({type(layer).__name__}) cannot be optimized"
    if converter is not None:
        try:
            plan.name_value(node.outputs[0], converter(layer, plan, tensors), tensors)
            return
        except UnsupportedError as error:
            reason = str(error)
    inputs = tuple(map(plan.value, tensors))
    call = call_of(_copied(layer), node)
    if plan.data_format == "channels_first":
        call = _reordered(call)
    number = plan.add(op.Call(layer.name, inputs, call, reason))
    for index, tensor in enumerate(node.outputs):
        plan.name_value(tensor, plan.add(op.Part(layer.name, (number,), index)), [])


def call_of(layer: Any, node: Any) -> Callable[..., Sequence[Any]]:
    """Return what computes a node's outputs from its inputs' tensors as a layer does."""
    keys = [id(tensor) for tensor in node.input_tensors]
    phase = {"training": False} if takes_phase(layer) else {}

    def call(*values: Any) -> Sequence[Any]:
        given = dict(zip(keys, values, strict=True))
        return keras.tree.flatten(call_node(node, layer, given, **phase))

    return call


def _copied(layer: Any) -> Any:
    """Return a layer with weights of its own; an operation, or a layer without any, as it is."""
    if not getattr(layer, "weights", None):
        return layer
    copied = type(layer).from_config(layer.get_config())
    copied.build_from_config(layer.get_build_config())
    copied.set_weights(layer.get_weights())
    return copied


def _reordered(call: Callable[..., Sequence[Any]]) -> Callable[..., Sequence[Any]]:
    """Return a call of channels-first maps as one of an operation's, which are channels last."""

    def turned(values: Sequence[Any], axes: tuple[int, ...]) -> list[Any]:
        return [keras.ops.transpose(x, axes) if len(x.shape) == 4 else x for x in values]

    return lambda *values: turned(call(*turned(values, (0, 3, 1, 2))), (0, 2, 3, 1))


@functools.cache
def _converters() -> dict[type, Converter]:
    """Return the table with operations, whose classes have no public names."""
    x = keras.KerasTensor((1, 1))
    ops = keras.ops
    rows = {
        ops.flip(x): _flip,
        ops.reshape(x, (1, 1)): _reshape,
        ops.add(x, x): _elementwise,
        ops.multiply(x, x): _elementwise,
        ops.subtract(x, x): _elementwise,
        ops.gelu(x): gelu,
    }
    return _CONVERTERS | {type(maker_of(made)[0]): row for made, row in rows.items()}


def _kinds(layer: Any) -> list[type]:
    """Return the class of a layer, and for one of this package's what it is made from too.

    Anybody else's subclass of a Keras layer may compute something else.
    """
    kind = type(layer)
    return list(kind.__mro__) if kind.__module__.startswith("keras_alexnet.") else [kind]


def _input(layer: Any, plan: Builder, tensors: Tensors) -> int:
    raise ConfigurationError(f"the output of the model depends on a second input, {layer.name!r}")


def _same(layer: Any, plan: Builder, tensors: Tensors) -> int:
    return plan.value(tensors[0])


def _flip(layer: Any, plan: Builder, tensors: Tensors) -> int:
    axes = (layer.axis,) if isinstance(layer.axis, int) else layer.axis
    if [axis % 4 for axis in axes or ()] != [plan.channel_axis]:
        raise unsupported(layer, f"axis={layer.axis}; it may reverse the channels")
    one, zero = np.ones(()), np.zeros(())
    return plan.add(op.Affine(layer.name, (plan.value(tensors[0]),), one, zero, reverse=True))


def _zero_padding(layer: Any, plan: Builder, tensors: Tensors) -> int:
    return plan.add(op.Pad(layer.name, (plan.value(tensors[0]),), layer.padding))


def _reshape(layer: Any, plan: Builder, tensors: Tensors) -> int:
    (x,) = tensors
    shape = layer.compute_output_spec(x).shape
    if any(map(plan.is_reordered, (x, keras.KerasTensor(shape)))) or shape[1:].count(None):
        raise unsupported(layer, f"a reshape of {x.shape} to {shape} in {plan.data_format}")
    if tuple(shape) == tuple(x.shape):
        return plan.value(x)
    sizes = tuple(-1 if size is None else size for size in shape)
    return plan.add(op.Reshape(layer.name, (plan.value(x),), sizes))


def _elementwise(layer: Any, plan: Builder, tensors: Tensors) -> int:
    """Add a sum, product or difference: into the operation before where one side is constant.

    A convolution takes in what is added to it.
    """
    function = type(layer).__name__.lower()
    if len(tensors) < 2:
        raise unsupported(layer, "a number for one of its inputs")
    for x, other in (tensors, tensors[::-1]) if len(tensors) == 2 else ():
        factors = _by_channel(plan, other, x)
        if factors is not None and function != "subtract":
            zero, one = np.zeros(()), np.ones(())
            scale, offset = (factors, zero) if function == "multiply" else (one, factors)
            return affine(layer, plan, x, scale, offset)
    if len({len(x.shape) for x in tensors}) > 1 and any(map(plan.is_reordered, tensors)):
        raise unsupported(layer, f"inputs of shapes {[tensor.shape for tensor in tensors]}")
    values = tuple(map(plan.value, tensors))
    if function == "add" and len(tensors) == 2:
        for x, other in (tensors, tensors[::-1]):
            before = plan.fusible(x, op.Conv)
            free = before and before.activation == "linear" and len(before.inputs) == 1
            # Of sizes that vary nobody knows here whether one is repeated along the other.
            if free and None not in x.shape[1:] and tuple(x.shape) == tuple(other.shape):
                inputs = (*before.inputs, plan.value(other))
                return plan.add(replace(before, name=layer.name, inputs=inputs))
    return plan.add(op.Elementwise(layer.name, values, function))


def _by_channel(plan: Builder, tensor: Any, beside: Any) -> np.ndarray | None:
    """Return a constant as (), or (channels,) of the values that it is computed with, or None."""
    value = plan.constants.get(id(tensor))
    if value is None or id(beside) in plan.constants or value.ndim > len(beside.shape):
        return None
    if value.size == 1:
        return value.reshape(()).astype(np.float64)
    axis = plan.last_axis(beside)
    shape = (1,) * (len(beside.shape) - value.ndim) + value.shape
    fits = len(beside.shape) > 1 and shape[axis] == value.size == beside.shape[axis]
    return value.reshape(-1).astype(np.float64) if fits else None


def _max_pool(layer: Any, plan: Builder, tensors: Tensors) -> int:
    (x,) = tensors
    size, strides = pair(layer.pool_size), pair(layer.strides)
    padding = own_padding(layer, plan, x, size)
    pad = plan.fusible(x, op.Pad) if layer.padding == "valid" else None
    # Zeros are as neutral as minus infinity beside what is never negative, but for a window that
    # holds nothing else.
    if (
        pad is not None
        and all(max(sides) < width for sides, width in zip(pad.padding, size, strict=True))
        and plan.never_negative(pad.inputs[0])
    ):
        return plan.replace(x, op.MaxPool(layer.name, pad.inputs, size, strides, pad.padding))
    return plan.add(op.MaxPool(layer.name, (plan.value(x),), size, strides, padding))


def _avg_pool(layer: Any, plan: Builder, tensors: Tensors) -> int:
    if layer.padding != "valid":
        raise unsupported(layer, f"padding={layer.padding!r}")
    size, strides = pair(layer.pool_size), pair(layer.strides)
    if size == strides == (1, 1):
        return plan.value(tensors[0])
    return plan.add(op.AvgPool(layer.name, (plan.value(tensors[0]),), size, strides))


def _adaptive_avg_pool(layer: Any, plan: Builder, tensors: Tensors) -> int:
    size = pair(layer.output_size)
    return plan.add(op.AdaptiveAvgPool(layer.name, (plan.value(tensors[0]),), size))


def _global_pool(layer: Any, plan: Builder, tensors: Tensors) -> int:
    largest = isinstance(layer, layers.GlobalMaxPooling2D)
    inputs = (plan.value(tensors[0]),)
    return plan.add(op.GlobalPool(layer.name, inputs, largest, bool(layer.keepdims)))


def _up_sampling(layer: Any, plan: Builder, tensors: Tensors) -> int:
    if layer.interpolation != "nearest":
        raise unsupported(layer, f"interpolation={layer.interpolation!r}")
    return plan.add(op.Repeat(layer.name, (plan.value(tensors[0]),), pair(layer.size)))


def _flatten(layer: Any, plan: Builder, tensors: Tensors) -> int:
    if len(tensors[0].shape) == 2:
        return plan.value(tensors[0])
    return plan.add(op.Flatten(layer.name, (plan.value(tensors[0]),)))


def _concatenate(layer: Any, plan: Builder, tensors: Tensors) -> int:
    if layer.axis % len(tensors[0].shape) != plan.last_axis(tensors[0]):
        raise unsupported(layer, f"axis={layer.axis} in a {plan.data_format} model")
    return plan.add(op.Concat(layer.name, tuple(map(plan.value, tensors))))


def _lrn(layer: Any, plan: Builder, tensors: Tensors) -> int:
    inputs = (plan.value(tensors[0]),)
    return plan.add(op.LRN(layer.name, inputs, layer.size, layer.alpha, layer.beta, layer.k))


_CONVERTERS: dict[type, Converter] = {
    layers.InputLayer: _input,
    layers.Normalization: normalization,
    layers.Rescaling: rescaling,
    layers.ZeroPadding2D: _zero_padding,
    layers.Conv2D: conv,
    layers.DepthwiseConv2D: conv,
    layers.BatchNormalization: batch_norm,
    LocalResponseNormalization: _lrn,
    layers.LayerNormalization: layer_norm,
    layers.Add: _elementwise,
    layers.Multiply: _elementwise,
    layers.Subtract: _elementwise,
    layers.ReLU: relu,
    layers.Activation: activation,
    layers.MaxPooling2D: _max_pool,
    layers.AveragePooling2D: _avg_pool,
    layers.AdaptiveAveragePooling2D: _adaptive_avg_pool,
    layers.GlobalAveragePooling2D: _global_pool,
    layers.GlobalMaxPooling2D: _global_pool,
    layers.UpSampling2D: _up_sampling,
    layers.Concatenate: _concatenate,
    layers.Flatten: _flatten,
    layers.Dropout: _same,
    layers.Dense: dense,
}
