"""What an evaluation says beyond its score: calibration, confusions, mistakes. NumPy only."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_BINS = 15  # those of Guo et al. 2017


@dataclass(frozen=True)
class ClassResult:
    """How well a model does on the images of one class.

    Attributes:
        name: Of the class.
        images: How many there are.
        loss: Their mean cross entropy in nats; None where there are none.
        accuracy: Share of them whose best class is right, which is the class's recall.
        top5: Share of them with the right class among the five best; None below five classes.
        precision: Share of right ones among the images that were given this class; None where
            no image was.
        f1: Harmonic mean of precision and recall; None where no image has or was given the class.
    """

    name: str
    images: int
    loss: float | None
    accuracy: float | None
    top5: float | None
    precision: float | None
    f1: float | None


@dataclass(frozen=True)
class Mistake:
    """An image that was taken for something else.

    Attributes:
        index: Which of the examples it is.
        path: Its file; None for an image in memory.
        label: Its class.
        prediction: What it was taken for.
        confidence: The probability of that.
    """

    index: int
    path: str | None
    label: int
    prediction: int
    confidence: float


@dataclass(frozen=True)
class ReliabilityBin:
    """Images whose confidence lies in the same part of [0, 1].

    Attributes:
        low: Lower end of the part, which does not belong to it.
        high: Its upper end, which does.
        images: How many there are.
        confidence: Their mean confidence; None where there are none.
        accuracy: Share of them whose best class is right; None where there are none.
    """

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """How far a model's confidence is the share of images that it gets right.

    Attributes:
        ece: Expected calibration error, in [0, 1]: the mean distance of confidence and accuracy of
            a bin, weighted by its images (Guo et al. 2017).
        bins: Parts of [0, 1] of the same width, upwards.
    """

    ece: float
    bins: tuple[ReliabilityBin, ...]


def calibration(confidences: np.ndarray, right: np.ndarray, bins: int = _BINS) -> Calibration:
    """Compare confidences with what came true.

    Args:
        confidences: (N,) probabilities of the best classes, in [0, 1].
        right: bool (N,), whether the best class is the image's.
        bins: Into how many parts to divide [0, 1].
    """
    edges = np.linspace(0.0, 1.0, bins + 1)
    # Rounding may lift a probability above 1.
    places = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, bins - 1)  # (N,)
    images = np.bincount(places, minlength=bins)  # (bins,)
    sure = np.bincount(places, confidences, bins)
    correct = np.bincount(places, right, bins)
    return Calibration(
        float(np.abs(sure - correct).sum() / max(len(places), 1)),
        tuple(
            ReliabilityBin(
                float(edges[i]),
                float(edges[i + 1]),
                int(count),
                float(sure[i] / count) if count else None,
                float(correct[i] / count) if count else None,
            )
            for i, count in enumerate(images)
        ),
    )


@dataclass(frozen=True)
class ConfusedPair:
    """Images of one class that were taken for another one.

    Attributes:
        label: Index of their class.
        prediction: Index of the other.
        images: How many there are.
        share: Of all images of their class, in [0, 1].
    """

    label: int
    prediction: int
    images: int
    share: float


def confused_pairs(confusion: np.ndarray, count: int) -> tuple[ConfusedPair, ...]:
    """Return the most frequent confusions: most images first, then the largest share.

    Args:
        confusion: int (C, C), images by [label, prediction].
        count: How many to return at most.
    """
    wrong = np.where(np.eye(len(confusion), dtype=bool), 0, confusion)  # (C, C)
    labels, predictions = np.nonzero(wrong)
    images = wrong[labels, predictions]
    shares = images / np.sum(confusion, axis=1)[labels]
    first = np.lexsort((-shares, -images))[:count]
    columns = (column[first].tolist() for column in (labels, predictions, images, shares))
    return tuple(ConfusedPair(*values) for values in zip(*columns, strict=True))


def worst_and_best(
    accuracies: Sequence[float | None], count: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return indices of the classes of lowest and of highest accuracy, the outermost first.

    Args:
        accuracies: By class, None for one without images.
        count: How many of either to return; fewer where a class would be among both.
    """
    known = [(accuracy, index) for index, accuracy in enumerate(accuracies) if accuracy is not None]
    known.sort()
    count = min(count, len(known) // 2)
    best = sorted(known[len(known) - count :], key=lambda each: -each[0])
    return tuple(index for _, index in known[:count]), tuple(index for _, index in best)


def confident_mistakes(confidences: np.ndarray, right: np.ndarray, count: int) -> np.ndarray:
    """Return where the most confident mistakes are, int64 (M,), the most confident first.

    Args:
        confidences: (N,) probabilities of the best classes.
        right: bool (N,), whether the best class is the image's.
        count: How many to return at most.
    """
    (wrong,) = np.nonzero(~np.asarray(right, bool))
    return wrong[np.argsort(-confidences[wrong], kind="stable")[:count]]
