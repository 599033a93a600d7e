"""A part of a functional model once more, on other inputs, with layers of its own."""

from collections.abc import Callable
from functools import partial
from typing import Any

from keras_alexnet.core.keras_internals import call_node, graph_parts
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.layers import keras
from keras_alexnet.models.initialization import built_on


def copied(model: Any, x: Any, *, first: Any, last: Any, dtype: Any = None) -> Any:
    """Apply copies of a functional model's operations to a tensor.

    The copies have the names and settings of their originals, and weights that are drawn anew;
    layers that do not train have their originals' numbers, as those are part of what the model
    computes.

    Args:
        model: The functional model.
        x: The tensor that stands for `first`.
        first: A tensor of the model, on which alone `last` depends.
        last: Another tensor of the model.
        dtype: Keras dtype policy of the copies, by default their originals'.

    Returns:
        The tensor that stands for `last`.

    Raises:
        ConfigurationError: `last` depends on something else, or Keras has no graph to follow.
    """
    if (parts := graph_parts()) is None:
        raise ConfigurationError(f"this Keras does not say what {model.name} is made of")
    values, copies = {id(first): x}, dict[int, Any]()
    by_depth = parts.nodes(model)
    for node in (node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]):
        if node.is_input or any(id(tensor) not in values for tensor in node.input_tensors):
            continue
        operation = node.operation
        if id(operation) not in copies:
            copies[id(operation)] = _copy(operation, dtype)
        results = call_node(node, copies[id(operation)].call, values)
        for tensor, result in zip(node.outputs, keras.tree.flatten(results), strict=True):
            values[id(tensor)] = result
    if id(last) not in values:
        raise ConfigurationError(f"{model.name} computes its scores of more than one image")
    for copy in copies.values():
        copy.fill()
    return values[id(last)]


class _Copy:
    """A copy of an operation."""

    def __init__(self, original: Any, call: Callable[..., Any], layer: Any = None) -> None:
        self.original, self.call, self.layer = original, call, layer

    def fill(self) -> None:
        """Give a layer that does not train its original's numbers."""
        if self.layer is not None and self.layer.weights and not self.original.trainable:
            self.layer.set_weights(self.original.get_weights())


def _copy(operation: Any, dtype: Any) -> _Copy:
    if not isinstance(operation, keras.layers.Layer):
        return _Copy(operation, operation)  # it has no state
    config = operation.get_config()
    if dtype is not None:
        config["dtype"] = dtype
    layer = type(operation).from_config(config)
    return _Copy(operation, partial(_called, layer), layer)


def _called(layer: Any, *arguments: Any, **options: Any) -> Any:
    if len(arguments) == 1 and not options:
        return built_on(layer, *arguments)
    return layer(*arguments, **options)
