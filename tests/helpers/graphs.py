"""Torch modules through their graphs into Keras models, in this process."""

from typing import Any

import numpy as np
import torch

from porting.checkpoints.files import to_numpy
from porting.conversion.networks import outputs_of, relative_gap
from porting.graph.builder import Built, build
from porting.graph.plan import Plan
from porting.graph.reader import read
from porting.weights.recognition import variables_of
from porting.weights.transfer import fill


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers (N, C, H, W)."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def filled(module: torch.nn.Module, plan: Plan, data_format: str = "channels_last") -> Built:
    """Return the Keras model of a plan with a module's weights."""
    built = build(plan, data_format)
    arrays = {key: to_numpy(value) for key, value in module.state_dict().items()}
    fill(variables_of(built.model), built.counterpart, arrays)
    return built


def converted(
    module: torch.nn.Module, x: torch.Tensor, data_format: str = "channels_last"
) -> Built:
    """Return the Keras model of a module."""
    return filled(module, read(module, x), data_format)


def output(module: torch.nn.Module, x: torch.Tensor) -> np.ndarray:
    """What a module computes in inference."""
    with torch.no_grad():
        return to_numpy(module.eval()(x.clone()))


def gap(module: torch.nn.Module, built: Built, x: torch.Tensor) -> float:
    """How far the Keras model's output is from the module's, relative to the largest number."""
    (found,) = outputs_of(built, x.numpy()).values()
    return relative_gap(found, output(module, x))


class Function(torch.nn.Module):
    """A function as a module."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        """Apply it."""
        return self.function(x)
