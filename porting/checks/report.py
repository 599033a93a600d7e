"""Results of checks as one self-contained HTML page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_alexnet.core.pages import data_url, thumbnail, write_page
from keras_alexnet.data.preprocessing import load_images
from porting.checks.chart import layer_chart
from porting.checks.folding import photo_columns
from porting.checks.results import Check, ParityResult, cell_table, verdict
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
    headings, rows, same = cell_table(result.cells)
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


def _thumbnail(path: str, check: Check) -> str:
    """Return the pixels that the network sees as a data URL."""
    assert check.photos is not None
    return data_url(thumbnail(load_images([path], check.photos.preprocessing)[0]), "jpeg")
