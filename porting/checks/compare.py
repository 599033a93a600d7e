"""How far two arrays are apart, which layer diverges first, and what usually causes it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from porting.tolerances import TOLERANCES


@dataclass(frozen=True)
class Difference:
    """Distance of a candidate from its reference: the largest and the mean difference, and more.

    `relative` is `max_abs` divided by the reference's largest absolute value, `cosine` that of the
    angle between both, as vectors.
    """

    max_abs: float
    mean_abs: float
    relative: float
    cosine: float


def difference(reference: np.ndarray, candidate: np.ndarray) -> Difference:
    """Compare two arrays of one shape; NaN anywhere makes them infinitely far apart."""
    a = np.asarray(reference, np.float64).ravel()
    b = np.asarray(candidate, np.float64).ravel()
    if not a.size:
        return Difference(0.0, 0.0, 0.0, 1.0)
    # Few passes: gradients hold 61 million numbers.
    gap = np.subtract(a, b)
    np.abs(gap, out=gap)
    scale, worst = float(max(a.max(), -a.min())), float(gap.max())
    if not np.isfinite(worst):
        return Difference(float("inf"), float("inf"), float("inf"), 0.0)
    relative = worst / scale if scale else (float("inf") if worst else 0.0)
    norms = float((a @ a) ** 0.5 * (b @ b) ** 0.5)
    cosine = float(a @ b) / norms if norms else float(worst == 0)
    return Difference(worst, float(gap.mean()), relative, cosine)


@dataclass(frozen=True)
class Compared:
    """One compared thing: a layer, an output, or a gradient.

    `difference` is None where the shapes differ; `detail` then names them. `shape` is the
    reference's.
    """

    name: str
    kind: str
    difference: Difference | None
    tolerance: float
    detail: str = ""
    shape: tuple[int, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance, relative to the reference's scale."""
        return self.difference is not None and self.difference.relative <= self.tolerance


def compare(
    name: str, kind: str, reference: np.ndarray, candidate: np.ndarray | None, tolerance: str
) -> Compared:
    """Compare two arrays under a row of the tolerance table."""
    limit, gap, detail = TOLERANCES[tolerance].limit, None, ""
    if candidate is None:
        detail = "missing in the candidate"
    elif reference.shape != candidate.shape:
        detail = f"shape {candidate.shape} where the reference has {reference.shape}"
    else:
        gap = difference(reference, candidate)
    return Compared(name, kind, gap, limit, detail, reference.shape)


# What went wrong in practice, by the kind of the first layer that differs.
_CAUSES = {
    "Input": (
        "normalisation: mean, deviation or value range differ, the channels are BGR, or "
        "transform_input is on for one side only"
    ),
    "Conv": (
        "padding (torch pads both sides alike; Keras' 'same' does not when there is a stride), a "
        "kernel that was not transposed by (2, 3, 1, 0), or another stride"
    ),
    "BatchNorm": (
        "another eps (torchvision's GoogLeNet has 1e-3), swapped moving statistics, or gamma and "
        "beta swapped"
    ),
    "MaxPool": "ceil mode or padding of the pool",
    "LRN": (
        "the channels of the window, alpha divided by the size (torch, Caffe) or not (TensorFlow), "
        "or another k"
    ),
    "AvgPool": "size, stride or padding of the pool",
    "AdaptiveAvgPool": "the windows of the adaptive pool, or padding counted in the average",
    "Concat": "the order of the branches, or the axis",
    "ReLU": "a missing or another activation",
    "Sigmoid": "a missing or another activation",
    "Dense": (
        "a kernel that was not transposed; after a flatten, inputs not permuted from C, H, W to "
        "H, W, C order"
    ),
}


@dataclass(frozen=True)
class Divergence:
    """The first layer, in the order of computation, that is out of tolerance."""

    layer: str
    kind: str
    inputs: str
    relative: float | None
    cause: str


def first_divergence(inputs: str, layers: Iterable[Compared]) -> Divergence | None:
    """Return the first layer that fails, with the usual causes, or None."""
    for compared in layers:
        if not compared.passed:
            gap = compared.difference
            cause = _CAUSES.get(compared.kind, f"the arguments and weights of this {compared.kind}")
            if compared.detail:
                cause = f"{compared.detail}; check {cause}"
            relative = None if gap is None else gap.relative
            return Divergence(compared.name, compared.kind, inputs, relative, cause)
    return None


@dataclass(frozen=True)
class Agreement:
    """Agreement of the predicted classes.

    Attributes:
        images: Number of images; of their pixels, where each has its class.
        top1: Share of images with the same first class, or whose first two logits are closer in
            the reference than the frameworks are to each other.
        ties: Images counted by the second clause.
        top5: Share of images with the same five classes.
    """

    images: int
    top1: float
    ties: int
    top5: float


def agreement(reference: np.ndarray, candidate: np.ndarray) -> Agreement:
    """Compare the predictions of two sets of logits, (N, classes, ...); other shapes never agree.

    Of one number for each image, (N,), there is nothing to choose.
    """
    if reference.shape != candidate.shape:
        return Agreement(len(reference), 0.0, 0, 0.0)
    if reference.ndim == 1:
        reference, candidate = reference[:, None], candidate[:, None]
    reference, candidate = (
        np.moveaxis(logits, 1, -1).reshape(-1, logits.shape[1]) for logits in (reference, candidate)
    )
    same = reference.argmax(axis=1) == candidate.argmax(axis=1)
    ordered = np.sort(reference, axis=1)
    margin = ordered[:, -1] - ordered[:, -2] if reference.shape[1] > 1 else np.inf
    ties = ~same & (margin <= np.abs(reference - candidate).max(axis=1))
    k = min(5, reference.shape[1])
    best = [np.sort(top_classes(logits, k), axis=1) for logits in (reference, candidate)]
    top5 = (best[0] == best[1]).all(axis=1)
    return Agreement(len(same), float((same | ties).mean()), int(ties.sum()), float(top5.mean()))


def top_classes(logits: np.ndarray, count: int) -> np.ndarray:
    """Return the best classes of each row, best first, (N, count)."""
    return np.argsort(-logits, axis=1, kind="stable")[:, :count]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities (N, classes)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def worst(compared: Sequence[Compared]) -> Compared | None:
    """Return the entry farthest from its reference; one of another shape before all."""
    return max(
        compared,
        key=lambda c: float("inf") if c.difference is None else c.difference.relative,
        default=None,
    )
