"""Inception blocks: the widths that every GoogLeNet shares, and the styles that tell them apart."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from keras_alexnet.specs.schema import BatchNorm, Concat, Conv, MaxPool, ReLU, Row

# name, filters, kernel, stride, padding -> a convolution with what belongs to it
Unit = Callable[..., tuple[Row, ...]]


@dataclass(frozen=True)
class Widths:
    """Channels of one Inception block: four branches, two with a reduction before."""

    b1: int
    b2_reduce: int
    b2: int
    b3_reduce: int
    b3: int
    b4: int


WIDTHS: Mapping[str, Widths] = {
    "3a": Widths(b1=64, b2_reduce=96, b2=128, b3_reduce=16, b3=32, b4=32),
    "3b": Widths(b1=128, b2_reduce=128, b2=192, b3_reduce=32, b3=96, b4=64),
    "4a": Widths(b1=192, b2_reduce=96, b2=208, b3_reduce=16, b3=48, b4=64),
    "4b": Widths(b1=160, b2_reduce=112, b2=224, b3_reduce=24, b3=64, b4=64),
    "4c": Widths(b1=128, b2_reduce=128, b2=256, b3_reduce=24, b3=64, b4=64),
    "4d": Widths(b1=112, b2_reduce=144, b2=288, b3_reduce=32, b3=64, b4=64),
    "4e": Widths(b1=256, b2_reduce=160, b2=320, b3_reduce=32, b3=128, b4=128),
    "5a": Widths(b1=256, b2_reduce=160, b2=320, b3_reduce=32, b3=128, b4=128),
    "5b": Widths(b1=384, b2_reduce=192, b2=384, b3_reduce=48, b3=128, b4=128),
}


@dataclass(frozen=True)
class Names:
    """What the parts of an Inception block are called below its own name."""

    b1: str = "branch1"
    b2_reduce: str = "branch2.0"
    b2: str = "branch2.1"
    b3_reduce: str = "branch3.0"
    b3: tuple[str, ...] = ("branch3.1", "branch3.2")
    pool: str = "branch4.0"
    b4: str = "branch4.1"


CAFFE_NAMES = Names("1x1", "3x3_reduce", "3x3", "5x5_reduce", ("5x5",), "pool", "pool_proj")


def _conv_bn_relu(bias: bool, eps: float) -> Unit:
    def unit(
        name: str, filters: int, *, kernel: int = 1, stride: int = 1, padding: int = 0
    ) -> tuple[Row, ...]:
        return (
            Conv(f"{name}.conv", filters, kernel, stride, padding, bias),
            BatchNorm(f"{name}.bn", eps=eps),
            ReLU(f"{name}.relu", module=name),
        )

    return unit


# torchvision's `BasicConv2d`.
basic_conv = _conv_bn_relu(bias=False, eps=1e-3)
# The lab's, with PyTorch's default eps.
lab_conv = _conv_bn_relu(bias=True, eps=1e-5)


def conv_relu(
    name: str, filters: int, *, kernel: int = 1, stride: int = 1, padding: int = 0
) -> tuple[Row, ...]:
    """Return a convolution with bias and ReLU, grouped under one name."""
    return (
        Conv(f"{name}.conv", filters, kernel, stride, padding),
        ReLU(f"{name}.relu", module=name),
    )


def caffe_conv(
    name: str, filters: int, *, kernel: int = 1, stride: int = 1, padding: int = 0
) -> tuple[Row, ...]:
    """Return a convolution with bias and ReLU, named `block.part` and `block.relu_part`."""
    block, _, part = name.rpartition(".")
    return (
        Conv(name, filters, kernel, stride, padding),
        ReLU(f"{block}.relu_{part}"),
    )


@dataclass(frozen=True)
class Style:
    """What tells one GoogLeNet's blocks from another's.

    `third` has kernel and padding of the convolutions that follow the third branch's reduction.
    """

    unit: Unit
    third: tuple[tuple[int, int], ...]
    pool3: MaxPool  # behind block 3b
    pool4: MaxPool  # behind block 4e
    block: str = "inception"  # the blocks' names begin with it
    names: Names = Names()


def _inception(name: str, widths: Widths, style: Style) -> Concat:
    unit, names = style.unit, style.names
    third = unit(f"{name}.{names.b3_reduce}", widths.b3_reduce)
    for part, (kernel, padding) in zip(names.b3, style.third, strict=False):
        third += unit(f"{name}.{part}", widths.b3, kernel=kernel, padding=padding)
    return Concat(
        name,
        (
            unit(f"{name}.{names.b1}", widths.b1),
            unit(f"{name}.{names.b2_reduce}", widths.b2_reduce)
            + unit(f"{name}.{names.b2}", widths.b2, kernel=3, padding=1),
            third,
            (
                MaxPool(f"{name}.{names.pool}", 3, 1, padding=1),
                *unit(f"{name}.{names.b4}", widths.b4),
            ),
        ),
    )


def blocks(style: Style) -> tuple[Row, ...]:
    """Return the nine blocks with both poolings between them."""
    rows: list[Row] = []
    pools = {"3b": style.pool3, "4e": style.pool4}
    for number, widths in WIDTHS.items():
        rows.append(_inception(style.block + number, widths, style))
        if number in pools:
            rows.append(pools[number])
    return tuple(rows)
