"""A plan as a functional Keras model of stock layers and `keras.ops`, and what of it is whose."""

import contextlib
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from keras_alexnet.core.backend import load_keras
from keras_alexnet.core.keras_internals import maker_of
from keras_alexnet.models.interface import MAIN_OUTPUT
from keras_alexnet.specs.preprocessing import Preprocessing
from porting.errors import GraphError
from porting.graph.assembly import Assembly, clean, is_wide
from porting.graph.axes import Value, axes_of, factors, image_order, length
from porting.graph.call import Call
from porting.graph.ops import RULES
from porting.graph.plan import Node, Plan
from porting.weights.counterpart import Counterpart, LayerPair, Output
from porting.weights.layouts import Transform, rearranged
from porting.weights.table import Carried, Put

_COUNTER = "num_batches_tracked"
_RECURSION = 1000  # Python's own limit

# Classes of torch's modules -> the kinds of layers whose usual faults `compare` knows.
_KINDS = {
    "Conv2d": "Conv",
    "BatchNorm2d": "BatchNorm",
    "BatchNorm1d": "BatchNorm",
    "MaxPool2d": "MaxPool",
    "AvgPool2d": "AvgPool",
    "AdaptiveAvgPool2d": "AdaptiveAvgPool",
    "Linear": "Dense",
}


@dataclass(frozen=True)
class Built:
    """A Keras model without weights, and what of it corresponds to what of torch's network.

    `data_format` is that of its image and of every feature map.
    """

    model: Any
    counterpart: Counterpart
    data_format: str


def build(
    plan: Plan,
    data_format: str | None = None,
    dtype: Any = None,
    preprocessing: Preprocessing | None = None,
) -> Built:
    """Return the Keras model of a plan, without weights.

    Args:
        plan: The network.
        data_format: Of its image and its feature maps, by default Keras' setting.
        dtype: Keras dtype policy, by default Keras' setting.
        preprocessing: What it does to its images first; by default nothing.

    Raises:
        GraphError: An operation is used in a way that has no counterpart here.
    """
    from keras_alexnet.models.builder import input_layers, resolve_data_format
    from keras_alexnet.models.initialization import weights_will_follow

    keras, data_format = load_keras(), resolve_data_format(data_format)
    _, (_, *lengths) = plan.input
    channels, *size = (None if dim.unknown else dim.size for dim in lengths)
    shape = (*size, channels) if data_format == "channels_last" else (channels, *size)
    # In float64 nothing may go through float32; other policies take images as they come.
    image = keras.Input(shape, name="image", dtype="float64" if is_wide(dtype) else None)
    with weights_will_follow():
        x = input_layers(image, data_format, preprocessing, transform_input=False)
        return _assembled(Assembly(plan, data_format, dtype, x), image)


def _assembled(assembly: Assembly, image: Any) -> Built:
    """Return the model of an input."""
    plan, x = assembly.plan, assembly.image
    name, shape = plan.input
    axes = axes_of(shape)
    assembly.results[name] = Value(x, axes, image_order(axes, assembly.data_format))
    assembly.results |= {**plan.parameters, **plan.constants}
    for node in plan.nodes:
        call = Call(assembly, node)
        try:
            assembly.results[node.name] = RULES[node.op](call)
        except (GraphError, MemoryError):
            raise
        except Exception as error:
            raise GraphError(
                f"{node.op} in {node.place} cannot be built as it is used there "
                f"({type(error).__name__}: {error})"
            ) from error
    found = {name: _output(assembly, node) for name, node in plan.outputs.items()}
    tensors = {name: value.tensor for name, (value, _) in found.items()}
    try:
        name = clean(plan.title.lower())
        with _as_deep_as_elsewhere():
            alone = list(tensors) == [MAIN_OUTPUT]
            returned = tensors[MAIN_OUTPUT] if alone else tensors
            model = assembly.keras.Model(image, returned, name=name)
    except RecursionError as error:
        raise GraphError(
            f"{plan.title} is a chain of more operations than Keras can follow: it finds a model's "
            f"graph by recursion, which Python ends at {_RECURSION} calls wherever the file would "
            "be opened"
        ) from error
    for layer, array in assembly.constants.values():
        layer.set_weights([array])
    table = tuple(map(partial(_entry, assembly), plan.keys))
    outputs = tuple(Output(name, is_map=is_map) for name, (_, is_map) in found.items())
    return Built(
        model, Counterpart(table, _pairs(assembly, model), outputs, None), assembly.data_format
    )


@contextlib.contextmanager
def _as_deep_as_elsewhere() -> Iterator[None]:
    """Within this block, allow as much recursion as a new process does."""
    depth, frame, limit = 0, inspect.currentframe(), sys.getrecursionlimit()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    sys.setrecursionlimit(min(limit, depth + _RECURSION))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def _entry(assembly: Assembly, key: str) -> Put | Carried:
    put = assembly.puts.get(assembly.plan.aliases.get(key, key))
    if put is None:
        return Carried(key, counter=key.endswith(_COUNTER))
    return replace(put, key=key)


def _output(assembly: Assembly, node: str) -> tuple[Value, bool]:
    """Return an output, and whether it is a feature map in the model's data format."""
    value = assembly.results[node]
    if not isinstance(value, Value):
        raise GraphError("an output is no tensor that the network computes")
    if len(value.axes) == 4 and value.order == image_order(value.axes, assembly.data_format):
        return value, True
    return Call(assembly, Node("output", "output", {}, ())).mover.plain(value), False


def _pairs(assembly: Assembly, model: Any) -> tuple[LayerPair, ...]:
    known = {operation.name for operation in model.operations}
    pairs = []
    for output in assembly.plan.modules:
        value = assembly.results.get(output.node)
        if not isinstance(value, Value) or isinstance(value.tensor, np.ndarray):
            continue
        name = maker_of(value.tensor)[0].name
        transform = _activation(value)
        if name in known and transform is not None:
            kind = _KINDS.get(output.kind, output.kind)
            pairs.append(LayerPair(name, output.module, kind, transform))
    return tuple(pairs)


def _activation(value: Value) -> Transform | None:
    """Return what brings a Keras tensor, with its batch, to torch's order of axes.

    It is None where several axes have lengths that only the images tell.
    """
    held = factors(value.order)
    sizes = [factor.dim.or_minus_one for factor in held]
    shapes = ([length(axis).or_minus_one for axis in axes] for axes in (value.axes, value.order))
    torch_shape, keras_shape = map(tuple, shapes)
    if max(shape.count(-1) for shape in (sizes, list(torch_shape), list(keras_shape))) > 1:
        return None
    order = [held.index(factor) for factor in factors(value.axes)]
    inverse = [order.index(i) for i in range(len(order))]
    return rearranged([sizes[i] for i in order], inverse, keras_shape, torch_shape)
