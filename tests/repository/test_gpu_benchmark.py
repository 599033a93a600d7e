"""`benchmarks/gpu.py`: its tables, what does not fit into memory, and all of it on a CPU."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.project import ROOT

from keras_alexnet.benchmarking.plan import Competitor, Plan
from keras_alexnet.benchmarking.runner import Benchmark, Measured
from keras_alexnet.errors import BenchmarkError

COMPILED, EAGER = Competitor("torchvision", compiled=True), Competitor("torchvision")
OURS, OTHER = Competitor("keras", "torch"), Competitor("keras", "jax")
PEAKS = {"float32": 1e12, "mixed_bfloat16": 2e12, "copy": 1e11}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("gpu")


def _plan(mode: str = "inference", dtype: str = "float32", batch: int = 2) -> Plan:
    return Plan("alexnet", mode, (batch,), (224, 224), 3, 0.1, 2, dtype)


def _found(plan: Plan, seconds: dict[Competitor, float]) -> Benchmark:
    results = tuple(Measured(c, plan.batch_sizes[0], 7, (s, s)) for c, s in seconds.items())
    return Benchmark(plan, results, "a cpu", ())


def test_work_of_a_step(gpu: Any) -> None:
    work = importlib.import_module("gpu_tables").work
    flops, moved = work(_plan(batch=1))
    assert flops == 2 * 714_188_480  # torchvision publishes 0.71 GFLOPS, each two operations
    # Weights once, and maps for every image.
    assert work(_plan(batch=11))[1] - moved == pytest.approx(10 * (moved - 4 * 61_100_840))
    assert work(_plan(dtype="mixed_bfloat16", batch=1)) == (flops, moved / 2)
    assert work(_plan("train", batch=1)) == (3 * flops, 3 * moved)
    assert work(_plan("train", batch=5), 1000) == (2 * 1000 * 5 * 3, None)


def test_tables(gpu: Any) -> None:
    plan = _plan()
    found = _found(plan, {COMPILED: 0.5, EAGER: 0.6, OURS: 0.4, OTHER: 0.8})
    lines = gpu.rows(gpu.Cell("mine", plan, found, ("Keras: no | memory",)), PEAKS)
    assert {line.count("|") for line in [*gpu.STEP_TABLE, *lines]} == {13}
    assert lines[0].startswith(
        "| mine | inference | float32 | 2 | Keras on torch | 5.0 | 1.25 | 1.25 - 1.25 | 1.50 |"
    )
    assert [line.endswith("| 1 reached |") for line in lines] == [True] + 4 * [False]
    assert "| Keras: no / memory | - |" in lines[-1]
    row = {"dtype": "float32", "batch": 2, "backend": "jax"}
    done = gpu.epoch_row(row | {"images": 80.0, "own": 100.0, "ratio": 0.8})
    failed = gpu.epoch_row(row | {"failure": "no memory"})
    assert {line.count("|") for line in [*gpu.EPOCH_TABLE, done, failed]} == {8}
    assert "| 80.0 | 100.0 | 0.80 | 0.9 missed |" in done


def test_who_fails_is_left_out(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner itself needs a card whose memory is too small, so its error is made up."""

    def run(plan: Plan, who: list[Competitor]) -> Benchmark:
        if OTHER in who:
            raise BenchmarkError(f"{OTHER.label}, batch 2: RESOURCE_EXHAUSTED: Out of memory")
        return _found(plan, dict.fromkeys(who, 1.0))

    monkeypatch.setattr(gpu, "run", run)
    cell = gpu.measure("mine", _plan(), [COMPILED, EAGER, OURS, OTHER])
    assert [m.competitor for m in cell.found.results] == [COMPILED, EAGER, OURS]
    assert cell.failures == (f"{OTHER.label}, batch 2: RESOURCE_EXHAUSTED: Out of memory",)
    cell = gpu.measure("mine", _plan(), [EAGER, OTHER])
    assert cell.found.results == ()


def test_a_part_is_not_the_section(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, whole in (
        ([], True),
        (["--device", "cpu"], False),
        (["--modes", "train"], False),
    ):
        monkeypatch.setattr("sys.argv", ["gpu.py", *arguments])
        assert gpu.read_options()[0].is_whole == whole


def test_the_most_telling_is_measured_first(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    jobs = gpu.read_options()[0].jobs()
    assert len(jobs) == len(set(map(str, jobs))) == 3 * 2 * (2 * 5 + 2)
    assert str(jobs[0]) == "alexnet, train, mixed_bfloat16, batch 256"
    assert {job.batch for job in jobs[:24]} == {256}


def test_what_is_kept_belongs_together(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept = tmp_path / "found.json"
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    choice = gpu.read_options()[0]
    known = gpu._known(choice, kept)
    kept.write_text(json.dumps(known))
    assert gpu._known(choice, kept) == known
    monkeypatch.setattr("sys.argv", ["gpu.py", "--device", "cpu"])
    with pytest.raises(BenchmarkError, match="measured on another device, image size or number"):
        gpu._known(gpu.read_options()[0], kept)
    kept.write_text("{")
    with pytest.raises(BenchmarkError, match=r"found\.json: not a file of this program"):
        gpu._known(choice, kept)


@pytest.mark.parametrize(
    "modes",
    [
        ("train", "epoch"),
        pytest.param(("train", "inference", "epoch"), marks=pytest.mark.slow),
    ],
    ids=len,
)
def test_rehearsal(modes: tuple[str, ...], tmp_path: Path) -> None:
    """All that a card will be asked for, of a small converted network, in two goes."""
    kept = tmp_path / "found.json"
    network = "torchvision:resnet18"
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py", "--device", "cpu", "--quick"]
    command += ["--models", network, "--backends", "torch", "--modes", *modes]
    command += ["--dtypes", "float32", "--image-size", "64", "--rounds", "1"]
    command += ["--files", tmp_path / "files", "--json", kept]

    def run(*more: str) -> str:
        done = subprocess.run(
            [*command, *more],
            # What torch.compile makes of the other side takes a minute, and is tested elsewhere.
            env=os.environ | {"TORCHDYNAMO_DISABLE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    text = run("--batch-sizes", "2")
    assert "Not measured" not in text
    known = json.loads(kept.read_text())
    lines = {"train": 3, "inference": 5, "epoch": 1}
    assert [len(found) for found in known["rows"].values()] == [lines[mode] for mode in modes]
    assert not [line for found in known["rows"].values() for line in found if "| - |" in line]
    assert len(re.findall(r"(reached|missed) \|", text)) == 2 * len(modes)
    # What is known is not measured again, and what there was no time for is named.
    kept.write_text(json.dumps(known | {"where": "a machine of long ago"}))
    text = run("--batch-sizes", "2", "3", "--minutes", "0")
    assert "a machine of long ago; medians of 1 rounds" in text
    assert f"Not measured: {network}, train, float32, batch 3; " in text
    assert "torch, epoch, float32, batch 3." in text
