"""A part of a functional model once more, on other inputs, with layers of its own."""

from functools import partial
from typing import Any

from keras_alexnet.core.keras_internals import graph_parts, run_node
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
    values, copies = {id(first): x}, dict[int, tuple[Any, Any]]()
    for node in parts.nodes(model):
        if any(id(tensor) not in values for tensor in node.input_tensors):
            continue
        original = node.operation
        if id(original) not in copies:
            copies[id(original)] = original, _copy(original, dtype)
        run_node(node, partial(_called, copies[id(original)][1]), values)
    if id(last) not in values:
        raise ConfigurationError(f"{model.name} computes its scores of more than one image")
    for original, copy in copies.values():
        if isinstance(copy, keras.layers.Layer) and copy.weights and not original.trainable:
            copy.set_weights(original.get_weights())
    return values[id(last)]


def _copy(operation: Any, dtype: Any) -> Any:
    if not isinstance(operation, keras.layers.Layer):
        return operation  # it has no state
    config = operation.get_config()
    if dtype is not None:
        config["dtype"] = dtype
    return type(operation).from_config(config)


def _called(operation: Any, *arguments: Any, **options: Any) -> Any:
    if len(arguments) == 1 and not options:
        return built_on(operation, *arguments)
    return operation(*arguments, **options)
