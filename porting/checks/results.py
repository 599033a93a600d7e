"""What a check compares, and what came out of it."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_alexnet.core.tables import Column, Sheet, markdown
from porting.checks.compare import Agreement, Compared, Divergence, first_divergence, worst
from porting.checks.inputs import InputSet
from porting.tolerances import LIVELY, TOLERANCES
from porting.torch_side.reference_nets import Reference
from porting.weights.counterpart import Counterpart

# Cells whose float64 gradients the framework does not have, with words of the error that proves it.
CANNOT_DIFFERENTIATE = {("tensorflow", "channels_first"): "NHWC"}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What every check compares: a torch network, its Keras counterpart, and a weights file."""

    reference: Reference
    counterpart: Counterpart
    weights: Path

    @property
    def model(self) -> str:
        """Name of the architecture."""
        return self.reference.model

    @property
    def main_output(self) -> str:
        """What the output is called whose classes are compared."""
        return self.counterpart.outputs[0].name


@dataclasses.dataclass(frozen=True)
class Check(Comparison):
    """What is to be compared, on every backend in every data format.

    `candidate` is the `.keras` file, `plan` the graph that it was made of, if any. The layers of
    the first `layer_images` of each input set are compared, and `gradients` where they are wanted.
    A child process is stopped after `timeout` seconds of silence.
    """

    candidate: Path
    inputs: tuple[InputSet, ...]
    backends: tuple[str, ...]
    data_formats: tuple[str, ...]
    labels: tuple[str, ...] = ()
    layer_images: int = 2
    timeout: float = 900
    plan: Path | None = None
    gradients: bool = True

    @property
    def photos(self) -> InputSet | None:
        """The first input set of photos, whose classes are shown."""
        return next((inputs for inputs in self.inputs if inputs.paths), None)


@dataclasses.dataclass(frozen=True)
class SetResult:
    """Comparison of one input set: pixels in uint8 steps, logits per output, layers in order."""

    inputs: str
    pixel_steps: int
    agreement: Agreement
    logits: tuple[Compared, ...]
    layers: tuple[Compared, ...]

    @property
    def passed(self) -> bool:
        """Whether everything is within its tolerance."""
        exact = self.pixel_steps == 0 and self.agreement.top1 == 1
        return exact and all(c.passed for c in (*self.logits, *self.layers))


@dataclasses.dataclass(frozen=True)
class Cell:
    """One backend in one data format.

    `error` says why the cell could not run, `gradients_error` why its gradients could not.
    """

    backend: str
    data_format: str
    sets: tuple[SetResult, ...] = ()
    gradients: tuple[Compared, ...] = ()
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    error: str = ""
    gradients_error: str = ""

    @property
    def gradients_declared(self) -> bool:
        """Whether the gradients failed in the way that is known of this cell."""
        words = CANNOT_DIFFERENTIATE.get((self.backend, self.data_format))
        return bool(self.gradients_error) and words is not None and words in self.gradients_error

    @property
    def ran(self) -> bool:
        """Whether everything could be computed that this cell is known to have."""
        return not self.error and (not self.gradients_error or self.gradients_declared)

    @property
    def disagrees(self) -> bool:
        """Whether something that was computed is out of its tolerance."""
        sets = all(result.passed for result in self.sets)
        return not (sets and all(gradient.passed for gradient in self.gradients))

    @property
    def passed(self) -> bool:
        """Whether the cell ran and everything is within its tolerance."""
        return self.ran and not self.disagrees

    @property
    def verdict(self) -> str:
        """`passed`, `FAILED` where something disagrees, else `could not run`."""
        if self.disagrees:
            return "FAILED"
        return "passed" if self.ran else "could not run"

    @property
    def divergence(self) -> Divergence | None:
        """The first layer that diverges, in the first input set where one does."""
        found = (first_divergence(result.inputs, result.layers) for result in self.sets)
        return next(filter(None, found), None)

    @property
    def worst_logits(self) -> Compared | None:
        """The output farthest from torch's."""
        return worst([logits for result in self.sets for logits in result.logits])


@dataclasses.dataclass(frozen=True)
class Photo:
    """A photo with the best classes by framework: name -> ((label, probability), ...)."""

    path: str
    top: Mapping[str, tuple[tuple[str, float], ...]]


@dataclasses.dataclass(frozen=True)
class ParityResult:
    """The outcome of a check."""

    check: Check
    cells: tuple[Cell, ...]
    photos: tuple[Photo, ...]
    reference_versions: Mapping[str, str]
    spread: float
    """Largest difference between two images' logits, relative to the largest |logit|."""

    @property
    def versions(self) -> dict[str, str]:
        """Versions of everything that took part."""
        merged = dict(self.reference_versions)
        for cell in self.cells:
            merged |= cell.versions
        return merged

    @property
    def passed(self) -> bool:
        """Whether every cell passed."""
        return bool(self.cells) and all(cell.passed for cell in self.cells)

    @property
    def verdict(self) -> str:
        """How many cells agree, disagree, or could not run, in words."""
        return verdict(self.cells)

    def _repr_markdown_(self) -> str:
        """Return what a notebook shows."""
        return markdown(parity_sheet(self), parity_notes(self))


def verdict(cells: Sequence[Cell]) -> str:
    """Say in words how many cells agree, disagree, or could not run."""
    counts = {
        "disagree": sum(cell.disagrees for cell in cells),
        "could not run": sum(not (cell.ran or cell.disagrees) for cell in cells),
    }
    found = [f"{count} {words}" for words, count in counts.items() if count]
    if not found:
        return f"all {len(cells)} cells agree"
    return f"of {len(cells)} cells {' and '.join(found)}"


def parity_columns(cell: Cell) -> tuple[str, ...]:
    """Return pixels, layers, logits, top-1, gradients and verdict of a cell as text."""
    if cell.error:
        return ("-",) * 5 + (cell.verdict,)
    layers = worst([layer for result in cell.sets for layer in result.layers])
    images = sum(result.agreement.images for result in cell.sets)
    agreeing = sum(result.agreement.top1 * result.agreement.images for result in cell.sets)
    return (
        str(max(result.pixel_steps for result in cell.sets)),
        relative_text(layers),
        relative_text(cell.worst_logits),
        f"{100 * agreeing / images:.4g} %",
        "n/a" if cell.gradients_error else relative_text(worst(cell.gradients)),
        cell.verdict,
    )


# What `parity_columns` gives but for the verdict, and what is allowed there.
_LIMITS = {
    "pixels (steps)": f"<= {TOLERANCES['pixels'].limit:g}",
    "layers": f"<= {TOLERANCES['layer'].limit:g}",
    "logits": f"<= {TOLERANCES['logits'].limit:g}",
    "top-1": "100 %",
    "gradients": f"<= {TOLERANCES['gradient'].limit:g}",
}


def cell_table(
    cells: Sequence[Cell],
) -> tuple[tuple[str, ...], list[tuple[Cell, tuple[str, ...]]], str]:
    """Return headings, each cell's texts below them, and in words what is the same everywhere.

    What several cells have and all have alike is no column; one that could not run has no texts.
    """
    headings = tuple(_LIMITS)
    texts = [(cell, () if cell.error else parity_columns(cell)[:-1]) for cell in cells]
    ran = [columns for _, columns in texts if columns]
    kept, same = [], []
    # Of no cells that ran there are no columns.
    for number, (heading, column) in enumerate(zip(headings, zip(*ran, strict=True), strict=False)):
        if len(ran) > 1 and len(set(column)) == 1:
            same.append(f"{heading} {'not compared' if column[0] == '-' else column[0]}")
        else:
            kept.append(number)
    where = f"all {len(ran)}" + " that ran" * (len(ran) < len(cells))
    return (
        tuple(headings[number] for number in kept),
        [(cell, tuple(columns[n] for n in kept) if columns else ()) for cell, columns in texts],
        f"The same on {where}: {', '.join(same)}." if same else "",
    )


def cells_in_words(model: str, cells: Sequence[Cell]) -> str:
    """Return what came out of a model on a backend in a line, before the others are known."""
    verdicts = ", ".join(f"{cell.data_format} {cell.verdict}" for cell in cells)
    found = [logits for cell in cells if (logits := cell.worst_logits) is not None]
    gap = f" (logits {relative_text(worst(found))} apart)" if found else ""
    return f"{model} on {cells[0].backend}: {verdicts}{gap}"


def parity_sheet(result: ParityResult) -> Sheet:
    """Return a row for each cell, and the tolerances; `parity_notes` has what all have alike."""
    check = result.check
    headings, rows, _ = cell_table(result.cells)
    missing = ("-",) * len(headings)
    return Sheet(
        f"{check.model}: Keras against {check.reference.title}, relative to scale",
        named_columns(("backend", "data format"), (*headings, "verdict")),
        [
            *((c.backend, c.data_format, *(texts or missing), c.verdict) for c, texts in rows),
            ("tolerance", "", *(_LIMITS[heading] for heading in headings), ""),
        ],
        has_total=True,
    )


def parity_notes(result: ParityResult) -> list[str]:
    """Return what all cells have alike, the verdict, where any diverges, what could not run."""
    *_, same = cell_table(result.cells)
    notes = [*filter(None, [same]), f"{result.check.model}: {result.verdict}"]
    notes += [note for cell in result.cells for note in _notes(cell)]
    if result.spread < LIVELY:
        notes.append(
            f"warning: logits of different images differ by only {result.spread:.1e} of their "
            "scale; these weights would hide errors"
        )
    return notes


def _notes(cell: Cell) -> list[str]:
    where, found = f"{cell.backend}, {cell.data_format}", []
    if cell.error:
        found.append(f"{where} could not run: {cell.error}")
    if divergence := cell.divergence:
        gap = "" if divergence.relative is None else f" by {divergence.relative:.1e}"
        found.append(
            f"{where}: the first layer that diverges is {divergence.layer}{gap} "
            f"({divergence.inputs}). Usual causes: {divergence.cause}"
        )
    if cell.gradients_declared:
        essence = _essence(cell.gradients_error)
        found.append(f"{where}: no float64 gradients in this framework: {essence}")
    elif cell.gradients_error:
        found.append(f"{where}: gradients could not run: {cell.gradients_error}")
    return found


def _essence(error: str) -> str:
    """Return the line of an error that holds its reason."""
    lines = [line for line in error.splitlines() if "NHWC" in line] or error.splitlines()
    return lines[0].rpartition("}} ")[2]


def named_columns(text: Sequence[str], numbers: Sequence[str]) -> tuple[Column, ...]:
    """Return columns of words and of numbers, which are called as their keys are."""
    return (*(Column(n, n, text=True) for n in text), *(Column(n, n) for n in numbers))


def relative_text(compared: Compared | None) -> str:
    """Return a relative difference as text, `-` where there is none."""
    if compared is None or compared.difference is None:
        return "-" if compared is None else "shape"
    return f"{compared.difference.relative:.1e}"


def to_json(result: ParityResult) -> dict[str, Any]:
    """Return a result as JSON-serialisable values; infinite differences become null."""
    check = result.check
    return {
        "model": check.model,
        "weights": str(check.weights),
        "candidate": str(check.candidate),
        "classes": check.reference.classes,
        "aux_heads": check.reference.aux_heads,
        "transform_input": check.reference.transform_input,
        "passed": result.passed,
        "verdict": result.verdict,
        "logits_spread": result.spread,
        "tolerances": {name: dataclasses.asdict(t) for name, t in TOLERANCES.items()},
        "reference_versions": dict(result.reference_versions),
        "cells": [_cell_json(cell) for cell in result.cells],
        "photos": [dataclasses.asdict(photo) for photo in result.photos],
    }


def _cell_json(cell: Cell) -> dict[str, Any]:
    return {
        "backend": cell.backend,
        "data_format": cell.data_format,
        "passed": cell.passed,
        "error": cell.error or None,
        "versions": dict(cell.versions),
        "first_divergence": cell.divergence and dataclasses.asdict(cell.divergence),
        "inputs": [
            {
                "name": result.inputs,
                "passed": result.passed,
                "pixel_steps": result.pixel_steps,
                "agreement": dataclasses.asdict(result.agreement),
                "logits": [compared_to_json(c) for c in result.logits],
                "layers": [compared_to_json(c) for c in result.layers],
            }
            for result in cell.sets
        ],
        "gradients": [compared_to_json(c) for c in cell.gradients],
        "gradients_error": cell.gradients_error or None,
        "gradients_declared": cell.gradients_declared,
    }


def compared_to_json(compared: Compared) -> dict[str, Any]:
    """Return one compared thing as JSON-serialisable values."""
    detail = {"detail": compared.detail} if compared.detail else {}
    return {
        "name": compared.name,
        "kind": compared.kind,
        "passed": compared.passed,
        "shape": list(compared.shape),
        **(finite_fields(compared.difference) if compared.difference else {}),
        **detail,
    }


def finite_fields(record: Any) -> dict[str, Any]:
    """Return the fields of a dataclass for JSON, as `finite` returns each."""
    return {key: finite(value) for key, value in dataclasses.asdict(record).items()}


def finite(value: Any) -> Any:
    """Return a value for JSON: null for a number that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
