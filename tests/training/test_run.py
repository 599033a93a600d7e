"""Runs from the command to the report: what they leave behind, and that they can be continued."""

import csv
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers.pages import Page
from helpers.project import ROOT
from PIL import Image

from keras_alexnet.core.backend import require
from keras_alexnet.core.machine import gpus
from keras_alexnet.data.batches.evaluation import EvaluationBatches
from keras_alexnet.data.sources.registry import open_data
from keras_alexnet.errors import ConfigurationError, ModelFileError, TrainingError
from keras_alexnet.models.record import read_record
from keras_alexnet.models.weights import load_model
from keras_alexnet.training import precision
from keras_alexnet.training.experiment import Experiment
from keras_alexnet.training.loop import hooks
from keras_alexnet.training.preparation import prepare
from keras_alexnet.training.presets import PRESETS
from keras_alexnet.training.run import resume_experiment, run_experiment

# Of metrics.csv, which no two runs share.
TIMES = {"images_per_second", "seconds", "memory_mb"}
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


def test_a_plateau_lowers_the_learning_rate(run: Run) -> None:
    """At a rate that changes nothing no loss is lower than the first."""
    rate = 1e-20
    plateau = {"schedule": "plateau", "patience": 0, "gamma": 0.5, "warmup_epochs": 0.0}
    found = rows(run(learning_rate=rate, epochs=4, val_fraction=0.2, **plateau))
    losses = {row["val_loss"] for row in found}
    rates = [float(row["learning_rate"]) / rate for row in found]
    assert len(losses) == 1
    np.testing.assert_allclose(rates, [1, 1, 0.5, 0.25], rtol=1e-6)


def test_a_run_leaves_everything_behind(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run()
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "best.keras",
        "checkpoint.safetensors",
        "config.json",
        "confusion_matrix.png",
        "environment.json",
        "evaluation.json",
        "examples.png",
        "filters.png",
        "learning_curves.png",
        "log.txt",
        "metrics.csv",
        "per_class.csv",
        "predictions.csv",
        "predictions.png",
        "reliability.png",
        "report.html",
        "summary.json",
    }
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert not any(name.startswith(".") for name in names)
    config = json.loads((folder / "config.json").read_text())
    assert Experiment.from_json(config["experiment"]) == SMALL
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["parameters"] == 61_706
    assert summary["images"] == {"train": 288, "val": 32, "test": 100}
    assert summary["best_epoch"] in (1, 2, 3)
    assert summary["skipped"] == {}
    table = rows(folder)
    assert [row["epoch"] for row in table] == ["1", "2", "3"]
    assert float(table[2]["train_loss"]) < float(table[0]["train_loss"])
    best = table[summary["best_epoch"] - 1]
    assert summary["val"]["top1"] == float(best["val_accuracy"])
    record = read_record(folder / "best.keras")
    assert record["labels"] == [str(n) for n in range(10)]
    assert record["model"]["include_preprocessing"] is True
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["backend"] == SMALL.backend
    assert environment["versions"]["keras"] == keras.__version__
    assert "epoch 3/3: loss" in capsys.readouterr().out
    assert "epoch 3/3: loss" in (folder / "log.txt").read_text()


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


def test_its_report_shows_the_most_confident_mistakes(run: Run) -> None:
    folder = run(epochs=1)
    with (folder / "predictions.csv").open(newline="") as file:
        answers = list(csv.DictReader(file))
    evaluation = json.loads((folder / "evaluation.json").read_text())
    wrong = [row for row in answers if row["label"] != row["prediction"]]
    assert len(answers) == 100
    assert len(wrong) == round(100 * (1 - evaluation["top1"])) > 0
    wrong.sort(key=lambda row: -float(row["confidence"]))
    page = Page(folder / "report.html")
    assert page.tables["sortable mistakes"][1:] == [
        ["", row["prediction"], row["label"], f"{100 * float(row['confidence']):.2f}", row["index"]]
        for row in wrong[:20]
    ]
    # The picture is the example's, resized to what the network sees.
    prepared = prepare(SMALL, folder)
    ((images, _),) = EvaluationBatches(prepared.data.test, prepared.preprocessing, batch_size=100)
    shown = {f"{r['label']}, taken for {r['prediction']}": int(r["index"]) for r in wrong[:20]}
    for words, index in shown.items():  # of the same words, the page's last picture
        picture = np.asarray(page.pictures[words], int)
        assert np.abs(picture - images[index, ..., 0]).mean() < 8  # it is a JPEG


def test_same_seed_same_numbers(run: Run) -> None:
    first, second, other = run("a"), run("b"), run("c", seed=1)
    assert rows(first) == rows(second)
    for mine, theirs in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert rows(first) != rows(other)


# Where the interruption comes, in steps of which an epoch has nine, and what is in use.
FEATURES = {
    "behind the first epoch": (9, {"schedule": "plateau", "patience": 0, "learning_rate": 0.05}),
    "one-cycle, momentum, averages": (
        5,
        {
            "optimizer": "sgd",
            "learning_rate": 0.1,
            "schedule": "one-cycle",
            "warmup_epochs": 1.0,
            "ema": 0.9,
        },
    ),
    "flips, crops, accumulation": (
        11,
        {"resize": 32, "crop": "random", "flip": 0.5, "accumulate": 2, "clip_norm": 1.0},
    ),
}


@pytest.mark.parametrize(
    "case",
    [
        "one-cycle, momentum, averages",
        pytest.param("flips, crops, accumulation", marks=pytest.mark.slow),
        pytest.param("behind the first epoch", marks=pytest.mark.slow),
    ],
)
def test_interrupted_and_resumed_equals_uninterrupted(
    run: Run, case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    step, changes = FEATURES[case]
    whole = run("whole", **changes)
    interrupt_at(step, monkeypatch)
    assert run_experiment(SMALL.override(**changes), output=tmp_path / "parts") is None
    parts = tmp_path / "parts"
    assert "go on with: keras-alexnet train --resume" in (parts / "log.txt").read_text()
    assert not (parts / "summary.json").exists()
    monkeypatch.undo()
    assert resume_experiment(parts) is not None
    assert rows(parts) == rows(whole)
    for mine, theirs in zip(weights(parts), weights(whole), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C come within the given step of the run that follows."""
    count = 0
    inner = hooks.StepHook.on_train_batch_end

    def counted(self: Any, batch: int, logs: Any = None) -> None:
        nonlocal count
        count += 1
        if count == step:
            signal.raise_signal(signal.SIGINT)
        inner(self, batch, logs)

    monkeypatch.setattr(hooks.StepHook, "on_train_batch_end", counted)


def command(*arguments: object) -> list[str]:
    code = "from keras_alexnet.commands.app import main; main()"
    return [sys.executable, "-c", code, "train", *map(str, arguments)]


# A run on two devices is killed and resumed in `test_distribution_faults` each time.
@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "tensorflow", "jax"])
def test_killed_and_resumed_equals_uninterrupted(backend: str, tmp_path: Path) -> None:
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    options = ("--preset", "digits-lenet5", "--epochs", 3, "--checkpoint-steps", 3)
    options += ("--backend", backend, "--resize", 32, "--crop", "random", "--ema", 0.9)

    def begin(*arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command(*arguments),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(process: subprocess.Popen[str]) -> None:
        out, _ = process.communicate()
        assert process.returncode == 0, out

    whole, folder = tmp_path / "whole", tmp_path / "parts"
    uninterrupted = begin(*options, "--output", whole)
    process = begin(*options, "--output", folder)
    wait_for_epoch(folder / "metrics.csv", process)
    process.kill()
    process.communicate()
    assert not (folder / "summary.json").exists()
    resumed = begin("--resume", folder)
    finish(uninterrupted)
    finish(resumed)
    assert rows(folder) == rows(whole)
    for mine, theirs in zip(weights(folder), weights(whole), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def wait_for_epoch(path: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.005)


def test_loss_that_is_not_finite_stops_the_run(run: Run, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the loss is nan: training has diverged.*--clip-norm"):
        run(optimizer="sgd", learning_rate=1e38)
    assert "diverged" in (tmp_path / "run" / "log.txt").read_text()
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_full_disk_loses_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = run("whole"), tmp_path / "parts"
    interrupt_at(5, monkeypatch)
    run_experiment(SMALL, output=parts)
    monkeypatch.undo()
    before = (parts / "checkpoint.safetensors").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(
            ConfigurationError, match=r"cannot write .*checkpoint|cannot write .*best"
        ):
            resume_experiment(parts)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (parts / "checkpoint.safetensors").read_bytes() == before
    assert "the last checkpoint is kept" in (parts / "log.txt").read_text()
    assert not [path for path in parts.iterdir() if path.name.startswith(".")]
    resume_experiment(parts)
    assert rows(parts) == rows(whole)


def test_files_with_a_damaged_one(run: Run, tmp_path: Path) -> None:
    digits = open_data("digits").parts()["train"]
    for number in range(80):
        folder = tmp_path / "photos" / f"digit {digits.labels[number]}"
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(digits.images[number, ..., 0]).resize((40, 36))
        image.save(folder / f"{number}.jpg")
    bad = folder / "0 truncated.jpg"
    bad.write_bytes((folder / f"{number}.jpg").read_bytes()[:300])
    changes = {
        "data": str(tmp_path / "photos"),
        "crop": "random-resized",
        "resize": None,
        "train_limit": None,
        "val_fraction": 0.25,
        "batch_size": 16,
        "epochs": 2,
    }
    folder = run(**changes)
    summary = json.loads((folder / "summary.json").read_text())
    assert list(summary["skipped"]) == [str(bad)]
    assert f"skipped {bad}: " in (folder / "log.txt").read_text()
    assert len(rows(folder)) == 2
    assert read_record(folder / "best.keras")["labels"] == [f"digit {n}" for n in range(10)]


def test_nothing_is_overwritten_or_left_behind(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "mine.txt").write_text("keep")
    with pytest.raises(ConfigurationError, match=r"exists already and is not empty.*--resume"):
        run()
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    with pytest.raises(ConfigurationError, match="is a file, not a folder"):
        run_experiment(SMALL, output=folder / "mine.txt")
    with pytest.raises(ConfigurationError, match="batch_size 512 is larger than"):
        run("other", batch_size=512)
    assert not (tmp_path / "other").exists()


def test_resume_needs_a_run(run: Run, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no such folder"):
        resume_experiment(tmp_path / "none")
    with pytest.raises(TrainingError, match="not the folder of a run"):
        resume_experiment(tmp_path)
    folder = run(epochs=1)
    checkpoint = folder / "checkpoint.safetensors"
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrainingError, match="damaged checkpoint"):
        resume_experiment(folder)
    checkpoint.unlink()
    with pytest.raises(TrainingError, match="there is no checkpoint"):
        resume_experiment(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(TrainingError, match=r"config.json: damaged"):
        resume_experiment(folder)


def test_resume_refuses_other_data(run: Run) -> None:
    folder = run(epochs=1)
    config = json.loads((folder / "config.json").read_text())
    config["experiment"]["train_limit"] = 300
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(TrainingError, match="the data are not those that the run began with"):
        resume_experiment(folder)


def moved_photos(tmp_path: Path) -> Path:
    """A small data set of files."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(30):
            pixels = rng.integers(0, 256, (34, 36, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def test_a_run_goes_on_from_another_place_longer_and_in_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    moved_photos(tmp_path)
    monkeypatch.chdir(tmp_path)
    experiment = Experiment(
        data="photos", model="lenet5", epochs=1, batch_size=8, backend=keras.backend.backend(),
        val_fraction=0.2,
    )  # fmt: skip
    first, longer = tmp_path / "first", tmp_path / "longer"
    run_experiment(replace(experiment, epochs=2), output=Path("longer"))
    run_experiment(experiment, output=Path("first"))
    config = json.loads((first / "config.json").read_text())["experiment"]
    assert config["data"] == str(tmp_path / "photos")

    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    with pytest.raises(ConfigurationError, match=r"neither a kind of data .* nor a folder"):
        resume_experiment(first)
    copy = tmp_path / "copy"
    resume_experiment(first, output=copy, data="../elsewhere", epochs=2)
    assert json.loads((first / "config.json").read_text())["experiment"] == config
    assert rows(copy) == rows(longer)
    for mine, theirs in zip(weights(copy), weights(longer), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    changed = json.loads((copy / "config.json").read_text())["experiment"]
    assert (changed["data"], changed["epochs"]) == (str(tmp_path / "away/../elsewhere"), 2)

    next((tmp_path / "elsewhere" / "cat").iterdir()).unlink()
    other = tmp_path / "other"
    with pytest.raises(TrainingError, match="not those that the run began with"):
        resume_experiment(copy, output=other, epochs=3)
    assert not other.exists()


def test_not_every_run_can_be_longer_or_otherwise(run: Run, tmp_path: Path) -> None:
    folder = run(epochs=2, schedule="cosine")
    with pytest.raises(ConfigurationError, match="schedule 'cosine' of this run ends with epoch 2"):
        resume_experiment(folder, epochs=3)
    with pytest.raises(ConfigurationError, match=r"the run's data are digits; give .*--data-dir"):
        resume_experiment(folder, data=str(tmp_path))
    constant = run("constant", epochs=2, schedule="constant", warmup_epochs=0)
    with pytest.raises(ConfigurationError, match="--epochs 1: the run has done 2 already"):
        resume_experiment(constant, epochs=1)


def test_a_folder_that_was_there_before_stays(run: Run, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(ConfigurationError):
        run(data=str(tmp_path / "nowhere"))
    assert list((tmp_path / "run").iterdir()) == []


def test_final_views_where_nothing_is_left_to_test(tmp_path: Path) -> None:
    """Without a test part the validation part is what the final views are for."""
    folder = tmp_path / "run"
    experiment = Experiment(
        data=str(moved_photos(tmp_path)), model="lenet5", epochs=1, batch_size=8, input_size=28,
        backend=keras.backend.backend(), val_fraction=0.4, eval_resize=34, views="ten-crop",
    )  # fmt: skip
    run_experiment(experiment, output=folder)
    summary = json.loads((folder / "summary.json").read_text())
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["part"] == "val"
    assert evaluation["views"] == "ten-crop"
    for name in ("loss", "top1", "macro_f1"):
        assert summary["val"][name] == evaluation[name]
    centre = float(rows(folder)[0]["val_loss"])
    assert centre != summary["val"]["loss"]
    assert f"validation: loss {evaluation['loss']:.4f}" in (folder / "log.txt").read_text()
    page = Page(folder / "report.html")
    assert ["views of a val image", "ten-crop: the mean of 10"] in page.tables["used"]
    validated = tmp_path / "validated"
    run_experiment(replace(experiment, val_views="ten-crop"), output=validated)
    assert float(rows(validated)[0]["val_loss"]) == evaluation["loss"]


def test_settings_are_those_that_applied(run: Run) -> None:
    page = (run(epochs=1, schedule="constant") / "report.html").read_text()
    settings = dict(re.findall(r"<div><span>(\w+)</span><b>(.*?)</b></div>", page))
    assert settings["optimizer"] == "adam"
    assert not settings.keys() & {"momentum", "nesterov", "gamma", "step_epochs", "patience"}
    assert settings["backend"] == SMALL.backend
    assert settings["dropout_rate"] == "0.0"
    assert float(settings["mean"]) > 0
    assert "-" not in settings.values()
    assert "1 epoch in" in page


def test_a_finished_run_can_write_its_results_again(run: Run) -> None:
    folder = run(epochs=1)
    before = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").unlink()
    (folder / "report.html").unlink()
    resume_experiment(folder)
    again = json.loads((folder / "summary.json").read_text())
    assert again | {"test_seconds": 0} == before | {"test_seconds": 0}
    assert (folder / "report.html").exists()


def test_frozen_body_then_all(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    base = run("base", epochs=1)
    folder = run(
        "tuned",
        weights=base / "best.keras",
        epochs=2,
        freeze_epochs=1,
        keep_every=1,
        unfrozen_learning_rate=0.001,
    )
    out = capsys.readouterr().out
    assert "epoch 1: only the classifiers train, learning rate 0.003" in out
    assert "epoch 2: all layers train, learning rate 0.001" in out
    start_, frozen, tuned = (
        load_model(path)
        for path in (base / "best.keras", folder / "epoch-001.keras", folder / "epoch-002.keras")
    )
    changed = {
        layer.name: [
            any(
                np.any(np.array(a) != np.array(b))
                for a, b in zip(
                    model.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True
                )
            )
            for model in (frozen, tuned)
        ]
        for layer in start_.layers
        if layer.get_weights()
    }
    classifier = list(changed)[-1]
    assert {name for name, (first, _) in changed.items() if first} == {classifier}
    assert all(second for _, second in changed.values())


def test_weights_of_another_architecture_are_refused(run: Run, small_files: Path) -> None:
    with pytest.raises(ModelFileError, match=r"does not fit lenet5:\n  layer "):
        run(weights=small_files / "small.keras")


@pytest.mark.parametrize("slow", [False, True])
def test_mixed_precision_is_warned_against_where_slow_and_saved_as_float32(
    slow: bool, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = ("mixed_bfloat16",) if slow else ()
    monkeypatch.setattr(precision, "_SLOW_ON_CPU", {SMALL.backend: policies})
    folder = run(precision="mixed_bfloat16", epochs=1)
    warning = f"warning: {SMALL.backend} trains slower in mixed_bfloat16"
    warned = warning in (folder / "log.txt").read_text()
    assert warned == (slow and not gpus())
    model = load_model(folder / "best.keras")
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert all(np.isfinite(row).all() for row in weights(folder))
