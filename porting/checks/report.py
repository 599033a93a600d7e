"""Results of checks as one self-contained HTML page."""

import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from keras_alexnet.core.backend import require
from keras_alexnet.core.pages import write_page
from keras_alexnet.data.preprocessing import load_images
from porting.checks.results import Check, ParityResult, parity_columns, verdict
from porting.tolerances import TOLERANCES

_MAX_PHOTOS = 12
_THUMBNAIL = 160  # pixels


def write_report(path: str | Path, results: Sequence[ParityResult]) -> Path:
    """Write one HTML page for one or several checks, completely or not at all.

    Args:
        path: File to write.
        results: Outcomes of checks.

    Returns:
        The absolute path of the page.

    Raises:
        MissingDependencyError: Jinja2 or matplotlib is not installed.
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
    markup = require("jinja2").utils.markupsafe.Markup
    return {
        "result": result,
        "rows": [(cell, parity_columns(cell)) for cell in result.cells],
        "chart": markup(_chart(result)),
        "photos": [
            (photo, _thumbnail(photo.path, result.check)) for photo in result.photos[:_MAX_PHOTOS]
        ],
        "more_photos": max(len(result.photos) - _MAX_PHOTOS, 0),
    }


def _chart(result: ParityResult) -> str:
    """Return an SVG of the difference per layer, a line for each backend and format."""
    matplotlib = require("matplotlib")
    matplotlib.use("svg")
    figure = require("matplotlib.figure").Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.add_subplot()
    names: list[str] = []
    for cell in result.cells:
        if not cell.sets:
            continue
        layers = cell.sets[0].layers
        names = [layer.name for layer in layers]
        # A logarithmic axis has no zero: exact layers lie on its floor.
        gaps = [1e-9 if c.difference is None else max(c.difference.relative, 1e-9) for c in layers]
        style = "-" if cell.data_format == "channels_last" else "--"
        axes.plot(gaps, style, label=f"{cell.backend}, {cell.data_format}", linewidth=1.2)
    axes.axhline(TOLERANCES["layer"].limit, color="black", linewidth=0.8, linestyle=":")
    axes.annotate("tolerance", (0, TOLERANCES["layer"].limit), va="bottom", fontsize=8)
    axes.set_yscale("log")
    axes.set_ylabel("largest |difference| / largest |value|")
    step = max(1, len(names) // 28)
    axes.set_xticks(range(0, len(names), step), names[::step], rotation=60, ha="right", fontsize=7)
    axes.grid(visible=True, which="major", linewidth=0.3)
    if names:
        axes.legend(fontsize=8, ncols=3)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    # Several charts share a page, and matplotlib numbers its definitions anew in each.
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{result.check.model}-", svg)
    return svg[svg.index("<svg") :]


def _thumbnail(path: str, check: Check) -> str:
    """Return the pixels that the network sees as a data URL."""
    assert check.photos is not None
    pixels = load_images([path], check.photos.preprocessing)[0]  # (h, w, C)
    image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
