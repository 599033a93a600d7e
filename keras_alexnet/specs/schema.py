"""The vocabulary of the specs: rows, initialisers, models. Imports no framework.

A network is a sequence of rows. Each row is named after the torch module that it reproduces, with
torch's dots; the Keras layer is called the same with underscores (`keras_name`). Sizes and strides
are in pixels of the row's input; channel counts are outputs.
"""

from dataclasses import dataclass, field
from typing import Literal

from keras_alexnet.specs.preprocessing import Preprocessing

OWN_NAME = "="
DATA_FORMATS = ("channels_last", "channels_first")


@dataclass(frozen=True)
class Normal:
    """A normal distribution around 0 with the deviation `std`."""

    std: float


@dataclass(frozen=True)
class Uniform:
    """A uniform distribution with the variance `scale` / fan, `fan` being that of `mode`.

    The bound is sqrt(3 * scale / fan).
    """

    scale: float
    mode: Literal["fan_in", "fan_avg"]


@dataclass(frozen=True)
class Init:
    """How new weights are drawn."""

    kernel: Normal | Uniform
    bias: float | None  # a constant; None stands for torch's default, uniform within 1/sqrt(fan-in)


@dataclass(frozen=True)
class Row:
    """One layer. `module` names the torch module with the same output.

    `OWN_NAME` stands for the row's own name, None for a function call that no torch module wraps.
    """

    name: str
    module: str | None = field(default=OWN_NAME, kw_only=True)

    @property
    def torch_module(self) -> str | None:
        """The torch module whose output equals this row's, or None."""
        return self.name if self.module == OWN_NAME else self.module


@dataclass(frozen=True)
class Conv(Row):
    """A square convolution.

    `padding` counts the zeros on every side; `"same"` is TensorFlow's rule for a stride, which
    gives ceil(size / stride) outputs and pads the bottom and the right more. `init` overrides the
    model's.
    """

    filters: int
    kernel: int
    stride: int = 1
    padding: int | Literal["same"] = 0
    bias: bool = True
    groups: int = 1
    init: Init | None = None

    @property
    def is_same(self) -> bool:
        """Whether the padding is that of TensorFlow's "same"."""
        if self.padding == "same":
            return True
        return self.stride == 1 and 2 * self.padding == self.kernel - 1


@dataclass(frozen=True)
class BatchNorm(Row):
    """Batch normalisation; `momentum` in torch's convention (weight of the new batch)."""

    eps: float = 1e-5
    momentum: float = 0.1


@dataclass(frozen=True)
class LRN(Row):
    """Local response normalisation across channels, in torch's convention.

    x / (k + alpha / size * sum of squares over `size` channels) ** beta.
    """

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0


@dataclass(frozen=True)
class ReLU(Row):
    """max(x, 0)."""


@dataclass(frozen=True)
class Sigmoid(Row):
    """1 / (1 + exp(-x))."""


@dataclass(frozen=True)
class MaxPool(Row):
    """Max pooling. `ceil` keeps a last window that reaches beyond the bottom or right border."""

    size: int
    stride: int
    padding: int = 0
    ceil: bool = False


@dataclass(frozen=True)
class AvgPool(Row):
    """Average pooling without padding."""

    size: int
    stride: int


@dataclass(frozen=True)
class AdaptiveAvgPool(Row):
    """Average pooling to `size` x `size`, whatever the input's size."""

    size: int


@dataclass(frozen=True)
class Flatten(Row):
    """Everything but the batch in one axis; torch's order is C, H, W and Keras' is H, W, C."""


@dataclass(frozen=True)
class Dropout(Row):
    """Dropout with a rate of its own, or the model's `dropout_rate` where it is None."""

    rate: float | None = None


@dataclass(frozen=True)
class Dense(Row):
    """A linear layer; None stands for the model's number of classes. `init` as for `Conv`."""

    units: int | None
    init: Init | None = None


@dataclass(frozen=True)
class Concat(Row):
    """Parallel branches from one input, concatenated along the channels."""

    branches: tuple[tuple[Row, ...], ...]


@dataclass(frozen=True)
class AuxHead:
    """A second classifier that reads the output of the row called `reads`."""

    name: str
    reads: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class ModelSpec:
    """One architecture."""

    name: str  # in the registry, and the Keras model's where the user gives none
    origin: Literal["torchvision", "paper", "report", "Caffe"]
    reference: str  # where the architecture and its constants come from
    body: tuple[Row, ...]  # up to the last feature map
    head: tuple[Row, ...]  # from there to the logits
    stage_rows: tuple[str, ...]  # those with the last feature map at each stride, in order
    dropout_rate: float  # of the head's dropout rows that have no rate of their own
    init: Init
    preprocessing: Preprocessing  # at evaluation; its crop is the default input size
    classes: int = 1000  # where the user gives none
    aux: tuple[AuxHead, ...] = ()  # auxiliary classifiers, in torch's order of definition
    transform_input: bool = False  # whether the architecture knows torchvision's
    weights: tuple[str, ...] = ()  # names of the pretrained ones that `porting` can fetch

    @property
    def stages(self) -> dict[str, str]:
        """Stage name, from `stage1` on -> row."""
        return {f"stage{number}": row for number, row in enumerate(self.stage_rows, 1)}

    @property
    def default_size(self) -> tuple[int, int]:
        """Height and width of the input in pixels where the user gives none."""
        return self.preprocessing.crop_size

    @property
    def channels(self) -> int:
        """Number of channels of the input where the user gives none."""
        return len(self.preprocessing.channels)

    @property
    def classifier(self) -> str:
        """Name of the dense row whose units are the classes."""
        return next(row.name for row in self.head if isinstance(row, Dense) and row.units is None)


def keras_name(name: str) -> str:
    """Return the Keras layer name of a torch module name (Keras on torch refuses dots)."""
    return name.replace(".", "_")
