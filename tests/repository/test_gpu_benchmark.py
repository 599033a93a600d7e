"""`benchmarks/gpu.py`: its tables, and what happens where something does not fit into memory."""

import importlib
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


def test_tables(gpu: Any) -> None:
    plan = _plan()
    found = _found(plan, {COMPILED: 0.5, EAGER: 0.6, OURS: 0.4, OTHER: 0.8})
    lines = gpu.table([gpu.Cell(plan, found, ("Keras: no | memory",))], PEAKS).splitlines()
    assert {line.count("|") for line in lines} == {13}
    assert lines[2].startswith(
        "| alexnet | inference | float32 | 2 | Keras on torch | 5.0 | 1.25 | 1.25 - 1.25 | 1.50 |"
    )
    assert [line.endswith("| 1 reached |") for line in lines[2:]] == [True] + 4 * [False]
    assert "| Keras: no / memory | - |" in lines[-1]
    row = {"dtype": "float32", "batch": 2, "backend": "jax"}
    text = gpu.epoch_table(
        [row | {"images": 80.0, "own": 100.0, "ratio": 0.8}, row | {"failure": "no memory"}]
    )
    assert {line.count("|") for line in text.splitlines()} == {8}
    assert "| 80.0 | 100.0 | 0.80 | 0.9 missed |" in text


def test_who_fails_is_left_out(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner itself needs a card whose memory is too small, so its error is made up."""

    def run(plan: Plan, who: list[Competitor]) -> Benchmark:
        if OTHER in who:
            raise BenchmarkError(f"{OTHER.label}, batch 2: RESOURCE_EXHAUSTED: Out of memory")
        return _found(plan, dict.fromkeys(who, 1.0))

    monkeypatch.setattr(gpu, "run", run)
    cell = gpu.measure(_plan(), [COMPILED, EAGER, OURS, OTHER])
    assert [m.competitor for m in cell.found.results] == [COMPILED, EAGER, OURS]
    assert cell.failures == (f"{OTHER.label}, batch 2: RESOURCE_EXHAUSTED: Out of memory",)
    cell = gpu.measure(_plan(), [EAGER, OTHER])
    assert cell.found.results == ()


def test_a_part_is_not_the_section(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, whole in (
        ([], True),
        (["--device", "cpu"], False),
        (["--modes", "train"], False),
    ):
        monkeypatch.setattr("sys.argv", ["gpu.py", *arguments])
        assert gpu.read_choice().is_whole == whole
