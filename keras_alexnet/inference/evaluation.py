"""How well a model does on labelled images."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.core.backend import require
from keras_alexnet.data.classes import are_indices, same_classes
from keras_alexnet.data.examples import Examples, Stored
from keras_alexnet.errors import DataError, listed
from keras_alexnet.inference.analysis import (
    Calibration,
    ClassResult,
    Mistake,
    calibration,
    confident_mistakes,
)
from keras_alexnet.inference.predictor import Predictor

_MISTAKES = 20  # of the most confident ones, that an evaluation tells of


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How well a model does on labelled images.

    Attributes:
        classes: Names of the classes by index.
        loss: Mean cross entropy in nats.
        top1: Share of images whose best class is right, in [0, 1].
        top5: Share with the right class among the five best; None below five classes.
        macro_f1: Mean F1 of the classes that occur, in labels or in predictions.
        per_class: A result for each class.
        confusion: int64 (classes, classes), images by [label, prediction].
        predictions: int64 (N,), best classes.
        confidences: float64 (N,), their probabilities.
        labels: int64 (N,), right classes.
        indices: int64 (N,), which examples these are.
        mistakes: The most confident ones, the most confident first.
        skipped: Unreadable images and why, by path.
    """

    classes: tuple[str, ...]
    loss: float
    top1: float
    top5: float | None
    macro_f1: float
    per_class: tuple[ClassResult, ...]
    confusion: np.ndarray
    predictions: np.ndarray
    confidences: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    mistakes: tuple[Mistake, ...]
    skipped: Mapping[Path, str]

    @property
    def calibration(self) -> Calibration:
        """How far the confidences are the share of images that are right."""
        return calibration(self.confidences, self.predictions == self.labels)

    def to_json(self) -> dict[str, Any]:
        """Return all but what belongs to each single image, as JSON holds it."""
        return {
            "images": len(self.labels),
            "loss": self.loss,
            "top1": self.top1,
            "top5": self.top5,
            "macro_f1": self.macro_f1,
            "classes": list(self.classes),
            "per_class": [asdict(result) for result in self.per_class],
            "confusion": self.confusion.tolist(),
            "calibration": asdict(self.calibration),
            "mistakes": [asdict(mistake) for mistake in self.mistakes],
            "skipped": {str(path): reason for path, reason in self.skipped.items()},
        }


def evaluate(
    predictor: Predictor,
    examples: Examples,
    classes: Sequence[str],
    *,
    on_batch: Callable[[int], None] | None = None,
    rank: int = 0,
    processes: int = 1,
    gather: Callable[[Any], list[Any]] = lambda value: [value],
) -> Evaluation:
    """Compare a model's predictions with the labels of images.

    Args:
        predictor: The model.
        examples: The images. Unreadable ones are left out and listed.
        classes: Names of the classes by index, matched with the model's labels by name, see
            `data.classes`. Where it has more classes, the evaluation is over all of them. Names
            that only count from 0 up, on either side, and a model without labels are matched by
            position.
        on_batch: Called with the number of images done, after each batch.
        rank: Number of this process among those that each compute a part of the images.
        processes: How many they are.
        gather: Takes a value for JSON and returns those of all processes, by rank; each of them
            then has the result of all.

    Raises:
        DataError: The model has other classes than the images, or no image can be read.
        ModelFileError: The model computes numbers that are not finite.
    """
    classes, order, index = _match(predictor, tuple(classes))
    targets = index[examples.labels]
    own = np.arange(rank, len(examples), processes)
    batches = predictor.batches(examples.subset(own) if processes > 1 else examples)
    found: list[list[Any]] = []
    done = 0
    for views, positions in batches:
        indices = own[positions]
        scores = predictor.log_probabilities(views)[:, order]  # (B, classes)
        rows = (indices, *_score(scores, targets[indices]))
        found += map(list, zip(*(column.tolist() for column in rows), strict=True))
        done += len(indices)
        if on_batch is not None:
            on_batch(done)
    skipped = {str(path): reason for path, reason in batches.skipped.items()}
    parts = gather([found, skipped])
    found = sorted(row for rows, _ in parts for row in rows)
    skipped = {path: reason for _, skips in parts for path, reason in skips.items()}
    if not found:
        path, reason = next(iter(skipped.items()))
        raise DataError(f"none of {len(examples)} images can be read; the first: {path}: {reason}")
    columns = zip(*found, strict=True)
    indices, losses, ranks, predictions, confidences = map(np.array, columns)
    labels = targets[indices]
    mistakes = confident_mistakes(confidences, predictions == labels, _MISTAKES)
    metrics = require("sklearn.metrics")
    return Evaluation(
        classes=classes,
        loss=float(losses.mean()),
        top1=float((ranks == 0).mean()),
        top5=float((ranks < 5).mean()) if len(classes) >= 5 else None,
        macro_f1=float(metrics.f1_score(labels, predictions, average="macro", zero_division=0)),
        per_class=_per_class(classes, labels, predictions, losses, ranks),
        confusion=metrics.confusion_matrix(labels, predictions, labels=np.arange(len(classes))),
        predictions=predictions,
        confidences=confidences,
        labels=labels,
        indices=indices,
        mistakes=tuple(
            Mistake(
                int(indices[i]),
                str(examples.place(indices[i])) if isinstance(examples, Stored) else None,
                int(labels[i]),
                int(predictions[i]),
                float(confidences[i]),
            )
            for i in mistakes
        ),
        skipped={Path(path): reason for path, reason in sorted(skipped.items())},
    )


def _score(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return loss, rank of the right class, best class and its probability, each (B,)."""
    right = np.take_along_axis(scores, labels[:, None], axis=1)  # (B, 1)
    # Of equal scores the first counts as better, as for argmax.
    before = np.arange(scores.shape[1]) < labels[:, None]
    ranks = ((scores > right) | ((scores == right) & before)).sum(axis=1)
    return -right[:, 0], ranks, scores.argmax(axis=1), np.exp(scores.max(axis=1))


def _per_class(
    classes: Sequence[str],
    labels: np.ndarray,
    predictions: np.ndarray,
    losses: np.ndarray,
    ranks: np.ndarray,
) -> tuple[ClassResult, ...]:
    count = len(classes)
    precision, recall, f1, images = require("sklearn.metrics").precision_recall_fscore_support(
        labels, predictions, labels=np.arange(count), zero_division=np.nan
    )
    with np.errstate(invalid="ignore"):  # 0 / 0 for a class without images
        loss = np.bincount(labels, losses, count) / images
        top5 = np.bincount(labels, ranks < 5, count) / images
    columns = (loss, recall, top5 if count >= 5 else np.full(count, np.nan), precision, f1)
    return tuple(
        ClassResult(name, int(number), *(None if math.isnan(v) else float(v) for v in values))
        for name, number, *values in zip(classes, images, *columns, strict=True)
    )


def _match(
    predictor: Predictor, classes: tuple[str, ...]
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Return the classes to evaluate, the model's index of each, and theirs of each class."""
    labels, identity = predictor.labels, np.arange(len(classes))
    places = None if labels is None else same_classes(classes, labels)
    if labels is not None and places is not None:
        if len(classes) == len(labels):
            return classes, np.array(places), identity
        return labels, np.arange(len(labels)), np.array(places)
    if len(classes) != predictor.classes:
        raise DataError(
            f"the model has {predictor.classes} classes, the data have {len(classes)}, which are "
            f"not among them by name; {_WAY_OUT}"
        )
    if labels is None or are_indices(labels) or are_indices(classes):
        return classes, identity, identity
    strange = next((c for c in classes if same_classes([c], labels) is None), classes[0])
    raise DataError(
        f"the classes of the data are not those of the model: {strange!r} is none of "
        f"{listed(map(repr, labels))}; {_WAY_OUT}"
    )


_WAY_OUT = (
    "evaluate it on data of the classes that it was trained for, or say which is which with "
    "--class-map"
)
