"""Results of checks as one self-contained HTML page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_alexnet.core.pages import data_url, thumbnail, write_page
from keras_alexnet.data.preprocessing import load_images
from porting.checks.chart import layer_chart
from porting.checks.folding import photo_columns
from porting.checks.results import Cell, Check, ParityResult, parity_columns, verdict
from porting.tolerances import TOLERANCES

_MAX_PHOTOS = 12


def write_report(path: str | Path, results: Sequence[ParityResult]) -> Path:
    """Write one HTML page for one or several checks, completely or not at all.

    Args:
        path: File to write.
        results: Outcomes of checks.

    Returns:
        The absolute path of the page.

    Raises:
        MissingDependencyError: Jinja2 is not installed.
        ConfigurationError: The page cannot be written.
    """
    return write_page(
        Path(__file__).with_name("report.html.j2"),
        path,
        sections=[_section(result) for result in results],
        cells=[cell for result in results for cell in result.cells],
        verdict=verdict,
        tolerances=TOLERANCES,
    )


def _section(result: ParityResult) -> dict[str, Any]:
    headings, rows, same = _table(result.cells)
    return {
        "result": result,
        "headings": headings,
        "rows": rows,
        "same": same,
        "chart": layer_chart(result),
        "photos": [
            (photo, _thumbnail(photo.path, result.check), photo_columns(photo, result.check))
            for photo in result.photos[:_MAX_PHOTOS]
        ],
        "more_photos": max(len(result.photos) - _MAX_PHOTOS, 0),
    }


# Columns of the table of cells, but for the verdict, as `parity_columns` gives them.
_HEADINGS = ("pixels (steps)", "layers", "logits", "top-1", "gradients")


def _table(
    cells: Sequence[Cell],
) -> tuple[tuple[str, ...], list[tuple[Cell, tuple[str, ...]]], str]:
    """Return headings, each cell's texts below them, and in words what is the same everywhere.

    What several cells have and all have alike is no column; one that could not run has no texts.
    """
    texts = [(cell, () if cell.error else parity_columns(cell)[:-1]) for cell in cells]
    ran = [columns for _, columns in texts if columns]
    kept, same = [], []
    # Of no cells that ran there are no columns.
    for number, (heading, column) in enumerate(
        zip(_HEADINGS, zip(*ran, strict=True), strict=False)
    ):
        if len(ran) > 1 and len(set(column)) == 1:
            same.append(f"{heading} {'not compared' if column[0] == '-' else column[0]}")
        else:
            kept.append(number)
    where = f"all {len(ran)}" + " that ran" * (len(ran) < len(cells))
    return (
        tuple(_HEADINGS[number] for number in kept),
        [(cell, tuple(columns[n] for n in kept) if columns else ()) for cell, columns in texts],
        f"The same on {where}: {', '.join(same)}." if same else "",
    )


def _thumbnail(path: str, check: Check) -> str:
    """Return the pixels that the network sees as a data URL."""
    assert check.photos is not None
    return data_url(thumbnail(load_images([path], check.photos.preprocessing)[0]), "jpeg")
