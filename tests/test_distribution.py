"""Runs on several devices: the numbers are those of one device with the same global batch."""

import json
from pathlib import Path

import numpy as np
import pytest
from distributed_helpers import LENET, begin, begin_group, checkpoint, finish, rows

# Sums are taken in another order, and steps of SGD carry the difference on.
WEIGHTS = {"rtol": 1e-4, "atol": 2e-6}
METRICS = {"rtol": 1e-5, "atol": 1e-6}


def assert_same_run(folder: Path, wanted: Path, *, moving: bool = True) -> None:
    found, expected = checkpoint(folder, "model"), checkpoint(wanted, "model")
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        if moving or not name.endswith(("moving_mean", "moving_variance")):
            np.testing.assert_allclose(found[name], array, **WEIGHTS, err_msg=name)


def assert_same_metrics(folder: Path, wanted: Path) -> None:
    for mine, theirs in zip(rows(folder), rows(wanted), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)


def counted(folder: Path) -> list[float]:
    """Return the numbers of images that the metrics of the last epoch have seen."""
    return [float(a) for n, a in checkpoint(folder, "metrics").items() if n.endswith("count")]


# How several devices are had, and what tells one from another.
ENGINES = {
    "torch": 2,
    "tensorflow": 2,
    "jax": 4,
}


@pytest.mark.parametrize("backend", ENGINES)
def test_lenet_is_trained_as_on_one_device(backend: str, tmp_path: Path) -> None:
    """Neither dropout nor batch norm: the very same run, its last batch divided unevenly."""
    one, several = tmp_path / "one", tmp_path / "several"
    finish(begin(*LENET, "--backend", backend, "--output", one))
    devices = ENGINES[backend]
    (output,) = finish(
        begin(*LENET, "--backend", backend, "--output", several, "--devices", devices)
    )
    assert f"{devices} devices in" in output
    assert_same_run(several, one)
    assert_same_metrics(several, one)
    # Every image is counted once; the last batch has 9.
    assert counted(several)[-2:] == [297, 297]
    record = json.loads((several / "environment.json").read_text())
    assert record["devices"] == devices
    summaries = [json.loads((f / "summary.json").read_text()) for f in (one, several)]
    assert summaries[0]["test"] == pytest.approx(summaries[1]["test"], rel=1e-4)
    assert {p.name for p in several.iterdir() if not p.name.startswith("events")} == {
        p.name for p in one.iterdir() if not p.name.startswith("events")
    }


@pytest.mark.parametrize(
    "backend",
    [
        "tensorflow",
        pytest.param("torch", marks=pytest.mark.slow),
        pytest.param("jax", marks=pytest.mark.slow),
    ],
)
def test_processes_train_as_one_does(backend: str, tmp_path: Path) -> None:
    one, several = tmp_path / "one", tmp_path / "several"
    options = ("--clip-norm", "0.5", "--ema", "0.9")
    if backend != "tensorflow":
        options += ("--accumulate", "2")
    finish(begin(*LENET, *options, "--backend", backend, "--output", one))
    first, second = finish(*begin_group(backend, 2, *LENET, *options, "--output", several))
    assert "2 devices in 2 process(es), 16 images of a batch each" in first
    assert "epoch" not in second
    assert_same_run(several, one)
    assert_same_metrics(several, one)
    assert counted(several)[-2:] == [297, 297]
