"""What bounds a run: measured of an experiment, and said in words."""

import json
from pathlib import Path
from typing import Any

import keras
import pytest

from keras_alexnet.benchmarking.epochs import EpochRates, epoch_rates
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.training.presets import find_preset

SMALL = find_preset("digits-lenet5").experiment.override(backend=keras.backend.backend())


def test_an_experiment_is_measured_in_turns() -> None:
    done: list[int] = []
    rates = epoch_rates(SMALL, seconds=0.05, rounds=2, advance=done.append)
    assert done == [1, 2, 3, 4, 5, 6]
    assert min(rates.input, rates.step, rates.both) > 0
    # Batches that nobody uses come far faster than a network of convolutions takes them.
    assert rates.input > rates.both
    assert (rates.model, rates.backend) == ("lenet5", keras.backend.backend())
    rows = rates.sheet().rows
    assert [row[0] for row in rows] == ["input alone", "step alone", "both"]
    assert rows[2][2] == rates.both / rates.step


@pytest.mark.parametrize(
    ("rates", "text"),
    [
        ((620, 1000, 600), "the input bounds the run: it makes 62 % of what the step could take;"),
        ((5000, 1000, 990), "the step bounds the run: the input could feed 5 of them"),
        ((1500, 1000, 800), "could feed 1.5 of them; together they lose 20 %"),
    ],
)
def test_what_is_said(rates: tuple[float, float, float], text: str) -> None:
    (note,) = EpochRates("alexnet", "photos", "torch", *rates).notes()
    assert text in note


def test_epochs_that_are_too_short() -> None:
    with pytest.raises(ConfigurationError, match="an epoch of 3 batches is too short to be meas"):
        epoch_rates(SMALL.override(train_limit=100), seconds=0.1, rounds=1)


def test_the_command(run_python: Any, tmp_path: Path) -> None:
    def run(*arguments: object) -> Any:
        code = "from keras_alexnet.commands.app import main; main()"
        return run_python(code, "benchmark", *arguments, check=False)

    file = tmp_path / "rates.json"
    options = ("--preset", "digits-lenet5", "--backend", "torch", "--quick", "--json", file)
    done = run("lenet5", "--mode", "epoch", *options)
    assert done.returncode == 0, done.stderr
    assert " bounds the run: " in done.stdout
    assert json.loads(file.read_text()).keys() == {
        *("model", "data", "backend", "input", "step", "both")
    }
    for wrong, text in {
        ("--mode", "epoch"): "--mode epoch measures an experiment: give its --preset; MODEL and "
        "--data replace the preset's",
        ("--mode", "epoch", *options, "--batch-sizes", "8,16"): "--mode epoch takes one batch size",
        ("--mode", "epoch", *options, "--threads", "2"): "--mode epoch has no use for --threads",
        (): "nothing to measure: name a MODEL, see `keras-alexnet models`",
        ("lenet5", *options): "--preset, --data and --data-dir are for --mode epoch",
    }.items():
        assert run(*wrong).stderr == f"error: {text}\n"
