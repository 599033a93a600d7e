"""What one row of a spec costs, and what each figure counts.

Everything is for one image in float32. `DEFINITIONS` gives the rules in words.
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from math import prod
from typing import NamedTuple

from keras_alexnet.specs import schema

FLOAT32 = 4  # bytes

DEFINITIONS: Mapping[str, str] = {
    "parameters": "trainable numbers: kernels, biases, gamma and beta of batch norm. Running "
    "statistics are none, as torch counts.",
    "memory": "bytes of the layer's output. Flatten is a view and has none; layers that may work "
    "in place (ReLU, Dropout) count, as in torchstat.",
    "macs": "multiply-accumulates of convolutions and dense layers alone, without biases: what "
    "torchvision publishes as GFLOPS of its weights.",
    "madd": "multiplications and additions as the tool torchstat counts them, with K = kernel^2 * "
    "inputs / groups: per output element Conv 2K - 1, + 1 with bias, Dense 2 * inputs - 1, "
    "MaxPool kernel^2 - 1, AvgPool kernel^2; per element BatchNorm of maps 4, ReLU 1.",
    "flops": "operations as torchstat counts them: per output element Conv K, + 1 with bias, Dense "
    "inputs; per input element BatchNorm of maps 2, ReLU and pools 1.",
    "bytes_read": "input and parameters (Conv, Dense), input and 2 numbers per channel "
    "(BatchNorm), the input alone elsewhere; Flatten none. Concat reads its branches; torchstat "
    "sees no layer there, and no traffic where it has no rule.",
    "bytes_written": "the output; Flatten none.",
    "receptive_field": "pixels of the input, along one axis, that an output element depends on, "
    "the padding around the image included; all: every pixel. A Concat has that of its widest "
    "branch.",
    "padding": "zeros in effect at this size, before + behind where they differ, height x width "
    "where these differ; max pools pad with -inf.",
    "jump": "pixels of the input between neighbours in the output: the product of the strides.",
}


@dataclass(frozen=True)
class Cost:
    """What can be added up over layers; see `DEFINITIONS`. Memory and traffic are in bytes."""

    parameters: int = 0
    memory: int = 0
    macs: int = 0
    madd: int = 0
    flops: int = 0
    bytes_read: int = 0
    bytes_written: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


class Uncounted(NamedTuple):
    """Operations of layers that torchstat has no rule for, by an obvious count."""

    kind: str
    rule: str
    flops: int
    madd: int

    def __str__(self) -> str:
        return f"{self.kind} {self.flops:,} FLOPs and {self.madd:,} MAdd ({self.rule})"


def row_cost(row: schema.Row, before: tuple[int, ...], after: tuple[int, ...]) -> Cost:
    """Return what a layer adds to each total; `DEFINITIONS` gives the rules in words."""
    inputs, outputs = prod(before), prod(after)
    numbers = macs = madd = flops = 0
    reads = inputs
    match row:
        case schema.Conv():
            taps = row.kernel**2 * before[0] // row.groups
            numbers = taps * row.filters + row.bias * row.filters
            macs = taps * outputs
            madd = (2 * taps - 1 + row.bias) * outputs
            flops = macs + row.bias * outputs
            reads += numbers
        case schema.Dense():
            macs = flops = inputs * outputs
            numbers = macs + outputs
            madd = (2 * inputs - 1) * outputs
            reads += numbers
        case schema.BatchNorm():
            numbers = 2 * before[0]
            madd, flops = (4 * inputs, 2 * inputs) if len(before) == 3 else (0, 0)
            reads += numbers
        case schema.ReLU():
            madd = flops = inputs
        case schema.MaxPool():
            madd, flops = (row.size**2 - 1) * outputs, inputs
        case schema.AvgPool():
            madd, flops = row.size**2 * outputs, inputs
        case schema.Concat():
            reads = outputs
        case schema.Flatten():
            return Cost()
    return Cost(numbers, FLOAT32 * outputs, macs, madd, flops, FLOAT32 * reads, FLOAT32 * outputs)


def row_uncounted(
    row: schema.Row, before: tuple[int, ...], after: tuple[int, ...]
) -> Uncounted | None:
    """Return what torchstat's columns leave out of a layer, or None where they have a rule."""
    count = prod(before)
    match row:
        case schema.BatchNorm() if len(before) == 1:
            rule = "2 FLOPs and 4 MAdd per element, as for maps"
            return Uncounted("BatchNorm of vectors", rule, 2 * count, 4 * count)
        case schema.LRN(size=size):
            each = 2 * size + 3
            rule = f"{each} per element: {size} squares, their sum, scale, offset, power, division"
            return Uncounted("LRN", rule, each * count, each * count)
        case schema.Sigmoid():
            rule = "4 per element: negation, exponential, addition, division"
            return Uncounted("Sigmoid", rule, 4 * count, 4 * count)
        case schema.AdaptiveAvgPool(size=size):
            rows, columns = (sum(adaptive_windows(n, size)) for n in before[1:])
            rule = "as AvgPool with the same windows"
            return Uncounted("AdaptiveAvgPool", rule, count, after[0] * rows * columns)
        case schema.Dropout():
            return Uncounted("Dropout", "the identity at inference", 0, 0)
    return None


def adaptive_windows(size: int, count: int) -> list[int]:
    """Return the widths of torch's `count` adaptive windows over `size` pixels."""
    return [-(-(i + 1) * size // count) - i * size // count for i in range(count)]
