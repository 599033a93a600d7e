"""A Keras model while it is put together: its names, its weights, and what of them is whose."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_alexnet.core.backend import load_keras
from keras_alexnet.core.keras_internals import maker_of
from porting.errors import GraphError
from porting.graph.axes import Value, axes_of
from porting.graph.plan import Node, Parameter, Plan, references
from porting.weights.layouts import Transform, rearranged
from porting.weights.table import Put

# What comes of a name of the plan: a tensor, several, or something that is none yet.
Result = Value | list[Value] | Parameter | np.ndarray

# Constants up to so many numbers stand in the model's configuration, others are weights.
_SMALL = 1024

# Beginnings of the names of the normalisation that a model of ours holds.
_OURS = ("preprocessing_", "transform_input")

_OF_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
# Operations that become layers -> the arguments that become their weights.
_WEIGHTS = {
    "conv1d": ("weight", "bias"),
    "conv2d": ("weight", "bias"),
    "conv_transpose2d": ("weight", "bias"),
    "linear": ("weight", "bias"),
    "layer_norm": ("weight", "bias"),
    "group_norm": ("weight", "bias"),
    "batch_norm": _OF_BATCH_NORM,
    "_native_batch_norm_legit_no_training": _OF_BATCH_NORM,
}


@dataclass
class Assembly:
    """The model of one plan.

    Attributes:
        plan: The network.
        data_format: Of the image and of every feature map.
        dtype: Keras dtype policy of the layers.
        inputs: Name -> the tensor that the network reads, an image in the data format.
        puts: Key -> the variable that holds it.
        constants: Layer's name -> the layer and the constant that it holds.
        results: What has come of each name of the plan.
        parted: Name, axis of torch's -> each place of the axis, where each is read.
        shared: Parameters that something else than a layer computes with, and so are none's own.
        wide: Whether everything is computed in float64.
    """

    plan: Plan
    data_format: str
    dtype: Any
    inputs: dict[str, Any] = field(default_factory=dict)
    puts: dict[str, Put] = field(default_factory=dict)
    constants: dict[str, tuple[Any, np.ndarray]] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    parted: dict[tuple[str, int], list[Value]] = field(default_factory=dict)
    _layers: dict[tuple[str, ...], Any] = field(default_factory=dict)
    _held: dict[str, Value] = field(default_factory=dict)
    _constants: dict[str, Value] = field(default_factory=dict)
    _zeros: Any = None
    _names: dict[str, int] = field(default_factory=dict)
    _made: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keras = load_keras()
        self.wide = is_wide(self.dtype)
        self._parents = {""}
        for path in {node.module for node in self.plan.nodes}:
            parts = path.split(".")
            self._parents |= {".".join(parts[:i]) for i in range(len(parts))}
        self._users: dict[str, list[Node]] = {}
        self.shared: set[str] = set()
        for node in self.plan.nodes:
            for argument, value in node.arguments.items():
                for name in references(value):
                    self._users.setdefault(name, []).append(node)
                    if argument not in _WEIGHTS.get(node.op, ()):
                        self.shared.add(name)

    def name(self, wanted: str) -> str:
        """Return a name for a layer or an operation, that no other has."""
        wanted = clean(wanted)
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
        own = clean(module) if module not in self._parents else ""
        if own and own not in self._names and not aside:
            return self.name(own)
        return self.name(f"{module}_{what}" if module else what)

    def users_of(self, name: str) -> Sequence[Node]:
        """Return the nodes that read what a name stands for."""
        return self._users.get(name, ())

    def hold(self, key: str, array_shape: tuple[int, ...], trainable: bool) -> tuple[Any, Any]:
        """Return an array of a shape that is a weight of the model, and its layer.

        It is a stock `Embedding`, all of whose rows are looked up: a layer that reads constants
        alone would not be part of the model, so the rows' numbers are taken from the image.
        """
        rows = 1 if len(array_shape) < 2 else int(np.prod(array_shape[:-1]))
        if rows > _SMALL:  # whose numbers would fill the configuration
            rows = 1
        columns = int(np.prod(array_shape)) // rows
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
        tensor = _built_on(layer, index)
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
        result = self._noted(_built_on(layer, inputs))
        for variable, (parameter, transform) in weights.items():
            self.put(f"{layer.name}/{variable}", parameter, transform)
        return result

    def operate(
        self, function: str, name: Callable[[], str], *arguments: Any, **options: Any
    ) -> Any:
        """Compute a function of `keras.ops` and give the operation a name."""
        result = self._noted(getattr(self.keras.ops, function)(*arguments, **options))
        first = result[0] if isinstance(result, list | tuple) else result
        maker_of(first)[0].name = name()
        return result

    def _noted(self, result: Any) -> Any:
        for tensor in result if isinstance(result, list | tuple) else [result]:
            self._made[id(tensor)] = len(self._made)
        return result

    def earliest_first(self, tensors: Collection[Any]) -> list[Any]:
        """Return tensors in the order in which they were made.

        Keras finds a model's graph by recursion, from the output along first inputs first. Where
        those of sums are the residuals, it goes as deep as there are blocks; otherwise as there are
        operations, of which Python allows a thousand.
        """
        return sorted(tensors, key=lambda tensor: self._made.get(id(tensor), -1))

    def _named(self, tensor: Any, name: str) -> Any:
        maker_of(tensor)[0].name = self.name(name)
        return tensor

    def _zero(self) -> Any:
        """Return zeros of shape (1,), int32, taken from the image."""
        if self._zeros is None:
            ops = self.keras.ops
            corner = self._named(self._numbers(slice(1)), "constants_pixel")
            self._zeros = self._named(ops.zeros_like(corner, dtype="int32"), "constants_zero")
        return self._zeros

    def _numbers(self, images: slice) -> Any:
        """Return one number of each of these images."""
        first = next(iter(self.inputs.values()))
        return first[(images, *[0] * (len(first.shape) - 1))]

    def batch_of_zeros(self, rank: int, axis: int) -> Any:
        """Return zeros of the batch's length along one of so many axes, to broadcast with."""
        ops = self.keras.ops
        pixels = self._named(self._numbers(slice(None)), "batch_pixels")
        zeros = self._named(ops.zeros_like(pixels), "batch_zeros")
        shape = [-1 if i == axis else 1 for i in range(rank)]
        return self._named(ops.reshape(zeros, shape), "batch_reshape")


def _built_on(layer: Any, x: Any) -> Any:
    from keras_alexnet.models.initialization import built_on  # imports Keras

    return built_on(layer, x)


def is_wide(dtype: Any) -> bool:
    """Return whether a dtype policy, by default Keras' setting, computes in float64.

    Some functions of Keras compute in float32 whatever they get, or with constants in it.
    """
    keras = load_keras()
    policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
    return bool(policy.compute_dtype == "float64")


def clean(name: str) -> str:
    """Return a name without what Keras' names must not hold."""
    return "".join(c if c.isalnum() or c in "_-" else "_" for c in name).strip("_") or "model"
