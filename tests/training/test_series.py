"""Several presets in turn: done once, gone on with, refused where settings differ."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from keras_alexnet.commands.app import app
from keras_alexnet.core.children import ROOT
from keras_alexnet.errors import ConfigurationError, TrainingError, UnknownModelError
from keras_alexnet.training.experiment import Experiment
from keras_alexnet.training.presets import PRESETS
from keras_alexnet.training.runs.folder import RunFolder
from keras_alexnet.training.series import run_series


def quick(**changes: object) -> Experiment:
    settings = {"epochs": 1, "train_limit": 100, "eval_limit": 50, "batch_size": 50, **changes}
    return PRESETS["digits-lenet5"].experiment.override(**settings)


@pytest.mark.slow
def test_runs_are_done_once_and_failures_do_not_end_the_others(tmp_path: Path) -> None:
    experiments = {"a": quick(), "bad": quick(data="nowhere"), "b": quick(seed=1)}
    said: list[str] = []
    found = run_series(experiments, tmp_path, said.append)
    assert found == ([tmp_path / "a", tmp_path / "b"], ["bad"])
    assert said == ["a (1 of 3): begins", "bad (2 of 3): begins", "b (3 of 3): begins"]
    times = [path.stat().st_mtime_ns for path in tmp_path.glob("*/summary.json")]
    assert run_series({"a": quick(), "b": quick(seed=1)}, tmp_path, said.append) is not None
    assert said[3:] == ["a (1 of 2): done before", "b (2 of 2): done before"]
    assert [path.stat().st_mtime_ns for path in tmp_path.glob("*/summary.json")] == times
    with pytest.raises(
        ConfigurationError, match=r"a holds a run with other settings \(seed\); name"
    ):
        run_series({"b": quick(seed=1), "a": quick(seed=2)}, tmp_path, said.append)


@pytest.mark.slow
def test_a_stopped_series_goes_on(tmp_path: Path) -> None:
    """Ctrl-C saves the run that is under way; the same command goes on with it."""
    command = [sys.executable, "-P", "-m", "keras_alexnet.train", "--presets", "digits-lenet5"]
    command += ["--output", str(tmp_path), "--epochs", "60", "--train-limit", "200"]
    process = subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    run = RunFolder(tmp_path / "digits-lenet5")
    limit = time.monotonic() + 120
    while not run.metrics.exists() and time.monotonic() < limit:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "stopped and saved" in said
    before = len(run.metrics.read_text().splitlines())
    assert not run.summary.exists()
    assert 1 < before < 61
    done = subprocess.run(
        command,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "digits-lenet5 (1 of 1): goes on" in done.stdout
    assert "resumed behind epoch" in done.stdout
    assert json.loads(run.summary.read_text())["epochs"] == 60
    assert "test %" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        (["--presets", "no-*"], ConfigurationError, "unknown preset 'no-\\*'"),
        (["--presets", "digits-*", "--devices", "2"], ConfigurationError, "on one device"),
        (["--presets", "digits-*", "--preset", "a"], ConfigurationError, "leave --preset"),
        (["--presets", "digits-*", "--model", "x"], UnknownModelError, "x"),
    ],
)
def test_mistakes(arguments: list[str], kind: type[Exception], text: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["train", *arguments, "--output", str(tmp_path / "runs")])
    assert isinstance(done.exception, kind)
    assert text.replace("\\", "") in str(done.exception)
    assert not (tmp_path / "runs").exists()


def test_damaged_settings_are_found_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.json").write_text("{")
    with pytest.raises(TrainingError, match=r"config\.json: damaged"):
        run_series({"b": quick(), "a": quick()}, tmp_path, print)
