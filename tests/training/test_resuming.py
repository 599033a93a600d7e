"""Runs that are stopped, or cannot go on, and go on."""

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers.project import ROOT
from helpers.training import SMALL, Run, interrupt_at, moved_photos, rows, weights

from keras_alexnet.errors import ConfigurationError, TrainingError
from keras_alexnet.training.experiment import Experiment
from keras_alexnet.training.run import resume_experiment, run_experiment

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


def test_a_checkpoint_within_an_epoch_on_jax(run_python: Any, tmp_path: Path) -> None:
    """Its training step holds the variables' values while it lasts."""
    code = """
import sys
from pathlib import Path
from helpers.training import SMALL
from keras_alexnet.training.run import run_experiment

experiment = SMALL.override(backend="jax", epochs=1, checkpoint_steps=4)
assert run_experiment(experiment, output=Path(sys.argv[1])) is not None
"""
    folder = tmp_path / "run"
    tests = str(ROOT / "tests")
    run_python(code, folder, KERAS_BACKEND="jax", PYTHONPATH=f"{ROOT}{os.pathsep}{tests}")
    assert (folder / "summary.json").exists()


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


def test_a_finished_run_can_write_its_results_again(run: Run) -> None:
    folder = run(epochs=1)
    before = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").unlink()
    (folder / "report.html").unlink()
    resume_experiment(folder)
    again = json.loads((folder / "summary.json").read_text())
    assert again | {"test_seconds": 0} == before | {"test_seconds": 0}
    assert (folder / "report.html").exists()
