"""Every architecture as a frozen table. Imports no framework.

A network is a sequence of rows. Each row is named after the torch module that it reproduces, with
torch's dots; the Keras layer is called the same with underscores (`keras_name`). Sizes and strides
are in pixels of the row's input; channel counts are outputs.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from keras_alexnet.errors import UnknownModelError

SAME = "="
DATA_FORMATS = ("channels_last", "channels_first")


@dataclass(frozen=True)
class Row:
    """One layer. `module` names the torch module with the same output.

    `SAME` stands for the row's own name, None for a function call that no torch module wraps.
    """

    name: str
    module: str | None = field(default=SAME, kw_only=True)

    @property
    def torch_module(self) -> str | None:
        """The torch module whose output equals this row's, or None."""
        return self.name if self.module == SAME else self.module


@dataclass(frozen=True)
class Conv(Row):
    """A square convolution with symmetric zero padding."""

    filters: int
    kernel: int
    stride: int = 1
    padding: int = 0
    bias: bool = True


@dataclass(frozen=True)
class BatchNorm(Row):
    """Batch normalisation; `momentum` in torch's convention (weight of the new batch)."""

    eps: float = 1e-5
    momentum: float = 0.1


@dataclass(frozen=True)
class ReLU(Row):
    """max(x, 0)."""


@dataclass(frozen=True)
class MaxPool(Row):
    """Max pooling. `ceil` keeps a last window that reaches beyond the bottom or right border."""

    size: int
    stride: int
    padding: int = 0
    ceil: bool = False


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
    """A linear layer; None stands for the model's number of classes."""

    units: int | None


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
class Init:
    """How new weights are drawn.

    `kernel_std` is the deviation of a normal distribution; None stands for PyTorch's default,
    uniform within 1/sqrt(fan-in). Biases are uniform within 1/sqrt(fan-in), PyTorch's default.
    """

    kernel_std: float | None = None


@dataclass(frozen=True)
class ModelSpec:
    """One architecture.

    Attributes:
        name: Name in the registry and default name of the Keras model.
        origin: Where the architecture and its constants come from.
        body: Rows up to the last feature map.
        head: Rows from there to the logits.
        aux: Auxiliary classifiers, in torch's order of definition.
        stages: Stage name -> row whose output is the last feature map at that stride.
        min_size: Smallest height and width in pixels.
        default_size: Height and width in pixels where the user gives none.
        dropout_rate: Rate of the head's dropout rows that have no rate of their own.
        init: Distribution of new weights.
        transform_input: Whether the architecture knows torchvision's `transform_input`.
    """

    name: str
    origin: str
    body: tuple[Row, ...]
    head: tuple[Row, ...]
    stages: Mapping[str, str]
    min_size: int
    default_size: int
    dropout_rate: float
    init: Init
    aux: tuple[AuxHead, ...] = ()
    transform_input: bool = False


def keras_name(name: str) -> str:
    """Return the Keras layer name of a torch module name (Keras on torch refuses dots)."""
    return name.replace(".", "_")


def conv_bn_relu(
    name: str, filters: int, *, kernel: int = 1, stride: int = 1, padding: int = 0
) -> tuple[Row, ...]:
    """Mirror torchvision's `BasicConv2d`: bias-free conv, batch norm with eps 1e-3, ReLU."""
    return (
        Conv(f"{name}.conv", filters, kernel, stride, padding, bias=False),
        BatchNorm(f"{name}.bn", eps=1e-3),
        ReLU(f"{name}.relu", module=name),
    )


def inception(
    name: str, *, b1: int, b2_reduce: int, b2: int, b3_reduce: int, b3: int, b4: int
) -> Concat:
    """Mirror torchvision's `Inception`; its "5x5" branch is in truth 3x3 with padding 1."""
    return Concat(
        name,
        (
            conv_bn_relu(f"{name}.branch1", b1),
            conv_bn_relu(f"{name}.branch2.0", b2_reduce)
            + conv_bn_relu(f"{name}.branch2.1", b2, kernel=3, padding=1),
            conv_bn_relu(f"{name}.branch3.0", b3_reduce)
            + conv_bn_relu(f"{name}.branch3.1", b3, kernel=3, padding=1),
            (MaxPool(f"{name}.branch4.0", 3, 1, padding=1), *conv_bn_relu(f"{name}.branch4.1", b4)),
        ),
    )


def inception_aux(name: str, *, reads: str) -> AuxHead:
    """Mirror torchvision's `InceptionAux`; pool, flatten and ReLU are calls without module."""
    return AuxHead(
        name,
        reads,
        (
            AdaptiveAvgPool(f"{name}.pool", 4, module=None),
            *conv_bn_relu(f"{name}.conv", 128),
            Flatten(f"{name}.flatten", module=None),
            Dense(f"{name}.fc1", 1024),
            ReLU(f"{name}.relu", module=None),
            Dropout(f"{name}.dropout", 0.7),
            Dense(f"{name}.fc2", None),
        ),
    )


ALEXNET = ModelSpec(
    name="alexnet",
    origin="torchvision.models.alexnet (Krizhevsky 2014, arXiv:1404.5997)",
    body=(
        Conv("features.0", 64, kernel=11, stride=4, padding=2),
        ReLU("features.1"),
        MaxPool("features.2", 3, 2),
        Conv("features.3", 192, kernel=5, padding=2),
        ReLU("features.4"),
        MaxPool("features.5", 3, 2),
        Conv("features.6", 384, kernel=3, padding=1),
        ReLU("features.7"),
        Conv("features.8", 256, kernel=3, padding=1),
        ReLU("features.9"),
        Conv("features.10", 256, kernel=3, padding=1),
        ReLU("features.11"),
        MaxPool("features.12", 3, 2),
    ),
    head=(
        AdaptiveAvgPool("avgpool", 6),
        Flatten("flatten", module=None),
        Dropout("classifier.0"),
        Dense("classifier.1", 4096),
        ReLU("classifier.2"),
        Dropout("classifier.3"),
        Dense("classifier.4", 4096),
        ReLU("classifier.5"),
        Dense("classifier.6", None),
    ),
    stages={
        "stage1": "features.1",
        "stage2": "features.4",
        "stage3": "features.11",
        "stage4": "features.12",
    },
    min_size=63,
    default_size=224,
    dropout_rate=0.5,
    init=Init(),
)

GOOGLENET = ModelSpec(
    name="googlenet",
    origin="torchvision.models.googlenet (Szegedy et al. 2014, arXiv:1409.4842, with batch norm)",
    body=(
        *conv_bn_relu("conv1", 64, kernel=7, stride=2, padding=3),
        MaxPool("maxpool1", 3, 2, ceil=True),
        *conv_bn_relu("conv2", 64),
        *conv_bn_relu("conv3", 192, kernel=3, padding=1),
        MaxPool("maxpool2", 3, 2, ceil=True),
        inception("inception3a", b1=64, b2_reduce=96, b2=128, b3_reduce=16, b3=32, b4=32),
        inception("inception3b", b1=128, b2_reduce=128, b2=192, b3_reduce=32, b3=96, b4=64),
        MaxPool("maxpool3", 3, 2, ceil=True),
        inception("inception4a", b1=192, b2_reduce=96, b2=208, b3_reduce=16, b3=48, b4=64),
        inception("inception4b", b1=160, b2_reduce=112, b2=224, b3_reduce=24, b3=64, b4=64),
        inception("inception4c", b1=128, b2_reduce=128, b2=256, b3_reduce=24, b3=64, b4=64),
        inception("inception4d", b1=112, b2_reduce=144, b2=288, b3_reduce=32, b3=64, b4=64),
        inception("inception4e", b1=256, b2_reduce=160, b2=320, b3_reduce=32, b3=128, b4=128),
        MaxPool("maxpool4", 2, 2, ceil=True),
        inception("inception5a", b1=256, b2_reduce=160, b2=320, b3_reduce=32, b3=128, b4=128),
        inception("inception5b", b1=384, b2_reduce=192, b2=384, b3_reduce=48, b3=128, b4=128),
    ),
    head=(
        AdaptiveAvgPool("avgpool", 1),
        Flatten("flatten", module=None),
        Dropout("dropout"),
        Dense("fc", None),
    ),
    aux=(
        inception_aux("aux1", reads="inception4a"),
        inception_aux("aux2", reads="inception4d"),
    ),
    stages={
        "stage1": "conv1.relu",
        "stage2": "conv3.relu",
        "stage3": "inception3b",
        "stage4": "inception4e",
        "stage5": "inception5b",
    },
    min_size=15,
    default_size=224,
    dropout_rate=0.2,
    init=Init(kernel_std=0.01),
    transform_input=True,
)

SPECS: Mapping[str, ModelSpec] = {spec.name: spec for spec in (ALEXNET, GOOGLENET)}


def find_spec(name: str) -> ModelSpec:
    """Return the spec of a model.

    Raises:
        UnknownModelError: No model has this name; the message names the nearest one.
    """
    if name not in SPECS:
        near = difflib.get_close_matches(name, SPECS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownModelError(f"unknown model {name!r}.{hint} Known: {', '.join(SPECS)}")
    return SPECS[name]
