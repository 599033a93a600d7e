"""What of a Keras model corresponds to what of a torch network: weights, layers, outputs."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from porting.weights.layouts import Transform, nhwc_to_nchw
from porting.weights.table import Carried, Put, Table


@dataclass(frozen=True)
class LayerPair:
    """A Keras layer, or operation, and the torch module with the same output.

    `transform` brings Keras' output, with its batch, to torch's axes. None stands for feature maps
    in the model's data format.
    """

    layer: str
    module: str
    kind: str
    transform: Transform | None = None

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Return the record that `dataclasses.asdict` and JSON have made `fields` of."""
        return cls(**{**fields, "transform": _transform(fields["transform"])})


@dataclass(frozen=True)
class Output:
    """One output of a network.

    Attributes:
        name: What it is called; the main one comes first, and is called `logits` if it is alone.
        module: Torch module whose output it is; None for what the network itself returns.
        reads: Torch module whose output that one takes, for heads that a network leaves out in
            inference.
        is_map: Whether it is a feature map, (N, C, H, W) in torch, which Keras has in the model's
            data format. Anything else has torch's order of axes.
    """

    name: str
    module: str | None = None
    reads: str | None = None
    is_map: bool = False

    def to_torch(self, array: np.ndarray, data_format: str) -> np.ndarray:
        """Return what a Keras model of a data format computes for it, as torch has it."""
        return nhwc_to_nchw(array) if self.is_map and data_format == "channels_last" else array


@dataclass(frozen=True)
class Counterpart:
    """What of a Keras model corresponds to what of a torch network.

    Attributes:
        table: Which variable holds which key, in the order of torch's state_dict.
        pairs: The layers that both frameworks can show, in the order of computation.
        outputs: The outputs, the main one first.
        first_layer: The Keras layer that reads the normalised image; None where the network itself
            normalises nothing.
        ignored: Keys that a state_dict may have besides: of parts that the model was built without.
    """

    table: Table
    pairs: tuple[LayerPair, ...]
    outputs: tuple[Output, ...]
    first_layer: str | None
    ignored: tuple[str, ...] = ()

    @property
    def puts(self) -> tuple[Put, ...]:
        """The rows of the table that a variable holds."""
        return tuple(entry for entry in self.table if isinstance(entry, Put))

    @property
    def carried(self) -> tuple[Carried, ...]:
        """The rows of the table that no variable holds."""
        return tuple(entry for entry in self.table if isinstance(entry, Carried))

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON holds it; `from_json` makes it again."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Return the record that `to_json` made into JSON, which knows no tuples."""
        return cls(
            tuple(_entry(entry) for entry in fields["table"]),
            tuple(map(LayerPair.from_json, fields["pairs"])),
            tuple(Output(**output) for output in fields["outputs"]),
            fields["first_layer"],
            tuple(fields["ignored"]),
        )


def _entry(fields: Mapping[str, Any]) -> Put | Carried:
    if "variable" not in fields:
        return Carried(fields["key"], fields["counter"])
    transform = _transform(fields["transform"])
    assert transform is not None
    return Put(fields["variable"], fields["key"], transform, tuple(fields["shape"]))


def _transform(fields: Mapping[str, Any] | None) -> Transform | None:
    return None if fields is None else Transform(fields["name"], tuple(fields["parameters"]))
