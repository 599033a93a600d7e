"""The books of a run: the best epoch, a stall, skipped images, the row of an epoch."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from keras_alexnet.training.loop.progress import Progress, epoch_row, sentence


def _validation(top1: float, loss: float) -> Any:
    return SimpleNamespace(top1=top1, loss=loss, top5=0.75, macro_f1=0.5)


def _epochs(progress: Progress, validations: list[Any]) -> list[bool]:
    best = []
    for validation in validations:
        progress.epoch += 1
        best.append(progress.is_best(validation))
    return best


def test_the_best_epoch_is_the_most_accurate_then_the_one_of_the_lower_loss() -> None:
    progress = Progress()
    course = [(0.5, 2.0), (0.5, 1.0), (0.5, 1.0), (0.4, 0.1), (0.6, 9.0), (0.7, math.nan)]
    assert _epochs(progress, [_validation(*x) for x in course]) == [
        True,
        True,
        False,
        False,
        True,
        True,
    ]
    assert (progress.best_epoch, progress.best_score) == (6, 0.7)


def test_without_validation_the_last_epoch_is_the_best() -> None:
    progress = Progress()
    assert _epochs(progress, [None] * 3) == [True] * 3
    assert (progress.best_epoch, progress.best_score, progress.best_loss) == (3, 3.0, 0.0)


@pytest.mark.parametrize(
    ("patience", "stalls"),
    [(0, [0, 0, 1, 1, 0, 1]), (1, [0, 0, 0, 1, 0, 0]), (2, [0, 0, 0, 0, 0, 0])],
)
def test_a_run_stalls_behind_its_patience(patience: int, stalls: list[int]) -> None:
    progress = Progress()
    losses = [3.0, 2.0, 2.0, 2.5, 1.0, 1.5]
    found = [progress.is_stalled(_validation(0.5, loss), patience) for loss in losses]
    assert found == list(map(bool, stalls))
    assert progress.lowest_loss == 1.0
    assert not progress.is_stalled(None, 0)


def test_an_image_is_noted_once() -> None:
    progress = Progress(skipped={"a.jpg": "broken"})
    assert progress.note_skipped({"a.jpg": "again", "b.jpg": "empty"}) == {"b.jpg": "empty"}
    assert progress.note_skipped({"b.jpg": "empty"}) == {}
    assert progress.skipped == {"a.jpg": "broken", "b.jpg": "empty"}


def test_an_epoch_as_a_row_and_as_a_sentence() -> None:
    known: dict[str, Any] = {
        "learning_rate": 0.1,
        "numbers": {"loss": 1.5, "accuracy": 0.25},
        "images": 3000,
        "seconds": 2.0,
        "clean": {},
        "memory": 1_500_400_000,
    }
    row = epoch_row(2, validation=None, **known)
    assert row == {
        "epoch": 2,
        "learning_rate": 0.1,
        "train_loss": 1.5,
        "train_accuracy": 0.25,
        "images_per_second": 1500.0,
        "seconds": 2.0,
        "memory_mb": 1500,
    }
    assert sentence(row, 9) == "epoch 2/9: loss 1.5000, accuracy 0.2500; 1,500 images/s, 2.0 s"
    validated = epoch_row(2, validation=_validation(0.5, 1.25), **known)
    assert validated == row | {
        "val_loss": 1.25,
        "val_accuracy": 0.5,
        "val_top5": 0.75,
        "val_macro_f1": 0.5,
    }
    assert "accuracy 0.2500; validation loss 1.2500, accuracy 0.5000; 1,5" in sentence(validated, 9)
    known["clean"] = {"train": _validation(0.5, 1.25), "test": None}
    assert epoch_row(2, validation=None, **known) == row | {
        "clean_loss": 1.25,
        "clean_accuracy": 0.5,
    }
