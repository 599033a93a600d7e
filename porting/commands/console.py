"""Results as tables on a terminal."""

from collections.abc import Sequence

from keras_alexnet.core.tables import Column, Format, Sheet, write_sheet
from porting.checks.results import Cell, ParityResult, parity_columns, relative_text
from porting.conversion.inspection import Inspection, TensorDifference
from porting.tolerances import LIVELY, TOLERANCES
from porting.training_checks.results import TrainingCell, TrainingResult

_SHOWN = 4  # photos


def _columns(text: Sequence[str], numbers: Sequence[str]) -> tuple[Column, ...]:
    return (*(Column(n, n, text=True) for n in text), *(Column(n, n) for n in numbers))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def print_parity(result: ParityResult) -> None:
    """Print the parity table of a check, its verdict, first divergences, and what could not run."""
    check = result.check
    limits = [f"<= {TOLERANCES[name].limit:g}" for name in ("pixels", "layer", "logits")]
    tolerance = ("tolerance", "", *limits, "100 %", f"<= {TOLERANCES['gradient'].limit:g}", "")
    sheet = Sheet(
        f"{check.model}: Keras against {check.reference.title}, relative to scale",
        _columns(
            ("backend", "data format"),
            ("pixels", "layers", "logits", "top-1", "gradients", "verdict"),
        ),
        [*((c.backend, c.data_format, *parity_columns(c)) for c in result.cells), tolerance],
        has_total=True,
    )
    notes = [f"{check.model}: {result.verdict}"]
    notes += [note for cell in result.cells for note in _notes(cell)]
    if result.spread < LIVELY:
        notes.append(
            f"warning: logits of different images differ by only {result.spread:.1e} of their "
            "scale; these weights would hide errors"
        )
    write_sheet(sheet, Format.TABLE, notes)


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


def print_photos(result: ParityResult) -> None:
    """Print the five best classes of the first photos, a column per framework."""
    first, reference = result.check.data_formats[0], result.check.reference.title
    for photo in result.photos[:_SHOWN]:
        names = [name for name in photo.top if name == reference or name.endswith(first)]
        rows = zip(*(photo.top[name] for name in names), strict=True)
        sheet = Sheet(
            f"{result.check.model}: {photo.path.rpartition('/')[2]}",
            _columns([name.removesuffix(f", {first}") for name in names], ()),
            [tuple(f"{label} {100 * p:.2f} %" for label, p in row) for row in rows],
        )
        write_sheet(sheet, Format.TABLE)
    if (more := len(result.photos) - _SHOWN) > 0:
        print(f"{more} more photos are in the JSON and the report")


def print_training(result: TrainingResult) -> None:
    """Print the table of a training check, and where a training went astray."""
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
    sheet = Sheet(
        f"{check.model}: {check.steps} SGD steps in Keras against {check.reference.title} in "
        f"float64, {check.batch_size} images of {shapes}{heads}",
        _columns(
            ("training", "computed in"),
            ("all weights", "farthest", "tensor", "last loss", "verdict"),
        ),
        [
            *map(_training_columns, result.cells),
            ("tolerance", "float64", "", limit, "", loss, ""),
        ],
        has_total=True,
    )
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
    write_sheet(sheet, Format.TABLE, notes)


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


def print_inspection(inspection: Inspection) -> None:
    """Print the tensors of a file and which known model it fits."""
    rows = [
        (
            t.key,
            "x".join(map(str, t.shape)) or "scalar",
            t.dtype,
            *map(_number, (t.mean, t.std, t.minimum, t.maximum)),
            str(t.not_finite or ""),
        )
        for t in inspection.tensors
    ]
    columns = _columns(("key", "shape", "dtype"), ("mean", "std", "min", "max", "not finite"))
    notes = [*inspection.notes, *_origin(inspection)]
    write_sheet(Sheet(str(inspection.path), columns, rows), Format.TABLE, notes)


def _origin(inspection: Inspection) -> list[str]:
    """Say which known model a file fits, and where a `.keras` file comes from."""
    best, record, notes = inspection.fits[0], inspection.record or {}, []
    target, source = record.get("model", {}).get("target"), record.get("source", {})
    if target is not None:
        notes.append(f"converted from the graph of {target}")
    elif best.problems == 0:
        notes.append(f"fits {best.title}")
    else:
        notes.append(
            f"fits no known model; nearest is {best.title}: {len(best.missing)} keys missing, "
            f"{len(best.unexpected)} unexpected, {len(best.wrong_shape)} of another shape"
        )
    if source.get("file") is not None:
        notes.append(
            f"converted from {source['file']} (sha256 {source['sha256']}, "
            f"weights {source['weights'] or 'of your own'})"
        )
    return notes


def print_diff(rows: Sequence[TensorDifference]) -> None:
    """Print the keys that differ and a summary."""
    different = [row for row in rows if row.status != "identical"]
    summary = f"{len(rows) - len(different)} tensors identical, {len(different)} different"
    if not different:
        print(summary)
        return
    columns = _columns(("key", "status"), ("max |A - B|", "relative"))
    lines = [(r.key, r.status, _number(r.max_abs), _number(r.relative)) for r in different]
    write_sheet(Sheet("Tensors that differ", columns, lines), Format.TABLE, [summary])
