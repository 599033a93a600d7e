"""What a training check compares, and what came out of it."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_alexnet.core.tables import Sheet, markdown
from porting.checks.compare import Compared, worst
from porting.checks.results import (
    Comparison,
    compared_to_json,
    finite,
    finite_fields,
    named_columns,
    relative_text,
)
from porting.tolerances import TOLERANCES
from porting.weights.table import Shape

JUDGED = "float64"
# The second one shows what rounding does to the same steps.
PRECISIONS = (JUDGED, "float32")
REFERENCE = "reference"


@dataclasses.dataclass(frozen=True)
class TrainingCheck(Comparison):
    """What is to be compared: trainings from the same weights, as in a `check.TrainingRequest`.

    `shapes` are those of an image, (C, H, W), and of further inputs; `seed` draws them and their
    labels. `precisions` are `"float64"`, and `"float32"` where it is to be shown. `plan` is the
    graph that the Keras model is made of, where that is not one of ours.
    """

    steps: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    seed: int
    backends: tuple[str, ...]
    shapes: tuple[Shape, ...]
    precisions: tuple[str, ...] = PRECISIONS
    timeout: float = 900
    plan: Path | None = None


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a training, its number from 1, and the loss of its batch before it.

    `farthest` is the tensor that is farthest from torch's behind the step, by its samples, and
    `relative` how far, in the unit of the tolerance.
    """

    number: int
    loss: float
    farthest: str
    relative: float


@dataclasses.dataclass(frozen=True)
class TrainingCell:
    """One training, compared with torch's in float64: its course, and every tensor at its end.

    The backend is `REFERENCE` for torch's own float32. `distance` is that of all parameters, as one
    vector, relative to torch's whole way; `error` says why the training could not run.
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

    def _repr_markdown_(self) -> str:
        """Return what a notebook shows."""
        return markdown(training_sheet(self), training_notes(self))


def training_sheet(result: TrainingResult) -> Sheet:
    """Return a row for each training, and the tolerance."""
    check = result.check
    outputs = check.counterpart.outputs
    heads = ""
    if len(outputs) > 1:
        names = ", ".join(output.name for output in outputs)
        heads = ", auxiliary heads" if check.plan is None else f", outputs {names}"
    first, *others = ("x".join(map(str, shape)) for shape in check.shapes)
    shapes = first.partition("x")[2] or first
    if others:
        shapes += f" and what is beside them ({', '.join(others)})"
    limit, loss = f"<= {TOLERANCES['training'].limit:g}", f"{result.losses[-1]:.6g}"
    return Sheet(
        f"{check.model}: {check.steps} SGD steps in Keras against {check.reference.title} in "
        f"float64, {check.batch_size} images of {shapes}{heads}",
        named_columns(
            ("training", "computed in"),
            ("all weights", "farthest", "tensor", "last loss", "verdict"),
        ),
        [
            *map(_training_columns, result.cells),
            ("tolerance", "float64", "", limit, "", loss, ""),
        ],
        has_total=True,
    )


def training_notes(result: TrainingResult) -> list[str]:
    """Return what the differences are relative to, and where a training went astray."""
    notes = [
        "Differences are relative to the way that the tensor went in the reference's training; "
        f"the steps moved weights by up to {100 * result.moved:.2g} % of their scale, the loss "
        f"from {result.losses[0]:.4g} to {result.losses[-1]:.4g}.",
    ]
    if result.variance_gap:
        notes.append(
            "Batch norm: torch averages unbiased variances and Keras biased ones, which makes up "
            f"to {100 * result.variance_gap:.2g} % here; Keras' are compared with what its "
            "convention gives in torch."
        )
    for cell in result.cells:
        where = f"{cell.backend}, {cell.precision}"
        if cell.error:
            notes.append(f"{where} could not run: {cell.error}")
        elif cell.judged and not cell.passed and (step := cell.divergence or cell.steps[-1]):
            notes.append(
                f"{where}: the weights diverge at step {step.number}, most of all "
                f"{step.farthest} by {step.relative:.1e}; its loss is {step.loss:.10g}, "
                f"in the reference {result.losses[step.number - 1]:.10g}."
            )
    return notes


def _training_columns(cell: TrainingCell) -> tuple[str, ...]:
    """Return the row of a training: names, distances, loss and verdict."""
    if cell.error:
        return (cell.backend, cell.precision, "-", "-", "", "-", "could not run")
    farthest = cell.farthest
    verdict = "passed" if cell.passed else "FAILED"
    return (
        cell.backend,
        cell.precision,
        f"{cell.distance:.1e}",
        relative_text(farthest),
        farthest.name if farthest else "",
        f"{cell.steps[-1].loss:.6g}",
        verdict if cell.judged or not cell.passed else "rounding",
    )


def training_to_json(result: TrainingResult) -> dict[str, Any]:
    """Return a result as JSON-serialisable values; infinite differences become null."""
    fields = dataclasses.asdict(result.check) | {"weights": str(result.check.weights)}
    del fields["counterpart"], fields["plan"]
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
        "steps": [finite_fields(step) for step in cell.steps],
        "tensors": [compared_to_json(tensor) for tensor in cell.tensors],
    }
