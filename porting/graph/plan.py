"""A torch network as data, which `reader` writes and `builder` builds. NumPy only."""

import dataclasses
import json
import math
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from porting.errors import GraphError

FORMAT = 2
_MEMBER = "plan.json"


@dataclass(frozen=True, order=True)
class Dim:
    """The length of an axis: a number, times lengths that only the images tell.

    Attributes:
        size: The number.
        unknown: Names of the other factors, sorted: the batch's, or those of a height and a width
            that may vary.
    """

    size: int = 1
    unknown: tuple[str, ...] = ()

    def __mul__(self, other: "Dim") -> "Dim":
        return Dim(self.size * other.size, tuple(sorted(self.unknown + other.unknown)))

    def over(self, other: "Dim") -> "Dim | None":
        """Return what remains of this length when `other` is taken out of it, None for a rest."""
        mine, others = Counter(self.unknown), Counter(other.unknown)
        if self.size % other.size or others - mine:
            return None
        return Dim(self.size // other.size, tuple(sorted((mine - others).elements())))

    @property
    def static(self) -> int:
        """The number, where it is all."""
        if self.unknown:
            raise ValueError(f"the length {'*'.join(self.unknown)} is known with the images only")
        return self.size

    @property
    def or_minus_one(self) -> int:
        """The number, or -1 where it is not known, as `reshape` takes it."""
        return -1 if self.unknown else self.size

    def to_json(self) -> int | list[Any]:
        """Return a number, or a list of the number and the unknown factors."""
        return [self.size, *self.unknown] if self.unknown else self.size

    @classmethod
    def from_json(cls, value: int | list[Any]) -> Self:
        """Return what `to_json` made."""
        return cls(value) if isinstance(value, int) else cls(value[0], tuple(value[1:]))


ONE = Dim()
Shape = tuple[Dim, ...]


def product(dims: Sequence[Dim]) -> Dim:
    """Return the product of lengths."""
    return math.prod(dims, start=ONE)


@dataclass(frozen=True)
class Ref:
    """An argument that is the result of another node, a parameter or a constant, by its name."""

    name: str


def references(value: Any) -> Iterator[str]:
    """Return the names to which an argument, or several, refer."""
    if isinstance(value, Ref):
        yield value.name
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from references(each)


@dataclass(frozen=True)
class Node:
    """One operation of torch.

    Attributes:
        name: Unique in its plan.
        op: ATen's name without namespace and overload, such as `conv2d`; an in-place one without
            its underscore.
        arguments: Argument -> value, defaults filled in: numbers, texts, lists, `Dim` and `Ref`.
        shapes: Shape of each result, in torch's order of axes.
        module: Path of the module in which it stands; a second call of it has `@1` behind its name.
        source: Line of the network's code that asked for it.
    """

    name: str
    op: str
    arguments: Mapping[str, Any]
    shapes: tuple[Shape, ...]
    module: str = ""
    source: str = ""

    @property
    def place(self) -> str:
        """Where in the network it stands, for messages."""
        where = f"module {self.module!r}" if self.module else "the network itself"
        return f"{where} ({self.source})" if self.source else where


@dataclass(frozen=True)
class Parameter:
    """A tensor of the state_dict that the network computes with.

    Attributes:
        key: Key of the state_dict.
        shape: Its shape there.
        trainable: Whether an optimiser changes it.
        buffer: Whether it is one of a norm's running statistics.
    """

    key: str
    shape: tuple[int, ...]
    trainable: bool = True
    buffer: bool = False


@dataclass(frozen=True)
class ModuleOutput:
    """Whose output a node is: a module's path and the name of its class."""

    module: str
    kind: str
    node: str


@dataclass(frozen=True)
class Plan:
    """A network.

    Attributes:
        title: Name of its class.
        inputs: Name -> shape, in the order of the network's arguments: images (N, C, H, W), and
            what else there may be, such as (N, features).
        nodes: The operations in order.
        parameters: Name -> tensor of the state_dict that nodes refer to.
        constants: Name -> array that nodes refer to.
        outputs: What each output is called -> its node, in the order of `named_results`.
        modules: Modules whose output is one node, in the order of computation.
        keys: All keys of the state_dict, in its order.
        aliases: Key -> another key of the same tensor, whose parameter it is.
        notes: What a user should know, such as parts that were left out.
    """

    title: str
    inputs: Mapping[str, Shape]
    nodes: tuple[Node, ...]
    parameters: Mapping[str, Parameter]
    constants: Mapping[str, np.ndarray]
    outputs: Mapping[str, str]
    modules: tuple[ModuleOutput, ...]
    keys: tuple[str, ...]
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def batch(self) -> Dim:
        """The number of images."""
        return next(iter(self.inputs.values()))[0]

    def save(self, path: str | Path) -> None:
        """Write it as one `.npz`: the constants, and everything else as JSON beside them."""
        fields = {
            "format": FORMAT,
            "title": self.title,
            "inputs": {name: _shape_to_json(shape) for name, shape in self.inputs.items()},
            "nodes": [_node_to_json(node) for node in self.nodes],
            "parameters": {name: dataclasses.asdict(p) for name, p in self.parameters.items()},
            "outputs": self.outputs,
            "modules": [dataclasses.asdict(output) for output in self.modules],
            "keys": self.keys,
            "aliases": self.aliases,
            "notes": self.notes,
        }
        np.savez(path, **self.constants)  # type: ignore[arg-type]
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(_MEMBER, json.dumps(fields))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return what `save` wrote.

        Raises:
            GraphError: The file was written by another version.
        """
        with zipfile.ZipFile(path) as archive:
            fields = json.loads(archive.read(_MEMBER))
        if fields["format"] != FORMAT:
            raise GraphError(f"{path}: a plan of another version of this package")
        with np.load(path, allow_pickle=False) as arrays:
            constants = {name: arrays[name] for name in arrays.files if name != _MEMBER}
        return cls(
            fields["title"],
            {name: _shape_from_json(shape) for name, shape in fields["inputs"].items()},
            tuple(map(_node_from_json, fields["nodes"])),
            {
                name: Parameter(p["key"], tuple(p["shape"]), p["trainable"], p["buffer"])
                for name, p in fields["parameters"].items()
            },
            constants,
            fields["outputs"],
            tuple(ModuleOutput(**output) for output in fields["modules"]),
            tuple(fields["keys"]),
            fields["aliases"],
            tuple(fields["notes"]),
        )


def _shape_to_json(shape: Shape) -> list[Any]:
    return [dim.to_json() for dim in shape]


def _shape_from_json(values: Sequence[Any]) -> Shape:
    return tuple(map(Dim.from_json, values))


def _node_to_json(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "op": node.op,
        "arguments": {name: _value_to_json(value) for name, value in node.arguments.items()},
        "shapes": [_shape_to_json(shape) for shape in node.shapes],
        "module": node.module,
        "source": node.source,
    }


def _node_from_json(fields: Mapping[str, Any]) -> Node:
    return Node(
        fields["name"],
        fields["op"],
        {name: _value_from_json(value) for name, value in fields["arguments"].items()},
        tuple(map(_shape_from_json, fields["shapes"])),
        fields["module"],
        fields["source"],
    )


def _value_to_json(value: Any) -> Any:
    if isinstance(value, Ref):
        return {"ref": value.name}
    if isinstance(value, Dim):
        return {"dim": value.to_json()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}  # JSON knows no infinity
    return [_value_to_json(each) for each in value] if isinstance(value, list | tuple) else value


def _value_from_json(value: Any) -> Any:
    if isinstance(value, dict):
        ((kind, content),) = value.items()
        if kind == "ref":
            return Ref(content)
        return Dim.from_json(content) if kind == "dim" else float(content)
    return [_value_from_json(each) for each in value] if isinstance(value, list) else value
