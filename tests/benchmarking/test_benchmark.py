"""`keras-alexnet benchmark`: what it measures, in which order, what it reports, what it refuses."""

import importlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from helpers.project import ROOT

from keras_alexnet.benchmarking import keras_side, runner, torchvision_side
from keras_alexnet.benchmarking.environment import ALLOCATOR, cores, pinned
from keras_alexnet.benchmarking.pipelines import (
    keras_pipeline,
    open_epochs,
    torchvision_pipeline,
)
from keras_alexnet.benchmarking.plan import Competitor, Plan, baselines, keras_side as competitors
from keras_alexnet.benchmarking.report import notes, rows, sheet, to_json, versions
from keras_alexnet.benchmarking.runner import Benchmark, Measured, run, steps
from keras_alexnet.benchmarking.timing import EpochWatch, StepWatch
from keras_alexnet.core.backend import BACKENDS, installed
from keras_alexnet.errors import (
    BenchmarkError,
    ChildError,
    ConfigurationError,
    KerasAlexNetError,
    ModelFileError,
)
from keras_alexnet.models.record import save_model
from keras_alexnet.specs import SPECS

Cli = Callable[..., tuple[int, str, str]]


def _plan(model: str = "lenet5", mode: str = "inference", **changes: Any) -> Plan:
    fields: dict[str, Any] = {
        "batch_sizes": (2,),
        "image_size": SPECS[model].default_size,
        "rounds": 2,
        "seconds": 0.01,
        "threads": 1,
    }
    return Plan(model, mode, **{**fields, **changes})


# The whole command


def test_a_model_on_one_backend(run_cli: Cli, tmp_path: Path) -> None:
    code, out, err = run_cli(
        "benchmark", "lenet5", "--backend", "torch", "--batch-sizes", "1,3", "--quick",
        "--rounds", "2", "--threads", "1", "--json", "found.json",
    )  # fmt: skip
    assert (code, err) == (0, "")
    found = json.loads((tmp_path / "found.json").read_text())
    plan = _plan(batch_sizes=(1, 3), seconds=0.1)
    assert found["plan"] == json.loads(json.dumps(asdict(plan)))
    assert found["cpu"]
    assert found["gpus"] == []
    assert found["allocator"] == ALLOCATOR
    assert {"keras-alexnet", "keras", "numpy", "torch"} == set(found["versions"])
    assert [result["batch_size"] for result in found["results"]] == [1, 3]
    for result in found["results"]:
        who = result["by"], result["backend"], result["engine"]
        assert who == ("Keras on torch", "torch", "keras")
        assert len(result["seconds"]) == 2
        quartiles = result["seconds_quartiles"]
        assert 0 < quartiles["low"] <= quartiles["median"] <= quartiles["high"]
        assert result["images_per_second"] == result["batch_size"] / quartiles["median"]
        assert (result["baseline"], result["ratio_quartiles"]) == (None, None)
    assert "lenet5, inference, 28x28 pixels, float32" in out
    line = next(line.split() for line in out.splitlines() if line.split()[:1] == ["3"])
    assert line[:5] == ["3", "Keras", "on", "torch", f"{1e3 * quartiles['median']:.2f}"]
    assert f"1 thread; keras-alexnet {found['versions']['keras-alexnet']}, keras" in out
    assert "ratio" not in out


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["inference", "train"])
@pytest.mark.parametrize("model", ["alexnet", "googlenet"])
def test_every_backend_against_torchvision(
    model: str, mode: str, run_cli: Cli, tmp_path: Path
) -> None:
    options = ["--batch-sizes", 2, "--image-size", 64, "--quick", "--rounds", 2]
    code, out, err = run_cli(
        "benchmark", model, "--mode", mode, "--backend", "all", "--against", "torchvision",
        *options, "--json", "found.json", "--format", "markdown",
    )  # fmt: skip
    assert (code, err) == (0, "")
    results = json.loads((tmp_path / "found.json").read_text())["results"]
    ours = {f"Keras on {backend}" for backend in BACKENDS if installed(backend)}
    theirs = {"torchvision channels_last", "torchvision channels_first"}
    assert {result["by"] for result in results} == ours | theirs
    for result in results:
        assert result["baseline"] == "torchvision channels_last"
        assert result["ratio_quartiles"]["median"] > 0
        if result["by"] == result["baseline"]:
            assert set(result["ratio_quartiles"].values()) == {1.0}
    assert out.startswith("| batch | by |")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["auto", "openvino", "onnxruntime"])
def test_engines_against_openvino(engine: str, run_cli: Cli, tmp_path: Path) -> None:
    code, _, err = run_cli(
        "benchmark", "googlenet", "--backend", "torch", "--engine", engine, "--image-size", 64,
        "--batch-sizes", 2, "--quick", "--against", "openvino-torchvision", "--json", "found.json",
    )  # fmt: skip
    assert (code, err) == (0, "")
    found = json.loads((tmp_path / "found.json").read_text())
    assert [result["by"] for result in found["results"]] == [
        f"Keras on torch, {'optimized' if engine == 'auto' else engine}",
        "OpenVINO of torchvision",
    ]
    assert "openvino" in found["versions"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["alexnett"], "unknown model 'alexnett'. Did you mean 'alexnet'?"),
        (["lenet5", "--mode", "fly"], "unknown mode 'fly'; choose from inference, train, pipeline"),
        (["lenet5", "--batch-sizes", "0"], "--batch-sizes '0' are not positive numbers"),
        (["lenet5", "--batch-sizes", "1,many"], "--batch-sizes '1,many' are not positive numbers"),
        (["lenet5", "--batch-sizes", ""], "--batch-sizes '' are not positive numbers"),
        (["lenet5", "--against", "torchvision"], "torchvision has no lenet5, only alexnet and"),
        (["alexnet", "--against", "caffe"], "unknown baseline 'caffe'; choose from torchvision,"),
        (["lenet5", "--backend", "theano"], "unknown backend 'theano'; choose from tensorflow,"),
        (["lenet5", "--engine", "warp"], "unknown engine 'warp'; choose from keras, auto, torch,"),
        (["lenet5", "--mode", "train", "--engine", "auto"], "engine 'auto' is for inference, not"),
        (["lenet5", "--dtype", "int8"], "unknown dtype 'int8'; choose from float32, mixed_bfloat"),
        (["lenet5", "--device", "tpu"], "unknown device 'tpu'; choose from cpu, gpu"),
        (["lenet5", "--threads", "4096"], "--threads 4096: there are"),
        (["alexnet", "--image-size", "32"], "alexnet needs images of at least 63 x 63 pixels"),
        (["alexnet", "--image-size", "wide"], "size 'wide' is neither N nor HEIGHTxWIDTH"),
        (
            ["alexnet", "--compile"],
            "--compile is for torchvision's networks: add --against torchvision",
        ),
        (
            ["alexnet", "--against", "openvino-torchvision", "--compile"],
            "--compile is for the networks of torchvision and timm",
        ),
        (
            ["alexnet", "--mode", "train", "--against", "openvino-torchvision"],
            "openvino-torchvision is for inference on a CPU",
        ),
        (["lenet5", "--mode", "pipeline", "--dtype", "mixed_bfloat16"], "pipelines make float32"),
        (["lenet5", "--json", "missing/found.json"], "there is no folder missing"),
    ],
)
def test_mistakes_are_refused_in_one_line(arguments: list[str], text: str, run_cli: Cli) -> None:
    code, out, err = run_cli("benchmark", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert text in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "hidden", "text"),
    [
        (["lenet5", "--backend", "jax"], "jax", "Keras backend 'jax' needs jax, which is not"),
        (["lenet5", "--engine", "openvino"], "openvino", "pip install openvino"),
        (["alexnet", "--against", "torchvision"], "torchvision", "pip install torch torchvision"),
    ],
)
def test_missing_packages_are_named(
    arguments: list[str], hidden: str, text: str, run_python: Callable[..., Any]
) -> None:
    code = f"""
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == {hidden!r} else find(name, *rest)
sys.argv = ["keras-alexnet", "benchmark", *{arguments!r}]
from keras_alexnet.commands.app import main
main()
"""
    done = run_python(code, check=False)
    assert done.returncode == 2
    assert text in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_found_by_the_child(run_cli: Cli, tmp_path: Path) -> None:
    code, _, err = run_cli(
        "benchmark", "lenet5", "--backend", "torch", "--device", "gpu", "--json", "found.json"
    )
    assert (code, err.count("\n")) == (2, 1)
    assert "torch sees no GPU here" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(shutil.which("ps") is None, reason="needs the program ps")
def test_an_interruption_ends_the_children(tmp_path: Path) -> None:
    command = ["benchmark", "lenet5", "--backend", "torch", "--rounds", "100000"]
    parent = subprocess.Popen(
        [sys.executable, "-m", "keras_alexnet", *command, "--json", "found.json"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not (children := _children(parent.pid)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        parent.send_signal(signal.SIGINT)
        out, err = parent.communicate(timeout=30)
    finally:
        parent.kill()
    assert parent.returncode == 130
    assert (out, "Traceback" in err) == ("", False)
    assert not list(tmp_path.iterdir())
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def _children(pid: int) -> list[int]:
    listing = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(line) for line in listing.stdout.split()]


# Turns

_CHILD = """
import sys
from keras_alexnet.core.children import enter_child
from keras_alexnet.errors import ConfigurationError

name = None

def main(job):
    global name
    if job["work"] == "open":
        name = job["competitor"]["engine"]
    with open(LOG, "a") as log:
        print(name, job["work"], job.get("batch", ""), file=log)
    if job["work"] == "open":
        return {"backend": "torch", "cpu": "a cpu", "gpus": []}
    if job["work"] == "measure":
        return 0.25
    if name == "mistaken":
        raise ConfigurationError("what you want is impossible")
    if name == "failing":
        raise MemoryError("too large")
    if name == "dying":
        sys.exit(3)
    return 5

enter_child(main)
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What children that measure nothing were asked for."""
    path = tmp_path / "log.txt"
    (tmp_path / "counting_child.py").write_text(f"LOG = {str(path)!r}\n{_CHILD}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(runner, "_CHILD", "counting_child")
    return path


def test_competitors_take_turns(log: Path) -> None:
    plan = _plan(batch_sizes=(1, 4))
    competitors = [Competitor("keras", "torch", name) for name in ("a", "b")]
    done: list[int] = []
    found = run(plan, competitors, done.append)
    turns = []
    for batch in (1, 4):
        turns += [f"{name} warm {batch}" for name in "ab"]
        turns += [f"{name} measure {batch}" for _ in range(plan.rounds) for name in "ab"]
    opened, others = log.read_text().splitlines()[:2], log.read_text().splitlines()[2:]
    assert sorted(opened) == ["a open ", "b open "]  # both at once
    assert others == turns
    assert done == list(range(1, steps(plan, competitors) + 1))
    assert found.cpu == "a cpu"
    assert found.results == tuple(
        Measured(competitor, batch, 5, (0.25, 0.25))
        for batch in plan.batch_sizes
        for competitor in competitors
    )


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("mistaken", ConfigurationError, r"^what you want is impossible$"),
        ("failing", BenchmarkError, r"^Keras on torch, failing, batch 2: MemoryError: too large$"),
        ("dying", ChildError, "failed with exit code 3"),
    ],
)
def test_failures_name_who_failed(
    name: str, error: type[KerasAlexNetError], text: str, log: Path
) -> None:
    with pytest.raises(error, match=text):
        run(_plan(), [Competitor("keras", "torch", name)])


def test_children_get_the_allocator_and_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    before = dict(os.environ)
    with pinned(3):
        code = "import json, os; print(json.dumps(dict(os.environ)))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    environment = json.loads(done.stdout)
    assert ALLOCATOR.items() <= environment.items()
    assert environment["OMP_NUM_THREADS"] == environment["TF_NUM_INTRAOP_THREADS"] == "3"
    assert dict(os.environ) == before


# Stopwatches


@pytest.mark.parametrize(("queued", "waits"), [(False, 4), (True, 2)])
def test_steps_are_waited_for(queued: bool, waits: int) -> None:
    """On a CPU for each, on a GPU for the one before the timing and for the last one."""
    waited: list[int] = []
    numbers = iter(range(100))
    watch = StepWatch(lambda: next(numbers), waited.append, seconds=1.0, queued=queued)
    watch.calls = 3
    assert watch.measure() > 0
    assert len(set(waited)) == waits
    assert waited[-1] == 3


def test_fast_steps_fill_the_time() -> None:
    watch = StepWatch(lambda: time.sleep(0.002), lambda _: None, seconds=0.05, queued=False)
    watch.warm()
    assert 2 <= watch.calls <= 25
    assert 0.002 <= watch.measure() < 1
    slow = StepWatch(lambda: time.sleep(0.02), lambda _: None, seconds=0.01, queued=False)
    slow.warm()
    assert slow.calls == 1


def test_epochs_are_timed_once_they_flow() -> None:
    used: list[int] = []

    def epoch() -> Any:
        time.sleep(0.2)  # beginning it
        yield from range(8)

    watch = EpochWatch(epoch, used.append, batches=8)
    assert watch.measure() < 0.04
    assert (watch.calls, used) == (4, list(range(8)))


# What is computed


@pytest.mark.parametrize("model", [pytest.param("alexnet", marks=pytest.mark.slow), "googlenet"])
def test_both_sides_train_the_same(model: str) -> None:
    """New networks know nothing: the loss is that of a guess, with the auxiliary heads' share."""
    size = (64, 64)
    plan = _plan(model, "train", image_size=size)
    guess = math.log(1000) * (1.6 if model == "googlenet" else 1)
    theirs = torchvision_side.open_steps(plan, Competitor("torchvision"))(2)
    assert float(theirs._step().detach()) == pytest.approx(guess, rel=0.15)
    ours = keras_side.open_steps(plan, Competitor("keras", "torch"))(2)
    assert float(np.asarray(ours._step()).flat[0]) == pytest.approx(guess, rel=0.15)


def test_a_step_trains() -> None:
    plan = _plan(mode="train")
    keras.utils.set_random_seed(0)
    watch = keras_side.open_steps(plan, Competitor("keras", "torch"))(8)
    losses = [float(np.asarray(watch._step()).flat[0]) for _ in range(3)]
    assert len(set(losses)) == 3
    assert np.isfinite(losses).all()


def test_outputs_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="outputs are not finite; use another dtype"):
        keras_side._check_finite(np.array([1.0, np.nan]))


@pytest.mark.parametrize("model", ["lenet5", "alexnet", "googlenet_caffe"])
def test_both_pipelines_make_the_same(model: str) -> None:
    """Of images of one colour each, which neither resizing nor mirroring changes."""
    plan = _plan(model, "pipeline", batch_sizes=(4,))
    channels = plan.spec.channels
    colours = np.random.default_rng(0).integers(0, 256, (4, 1, 1, channels), np.uint8)
    images = np.broadcast_to(colours, (4, 32, 32, channels)).copy()
    found = []
    for epochs, finish in (
        keras_pipeline(plan, images, 4),
        torchvision_pipeline(plan, images, 4, 0),
    ):
        (batch,) = list(epochs())
        found.append(finish(batch))
    ours, theirs = found[0], found[1].permute(0, 2, 3, 1)
    assert ours.shape == theirs.shape == (4, *plan.image_size, channels)
    order = [np.argsort(values[:, 0, 0, 0].numpy()) for values in (ours, theirs)]
    np.testing.assert_allclose(ours[order[0]], theirs[order[1]], rtol=1e-5, atol=1e-5)


def test_a_pipeline_is_timed() -> None:
    watch = open_epochs(_plan(mode="pipeline"), Competitor("keras", "torch"))(4)
    watch.warm()
    assert watch.measure() > 0
    assert watch.calls > 4


# Reports


def _found(mode: str, seconds: dict[Competitor, tuple[float, ...]]) -> Benchmark:
    model = "alexnet"
    plan = _plan(model, mode, rounds=3, threads=2)
    results = tuple(Measured(competitor, 2, 7, found) for competitor, found in seconds.items())
    return Benchmark(plan, results, "a cpu", ())


KERAS = Competitor("keras", "jax")
THEIRS = Competitor("torchvision")


def test_ratios_are_those_of_the_rounds() -> None:
    """The machine was slow in the second round: for both."""
    found = _found("inference", {KERAS: (1.0, 9.0, 1.0), THEIRS: (2.0, 18.0, 3.0)})
    ours, theirs = rows(found)
    assert ours.ratio is not None
    assert theirs.ratio is not None
    assert (ours.seconds.low, ours.seconds.median, ours.seconds.high) == (1.0, 1.0, 5.0)
    assert (ours.ratio.low, ours.ratio.median, ours.ratio.high) == (2.0, 2.0, 2.5)
    assert (ours.rate, theirs.ratio.median) == (2.0, 1.0)
    table = sheet(found)
    assert table.cells == [
        ["2", "Keras on jax", "1000.00", "1000.00 - 5000.00", "2.0", "2.00", "2.00 - 2.50"],
        ["2", THEIRS.label, "3000.00", "2500.00 - 10500.00", "0.7", "1.00", "1.00 - 1.00"],
    ]
    text = notes(found)
    assert text[0].startswith("ratio: how many times as fast as torchvision channels_last")
    assert text[-1].startswith("a cpu, 2 threads; keras-alexnet ")
    records = to_json(found)["results"]
    assert json.loads(json.dumps(records, allow_nan=False))[0] == {
        "by": "Keras on jax",
        "kind": "keras",
        "backend": "jax",
        "engine": "keras",
        "data_format": "channels_last",
        "compiled": False,
        "workers": None,
        "batch_size": 2,
        "calls": 7,
        "seconds": [1.0, 9.0, 1.0],
        "seconds_quartiles": {"low": 1.0, "median": 1.0, "high": 5.0},
        "images_per_second": 2.0,
        "baseline": "torchvision channels_last",
        "ratio_quartiles": {"low": 2.0, "median": 2.0, "high": 2.5},
    }


def test_pipelines_are_compared_with_the_faster_loader() -> None:
    loaders = [Competitor("torchvision", workers=number) for number in (0, 2)]
    seconds = {KERAS: (1.0,), loaders[0]: (4.0,), loaders[1]: (3.0,)}
    found = _found("pipeline", seconds)
    ratios = [row.ratio and row.ratio.median for row in rows(found)]
    assert ratios == [3.0, 0.75, 1.0]
    assert notes(found)[2].startswith("noise of 32x32 bytes in memory")


def test_the_section_of_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the best engine on a backend the ratio is judged; a chart stands beside the table."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    models = importlib.import_module("models")
    contest = models.CONTESTS["engines"]
    engines = [Competitor("keras", "torch", name) for name in contest.engines]
    best, other = Competitor("openvino-torchvision"), engines[1]
    found = _found("inference", {best: (1.0,), engines[0]: (0.8,), other: (2.0,)})
    lines = models.lines("alexnet", contest, found)
    assert models.table(lines).splitlines()[2:] == [
        "| alexnet | inference, the best engines | 2 | Keras on torch, openvino | 2.5 | 1.25 "
        "| 1.25 - 1.25 | 0.97 reached |",
        "| alexnet | inference, the best engines | 2 | OpenVINO of torchvision | 2.0 | 1.00 "
        "| 1.00 - 1.00 |  |",
        "| alexnet | inference, the best engines | 2 | Keras on torch, onnxruntime | 1.0 | 0.50 "
        "| 0.50 - 0.50 |  |",
    ]
    assert "a cpu, 2 threads, float32" in models.conditions([found], "a command")
    figure = models.draw([line.bar for line in lines], tmp_path / "models.png")
    assert (tmp_path / "models.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "alexnet: inference, the best engines, batch 2"
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([1.25, 1.0, 0.5])
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [line.bar.label for line in lines]
    assert [text.get_text().strip() for text in axes.texts] == ["1.25", "1.00", "0.50"]
    goals = [line.get_xdata()[0] for line in axes.lines if line.get_linewidth() == 1.6]
    assert goals == [0.97]


def test_the_first_baseline_is_what_ratios_are_to() -> None:
    plan = _plan("alexnet")
    labels = [c.label for c in baselines(plan, "torchvision", compiled=True)]
    assert labels == [
        "torchvision channels_last",
        "torchvision channels_first",
        "torchvision channels_last, compiled",
    ]
    loaders = baselines(_plan(mode="pipeline", threads=cores()), "torchvision")
    assert [c.workers for c in loaders] == list(dict.fromkeys((0, cores())))


# A .keras file


def _file(folder: Path, target: str, size: int | None = 64) -> Path:
    image = keras.Input((size, size, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image))
    known = {"name": "small", "target": target, "input_shape": [size, size, 3]}
    model = {**known, "classes": 5, "include_preprocessing": False}
    record = {"model": model, "preprocessing": None}
    save_model(keras.Model(image, keras.layers.Dense(5)(x)), folder / "a.keras", record)
    return folder / "a.keras"


@pytest.mark.parametrize("library", ["torchvision", "timm"])
@pytest.mark.parametrize("work", ["keras", "auto", "training", "bfloat16"])
def test_a_file_is_measured_against_the_network_that_it_was(
    work: str, library: str, tmp_path: Path
) -> None:
    name = {"torchvision": "squeezenet1_1", "timm": "test_resnet"}[library]
    plan = replace(
        _plan(),
        model=str(_file(tmp_path, f"{library}:{name}")),
        image_size=(64, 64),
        mode="train" if work == "training" else "inference",
        dtype="mixed_bfloat16" if work == "bfloat16" else "float32",
    )
    engine = "auto" if work == "auto" else "keras"
    (ours,), (theirs, _) = competitors(plan, ("torch",), (engine,)), baselines(plan, library)
    assert theirs.label == f"{library} channels_last"
    for side, competitor in ((keras_side, ours), (torchvision_side, theirs)):
        watch = side.open_steps(plan, competitor)(2)
        watch.warm()
        assert watch.measure() > 0
    assert Plan.from_json(json.loads(json.dumps(asdict(plan)))) == plan


def _file_of_several(folder: Path, numbers: int | None = 5) -> Path:
    layers = keras.layers
    photo, detail = keras.Input((None, None, 3), name="photo"), keras.Input((9, 8, 1), name="b")
    age = keras.Input((numbers,), name="age")
    pooled = map(layers.GlobalAveragePooling2D(), (photo, detail))
    joined = layers.Concatenate()([*pooled, *([] if numbers is None else [age])])
    shapes = {"photo": [None, None, 3], "b": [9, 8, 1], "age": [numbers]}
    known = {"name": "mine", "inputs": shapes, "classes": 4, "include_preprocessing": False}
    model = keras.Model([photo, detail, age], layers.Dense(4)(joined))
    save_model(model, folder / "several.keras", {"model": known, "preprocessing": None})
    return folder / "several.keras"


@pytest.mark.parametrize("engine", ["keras", "auto"])
def test_a_file_of_several_inputs(engine: str, tmp_path: Path) -> None:
    plan = replace(_plan(), model=str(_file_of_several(tmp_path)), image_size=(30, 20))
    assert plan.input_shapes == [(30, 20, 3), (9, 8, 1), (5,)]
    (ours,) = competitors(plan, ("torch",), (engine,))
    watch = keras_side.open_steps(plan, ours)(2)
    watch.warm()
    assert watch.measure() > 0
    with pytest.raises(ConfigurationError, match="takes 3 inputs; training is measured of"):
        replace(plan, mode="train")
    with pytest.raises(ConfigurationError, match="takes 3 inputs; leave dtype 'mixed_bfloat16'"):
        replace(plan, dtype="mixed_bfloat16")
    with pytest.raises(ConfigurationError, match=r"takes 'age' of any size \(None,\); convert"):
        replace(plan, model=str(_file_of_several(tmp_path, None)))


def test_files_that_cannot_be_measured(tmp_path: Path) -> None:
    plan = replace(_plan(), model=str(_file(tmp_path, "mine.py:build")), image_size=(64, 64))
    with pytest.raises(
        ConfigurationError, match=r"torchvision has no .*a\.keras, only alexnet and"
    ):
        baselines(plan, "torchvision")
    with pytest.raises(ConfigurationError, match=r"a\.keras takes images of 64x64 pixels"):
        replace(plan, image_size=(64, 32))
    with pytest.raises(ConfigurationError, match="pipelines are measured for models by name"):
        replace(plan, mode="pipeline")
    with pytest.raises(ModelFileError, match="no such file"):
        replace(plan, model=str(tmp_path / "none.keras"))
    keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()]).save(tmp_path / "b.keras")
    with pytest.raises(ModelFileError, match=r"b\.keras: no record says what images it takes"):
        replace(plan, model=str(tmp_path / "b.keras"))
    free = replace(plan, model=str(_file(tmp_path, "mine.py:build", None)), image_size=(50, 70))
    assert free.subject.size == (None, None)


def test_the_versions_of_all_who_took_part_are_said() -> None:
    took_part = [Competitor("keras", "torch", "auto"), Competitor("timm")]
    assert set(versions(took_part)) == {
        "keras-alexnet",
        "keras",
        "numpy",
        "torch",
        "torchvision",
        "timm",
    }
    assert "onnxruntime" in versions([Competitor("keras", "torch", "onnxruntime")])
    assert "openvino" in versions([Competitor("openvino-torchvision")])
