"""A plan as a functional Keras model of stock layers and `keras.ops`, and what of it is whose."""

import contextlib
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from keras_alexnet.core.keras_internals import maker_of
from keras_alexnet.models.interface import MAIN_OUTPUT
from keras_alexnet.specs.preprocessing import Preprocessing
from porting.errors import GraphError
from porting.graph.assembly import Assembly, clean
from porting.graph.axes import Value, axes_of, factors, image_order, length
from porting.graph.call import Call
from porting.graph.ops import RULES
from porting.graph.plan import Node, Plan, Shape
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

    `data_format` is that of its images and of every feature map.
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
        data_format: Of its images and its feature maps, by default Keras' setting.
        dtype: Keras dtype policy, by default Keras' setting.
        preprocessing: What its images, the first input, go through before; by default nothing.

    Raises:
        GraphError: An operation is used in a way that has no counterpart here.
    """
    from keras_alexnet.models.builder import input_layers, resolve_data_format
    from keras_alexnet.models.initialization import weights_will_follow

    data_format = resolve_data_format(data_format)
    assembly = Assembly(plan, data_format, dtype)
    with weights_will_follow():
        inputs = [_input(assembly, name, shape) for name, shape in plan.inputs.items()]
        first, *others = inputs
        x = input_layers(first, data_format, preprocessing, transform_input=False)
        assembly.inputs = dict(zip(plan.inputs, [x, *others], strict=True))
        return _assembled(assembly, inputs if others else first)


def _input(assembly: Assembly, name: str, shape: Shape) -> Any:
    """Return a Keras input; the only one is called `image`, several have torch's names."""
    keras, lengths = assembly.keras, [None if dim.unknown else dim.size for dim in shape[1:]]
    if len(lengths) == 3 and assembly.data_format == "channels_last":
        lengths = [*lengths[1:], lengths[0]]
    return keras.Input(
        lengths,
        name=assembly.name(name if len(assembly.plan.inputs) > 1 else "image"),
        # In float64 nothing may go through float32; other policies take images as they come.
        dtype="float64" if assembly.wide else None,
    )


def _assembled(assembly: Assembly, inputs: Any) -> Built:
    """Return the model of an input, or of a list of them."""
    plan = assembly.plan
    for name, tensor in assembly.inputs.items():
        axes = axes_of(plan.inputs[name])
        order = image_order(axes, assembly.data_format) if len(axes) == 4 else axes
        assembly.results[name] = Value(tensor, axes, order)
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
            model = assembly.keras.Model(inputs, returned, name=name)
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
