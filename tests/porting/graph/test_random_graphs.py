"""Random networks of permutes, reshapes, broadcasts and layers: Keras computes what torch does."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import torch
from helpers.graphs import Function, converted, gap, images
from hypothesis import HealthCheck, given, settings, strategies as st

from porting.graph.ops import reduction
from porting.tolerances import TOLERANCES

Step = Callable[[torch.Tensor], torch.Tensor]
_LARGEST = 6000  # numbers of a value for one image


class Walk(torch.nn.Module):
    """Steps that are drawn for the shapes that they meet, and then stay."""

    def __init__(self, kinds: list[str], seed: int) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        self.layers = torch.nn.ModuleList()
        self.steps: list[Step] = []
        x = images(2, 4, 6, 6)
        for kind in [*kinds, "classifier"]:
            step = getattr(self, f"_{kind}")(x, rng)
            if step is None:
                continue
            y = step(x)
            # Sums of products grow, and a network of zeros shows nothing.
            if y[0].numel() <= _LARGEST and 1e-3 < y.std() < 1e3:
                self.steps.append(step)
                x = y

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for step in self.steps:
            x = step(x)
        return x

    def _own(self, layer: torch.nn.Module) -> torch.nn.Module:
        self.layers.append(layer)
        return layer.eval()

    def _convolution(self, x: torch.Tensor, rng: Any) -> Step | None:
        if x.ndim != 4:
            return None
        kernel = int(rng.choice([1, 3]))
        stride = int(rng.choice([1, 2])) if min(x.shape[2:]) >= 4 else 1
        channels = int(rng.choice([3, 4, 6]))
        return self._own(torch.nn.Conv2d(x.shape[1], channels, kernel, stride, kernel // 2))

    def _linear(self, x: torch.Tensor, rng: Any) -> Step:
        return self._own(torch.nn.Linear(x.shape[-1], int(rng.choice([2, 3, 4, 6]))))

    def _layer_norm(self, x: torch.Tensor, rng: Any) -> Step | None:
        if x.shape[-1] < 3:
            return None
        layer = self._own(torch.nn.LayerNorm(x.shape[-1]))
        torch.nn.init.normal_(layer.weight)
        torch.nn.init.normal_(layer.bias)
        return layer

    def _permute(self, x: torch.Tensor, rng: Any) -> Step:
        order = (0, *(1 + rng.permutation(x.ndim - 1)).tolist())
        return lambda x: x.permute(order)

    def _reshape(self, x: torch.Tensor, rng: Any) -> Step:
        sizes, rest = [], math.prod(x.shape[1:])
        while len(sizes) < 3 and rest > 1:
            sizes.append(int(rng.choice([k for k in range(1, rest + 1) if rest % k == 0])))
            rest //= sizes[-1]
        sizes.append(rest)
        return lambda x: x.reshape(x.shape[0], *sizes)

    def _gate(self, x: torch.Tensor, rng: Any) -> Step:
        axes = tuple((1 + rng.permutation(x.ndim - 1)[: rng.integers(1, x.ndim)]).tolist())
        return lambda x: x * (1 + x.mean(axes, keepdim=True))

    def _table(self, x: torch.Tensor, rng: Any) -> Step:
        """Add a parameter that has some of the axes, and ones or nothing for the others."""
        shape = [n if rng.random() < 0.6 else 1 for n in x.shape[1:]]
        shape = shape[int(rng.integers(len(shape))) :]
        parameter = torch.nn.Parameter(torch.randn(shape))
        self.register_parameter(f"table{len(self.steps)}", parameter)
        return lambda x: x + parameter

    def _softmax(self, x: torch.Tensor, rng: Any) -> Step:
        axis = int(rng.integers(1, x.ndim))
        return lambda x: x + 3 * x.softmax(axis)

    def _cat(self, x: torch.Tensor, rng: Any) -> Step:
        axis = int(rng.integers(1, x.ndim))
        return lambda x: torch.cat([x, 2 * x], axis)

    def _chunk(self, x: torch.Tensor, rng: Any) -> Step | None:
        axis = int(rng.integers(1, x.ndim))
        if x.shape[axis] % 2:
            return None
        second = int(rng.integers(2))
        return lambda x: x.chunk(2, axis)[second] - x.chunk(2, axis)[1 - second]

    def _roll(self, x: torch.Tensor, rng: Any) -> Step:
        axis = int(rng.integers(1, x.ndim))
        return lambda x: torch.roll(x, 1, axis)

    def _product(self, x: torch.Tensor, rng: Any) -> Step | None:
        if x.ndim < 3:
            return None
        scale = x.shape[-1] ** -0.5
        return lambda x: (x @ x.transpose(-1, -2)) * scale

    def _activation(self, x: torch.Tensor, rng: Any) -> Step:
        functions = [torch.relu, torch.tanh, torch.nn.functional.gelu]
        return functions[int(rng.integers(len(functions)))]

    def _classifier(self, x: torch.Tensor, rng: Any) -> Step:
        linear = self._own(torch.nn.Linear(math.prod(x.shape[1:]), 5))
        return lambda x: linear(x.flatten(1))


_KINDS = sorted(
    name[1:]
    for name, value in vars(Walk).items()
    if name.startswith("_") and callable(value) and name not in ("__init__", "_own", "_classifier")
)
_WALKS = st.lists(st.sampled_from(_KINDS), min_size=3, max_size=10)
_SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}


def _agrees(kinds: list[str], seed: int, data_format: str) -> None:
    module = Walk(kinds, seed)
    assert len(module.steps) >= 1
    x = images(3, 4, 6, 6, seed=1)
    found = gap(module, converted(module, images(2, 4, 6, 6), data_format), x)
    assert found <= TOLERANCES["logits"].limit, [kinds, seed]


@settings(max_examples=20, **_SLOW)
@given(_WALKS, st.integers(0, 2**16), st.sampled_from(["channels_last", "channels_first"]))
def test_random_networks(kinds: list[str], seed: int, data_format: str) -> None:
    _agrees(kinds, seed, data_format)


@pytest.mark.slow
@settings(max_examples=600, **_SLOW)
@given(_WALKS, st.integers(0, 2**16), st.sampled_from(["channels_last", "channels_first"]))
def test_many_random_networks(kinds: list[str], seed: int, data_format: str) -> None:
    _agrees(kinds, seed, data_format)


@pytest.mark.parametrize(("most", "axes"), [(5, 2), (9, 6)])
def test_a_softmax_has_no_more_axes_than_tensorflow_takes(
    most: int, axes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With oneDNN it takes five, and ends in an aborted graph."""

    def windows(x: torch.Tensor) -> torch.Tensor:
        parts = x.reshape(-1, 4, 2, 3, 2, 3).permute(0, 2, 4, 1, 3, 5)
        scores = torch.einsum("nabcij,nabckj->nabcik", parts, parts)
        return (scores.softmax(-1) @ parts).mean((2, 3, 4)).flatten(1)

    monkeypatch.setattr(reduction, "_MOST_AXES", most)
    module, x = Function(windows), images(3, 4, 6, 6)
    built = converted(module, x)
    (softmax,) = (each for each in built.model.layers if isinstance(each, keras.layers.Softmax))
    assert len(softmax.input.shape) == axes
    assert gap(module, built, x) <= TOLERANCES["logits"].limit
