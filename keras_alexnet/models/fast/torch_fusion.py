"""Which neighbours in the graph of a model one operation of PyTorch computes exactly."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from keras_alexnet.core import backend
from keras_alexnet.layers import LocalResponseNormalization
from keras_alexnet.models.fast.torch_layers import (
    METHODS,
    Activation,
    Compute,
    addition,
    convolution,
    max_pooling,
    multiplication,
    normalization,
    normalized_convolution,
    same_padding,
)

keras = backend.load_keras()
functional = backend.require("torch").nn.functional
layers = keras.layers

# Returns what computes neighbours in one operation, or None where their settings forbid that.
Fusion = Callable[[], Compute | None]

# Keras' activation -> torch's, which can take the memory of what it reads.
_ACTIVATIONS = {
    keras.activations.relu: functional.relu,
    keras.activations.silu: functional.silu,
    keras.activations.hard_sigmoid: functional.hardsigmoid,
    keras.activations.hard_silu: functional.hardswish,
}
_CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D)
# Their results are of the sign of what they read.
_KEEP_SIGN = {
    layers.AveragePooling2D,
    layers.Concatenate,
    layers.Dropout,
    layers.MaxPooling2D,
    LocalResponseNormalization,
}


def fuse(nodes: list[Any], outputs: list[Any]) -> list[tuple[tuple[Any, ...], Fusion | None]]:
    """Group the nodes of a graph, which are in the order of computation.

    Nothing may take the memory of `outputs`, the tensors that the graph returns. Returns the nodes
    of every operation, and the operation for those that are more than one; a group stands where its
    last node stood.
    """
    readers = Counter(id(x) for node in nodes for x in node.input_tensors)
    readers.update(id(x) for x in outputs)
    maker = {id(x): node for node in nodes for x in node.outputs}
    groups: dict[int, tuple[tuple[Any, ...], Fusion | None]] = {}
    for node in nodes:
        group, fusion = (node,), None
        source = node.input_tensors[0]
        before = groups.get(id(maker.get(id(source))))
        alone = len(node.input_tensors) == 1 and readers[id(source)] == 1
        ours = before is not None and all(
            calls_as_we_do(each.operation) for each in (*before[0], node)
        )
        if before is not None and alone and ours:
            fusion = _fusion(before[0], node, maker)
            if fusion is not None:
                del groups[id(before[0][-1])]
                group = (*before[0], node)
        groups[id(node)] = group, fusion
    return list(groups.values())


def _fusion(before: tuple[Any, ...], node: Any, maker: dict[int, Any]) -> Fusion | None:
    """Return the operation for a group and the only reader of its result, or None."""
    layer, last = node.operation, before[-1].operation
    if (activation := _activation_of(layer)) is not None:
        return _activated(before, activation)
    if type(layer) is layers.BatchNormalization and type(last) in _CONVOLUTIONS:
        pads = len(before) == 1 and same_padding(last, last.kernel_size, last.dilation_rate)
        return None if pads is None else _normalized(before, layer)
    if type(last) is layers.ZeroPadding2D and len(before) == 1:
        if getattr(layer, "padding", None) != "valid" or layer.data_format != last.data_format:
            return None
        if type(layer) in _CONVOLUTIONS:
            return _padded_convolution(last, layer)
        if type(layer) is layers.MaxPooling2D and _is_positive(before[0].input_tensors[0], maker):
            return _padded_pooling(last, layer)
    return None


def calls_as_we_do(layer: Any) -> bool:
    """Return whether a layer's `call` is its class's or ours, and no one else's."""
    call = vars(layer).get("call")
    return call is None or getattr(call, "__func__", call) is METHODS.get(type(layer))


def is_relu(layer: Any) -> bool:
    """Return whether a layer is the plain ReLU."""
    return (
        type(layer) is layers.ReLU
        and calls_as_we_do(layer)
        and not layer.negative_slope
        and not layer.threshold
        and layer.max_value is None
    )


def _activation_of(layer: Any) -> Activation | None:
    """Return what computes a layer that is nothing but an activation known here."""
    if is_relu(layer):
        return functional.relu
    return _ACTIVATIONS.get(layer.activation) if type(layer) is layers.Activation else None


def _activated(before: tuple[Any, ...], then: Activation) -> Fusion | None:
    last = before[-1].operation
    if type(last) is layers.BatchNormalization:
        return _normalized(before[:-1], last, then)
    if type(last) is layers.Dense:
        return partial(multiplication, last, then=then)
    if type(last) is layers.Add:
        return partial(addition, last, then=then)
    if type(last) not in _CONVOLUTIONS:
        return None
    if len(before) == 1:
        return partial(convolution, last, then=then)
    return _padded_convolution(before[0].operation, last, then)


def _normalized(before: tuple[Any, ...], layer: Any, then: Activation | None = None) -> Fusion:
    """Batch norm, with the convolution before it and that one's padding if there are any."""
    if not before:
        return partial(normalization, layer, then=then)
    *pads, last = (each.operation for each in before)
    padding = _symmetric(pads[0]) if pads else None
    return partial(normalized_convolution, last, layer, padding=padding, then=then)


def _padded_convolution(pad: Any, layer: Any, then: Activation | None = None) -> Fusion | None:
    padding = _symmetric(pad)
    if padding is None:
        return None
    return partial(convolution, layer, padding=padding, then=then)


def _padded_pooling(pad: Any, pooling: Any) -> Fusion | None:
    """Pooling of a map without negative values, where zeros are as neutral as torch's -inf."""
    if pad.padding == ((0, 1), (0, 1)):
        # A row and a column more make as many windows as torch's ceil mode, at every size.
        if pooling.strides == (2, 2) and pooling.pool_size in ((2, 2), (3, 3)):
            return partial(max_pooling, pooling, ceil=True)
        return None
    padding = _symmetric(pad)
    if padding is None or any(2 * p > n for p, n in zip(padding, pooling.pool_size, strict=True)):
        return None
    return partial(max_pooling, pooling, padding=padding)


def _symmetric(pad: Any) -> tuple[int, int] | None:
    (top, bottom), (left, right) = pad.padding
    return (top, left) if top == bottom and left == right else None


def _is_positive(x: Any, maker: dict[int, Any]) -> bool:
    """Return whether a tensor of the graph is known to hold no negative value."""
    node = maker.get(id(x))
    if node is None:
        return False
    if is_relu(node.operation):
        return True
    keeps = type(node.operation) in _KEEP_SIGN and calls_as_we_do(node.operation)
    return keeps and all(_is_positive(source, maker) for source in node.input_tensors)
