"""The operations of a plan: what is left of a network's layers once they are fused.

They say nothing of a memory layout: `size` and the like are (height, width), kernels are arrays in
Keras' order, and every array is a copy of its own. Engines read them, and only them. A value with
four axes is (N, H, W, C) to an operation whatever the model's data format; one of another rank is
as Keras has it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]  # ((top, bottom), (left, right))
NO_PADDING: Padding = ((0, 0), (0, 0))


@dataclass(frozen=True, eq=False)
class Operation:
    """One step, called after the last Keras layer in it.

    `inputs` are the numbers of the values that it reads: 0 is the image, or the list of a model's
    several inputs, i the i-th step's.
    """

    name: str
    inputs: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Affine(Operation):
    """x * scale + offset, per channel, of x or of x with its channels reversed before."""

    scale: np.ndarray  # (C,) or (), in float64
    offset: np.ndarray  # the same
    reverse: bool = False


@dataclass(frozen=True, eq=False)
class Conv(Operation):
    """A convolution that pads zeros, adds a bias, its second input if it has one, and activates."""

    kernel: np.ndarray  # (height, width, in channels / groups, out channels)
    bias: np.ndarray  # (out channels,)
    strides: Pair
    padding: Padding | None  # None: TensorFlow's "same" of a map of unknown size
    groups: int
    activation: str = "linear"


@dataclass(frozen=True, eq=False)
class Dense(Operation):
    """x @ kernel + bias along the last axis, and an activation."""

    kernel: np.ndarray  # (in, out)
    bias: np.ndarray  # (out,)
    activation: str = "linear"


@dataclass(frozen=True, eq=False)
class Pad(Operation):
    """Zeros around a map; only those that nothing after them could take in."""

    padding: Padding


@dataclass(frozen=True, eq=False)
class MaxPool(Operation):
    """Max pooling of a map with `padding` (None: "same") of minus infinity around it."""

    size: Pair
    strides: Pair
    padding: Padding | None


@dataclass(frozen=True, eq=False)
class AvgPool(Operation):
    """Average pooling without padding."""

    size: Pair
    strides: Pair


@dataclass(frozen=True, eq=False)
class AdaptiveAvgPool(Operation):
    """Average pooling to `size`, whose windows are torch's: of map sizes / `size`, overlapping."""

    size: Pair


@dataclass(frozen=True, eq=False)
class GlobalPool(Operation):
    """Mean or largest value of every channel; with `keepdims` as a map of one pixel."""

    largest: bool
    keepdims: bool


@dataclass(frozen=True, eq=False)
class Repeat(Operation):
    """Every pixel repeated."""

    factors: Pair


@dataclass(frozen=True, eq=False)
class Flatten(Operation):
    """A map as a vector, in the order height, width, channel."""


@dataclass(frozen=True, eq=False)
class Reshape(Operation):
    """Another shape of the same numbers in the same order."""

    shape: tuple[int, ...]  # with the batch; -1 for the one size that is left open


@dataclass(frozen=True, eq=False)
class Concat(Operation):
    """Maps one behind another along the channels."""


@dataclass(frozen=True, eq=False)
class Elementwise(Operation):
    """Values added, multiplied or subtracted with broadcasting, and an activation."""

    function: str  # add, multiply or subtract, which are every framework's own names
    activation: str = "linear"


@dataclass(frozen=True, eq=False)
class LayerNorm(Operation):
    """Layer normalisation along the last axis."""

    gamma: np.ndarray  # (features,)
    beta: np.ndarray  # (features,)
    epsilon: float


@dataclass(frozen=True, eq=False)
class Constant(Operation):
    """Numbers that no image changes; it reads nothing."""

    value: np.ndarray


@dataclass(frozen=True, eq=False)
class Call(Operation):
    """What Keras alone computes, on its own backend: tensors to the list of what comes out."""

    function: Callable[..., Sequence[Any]]
    reason: str  # why no operation stands for it

    def compute(self, *values: Any) -> Sequence[Any]:
        """Return the results, on whatever framework that is."""
        return self.function(*values)


@dataclass(frozen=True, eq=False)
class Part(Operation):
    """One of the results of a call, or of a model's several inputs."""

    index: int

    def compute(self, results: Sequence[Any]) -> Any:
        """Return it, on whatever framework."""
        return results[self.index]


@dataclass(frozen=True, eq=False)
class LRN(Operation):
    """Local response normalisation; the layer of the same name documents the parameters."""

    size: int
    alpha: float
    beta: float
    k: float


@dataclass(frozen=True, eq=False)
class Activation(Operation):
    """An elementwise function, or softmax along the last axis: one of `ACTIVATIONS`."""

    function: str


# Keras' names, but for GELU's approximation by tanh, which Keras has an argument for.
ACTIVATIONS = (
    *("relu", "relu6", "sigmoid", "softmax", "tanh", "silu", "hard_silu", "hard_sigmoid"),
    *("gelu", "gelu_tanh"),
)
_NEVER_NEGATIVE = {"relu", "relu6", "sigmoid", "softmax", "hard_sigmoid"}


def never_negative(operation: Operation) -> bool:
    """Say whether the activation that an operation ends with gives nothing below zero."""
    function = getattr(operation, "activation", None) or getattr(operation, "function", None)
    return function in _NEVER_NEGATIVE


def scaled(operation: Conv | Dense, scale: np.ndarray, offset: np.ndarray, name: str) -> Operation:
    """Return an operation without activation followed by y * scale + offset, as one.

    Both are (out channels,) or (), in float64, in which the result is computed.
    """
    return replace(
        operation,
        name=name,
        kernel=(operation.kernel * scale).astype(np.float32),
        bias=(operation.bias * scale + offset).astype(np.float32),
    )


def composed(first: Affine, scale: np.ndarray, offset: np.ndarray, name: str) -> Affine:
    """Return an affine operation followed by y * scale + offset, as one."""
    return replace(
        first, name=name, scale=first.scale * scale, offset=first.offset * scale + offset
    )


def same_padding(sizes: Pair, window: Pair, strides: Pair) -> Padding:
    """Return TensorFlow's "same" padding: ceil(size / stride) results, the odd zero at the end."""
    sides = []
    for size, width, stride in zip(sizes, window, strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + width - size, 0)
        sides.append((total // 2, total - total // 2))
    return sides[0], sides[1]


def adaptive_matrix(size: int, results: int) -> np.ndarray:
    """Return the weights (results, size) of adaptive average pooling along one axis."""
    matrix = np.zeros((results, size), np.float32)
    for i in range(results):
        start, stop = i * size // results, -(-(i + 1) * size // results)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix


def lrn_band(channels: int, lrn: LRN) -> np.ndarray:
    """Return the matrix (from, to) that makes squares their windows' sums, times alpha / size."""
    offset = np.arange(channels)[:, None] - np.arange(channels)
    inside = (offset >= -(lrn.size // 2)) & (offset <= (lrn.size - 1) // 2)
    return (inside * (lrn.alpha / lrn.size)).astype(np.float32)
