"""What a training check compares, and what came out of it."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from porting.checks.compare import Compared, worst
from porting.checks.results import compared_to_json, finite
from porting.tolerances import TOLERANCES
from porting.torch_side.reference_nets import Reference
from porting.weights.counterpart import Counterpart
from porting.weights.table import Size

JUDGED = "float64"
# The second one shows what rounding does to the same steps.
PRECISIONS = (JUDGED, "float32")
REFERENCE = "reference"


@dataclasses.dataclass(frozen=True)
class TrainingCheck:
    """What is to be compared.

    Attributes:
        reference: The torch network; its size is that of the images.
        counterpart: What of the Keras model corresponds to what of that network.
        weights: Checkpoint that both frameworks begin from.
        steps: Number of SGD steps.
        batch_size: Images of a step.
        learning_rate: Of SGD.
        momentum: Of SGD.
        weight_decay: Factor of the weights in the gradient, torch's `weight_decay`.
        seed: Seed of the images and labels.
        backends: Keras backends to run.
        precisions: `"float64"`, and `"float32"` where it is to be shown.
        timeout: Seconds of silence after which a training is stopped.
    """

    reference: Reference
    counterpart: Counterpart
    weights: Path
    steps: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    seed: int
    backends: tuple[str, ...]
    precisions: tuple[str, ...] = PRECISIONS
    timeout: float = 900

    @property
    def model(self) -> str:
        """Name of the architecture."""
        return self.reference.model

    @property
    def size(self) -> Size:
        """Height and width of the images in pixels."""
        assert self.reference.size is not None
        return self.reference.size


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a training.

    Attributes:
        number: From 1.
        loss: Loss of the batch before the step.
        farthest: The tensor that is farthest from torch's behind the step, by its samples.
        relative: How far, in the unit of the tolerance.
    """

    number: int
    loss: float
    farthest: str
    relative: float


@dataclasses.dataclass(frozen=True)
class TrainingCell:
    """One training, compared with torch's in float64.

    Attributes:
        backend: Keras backend, or `REFERENCE` for torch's own float32.
        precision: What it computed in.
        steps: Its course.
        tensors: Every tensor behind the last step.
        distance: Distance of all parameters, as one vector, relative to torch's whole way.
        versions: Versions of what took part.
        error: Why it could not run.
    """

    backend: str
    precision: str
    steps: tuple[Step, ...] = ()
    tensors: tuple[Compared, ...] = ()
    distance: float = math.inf
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    error: str = ""

    @property
    def judged(self) -> bool:
        """Whether its differences are under a tolerance."""
        return self.precision == JUDGED

    @property
    def passed(self) -> bool:
        """Whether it ran, to finite weights, and they are within the tolerance where judged."""
        if self.error:
            return False
        return all(t.passed for t in self.tensors) if self.judged else math.isfinite(self.distance)

    @property
    def divergence(self) -> Step | None:
        """The first step behind which a sample is out of tolerance, or None."""
        limit = TOLERANCES["training"].limit
        return next((step for step in self.steps if not step.relative <= limit), None)

    @property
    def farthest(self) -> Compared | None:
        """The tensor farthest from torch's behind the last step."""
        return worst(self.tensors)


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """The outcome of a training check.

    Attributes:
        check: What was compared.
        losses: Torch's loss of each batch, in float64.
        moved: Largest change of a parameter, relative to its tensor's largest value.
        variance_gap: Largest relative difference between torch's running variances and the same by
            Keras' convention, which is what the cells are compared with; 0 without batch norm.
        cells: Torch's own float32 first, then the backends.
        reference_versions: Versions on torch's side.
    """

    check: TrainingCheck
    losses: tuple[float, ...]
    moved: float
    variance_gap: float
    cells: tuple[TrainingCell, ...]
    reference_versions: Mapping[str, str]

    @property
    def passed(self) -> bool:
        """Whether every training passed, and at least one was judged."""
        return any(cell.judged for cell in self.cells) and all(c.passed for c in self.cells)


def training_to_json(result: TrainingResult) -> dict[str, Any]:
    """Return a result as JSON-serialisable values; infinite differences become null."""
    fields = dataclasses.asdict(result.check) | {"weights": str(result.check.weights)}
    del fields["counterpart"]
    return {
        **fields.pop("reference"),
        **fields,
        "passed": result.passed,
        "losses": list(result.losses),
        "moved": result.moved,
        "variance_gap": result.variance_gap,
        "tolerance": dataclasses.asdict(TOLERANCES["training"]),
        "reference_versions": dict(result.reference_versions),
        "cells": [_cell_json(cell) for cell in result.cells],
    }


def _cell_json(cell: TrainingCell) -> dict[str, Any]:
    return {
        "backend": cell.backend,
        "precision": cell.precision,
        "judged": cell.judged,
        "passed": cell.passed,
        "error": cell.error or None,
        "distance": finite(cell.distance),
        "versions": dict(cell.versions),
        "steps": [
            {key: finite(value) for key, value in dataclasses.asdict(step).items()}
            for step in cell.steps
        ],
        "tensors": [compared_to_json(tensor) for tensor in cell.tensors],
    }
