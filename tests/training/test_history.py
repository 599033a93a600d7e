"""What a run notes on its way: steps, epochs, TensorBoard."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.training import TIMES, Run, rows
from PIL import Image

from keras_alexnet.core.backend import require
from keras_alexnet.training.loop import hooks
from keras_alexnet.training.run import resume_experiment


def events(folder: Path) -> dict[str, Any]:
    """Return what TensorBoard reads of a run: tag -> the last value."""
    event = require("tensorboardX.proto.event_pb2").Event
    found = {}
    for path in sorted(folder.glob("events.out.tfevents*")):
        content, at = path.read_bytes(), 0
        while at < len(content):
            # A record: its length, the length's checksum, itself, its checksum.
            length = int.from_bytes(content[at : at + 8], "little")
            record = event.FromString(content[at + 12 : at + 12 + length])
            at += length + 16
            found |= {value.tag: value for value in record.summary.value}
    return found


def test_what_tensorboard_shows(run: Run) -> None:
    folder = run(epochs=1, clean_metrics=True, log_every=5)
    found = events(folder)
    summary = json.loads((folder / "summary.json").read_text())
    assert found["final/test_top1"].simple_value == pytest.approx(summary["test"]["top1"])
    assert found["accuracy/clean"].simple_value > 0
    with Image.open(folder / "predictions.png") as picture:
        assert (found["predictions"].image.width, found["predictions"].image.height) == picture.size
    assert found["filters"].image.width >= 640
    start = found["_hparams_/session_start_info"].metadata.plugin_data.content
    assert b"learning_rate" in start
    assert b"random-resized" in start


def steps(folder: Path) -> list[dict[str, float]]:
    """Return steps.csv without the times."""
    with (folder / "steps.csv").open(newline="") as file:
        return [
            {key: float(value) for key, value in row.items() if key not in TIMES}
            for row in csv.DictReader(file)
        ]


def test_steps_are_noted(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Each row is of its own steps: together they give the mean of the epoch."""
    folder = run(log_every=3, epochs=2, batch_size=32)  # nine steps of 288 images
    found = steps(folder)
    assert [row["step"] for row in found] == [3, 6, 9, 12, 15, 18]
    assert [(row["epoch"], row["batches"]) for row in found[2:4]] == [(1, 9), (2, 3)]
    epochs = rows(folder)
    for number, epoch in enumerate(epochs):
        own = found[3 * number : 3 * number + 3]
        for name in ("loss", "accuracy"):
            mean = np.mean([row[name] for row in own])
            assert mean == pytest.approx(float(epoch[f"train_{name}"]), rel=1e-5)
        assert own[-1]["loss_so_far"] == pytest.approx(float(epoch["train_loss"]), rel=1e-6)
        assert own[-1]["learning_rate"] == pytest.approx(float(epoch["learning_rate"]), rel=1e-6)
    said = capsys.readouterr().out
    assert f"epoch 1, batch 3/9: loss {found[0]['loss']:.4f}, accuracy" in said


def test_steps_of_a_run_that_goes_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was done behind the last checkpoint is noted once, and the same."""
    changes = {"log_every": 1, "epochs": 2, "batch_size": 32, "checkpoint_steps": 4}
    whole = steps(run("whole", **changes))
    with monkeypatch.context() as patch:
        inner = hooks.StepHook.on_train_batch_end

        def failing(self: Any, batch: int, logs: Any = None) -> None:
            inner(self, batch, logs)
            if batch == 6:
                raise RuntimeError("no power")

        patch.setattr(hooks.StepHook, "on_train_batch_end", failing)
        with pytest.raises(RuntimeError, match="no power"):
            run("cut", **changes)
    assert [row["step"] for row in steps(tmp_path / "cut")] == [1, 2, 3, 4, 5, 6, 7]
    with (tmp_path / "cut" / "steps.csv").open("a") as file:
        file.write("7,1,7,0.5")  # a line that was being written
    resume_experiment(tmp_path / "cut")
    again = steps(tmp_path / "cut")
    assert [row["step"] for row in again] == list(range(1, 19))
    for one, other in zip(whole, again, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_clean_metrics(run: Run) -> None:
    """The training part as it is, and the test part, whose last epoch is the best one here."""
    folder = run(clean_metrics=True, epochs=1)
    (row,) = rows(folder)
    summary = json.loads((folder / "summary.json").read_text())
    assert float(row["test_accuracy"]) == pytest.approx(summary["test"]["top1"])
    assert float(row["test_loss"]) == pytest.approx(summary["test"]["loss"], rel=1e-5)
    assert float(row["clean_accuracy"]) != float(row["train_accuracy"])
    assert rows(run("without", epochs=1))[0]["clean_accuracy"] == ""
