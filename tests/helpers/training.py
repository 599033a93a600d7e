"""A small run, and what it leaves behind as values."""

import csv
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers.devices import TIMES
from PIL import Image

from keras_alexnet.models.weights import load_model
from keras_alexnet.training.loop import hooks
from keras_alexnet.training.presets import PRESETS
from keras_alexnet.training.run import run_experiment

SMALL = PRESETS["digits-lenet5"].experiment.override(
    backend=keras.backend.backend(),
    epochs=3,
    train_limit=320,
    eval_limit=100,
    checkpoint_steps=4,
)
Run = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a small experiment with changes; return its folder."""

    def go(name: str = "run", **changes: Any) -> Path:
        run_experiment(SMALL.override(**changes), output=tmp_path / name)
        return tmp_path / name

    return go


def rows(folder: Path) -> list[dict[str, str]]:
    """Return metrics.csv without the times."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


def weights(folder: Path) -> list[np.ndarray]:
    return load_model(folder / "best.keras").get_weights()


def moved_photos(tmp_path: Path) -> Path:
    """A small data set of files."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(30):
            pixels = rng.integers(0, 256, (34, 36, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C come within the given step of the run that follows."""
    at_step(step, lambda: signal.raise_signal(signal.SIGINT), monkeypatch)


def at_step(step: int, happen: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let something happen within the given step of the run that follows."""
    count = 0
    inner = hooks.StepHook.on_train_batch_end

    def counted(self: Any, batch: int, logs: Any = None) -> None:
        nonlocal count
        count += 1
        if count == step:
            happen()
        inner(self, batch, logs)

    monkeypatch.setattr(hooks.StepHook, "on_train_batch_end", counted)
