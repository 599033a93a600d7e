"""Keras model -> plan: its layers in order, fused into as few operations as are exact."""

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_alexnet.core.keras_internals import maker_of
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.layers import keras
from keras_alexnet.models.interface import alone_or_list, data_formats, main_output
from keras_alexnet.optimizing.converters import call_of, convert
from keras_alexnet.optimizing.operations import Operation
from keras_alexnet.optimizing.plan_builder import Builder


@dataclass(frozen=True)
class Plan:
    """A network for inference.

    Attributes:
        name: The model's name.
        operations: In the order of computation; the i-th one's value is number i. Value 0 is the
            model's input, or the list of several.
        outputs: The values that the network returns, in a dict or list where the model does.
        data_format: Layout of the model's images and of the maps that it returns.
        input_shapes: Of a batch of each input by name, as the model takes them; None where a size
            varies.
    """

    name: str
    operations: tuple[Operation, ...]
    outputs: Any
    data_format: str
    input_shapes: Mapping[str, tuple[int | None, ...]]


def make_plan(model: Any) -> Plan:
    """Read a Keras model; its weights are copied and it stays as it is.

    Args:
        model: A functional model of images.

    Raises:
        ConfigurationError: It is none, does not compute in float32, or has a layer that cannot be
            copied.
    """
    inputs, structure = main_tensors(model)
    outputs = keras.tree.flatten(structure)
    nodes = _nodes(outputs, inputs)
    layers = [layer for layer, _ in nodes]
    _check_precision(model, layers)
    uses = Counter(id(tensor) for _, node in nodes for tensor in node.input_tensors)
    uses.update(map(id, outputs))
    builder = Builder(_data_format(model, layers), uses, constants=_constants(nodes, inputs))
    builder.name_inputs(inputs)
    for layer, node in nodes:
        if not all(id(tensor) in builder.constants for tensor in node.outputs):
            convert(layer, node, builder)
    operations, numbers = builder.finish(outputs)
    if not operations:
        raise ConfigurationError(f"{model.name} has no layer that computes something")
    returned = keras.tree.pack_sequence_as(structure, numbers)
    return Plan(model.name, operations, returned, builder.data_format, _shapes(inputs))


def stock_plan(model: Any) -> Plan:
    """Return what is known of a model whose graph cannot be read: it has no operations.

    Raises:
        ConfigurationError: As `make_plan`, but for its layers.
    """
    inputs, _ = main_tensors(model)
    _check_precision(model, model.layers)
    return Plan(model.name, (), None, _data_format(model, model.layers), _shapes(inputs))


def main_model(model: Any) -> Any:
    """Return a model of the main output alone, over the same layers.

    Raises:
        ConfigurationError: As `main_tensors`.
    """
    inputs, outputs = main_tensors(model)
    return keras.Model(alone_or_list(inputs), outputs, name=model.name)


def main_tensors(model: Any) -> tuple[list[Any], Any]:
    """Return the Keras tensors of a model's inputs, and that of its main output.

    Without a main one it is all of them, in a dict or list as the model has them.

    Raises:
        ConfigurationError: It is no functional model of images.
    """
    known = isinstance(model, keras.Model)
    inputs = (getattr(model, "inputs", None) or []) if known else []
    if not known or not inputs:
        kind = type(model).__name__
        raise ConfigurationError(
            f"only a functional Keras model can be optimized (from keras_alexnet, or "
            f"keras.saving.load_model), got {kind}"
            + (": it has no layers that are connected yet" if known else "")
        )
    if all(len(tensor.shape) != 4 for tensor in inputs):
        shapes = ", ".join(str(tensor.shape) for tensor in inputs)
        raise ConfigurationError(
            f"{model.name} must take a batch of images (N, H, W, C) or (N, C, H, W); "
            f"it takes {shapes}"
        )
    output = main_output(model)
    return inputs, model.output if output is None else output


def _shapes(inputs: list[Any]) -> dict[str, tuple[int | None, ...]]:
    return {tensor.name: tuple(tensor.shape) for tensor in inputs}


def _nodes(outputs: list[Any], inputs: list[Any]) -> list[tuple[Any, Any]]:
    """Return what computes `outputs` from `inputs`: operations with their nodes, inputs first."""
    given = set(map(id, inputs))
    order: dict[int, tuple[Any, Any]] = {}
    pending = [(output, False) for output in reversed(outputs)]
    while pending:
        tensor, ready = pending.pop()
        if id(tensor) in given or id(tensor) in order:
            continue
        layer, node = maker_of(tensor)
        if ready:
            order[id(tensor)] = layer, node
        else:
            pending.append((tensor, True))
            pending += [(source, False) for source in reversed(node.input_tensors)]
    return list(order.values())


def _constants(nodes: list[tuple[Any, Any]], inputs: list[Any]) -> dict[int, np.ndarray]:
    """Return the values, by the tensors' ids, that no input changes.

    They begin as zeros like a part of the image, which is how a functional model comes by a table
    or a vector of its own. What inputs of two sizes, as far as those are free, give alike is
    constant.
    """
    part, zeros = _shape_readers()
    found = []
    for free in (1, 2):
        parts = {
            id(tensor): keras.ops.zeros([free if n is None else n for n in tensor.shape])
            for tensor in inputs
        }
        values: dict[int, Any] = {}
        for layer, node in nodes:
            sources = [id(tensor) for tensor in node.input_tensors]
            known = values if values.keys() >= set(sources) else parts
            if not sources or not all(source in known for source in sources):
                continue
            if known is parts and type(layer) not in (part, zeros):
                continue
            results = call_of(layer, node)(*[known[source] for source in sources])
            made = parts if known is parts and type(layer) is part else values
            made.update(zip(map(id, node.outputs), results, strict=True))
        arrays = {key: keras.ops.convert_to_numpy(value) for key, value in values.items()}
        found.append(arrays)
    one, two = found
    return {key: value for key, value in one.items() if np.array_equal(value, two[key])}


@functools.cache
def _shape_readers() -> tuple[type, type]:
    """Return the kinds of operations `x[...]` and `zeros_like(x)`, which have no public names."""
    x = keras.KerasTensor((1,))
    return type(maker_of(x[0])[0]), type(maker_of(keras.ops.zeros_like(x))[0])


def _check_precision(model: Any, layers: list[Any]) -> None:
    dtypes = {getattr(layer, "compute_dtype", "float32") for layer in layers} - {"float32"}
    if dtypes:
        raise ConfigurationError(
            f"{model.name} computes in {', '.join(sorted(dtypes))}; only float32 models are "
            "optimized. Build it with dtype='float32' and give it these weights "
            "(set_weights(model.get_weights()))"
        )


def _data_format(model: Any, layers: list[Any]) -> str:
    formats = data_formats(layers)
    if len(formats) > 1:
        raise ConfigurationError(
            f"{model.name} has layers of both data formats; only models of one are optimized"
        )
    return formats.pop() if formats else "channels_last"
