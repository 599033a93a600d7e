"""A plan as a functional Keras model of stock layers and `keras.ops`, and what of it is whose."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from keras_alexnet.core.backend import load_keras
from keras_alexnet.core.keras_internals import maker_of
from porting.errors import GraphError
from porting.graph.axes import Axis, Mover, Value, axes_of, factors, image_order, length
from porting.graph.ops import RULES
from porting.graph.plan import Node, Parameter, Plan, Ref, Shape, references
from porting.weights.counterpart import Counterpart, LayerPair, Output
from porting.weights.layouts import Transform, rearranged
from porting.weights.table import Carried, Put

# What comes of a name of the plan: a tensor, several, or something that is none yet.
Result = Value | list[Value] | Parameter | np.ndarray

# Constants up to so many numbers stand in the model's configuration, others are weights.
_SMALL = 1024

_COUNTER = "num_batches_tracked"
# Beginnings of the names of the input and of the normalisation that a model of ours holds.
_OURS = ("image", "preprocessing_", "transform_input")

_OF_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
# Operations that become layers -> the arguments that become their weights.
_WEIGHTS = {
    "conv2d": ("weight", "bias"),
    "linear": ("weight", "bias"),
    "layer_norm": ("weight", "bias"),
    "group_norm": ("weight", "bias"),
    "batch_norm": _OF_BATCH_NORM,
    "_native_batch_norm_legit_no_training": _OF_BATCH_NORM,
}

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


@dataclass
class Builder:
    """Builds one model.

    Attributes:
        plan: The network.
        data_format: Of the image and of every feature map.
        dtype: Keras dtype policy of the layers.
    """

    plan: Plan
    data_format: str
    dtype: Any = None
    image: Any = None
    puts: dict[str, Put] = field(default_factory=dict)
    constants: dict[str, tuple[Any, np.ndarray]] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    _layers: dict[tuple[str, ...], Any] = field(default_factory=dict)
    _held: dict[str, Value] = field(default_factory=dict)
    _constants: dict[str, Value] = field(default_factory=dict)
    _zeros: Any = None
    _names: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keras = load_keras()
        policy = self.keras.dtype_policies.get(self.dtype or self.keras.config.dtype_policy())
        # Some functions of Keras compute in float32 whatever they get, or with constants in it.
        self.wide = policy.compute_dtype == "float64"
        self._parents = {""}
        for path in {node.module for node in self.plan.nodes}:
            parts = path.split(".")
            self._parents |= {".".join(parts[:i]) for i in range(len(parts))}
        self._users: dict[str, set[str]] = {}
        # Parameters that something else than a layer computes with, and which so are none's own.
        self.shared: set[str] = set()
        for node in self.plan.nodes:
            for argument, value in node.arguments.items():
                for name in references(value):
                    self._users.setdefault(name, set()).add(node.op)
                    if argument not in _WEIGHTS.get(node.op, ()):
                        self.shared.add(name)

    def build(self, image: Any, x: Any) -> Built:
        """Return the model of an input and of the tensor that the network reads.

        Args:
            image: The `keras.Input`.
            x: The image as the network reads it, in the data format.

        Raises:
            GraphError: An operation is used in a way that has no counterpart here.
        """
        self.image = x
        name, shape = self.plan.input
        axes = axes_of(shape)
        self.results[name] = Value(x, axes, image_order(axes, self.data_format))
        self.results |= {**self.plan.parameters, **self.plan.constants}
        for node in self.plan.nodes:
            call = Call(self, node)
            try:
                self.results[node.name] = RULES[node.op](call)
            except (GraphError, MemoryError):
                raise
            except Exception as error:
                raise GraphError(
                    f"{node.op} in {node.place} cannot be built as it is used there "
                    f"({type(error).__name__}: {error})"
                ) from error
        outputs = {name: self._output(node) for name, node in self.plan.outputs.items()}
        main, *others = outputs.values()
        model = self.keras.Model(
            image, outputs if others else main, name=_clean(self.plan.title.lower())
        )
        for layer, array in self.constants.values():
            layer.set_weights([array])
        table = tuple(map(self._entry, self.plan.keys))
        return Built(
            model,
            Counterpart(table, self._pairs(model), tuple(map(Output, self.plan.outputs)), None),
            self.data_format,
        )

    def _entry(self, key: str) -> Put | Carried:
        put = self.puts.get(self.plan.aliases.get(key, key))
        if put is None:
            return Carried(key, counter=key.endswith(_COUNTER))
        return replace(put, key=key)

    def mover(self, call: "Call") -> Mover:
        """Return what moves axes within a node's operations."""
        return Mover(call.reshape, call.transpose)

    def name(self, wanted: str) -> str:
        """Return a name for a layer or an operation, that no other has."""
        wanted = _clean(wanted)
        if wanted.startswith(_OURS):
            wanted = f"module_{wanted}"
        count = self._names.get(wanted, 0)
        self._names[wanted] = count + 1
        # The numbered one may be a module's own.
        return self.name(f"{wanted}_{count}") if count else wanted

    def name_in(self, module: str, what: str, *, aside: bool) -> str:
        """Return the name of an operation in a module without modules in it.

        The first one has the module's own name, unless it is only an aside such as a reshape.
        """
        own = _clean(module) if module not in self._parents else ""
        if own and own not in self._names and not aside:
            return self.name(own)
        return self.name(f"{module}_{what}" if module else what)

    def users_of(self, node: Node) -> Collection[str]:
        """Return the operations that read a node."""
        return self._users.get(node.name, ())

    def hold(self, key: str, array_shape: tuple[int, ...], trainable: bool) -> tuple[Any, Any]:
        """Return an array of a shape that is a weight of the model, and its layer.

        It is a stock `Embedding`, all of whose rows are looked up: a layer that reads constants
        alone would not be part of the model, so the rows' numbers are taken from the image.
        """
        rows = 1 if len(array_shape) < 2 else int(np.prod(array_shape[:-1]))
        columns = array_shape[-1] if array_shape else 1
        layer = self.keras.layers.Embedding(
            rows, columns, name=self.name(key), trainable=trainable, dtype=self.dtype
        )
        zero = self._zero()
        index = (
            zero
            if rows == 1
            else self._named(
                self.keras.ops.add(zero, np.arange(rows, dtype=np.int32)), f"{layer.name}_rows"
            )
        )
        tensor = layer(index)
        if tuple(tensor.shape[1:]) != array_shape[1:] or len(array_shape) < 2:
            shape = array_shape or (1,)
            tensor = self._named(self.keras.ops.reshape(tensor, shape), f"{layer.name}_reshape")
        return tensor, layer

    def held(self, parameter: Parameter) -> Value:
        """Return a parameter as a value."""
        if parameter.key not in self._held:
            tensor, layer = self.hold(parameter.key, parameter.shape, parameter.trainable)
            transform = rearranged(
                parameter.shape, range(len(parameter.shape)), tuple(layer.embeddings.shape)
            )
            self.put(f"{layer.name}/embeddings", parameter, transform)
            axes = axes_of(parameter.shape)
            self._held[parameter.key] = Value(tensor, axes, axes or ((),))
        return self._held[parameter.key].relabelled()

    def constant(self, name: str, array: np.ndarray) -> Value:
        """Return a constant as a value: a large one as a weight that is not trained."""
        axes = axes_of(array.shape)
        if array.size <= _SMALL or array.dtype.kind != "f":
            return Value(array, axes, axes)
        if name not in self._constants:
            tensor, layer = self.hold(name, array.shape, trainable=False)
            self.constants[layer.name] = layer, array.reshape(tuple(layer.embeddings.shape))
            self._constants[name] = Value(tensor, axes, axes)
        return self._constants[name].relabelled()

    def put(self, variable: str, parameter: Parameter, transform: Transform) -> None:
        """Note which variable holds a parameter.

        Raises:
            GraphError: Another one does.
        """
        key = parameter.key
        if key in self.puts and self.puts[key].variable != variable:
            raise GraphError(
                f"{key} is used as {self.puts[key].variable} and as {variable}: weights that two "
                "kinds of layers share have no counterpart in Keras"
            )
        self.puts[key] = Put(variable, key, transform, parameter.shape)

    def apply(
        self,
        layer_class: str,
        name: Callable[[], str],
        inputs: Any,
        config: Mapping[str, Any],
        weights: Mapping[str, tuple[Parameter, Transform]],
    ) -> Any:
        """Apply a layer, the same one where the same weights are used again."""
        keys = (
            layer_class,
            *(parameter.key for parameter, _ in weights.values()),
            *(f"{name}={value}" for name, value in config.items()),
        )
        layer = self._layers.get(keys) if weights else None
        if layer is None:
            own = [parameter for parameter, _ in weights.values() if not parameter.buffer]
            frozen = bool(own) and not any(parameter.trainable for parameter in own)
            layer = getattr(self.keras.layers, layer_class)(
                name=name(),
                dtype=self.dtype,
                **({"trainable": False} if frozen else {}),
                **config,
            )
            if weights:
                self._layers[keys] = layer
        result = layer(inputs)
        for variable, (parameter, transform) in weights.items():
            self.put(f"{layer.name}/{variable}", parameter, transform)
        return result

    def operate(
        self, function: str, name: Callable[[], str], *arguments: Any, **options: Any
    ) -> Any:
        """Compute a function of `keras.ops` and give the operation a name."""
        result = getattr(self.keras.ops, function)(*arguments, **options)
        first = result[0] if isinstance(result, list | tuple) else result
        maker_of(first)[0].name = name()
        return result

    def _named(self, tensor: Any, name: str) -> Any:
        maker_of(tensor)[0].name = self.name(name)
        return tensor

    def _zero(self) -> Any:
        """Return zeros of shape (1,), int32, taken from the image."""
        if self._zeros is None:
            ops = self.keras.ops
            corner = self._named(self.image[:1, 0, 0, 0], "constants_pixel")
            self._zeros = self._named(ops.zeros_like(corner, dtype="int32"), "constants_zero")
        return self._zeros

    def batch_of_zeros(self, rank: int, axis: int) -> Any:
        """Return zeros of the batch's length along one of so many axes, to broadcast with."""
        ops = self.keras.ops
        pixels = self._named(self.image[:, 0, 0, 0], "batch_pixels")
        zeros = self._named(ops.zeros_like(pixels), "batch_zeros")
        shape = [-1 if i == axis else 1 for i in range(rank)]
        return self._named(ops.reshape(zeros, shape), "batch_reshape")

    def _output(self, node: str) -> Any:
        value = self.results[node]
        if not isinstance(value, Value):
            raise GraphError("an output is no tensor that the network computes")
        return self.mover(Call(self, Node("output", "output", {}, ()))).plain(value).tensor

    def _pairs(self, model: Any) -> tuple[LayerPair, ...]:
        known = {operation.name for operation in model.operations}
        pairs = []
        for output in self.plan.modules:
            value = self.results.get(output.node)
            if not isinstance(value, Value) or isinstance(value.tensor, np.ndarray):
                continue
            name = maker_of(value.tensor)[0].name
            transform = activation(value)
            if name in known and transform is not None:
                kind = _KINDS.get(output.kind, output.kind)
                pairs.append(LayerPair(name, output.module, kind, transform))
        return tuple(pairs)


def activation(value: Value) -> Transform | None:
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


@dataclass(frozen=True)
class Call:
    """A node that is being built: its arguments, and what its rule computes with."""

    build: Builder
    node: Node

    def __getitem__(self, argument: str) -> Any:
        """Return an argument that is no tensor."""
        return self.node.arguments[argument]

    def get(self, argument: str, default: Any = None) -> Any:
        """Return an argument that is no tensor, or a default where the operation has none."""
        return self.node.arguments.get(argument, default)

    @property
    def shape(self) -> Shape:
        """Torch's shape of the result."""
        return self.node.shapes[0]

    @property
    def mover(self) -> Mover:
        """What moves axes."""
        return self.build.mover(self)

    @property
    def data_format(self) -> str:
        """The data format of feature maps."""
        return self.build.data_format

    @property
    def wide(self) -> bool:
        """Whether everything is computed in float64."""
        return self.build.wide

    def array(self, array: Any) -> Any:
        """Return a constant in the precision of what it meets; a tensor as it is."""
        floating = isinstance(array, np.ndarray) and array.dtype.kind == "f"
        return array.astype(np.float64 if self.wide else np.float32) if floating else array

    def fail(self, problem: str) -> GraphError:
        """Return the error about this node."""
        return GraphError(f"{self.node.op} in {self.node.place}: {problem}")

    def raw(self, argument: str) -> Any:
        """Return an argument as it is: a number, or what its reference stands for."""
        return self.resolved(self.node.arguments.get(argument))

    def resolved(self, value: Any) -> Any:
        """Return what a reference stands for, and anything else as it is."""
        return self.build.results[value.name] if isinstance(value, Ref) else value

    def value(self, argument: str) -> Value:
        """Return an argument that is a tensor."""
        return self._value(self.node.arguments[argument])

    def values(self, argument: str) -> list[Value]:
        """Return an argument that is a list of tensors."""
        return [self._value(each) for each in self.node.arguments[argument]]

    def _value(self, argument: Any) -> Value:
        raw = self.resolved(argument)
        if isinstance(raw, Value):
            return raw
        if isinstance(raw, Parameter):
            return self.build.held(raw)
        if isinstance(raw, np.ndarray):
            return self.build.constant(argument.name, raw)
        raise self.fail(f"{argument!r} is no tensor")

    def network_value(self, argument: str) -> Value:
        """Return an argument that is a tensor; a constant as a weight that is not trained."""
        return self._network_value(argument, self.value(argument))

    def _network_value(self, name: str, value: Value) -> Value:
        if not isinstance(value.tensor, np.ndarray):
            return value
        array = np.asarray(value.tensor, np.float32)
        tensor, layer = self.build.hold(f"{self.node.name}_{name}", array.shape, trainable=False)
        self.build.constants[layer.name] = layer, array.reshape(tuple(layer.embeddings.shape))
        return value.with_tensor(tensor)

    def network_values(self, argument: str) -> list[Value]:
        """Return an argument that is a list of tensors, as `network_value` does each."""
        return [
            self._network_value(f"{argument}{i}", value)
            for i, value in enumerate(self.values(argument))
        ]

    def parameter(self, argument: str) -> Parameter | None:
        """Return an argument that is a parameter, or None where there is none.

        Raises:
            GraphError: It is computed, or something is computed of it elsewhere.
        """
        raw = self.raw(argument)
        if not self.is_parameter(argument):
            raise self.fail(f"its {argument} is computed, not a parameter; that is not supported")
        assert isinstance(raw, Parameter | None)
        return raw

    def is_parameter(self, argument: str) -> bool:
        """Return whether an argument is a parameter or absent, rather than computed."""
        given = self.node.arguments.get(argument)
        shared = isinstance(given, Ref) and given.name in self.build.shared
        return isinstance(self.raw(argument), Parameter | None) and not shared

    def pair(self, argument: str) -> tuple[int, int]:
        """Return a height and a width, which may be given as one number for both."""
        value = self[argument]
        numbers = list(value) if isinstance(value, list | tuple) else [value]
        first, second = numbers * 2 if len(numbers) == 1 else numbers
        return first, second

    def axis(self, argument: str = "dim") -> int:
        """Return the number of an axis of the result, counted from the front."""
        return int(self[argument]) % len(self.shape)

    def layer(
        self,
        layer_class: str,
        inputs: Any,
        weights: Mapping[str, tuple[Parameter, Transform]] | None = None,
        *,
        aside: str | None = None,
        **config: Any,
    ) -> Any:
        """Apply a layer of `keras.layers`.

        Args:
            layer_class: Its class.
            inputs: What it reads.
            weights: Its variables' names -> what they hold.
            aside: What it does, where that is not the operation itself.
            **config: Its further arguments.
        """
        return self.build.apply(
            layer_class, self._layer_name(weights or {}, aside), inputs, config, weights or {}
        )

    def _layer_name(
        self, weights: Mapping[str, tuple[Parameter, Transform]], aside: str | None
    ) -> Callable[[], str]:
        module, op = self.node.module, self.node.op.strip("_")
        if not weights:
            return lambda: self.build.name_in(module, aside or op, aside=aside is not None)
        key = next(iter(weights.values()))[0].key
        # `conv1.weight` -> conv1, `in_proj_weight` -> in_proj
        for ending in ("weight", "running_mean"):
            key = key.removesuffix(ending)
        return lambda: self.build.name(key.rstrip("._") or op)

    def op(self, function: str, *arguments: Any, aside: bool = False, **options: Any) -> Any:
        """Compute a function of `keras.ops`; `aside` says that it only serves the operation."""
        # On torch Keras rounds a bare number to float32.
        given = (np.asarray(a) if self.wide and isinstance(a, float) else a for a in arguments)
        return self.build.operate(
            function,
            lambda: self.build.name_in(self.node.module, function, aside=aside),
            *given,
            **options,
        )

    def reshape(self, tensor: Any, shape: Shape) -> Any:
        """Give a tensor another shape."""
        if isinstance(tensor, np.ndarray):
            return tensor.reshape([dim.static for dim in shape])
        sizes = tuple(dim.or_minus_one for dim in shape)
        if sizes.count(-1) > 1:
            return self._with_ones(tensor, sizes)
        return self.op("reshape", tensor, sizes, aside=True)

    def _with_ones(self, tensor: Any, sizes: tuple[int, ...]) -> Any:
        """Put axes of length 1 into a tensor of several unknown lengths, or take them out."""
        kept = [None if n == -1 else n for n in sizes if n != 1]
        if [n for n in tensor.shape if n != 1] != kept:
            raise self.fail(
                "it needs a reshape of several axes whose lengths only the images tell; convert "
                "for images of one size"
            )
        if ones := tuple(i for i, n in enumerate(tensor.shape) if n == 1):
            tensor = self.op("squeeze", tensor, axis=ones, aside=True)
        if ones := tuple(i for i, n in enumerate(sizes) if n == 1):
            tensor = self.op("expand_dims", tensor, axis=ones, aside=True)
        return tensor

    def transpose(self, tensor: Any, order: tuple[int, ...]) -> Any:
        """Give a tensor another order of its axes."""
        if isinstance(tensor, np.ndarray):
            return tensor.transpose(order)
        return self.op("transpose", tensor, order, aside=True)

    def image(self, argument: str) -> Value:
        """Return a feature map, (N, C, H, W) in torch, held in the data format."""
        value = self.network_value(argument)
        return self.mover.arrange(value, image_order(value.axes, self.data_format))

    def map_of(
        self, tensor: Any, like: Value, channels: Axis | None = None, *, nonnegative: bool = False
    ) -> Value:
        """Return a feature map of this node's shape, of the same images as `like`.

        `channels` is their axis, by default a new one.
        """
        batch, *_ = like.axes
        _, count, *size = self.shape
        new = axes_of((count, *size))
        axes = (batch, new[0] if channels is None else channels, *new[1:])
        return Value(tensor, axes, image_order(axes, self.data_format), nonnegative)


def _clean(name: str) -> str:
    """Return a name without what Keras' names must not hold."""
    return "".join(c if c.isalnum() or c in "_-" else "_" for c in name).strip("_") or "model"
