"""The table of layers: what each one becomes in a plan, fused into what comes before it.

The layers that hold numbers of their own are converted in `weighted`.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_alexnet.core.keras_internals import maker_of
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.layers import LocalResponseNormalization, keras
from keras_alexnet.optimizing import operations as op
from keras_alexnet.optimizing.plan_builder import Builder
from keras_alexnet.optimizing.weighted import (
    Tensors,
    activation,
    batch_norm,
    conv,
    dense,
    normalization,
    own_padding,
    pair,
    relu,
    rescaling,
    unsupported,
)

layers = keras.layers
Converter = Callable[[Any, Builder, Tensors], int]


def convert(layer: Any, plan: Builder, tensors: Tensors) -> int:
    """Add a Keras layer or operation that reads `tensors` to a plan; return the value it computes.

    Raises:
        ConfigurationError: No operation stands for it, or for a setting of it.
    """
    known = _converters()
    converter = next((known[kind] for kind in _kinds(layer) if kind in known), None)
    if converter is None:
        raise ConfigurationError(
            f"layer {layer.name!r} ({type(layer).__name__}) cannot be optimized; the layers that "
            f"can are {', '.join(sorted(kind.__name__ for kind in known))}"
        )
    return converter(layer, plan, tensors)


@functools.cache
def _converters() -> dict[type, Converter]:
    """Return the table with `keras.ops.flip`, an operation whose class has no public name."""
    flip, _ = maker_of(keras.ops.flip(keras.KerasTensor((1, 1))))
    return {**_CONVERTERS, type(flip): _flip}


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
    rank = len(tensors[0].shape)
    if layer.axis % rank != (plan.channel_axis if rank == 4 else 1):
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
    layers.BatchNormalization: batch_norm,
    LocalResponseNormalization: _lrn,
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
