"""Results as tables on a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from porting.checks.results import LIVELY, ParityResult, parity_columns, relative_text
from porting.conversion.inspection import Inspection, TensorDifference
from porting.tolerances import TOLERANCES
from porting.training_checks.results import TrainingCell, TrainingResult


def print_parity(console: Console, result: ParityResult) -> None:
    """Print the parity table of a check, its first divergence, and the photos' best classes."""
    check = result.check
    table = Table(title=f"{check.model}: Keras against {check.reference.title}, relative to scale")
    for column in ("backend", "data format"):
        table.add_column(column)
    for column in ("pixels", "layers", "logits", "top-1", "gradients", "verdict"):
        table.add_column(column, justify="right")
    for cell in result.cells:
        table.add_row(cell.backend, cell.data_format, *parity_columns(cell))
    limits = [f"<= {TOLERANCES[name].limit:g}" for name in ("pixels", "layer", "logits")]
    table.add_section()
    table.add_row("tolerance", "", *limits, "100 %", f"<= {TOLERANCES['gradient'].limit:g}", "")
    console.print(table)
    console.print(f"{check.model}: {result.verdict}", markup=False)
    for cell in result.cells:
        where = f"{cell.backend}, {cell.data_format}"
        if cell.error:
            console.print(f"{where} could not run: {cell.error}", markup=False)
        if divergence := cell.divergence:
            gap = "" if divergence.relative is None else f" by {divergence.relative:.1e}"
            console.print(
                f"{where}: the first layer that diverges is {divergence.layer}{gap} "
                f"({divergence.inputs}). Usual causes: {divergence.cause}",
                markup=False,
            )
        if cell.gradients_declared:
            console.print(
                f"{where}: no float64 gradients in this framework: "
                f"{_essence(cell.gradients_error)}",
                markup=False,
            )
        elif cell.gradients_error:
            console.print(f"{where}: gradients failed: {cell.gradients_error}", markup=False)
    if result.spread < LIVELY:
        console.print(
            f"warning: logits of different images differ by only {result.spread:.1e} of their "
            "scale; these weights would hide errors",
            markup=False,
        )


def _essence(error: str) -> str:
    """Return the line of an error that holds its reason."""
    lines = [line for line in error.splitlines() if "NHWC" in line] or error.splitlines()
    return lines[0].rpartition("}} ")[2]


def print_photos(console: Console, result: ParityResult, limit: int = 4) -> None:
    """Print the five best classes of the first photos, a column per framework."""
    first = result.check.data_formats[0]
    for photo in result.photos[:limit]:
        reference = result.check.reference.title
        columns = [name for name in photo.top if name == reference or name.endswith(first)]
        table = Table(title=escape(f"{result.check.model}: {photo.path.rpartition('/')[2]}"))
        for name in columns:
            table.add_column(name.removesuffix(f", {first}"))
        for row in zip(*(photo.top[name] for name in columns), strict=True):
            table.add_row(*(escape(f"{label} {100 * p:.2f} %") for label, p in row))
        console.print(table)
    if len(result.photos) > limit:
        console.print(f"{len(result.photos) - limit} more photos are in the JSON and the report")


def print_training(console: Console, result: TrainingResult) -> None:
    """Print the table of a training check, and where a training went astray."""
    check = result.check
    heads = ", auxiliary heads" if check.reference.aux_heads else ""
    table = Table(
        title=f"{check.model}: {check.steps} SGD steps in Keras against {check.reference.title} in "
        f"float64, {check.batch_size} images of {check.size[0]}x{check.size[1]}{heads}"
    )
    for column in ("training", "computed in"):
        table.add_column(column)
    for column in ("all weights", "farthest tensor", "", "last loss", "verdict"):
        table.add_column(column, justify="left" if not column else "right")
    for cell in result.cells:
        table.add_row(*_training_columns(cell))
    table.add_section()
    limit = f"<= {TOLERANCES['training'].limit:g}"
    table.add_row("tolerance", "float64", "", limit, "", f"{result.losses[-1]:.6g}", "")
    console.print(table)
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
    for note in notes:
        console.print(note, markup=False)


def _training_columns(cell: TrainingCell) -> tuple[str, ...]:
    """Return the row of a training: names, distances, loss and verdict."""
    if cell.error:
        return (cell.backend, cell.precision, "-", "-", "", "-", "FAILED")
    farthest = cell.farthest
    verdict = "passed" if cell.passed else "FAILED"
    return (
        cell.backend,
        cell.precision,
        f"{cell.distance:.1e}",
        relative_text(farthest),
        escape(farthest.name) if farthest else "",
        f"{cell.steps[-1].loss:.6g}",
        verdict if cell.judged or not cell.passed else "rounding",
    )


def print_inspection(console: Console, inspection: Inspection) -> None:
    """Print the tensors of a file and which known model it fits."""
    table = Table(title=escape(str(inspection.path)))
    table.add_column("key", no_wrap=True)
    table.add_column("shape", no_wrap=True)
    table.add_column("dtype", no_wrap=True)
    for column in ("mean", "std", "min", "max", "not finite"):
        table.add_column(column, justify="right", no_wrap=True)
    for t in inspection.tensors:
        numbers = (f"{value:.4g}" for value in (t.mean, t.std, t.minimum, t.maximum))
        shape = "x".join(map(str, t.shape)) or "scalar"
        table.add_row(escape(t.key), shape, t.dtype, *numbers, str(t.not_finite or ""))
    console.print(table)
    for note in inspection.notes:
        console.print(note, markup=False)
    best = inspection.fits[0]
    if best.problems == 0:
        console.print(f"fits {best.title}", markup=False)
    else:
        console.print(
            f"fits no known model; nearest is {best.title}: {len(best.missing)} keys missing, "
            f"{len(best.unexpected)} unexpected, {len(best.wrong_shape)} of another shape",
            markup=False,
        )
    if inspection.record:
        source = inspection.record["source"]
        console.print(
            f"converted from {source['file']} (sha256 {source['sha256']}, "
            f"weights {source['weights'] or 'of your own'})",
            markup=False,
        )


def print_diff(console: Console, rows: Sequence[TensorDifference]) -> None:
    """Print the keys that differ and a summary."""
    different = [row for row in rows if row.status != "identical"]
    if different:
        table = Table()
        table.add_column("key", no_wrap=True)
        table.add_column("status")
        table.add_column("max |A - B|", justify="right")
        table.add_column("relative", justify="right")
        for row in different:
            numbers = ("" if v is None else f"{v:.3g}" for v in (row.max_abs, row.relative))
            table.add_row(escape(row.key), row.status, *numbers)
        console.print(table)
    console.print(f"{len(rows) - len(different)} tensors identical, {len(different)} different")
