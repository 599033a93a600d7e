"""Runs on several devices: the numbers are those of one device with the same global batch."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.devices import (
    LENET,
    assert_same_run,
    begin,
    begin_group,
    checkpoint,
    finish,
    rows,
)
from PIL import Image

from porting import convert


def assert_same_metrics(folder: Path, wanted: Path) -> None:
    for mine, theirs in zip(rows(folder), rows(wanted), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)


def counted(folder: Path) -> list[float]:
    """Return the numbers of images that the metrics of the last epoch have seen."""
    return [float(a) for n, a in checkpoint(folder, "metrics").items() if n.endswith("count")]


DEVICES = {"torch": 2, "tensorflow": 2, "jax": 4}


@pytest.mark.slow
@pytest.mark.parametrize("backend", DEVICES)
def test_lenet_is_trained_as_on_one_device(backend: str, tmp_path: Path) -> None:
    """Neither dropout nor batch norm: the very same run, its last batch divided unevenly."""
    one, several = tmp_path / "one", tmp_path / "several"
    finish(begin(*LENET, "--backend", backend, "--output", one))
    devices = DEVICES[backend]
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
    [pytest.param(name, marks=pytest.mark.slow) for name in ("tensorflow", "torch", "jax")],
)
def test_processes_train_as_one_does(backend: str, tmp_path: Path) -> None:
    one, several = tmp_path / "one", tmp_path / "several"
    options = (*LENET, "--clip-norm", "0.5", "--ema", "0.9")
    if backend != "tensorflow":
        options += ("--accumulate", "2")
    finish(begin(*options, "--backend", backend, "--output", one))
    first, second = finish(*begin_group(backend, 2, *options, "--output", several))
    assert "2 devices in 2 process(es), 16 images of a batch each" in first
    assert "epoch" not in second
    assert_same_run(several, one)
    assert_same_metrics(several, one)
    assert counted(several)[-2:] == [297, 297]


@pytest.mark.slow
def test_gradients_in_bfloat16_come_close(tmp_path: Path) -> None:
    one, several = tmp_path / "one", tmp_path / "several"
    options = (*LENET, "--epochs", 1, "--optimizer", "sgd", "--learning-rate", 0.05)
    options += ("--backend", "torch", "--devices", 2, "--output")
    finish(begin(*options, one))
    finish(begin(*options, several, "--gradients", "bfloat16"))
    away = []
    for name, wanted in checkpoint(one, "model").items():
        found = checkpoint(several, "model")[name]
        away.append(np.abs(found - wanted).max() / np.abs(wanted).max())
    # A gradient keeps 8 bits: up to .4 % of each of the ten steps. Biases began at 0 and are
    # nothing but steps; beside kernels these are small.
    assert 1e-6 < max(away) < 4e-3
    assert np.median(away) < 1e-4


def test_gradients_in_bfloat16_are_for_several_devices_of_torch(tmp_path: Path) -> None:
    process = begin(*LENET, "--gradients", "bfloat16", "--output", tmp_path / "x")
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 2
    assert "gradients travel in bfloat16 between devices of torch (--gradients bfloat16)" in output
    assert not (tmp_path / "x").exists()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two classes with 36 small images each."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir()
        for number in range(36):
            pixels = rng.integers(0, 256, (40, 44, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


_NET = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.GroupNorm(2, channels)
        self.gate = nn.Linear(channels, channels)
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 0.5))

    def forward(self, x):
        gate = self.gate(x.mean((2, 3))).sigmoid()[:, :, None, None]
        return x + self.scale * nn.functional.gelu(self.norm(self.depthwise(x))) * gate

def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, 4), Block(8), Block(8), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(32, 2),
    )
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", DEVICES)
def test_a_converted_network_is_trained_as_on_one_device(
    backend: str, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "net.py").write_text(_NET)
    file = tmp_path / "net.keras"
    convert(f"{tmp_path / 'net.py'}:build", None, file, input_shapes=[(3, 32, 32)])
    common: tuple[object, ...] = (
        "--weights", file, "--data", photos, "--epochs", "2", "--batch-size", "16",
        "--learning-rate", "0.02", "--mean", 0.5, 0.5, 0.5, "--std", 0.25, 0.25, 0.25,
        "--flip", "0.5", "--backend", backend,
    )  # fmt: skip
    one, several = tmp_path / "one", tmp_path / "several"
    finish(begin(*common, "--output", one))
    (output,) = finish(begin(*common, "--devices", "2", "--output", several))
    assert "2 devices in" in output
    assert_same_run(several, one)
    assert_same_metrics(several, one)


@pytest.mark.slow
@pytest.mark.parametrize("backend", DEVICES)
def test_alexnet_cifar_from_files(backend: str, photos: Path, tmp_path: Path) -> None:
    """Batch norm of each device's part is that of one device which adds its gradients up.

    Two parts of 8 images and an update for both; on JAX the whole batch is one, as on one device,
    with dropout too. Batch norm carries roundings far within four steps, so that differences are
    measured by the way that a weight went.
    """
    still, one, several = (tmp_path / name for name in ("still", "one", "several"))
    common: tuple[object, ...] = (
        "--model", "alexnet_cifar", "--data", photos, "--epochs", "1", "--val-fraction", "0.1",
        "--crop", "random-resized", "--flip", "0.5", "--backend", backend, "--drop-remainder",
    )  # fmt: skip
    parts = ("--batch-size", "16")
    if backend != "jax":
        common = (*common, "--dropout-rate", "0")
        parts = ("--batch-size", "8", "--accumulate", "2")
    rate = ("--learning-rate", "0.01")
    finish(begin(*common, "--batch-size", "16", "--learning-rate", "1e-30", "--output", still))
    finish(begin(*common, *rate, *parts, "--output", one))
    (output,) = finish(
        begin(*common, *rate, "--batch-size", "16", "--devices", "2", "--output", several)
    )
    seen = "the whole batch" if backend == "jax" else "each device's part of the batch"
    assert f"batch norm sees {seen}" in output
    start, wanted, found = (checkpoint(folder, "model") for folder in (still, one, several))
    learned = [n for n in wanted if n.endswith(("kernel", "gamma", "beta"))]
    assert len(learned) == 24
    for name in learned:
        way = np.linalg.norm(wanted[name] - start[name])
        assert np.linalg.norm(found[name] - wanted[name]) < 0.05 * way, name
    losses = [rows(folder)[0]["train_loss"] for folder in (one, several)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
