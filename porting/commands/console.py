"""Results as tables on a terminal."""

from collections.abc import Sequence

from keras_alexnet.core.tables import Format, Sheet, write_sheet
from porting.checks.folding import photo_columns
from porting.checks.results import (
    Cell,
    ParityResult,
    cells_in_words,
    named_columns,
    parity_notes,
    parity_sheet,
)
from porting.conversion.inspection import Inspection, TensorDifference
from porting.training_checks.results import TrainingResult, training_notes, training_sheet

_SHOWN = 4  # photos


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def print_cells(model: str, cells: Sequence[Cell]) -> None:
    """Print what came out of a model on a backend, as soon as it is known."""
    print(cells_in_words(model, cells), flush=True)


def print_parity(result: ParityResult) -> None:
    """Print the parity table of a check, its verdict, first divergences, and what could not run."""
    write_sheet(parity_sheet(result), Format.TABLE, parity_notes(result))


def print_photos(result: ParityResult) -> None:
    """Print the five best classes of the first photos, frameworks that say the same in a column."""
    for photo in result.photos[:_SHOWN]:
        names, columns = zip(*photo_columns(photo, result.check), strict=True)
        sheet = Sheet(
            f"{result.check.model}: {photo.path.rpartition('/')[2]}",
            named_columns(names, ()),
            list(zip(*columns, strict=True)),
        )
        write_sheet(sheet, Format.TABLE)
    if (more := len(result.photos) - _SHOWN) > 0:
        print(f"{more} more photos are in the JSON and the report")


def print_training(result: TrainingResult) -> None:
    """Print the table of a training check, and where a training went astray."""
    write_sheet(training_sheet(result), Format.TABLE, training_notes(result))


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
    columns = named_columns(("key", "shape", "dtype"), ("mean", "std", "min", "max", "not finite"))
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
    columns = named_columns(("key", "status"), ("max |A - B|", "relative"))
    lines = [(r.key, r.status, _number(r.max_abs), _number(r.relative)) for r in different]
    write_sheet(Sheet("Tensors that differ", columns, lines), Format.TABLE, [summary])
