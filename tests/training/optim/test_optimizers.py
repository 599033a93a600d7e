"""Optimisers and schedules against PyTorch's own, step by step."""

import math
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest

from keras_alexnet.errors import ConfigurationError
from keras_alexnet.models.fast.quicken import quicken
from keras_alexnet.training.optim.losses import CrossEntropy
from keras_alexnet.training.optim.optimizers import create_optimizer
from keras_alexnet.training.optim.schedules import Schedule, as_learning_rate

torch = pytest.importorskip("torch")

STEPS = 12
# float32 sums in another order, over 12 steps; Adam's eps stands elsewhere in Keras' formula.
TOLERANCES = {"sgd": 1e-6, "adam": 5e-5, "adamw": 5e-5}

CASES = {
    "plain": ({"name": "sgd"}, lambda p: torch.optim.SGD(p, 0.1)),
    "momentum and L2 decay": (
        {"name": "sgd", "momentum": 0.9, "weight_decay": 0.01},
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
    ),
    "Nesterov": (
        {"name": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    ),
    "Adam with L2 decay": (
        {"name": "adam", "weight_decay": 0.01},
        lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.01),
    ),
    "AdamW": (
        {"name": "adamw", "weight_decay": 0.01},
        lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.01),
    ),
    "loss scaling": (
        {"name": "sgd", "momentum": 0.9, "loss_scaling": True},
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    ),
}


class Problem:
    """A linear classifier in both frameworks, with the same weights and batches."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.inputs = rng.standard_normal((STEPS, 16, 6)).astype(np.float32)
        self.labels = rng.integers(0, 4, (STEPS, 16))
        self.start = rng.standard_normal((6, 4)).astype(np.float32)

    def keras_weights(self, optimizer: object, smoothing: float = 0.1) -> np.ndarray:
        layer = keras.layers.Dense(4, use_bias=False)
        model = keras.Sequential([keras.Input((6,)), layer])
        layer.kernel.assign(self.start)
        model.compile(optimizer, CrossEntropy(smoothing), auto_scale_loss=False)
        for inputs, labels in zip(self.inputs, self.labels, strict=True):
            model.train_on_batch(inputs, labels)
        self.model, self.optimizer = model, optimizer
        return np.array(model.get_weights()[0])

    def torch_weights(
        self, make: object, *, clip: float = 0.0, one_cycle: bool = True
    ) -> np.ndarray:
        weights = torch.nn.Parameter(torch.tensor(self.start))
        optimizer = make([weights])
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 0.1, total_steps=STEPS, pct_start=4 / STEPS, cycle_momentum=False
        )
        for inputs, labels in zip(self.inputs, self.labels, strict=True):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(
                torch.tensor(inputs) @ weights, torch.tensor(labels), label_smoothing=0.1
            ).backward()
            if clip:
                torch.nn.utils.clip_grad_norm_([weights], clip)
            optimizer.step()
            if one_cycle:
                schedule.step()
        return weights.detach().numpy()


ONE_CYCLE = Schedule("one-cycle", 0.1, STEPS, warmup=4)


@pytest.mark.parametrize("case", CASES)
def test_equals_torch_under_a_changing_rate(case: str) -> None:
    arguments, make = CASES[case]
    problem = Problem()
    ours = problem.keras_weights(
        create_optimizer(learning_rate=as_learning_rate(ONE_CYCLE), **arguments)
    )
    np.testing.assert_allclose(
        ours, problem.torch_weights(make), rtol=0, atol=TOLERANCES[arguments["name"]]
    )


def test_keras_own_momentum_would_fail() -> None:
    problem = Problem()
    theirs = keras.optimizers.SGD(as_learning_rate(ONE_CYCLE), momentum=0.9)
    expected = problem.torch_weights(lambda p: torch.optim.SGD(p, 0.1, momentum=0.9))
    assert np.abs(problem.keras_weights(theirs) - expected).max() > 1e-3


def test_clips_before_the_decay() -> None:
    problem = Problem()
    ours = problem.keras_weights(
        create_optimizer(
            "sgd",
            as_learning_rate(ONE_CYCLE),
            momentum=0.9,
            weight_decay=0.05,
            clip_norm=0.2,
        )
    )
    expected = problem.torch_weights(
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.05), clip=0.2
    )
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


def test_accumulated_batches_are_one_large_batch() -> None:
    whole, halves = Problem(), Problem()
    whole.inputs, whole.labels = whole.inputs.reshape(6, 32, 6), whole.labels.reshape(6, 32)
    schedule = Schedule("cosine", 0.1, 6)
    expected = whole.keras_weights(
        create_optimizer("sgd", as_learning_rate(schedule), momentum=0.9, clip_norm=0.1)
    )
    rate = as_learning_rate(schedule, accumulate=2)
    ours = halves.keras_weights(
        create_optimizer("sgd", rate, momentum=0.9, clip_norm=0.1, accumulate=2)
    )
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


def test_averages_wait_to_be_asked() -> None:
    problem = Problem()
    optimizer = create_optimizer("sgd", 0.1, momentum=0.9, ema=0.9)
    plain = Problem().keras_weights(create_optimizer("sgd", 0.1, momentum=0.9))
    np.testing.assert_array_equal(problem.keras_weights(optimizer), plain)
    variables = problem.model.trainable_variables
    optimizer.swap_averages(variables)
    averaged = np.array(problem.model.get_weights()[0])
    assert np.abs(averaged - plain).max() > 1e-3
    optimizer.swap_averages(variables)
    np.testing.assert_array_equal(problem.model.get_weights()[0], plain)
    # `fit` would leave Keras' own optimiser with the averages.
    problem.model.fit(problem.inputs[0], problem.labels[0], epochs=1, verbose=0)
    optimizer.swap_averages(variables)
    assert np.abs(problem.model.get_weights()[0] - averaged).max() < 0.1


RATES = {
    "constant": (Schedule("constant", 0.2, 20), lambda step: 0.2),
    "warm-up": (Schedule("constant", 0.2, 20, warmup=4), lambda s: 0.2 * min((s + 1) / 4, 1)),
    "step": (Schedule("step", 0.2, 20, every=6, gamma=0.5), lambda s: 0.2 * 0.5 ** (s // 6)),
    "cosine": (
        Schedule("cosine", 0.2, 20),
        lambda s: 0.1 * (1 + math.cos(math.pi * s / 20)),
    ),
    "cosine after a warm-up": (
        Schedule("cosine", 0.2, 20, warmup=5),
        lambda s: 0.2 * (s + 1) / 5 if s < 5 else 0.1 * (1 + math.cos(math.pi * (s - 5) / 15)),
    ),
}


@pytest.mark.parametrize("case", RATES)
def test_schedules(case: str) -> None:
    schedule, expected = RATES[case]
    for step in range(20):
        assert schedule.at(float(step), np) == pytest.approx(expected(step), rel=1e-6)
    rate = as_learning_rate(schedule)
    if callable(rate):
        for step in (0, 7, 19):
            assert float(rate(keras.ops.convert_to_tensor(step))) == pytest.approx(
                expected(step), rel=1e-5
            )


def test_one_cycle_equals_torchs() -> None:
    weights = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weights], 1.0)
    torchs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.3, total_steps=50, pct_start=0.2, cycle_momentum=False
    )
    schedule = Schedule("one-cycle", 0.3, 50, warmup=10)
    for step in range(50):
        assert schedule.at(float(step), np) == pytest.approx(
            optimizer.param_groups[0]["lr"], rel=1e-6
        )
        optimizer.step()
        if step < 49:
            torchs.step()


def test_impossible_schedules() -> None:
    with pytest.raises(ConfigurationError, match="needs step_epochs"):
        Schedule("step", 0.1, 10)
    with pytest.raises(ConfigurationError, match="warm-up takes 10 updates of a phase of 10"):
        Schedule("cosine", 0.1, 10, warmup=10)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_equals_torchs(smoothing: float) -> None:
    rng = np.random.default_rng(1)
    logits, labels = 9 * rng.standard_normal((32, 7)).astype(np.float32), rng.integers(0, 7, 32)
    ours = float(CrossEntropy(smoothing)(labels, logits))
    torchs = torch.nn.functional.cross_entropy(
        torch.tensor(logits), torch.tensor(labels), label_smoothing=smoothing
    )
    assert ours == pytest.approx(float(torchs), rel=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_updates_convolutions_as_torch_does(name: str) -> None:
    """Their kernels and gradients lie in memory as Keras has them, and not as torch's layers."""
    rng = np.random.default_rng(2)
    kernel = rng.standard_normal((3, 3, 5, 8)).astype(np.float32)
    batches = [rng.standard_normal((4, 9, 9, 5)).astype(np.float32) for _ in range(STEPS)]
    layer = keras.layers.Conv2D(8, 3, use_bias=False)
    layer.build((None, 9, 9, 5))
    layer.kernel.assign(kernel)
    quicken(layer)
    np.testing.assert_array_equal(layer.kernel, kernel)
    optimizer = create_optimizer(name, 0.01, momentum=0.9 * (name == "sgd"), weight_decay=0.01)
    optimizer.build(layer.trainable_variables)
    twin = torch.nn.Conv2d(5, 8, 3, bias=False)
    twin.weight.data = torch.tensor(kernel).permute(3, 2, 0, 1).contiguous()
    make = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[name]
    arguments = {"momentum": 0.9} if name == "sgd" else {}
    theirs = make(twin.parameters(), 0.01, weight_decay=0.01, **arguments)
    for batch in batches:
        weight = layer.kernel.value
        weight.grad = None
        layer(torch.tensor(batch)).square().mean().backward()
        optimizer.apply([weight.grad], layer.trainable_variables)
        theirs.zero_grad()
        twin(torch.tensor(batch).permute(0, 3, 1, 2)).square().mean().backward()
        theirs.step()
    # What writes files may take an array's memory as it lies, as safetensors does.
    assert np.asarray(layer.kernel.numpy()).flags.c_contiguous
    np.testing.assert_allclose(
        np.array(layer.kernel),
        twin.weight.detach().permute(2, 3, 1, 0).numpy(),
        rtol=0,
        atol=TOLERANCES[name],
    )


SHAPES = ((6, 5), (5,), (5, 4))


def _slope(weights: np.ndarray, step: int) -> np.ndarray:
    """Gradients that depend on the weights, in float64."""
    noise = np.random.default_rng([step, weights.size]).standard_normal(weights.shape)
    return np.tanh(weights) + noise


def _steps(start: list[np.ndarray], optimizer: Any) -> list[np.ndarray]:
    """Ten steps of ours on variables of float64."""
    variables = [keras.Variable(value, dtype="float64") for value in start]
    optimizer.build(variables)
    for step in range(10):
        values = map(keras.ops.convert_to_numpy, variables)
        slopes = [keras.ops.convert_to_tensor(_slope(v, step), "float64") for v in values]
        optimizer.apply(slopes, variables)
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def _torch_steps(start: list[np.ndarray], make: Any) -> list[np.ndarray]:
    parameters = [torch.nn.Parameter(torch.tensor(value)) for value in start]
    # A group without decay takes plain steps in timm.
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = make(groups)
    for step in range(10):
        for parameter in parameters:
            parameter.grad = torch.tensor(_slope(parameter.detach().numpy(), step))
        optimizer.step()
    return [parameter.detach().numpy() for parameter in parameters]


@pytest.mark.parametrize(
    ("name", "arguments", "make"),
    [
        (
            "lars",
            {"momentum": 0.9, "nesterov": nesterov},
            lambda timm, groups, nesterov=nesterov: timm.Lars(
                groups, 0.25, momentum=0.9, nesterov=nesterov
            ),
        )
        for nesterov in (False, True)
    ]
    + [("lamb", {}, lambda timm, groups: timm.Lamb(groups, 0.25, max_grad_norm=None))],
    ids=["lars", "lars, Nesterov", "lamb"],
)
def test_large_batches_step_as_timm_does(
    name: str, arguments: dict[str, object], make: Any
) -> None:
    """Kernels, one of which begins with zeros, and a bias."""
    timm = pytest.importorskip("timm.optim")
    start = [np.random.default_rng(3).standard_normal(shape) for shape in SHAPES]
    start[2][:] = 0
    wanted = _torch_steps(start, partial(make, timm))
    found = _steps(start, create_optimizer(name, 0.25, weight_decay=0.01, **arguments))
    for mine, theirs, before in zip(found, wanted, start, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-12)
        assert np.abs(theirs - before).max() > 1e-3
