"""SGD steps in Keras against torch's: the same weights afterwards, and mistakes that must show."""

import dataclasses
import functools
import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_alexnet.core.children import Workers
from keras_alexnet.specs import SPECS
from keras_alexnet.training.optim import optimizers
from porting.checkpoints.files import write_checkpoint
from porting.commands import app as cli, check as commands_check
from porting.errors import UsageError
from porting.torch_side.reference_nets import Reference
from porting.torch_side.seeded import seeded_state_dict
from porting.training_checks import candidate as training_candidate, reference as training_reference
from porting.training_checks.check import TrainingRequest, check_training, default_size
from porting.training_checks.history import write_batches
from porting.training_checks.parity import Arrays, Measure, draw_batches, training_job
from porting.training_checks.results import (
    TrainingCell,
    TrainingCheck,
    TrainingResult,
    training_to_json,
)
from porting.weights.spec_tables import counterpart

StateDicts = Callable[[str], dict[str, np.ndarray]]
# As small as still shows everything: momentum acts from the second step.
SETTINGS = {
    "lenet5": {"size": (28, 28), "steps": 3, "batch_size": 4},
    "alexnet": {"size": (63, 63), "steps": 2, "batch_size": 2},
    "googlenet": {"size": (48, 64), "steps": 2, "batch_size": 4},
}


class Trained:
    """A network that torch has trained, to train in this process, on Keras' torch, once more."""

    def __init__(self, name: str, weights: Path) -> None:
        spec = SPECS[name]
        settings = dict(SETTINGS[name])
        size = settings.pop("size")
        self.check = TrainingCheck(
            Reference(name, spec.classes, aux_heads=bool(spec.aux), size=size),
            counterpart(spec, spec.classes, size=size),
            weights,
            learning_rate=1e-3,
            momentum=0.9,
            weight_decay=5e-4,
            seed=0,
            backends=("torch",),
            shapes=((spec.channels, *size),),
            **settings,
        )
        self.batches = weights.with_name("batches.npz")
        write_batches(self.batches, *draw_batches(self.check))
        training_reference.main(self.job("float64", "reference.npz"))
        self.reference = np.load(weights.with_name("reference.npz"))
        self.measure = Measure(self.check, self.reference)
        self.trainings = 0

    def job(self, precision: str, output: str) -> dict[str, Any]:
        return training_job(
            self.check, self.batches, precision, self.check.weights.with_name(output)
        )

    def train(self, precision: str = "float64", **changes: Any) -> Arrays:
        self.trainings += 1
        job = self.job(precision, f"candidate{self.trainings}.npz") | changes
        training_candidate.main(job)
        # Read one by one when they are compared, as those of AlexNet are large.
        return np.load(job["output"])

    def cell(self, precision: str = "float64", **changes: Any) -> TrainingCell:
        return self.measure.cell("torch", precision, self.train(precision, **changes))


@pytest.fixture(scope="module")
def trained(
    state_dicts: StateDicts, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Trained]:
    @functools.cache
    def get(name: str) -> Trained:
        weights = tmp_path_factory.mktemp(name) / "weights.safetensors"
        # Other tests have those of the larger ones already.
        arrays = seeded_state_dict(name) if name == "lenet5" else state_dicts(name)
        write_checkpoint(weights, arrays)
        return Trained(name, weights)

    return get


@pytest.fixture(scope="module")
def googlenet(trained: Callable[[str], Trained]) -> tuple[Trained, Arrays]:
    return trained("googlenet"), trained("googlenet").train()


def assert_agrees(trained: Trained, candidate: Arrays) -> None:
    check, cell = trained.check, trained.measure.cell("torch", "float64", candidate)
    assert [t.name for t in cell.tensors] == [put.key for put in check.counterpart.puts]
    assert cell.farthest is not None
    assert cell.farthest.passed, cell.farthest
    assert cell.passed
    assert cell.divergence is None
    assert [step.number for step in cell.steps] == list(range(1, check.steps + 1))
    losses = [step.loss for step in cell.steps]
    np.testing.assert_allclose(losses, trained.reference["losses"], rtol=1e-9)
    # A training that goes nowhere would agree with anything.
    assert trained.measure.moved > 1e-4


@pytest.mark.parametrize("name", ["lenet5", pytest.param("alexnet", marks=pytest.mark.slow)])
def test_the_weights_agree(trained: Callable[[str], Trained], name: str) -> None:
    assert_agrees(trained(name), trained(name).train())


def test_auxiliary_heads_and_batch_norm_agree(
    googlenet: tuple[Trained, Arrays],
) -> None:
    assert_agrees(*googlenet)


def test_keras_keeps_biased_variances_and_torch_unbiased_ones(
    googlenet: tuple[Trained, Arrays],
) -> None:
    """What the check accounts for is large, and torch's own values would not pass."""
    trained, candidate = googlenet
    own = {key: value for key, value in trained.reference.items() if key.startswith("torch/")}
    assert len(own) == sum(key.endswith("running_var") for key in trained.reference) / 3
    assert trained.measure.variance_gap > 1e-3
    uncorrected = dict(trained.reference) | {
        key.replace("torch/", "final/"): value for key, value in own.items()
    }
    cell = Measure(trained.check, uncorrected).cell("torch", "float64", candidate)
    assert not cell.passed
    wrong = {tensor.name for tensor in cell.tensors if not tensor.passed}
    assert wrong == {key.removeprefix("torch/") for key in own}
    assert {tensor.kind for tensor in cell.tensors if not tensor.passed} == {"Statistic"}


def test_another_weight_of_the_auxiliary_losses_shows(
    trained: Callable[[str], Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_candidate, "AUX_LOSS_WEIGHT", 0.4)
    cell = trained("googlenet").cell()
    assert not cell.passed
    assert cell.divergence is not None
    assert cell.divergence.number == 1
    assert cell.distance > 1e-3


@pytest.mark.parametrize(
    ("changes", "step", "at_least"),
    [
        ({"momentum": 0.89}, 2, 1e-3),
        ({"weight_decay": 0.0}, 1, 1e-5),
        ({"learning_rate": 1.0001e-3}, 1, 1e-5),
    ],
    ids=["momentum", "decay", "rate"],
)
def test_other_numbers_of_the_optimiser_show(
    trained: Callable[[str], Trained], changes: dict[str, float], step: int, at_least: float
) -> None:
    cell = trained("lenet5").cell(**changes)
    assert not cell.passed
    assert cell.divergence is not None
    assert cell.divergence.number == step
    assert at_least < cell.distance < 1


@pytest.mark.parametrize(
    ("mistake", "arguments", "at_least"),
    [
        # Keras' own optimiser, whose `weight_decay` is decoupled.
        (keras.optimizers.SGD, {"weight_decay": 5e-4}, 1e-3),
        (optimizers.SGD, {"l2": 5e-4, "nesterov": True}, 1e-2),
    ],
    ids=["decoupled decay", "Nesterov"],
)
def test_another_optimiser_shows(
    trained: Callable[[str], Trained],
    monkeypatch: pytest.MonkeyPatch,
    mistake: Any,
    arguments: dict[str, Any],
    at_least: float,
) -> None:
    monkeypatch.setattr(
        optimizers, "SGD", lambda rate, momentum, l2: mistake(rate, momentum=momentum, **arguments)
    )
    cell = trained("lenet5").cell()
    assert not cell.passed
    assert at_least < cell.distance < 1


def test_float32_is_shown_and_leaves_no_trace(trained: Callable[[str], Trained]) -> None:
    cell = trained("lenet5").cell("float32")
    assert not cell.judged
    assert cell.passed
    assert 1e-8 < cell.distance < 1e-2
    nan = dataclasses.replace(cell, distance=float("inf"))
    assert not nan.passed
    assert keras.config.floatx() == keras.config.dtype_policy().name == "float32"


# The command


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers() as started:
        yield started


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    workers: Workers,
) -> Callable[[str], tuple[int, str, str]]:
    """Run `python -m porting check-training` in this process, on children that stay."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    shared = functools.partial(check_training, workers=workers)
    monkeypatch.setattr(commands_check, "check_training", shared)

    def call(arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["porting", "check-training", *arguments.split()])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        captured = capsys.readouterr()
        return int(exit_.value.code or 0), captured.out, captured.err

    return call


@pytest.mark.slow  # with gradients, they agree in the quick parity matrix too
def test_the_other_backends_agree(run: Callable[[str], tuple[int, str, str]]) -> None:
    code, out, err = run("lenet5 --steps 2 --backends tensorflow,jax --json t.json")
    assert code == 0, out + err
    assert "lenet5: 2 SGD steps in Keras against torch in float64, 8 images of 28x28" in out
    content = json.loads(Path("t.json").read_text())
    assert content["passed"] is True
    assert content["size"] == [28, 28]
    cells = [(c["backend"], c["precision"], c["judged"]) for c in content["cells"]]
    assert cells == [
        ("reference", "float32", False),
        ("tensorflow", "float64", True),
        ("tensorflow", "float32", False),
        ("jax", "float64", True),
        ("jax", "float32", False),
    ]
    for cell in content["cells"]:
        assert all(tensor["passed"] for tensor in cell["tensors"]) or not cell["judged"]
        assert len(cell["steps"]) == len(content["losses"]) == 2
        assert cell["backend"] in {*cell["versions"], "reference"}


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        ("1e300", "Lower the learning rate, which is 1e+300"),
        ("1e-300", "moves no weight, so there is nothing to compare with. Raise the learning rate"),
    ],
)
def test_a_training_of_torchs_that_proves_nothing(
    run: Callable[[str], tuple[int, str, str]], rate: str, message: str
) -> None:
    code, _, err = run(f"lenet5 --steps 3 --learning-rate {rate} --backends torch")
    assert code == 2
    assert err.startswith("error: torch's ")
    assert message in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("alexnt", "Did you mean 'alexnet'?"),
        ("alexnet --aux-heads", "alexnet has no auxiliary heads; leave aux_heads out"),
        ("alexnet --size 62", "alexnet needs images of at least 63 x 63 pixels"),
        ("alexnet --size a", "neither N nor HEIGHTxWIDTH"),
        ("lenet5 --learning-rate 0", "the learning rate must be positive, got 0"),
        ("lenet5 --momentum 1", "momentum must lie in [0, 1), got 1"),
        ("lenet5 --weight-decay -1", "the weight decay must not be negative, got -1"),
        ("lenet5 --backends mxnet", "unknown backend 'mxnet'"),
        ("lenet5 --source no.pth", "no.pth: no such file"),
        ("lenet5 --json no/t.json", "there is no folder no"),
    ],
)
def test_a_mistake_gets_one_message(
    run: Callable[[str], tuple[int, str, str]], arguments: str, message: str
) -> None:
    code, _, err = run(arguments)
    assert code == 2
    assert err.startswith("error: ")
    assert message in err
    assert not list(Path().iterdir())


def test_heads_of_a_file_may_be_left_out(trained: Callable[[str], Trained]) -> None:
    whole = trained("googlenet").check
    reference = dataclasses.replace(whole.reference, aux_heads=False)
    heads = counterpart(SPECS["googlenet"], reference.classes, aux_heads=False)
    job = trained("googlenet").job("float64", "headless.npz")
    job |= {"reference": dataclasses.asdict(reference), "counterpart": heads.to_json()}
    training_reference.main(job)
    with np.load(job["output"]) as archive:
        keys = {name.removeprefix("final/") for name in archive if name.startswith("final/")}
        assert np.isfinite(archive["losses"]).all()
    assert "fc.weight" in keys
    assert not any(key.startswith("aux") for key in keys)


def test_a_file_without_heads_cannot_train_them(tmp_path: Path) -> None:
    weights = tmp_path / "w.npz"
    write_checkpoint(weights, seeded_state_dict("googlenet", classes=4, size=(32, 32)))
    request = TrainingRequest("googlenet", str(weights), aux_heads=True, size=(32, 32))
    with pytest.raises(UsageError, match=r"w\.npz holds no auxiliary heads"):
        check_training(request, tmp_path)


@pytest.mark.parametrize(
    ("name", "size"),
    [("googlenet", (96, 96)), ("alexnet", (96, 96)), ("alexnet_paper", (224, 224))],
)
def test_the_default_size_serves_the_weights(name: str, size: tuple[int, int]) -> None:
    assert default_size(SPECS[name]) == size


def test_the_json_of_a_network_by_its_graph(trained: Callable[[str], Trained]) -> None:
    check = dataclasses.replace(trained("lenet5").check, plan=Path("plan.npz"))
    result = TrainingResult(check, (1.0,), 0.1, 0.0, (), {})
    found = json.loads(json.dumps(training_to_json(result), allow_nan=False))
    assert found["passed"] is False  # nothing was judged
    assert found["size"] == [28, 28]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alexnet", "googlenet"])
def test_ten_steps_on_every_backend(name: str, tmp_path: Path) -> None:
    """What `python -m porting check-training MODEL` runs."""
    result = check_training(TrainingRequest(name), tmp_path)
    for cell in result.cells:
        assert cell.passed, (cell.backend, cell.error, cell.divergence, cell.farthest)
    assert result.passed
    assert result.moved > 1e-3
    assert json.loads(json.dumps(training_to_json(result), allow_nan=False))["passed"] is True
