"""An operation of a plan while it becomes one of Keras: what its rule reads and computes with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from porting.errors import GraphError
from porting.graph.assembly import Assembly
from porting.graph.axes import Axis, Mover, Value, axes_of, image_order
from porting.graph.plan import Node, Parameter, Ref, Shape
from porting.weights.layouts import Transform


@dataclass(frozen=True)
class Call:
    """A node that is being built: its arguments, and what its rule computes with."""

    build: Assembly
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
        return Mover(self.reshape, self.transpose)

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
