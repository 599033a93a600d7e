"""Networks as pictures: how what `layout` has placed is painted, and into which files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_alexnet.core.backend import require
from keras_alexnet.core.figures import METADATA, check_picture
from keras_alexnet.core.files import atomic_output
from keras_alexnet.specs.schema import ModelSpec
from keras_alexnet.summary.picture_boxes import shape_text
from keras_alexnet.summary.picture_layout import (
    EDGE,
    LINE,
    MARGIN,
    Picture,
    arrange,
    sans_serif,
    text_width,
)
from keras_alexnet.summary.profile import Profile, profile

# Kind of a box -> its face and its edge.
_COLOURS: Mapping[str, tuple[str, str]] = {
    "input, output": ("#ffffff", "#444444"),
    "convolution": ("#d3e4f5", "#3b6ea5"),
    "pooling": ("#fde3c8", "#c0762c"),
    "normalisation": ("#d8ecd3", "#4d8a3d"),
    "activation": ("#fff3c4", "#a98a12"),
    "concatenation": ("#e4e4e4", "#6b6b6b"),
    "flatten": ("#d5eeee", "#3f8a8a"),
    "dropout": ("#f6d5da", "#b2505f"),
    "dense": ("#e0d8ef", "#6a50a0"),
}
_INK = "#6a6a6a"
_TITLE = 15.0  # size of the font in points
_RC = {
    "svg.fonttype": "none",
    "svg.hashsalt": "keras_alexnet",
    # matplotlib brings the first font, which is measured; the second is as wide, for viewers of
    # SVG that lack the first.
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
}


def draw(
    spec: ModelSpec,
    path: str | Path,
    *,
    size: tuple[int, int] | None = None,
    classes: int | None = None,
    aux_heads: bool = False,
) -> Path:
    """Draw a network into a .svg, .png or .pdf file, completely or not at all.

    The other arguments are those of `profile`. Returns the absolute path.

    Raises:
        ConfigurationError: As by `profile`, or the suffix is unknown or the file cannot be written.
        MissingDependencyError: matplotlib is not installed.
    """
    check_picture(path)
    return draw_profile(profile(spec, size=size, classes=classes, aux_heads=aux_heads), path)


def draw_profile(network: Profile, path: str | Path) -> Path:
    """Draw a network whose profile is known, into a path that has passed `check_picture`."""
    suffix = Path(path).suffix.lower()
    metadata = {"Title": network.spec.name, **METADATA[suffix]}
    with require("matplotlib").rc_context(_RC), atomic_output(path) as temporary:
        render(network).savefig(temporary, format=suffix[1:], dpi=120, metadata=metadata)
    return Path(path).resolve()


def render(network: Profile) -> Any:
    """Return a network as a matplotlib figure; the patch of each box has its name as its id."""
    picture, patches = arrange(network), require("matplotlib.patches")
    left, top, right, bottom = picture.extent
    title, summary = network.spec.name, _summary(network)
    inner = max(right - left, text_width(summary, sans_serif()), 5.5)
    legend, header = _legend(picture, inner)
    width, height = inner + 2 * EDGE, header + bottom - top + 2 * EDGE
    figure = require("matplotlib.figure").Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0))

    def write(x: float, y: float, text: str, font: Any, **style: Any) -> None:
        axes.text(x, y, text, fontproperties=font, parse_math=False, **style)

    def rectangle(x: float, y: float, w: float, h: float, **style: Any) -> None:
        shape = patches.BoxStyle.Round(pad=0, rounding_size=0.05)
        axes.add_patch(patches.FancyBboxPatch((x, y), w, h, boxstyle=shape, **style))

    write(EDGE, EDGE + 0.15, title, sans_serif(_TITLE, bold=True))
    write(EDGE, EDGE + 0.4, summary, sans_serif(), color="#444444")
    for kind, x, y in legend:
        face, edge = _COLOURS[kind]
        rectangle(EDGE + x, EDGE + y - 0.1, 0.18, 0.12, facecolor=face, edgecolor=edge)
        write(EDGE + x + 0.25, EDGE + y, kind, sans_serif())
    # From here on in the picture's coordinates.
    dx, dy = (width - right - left) / 2, EDGE + header - top
    for x, y, x2, y2 in picture.frames:
        rectangle(x + dx, y + dy, x2 - x, y2 - y, facecolor="#f6f6f6", edgecolor="#d8d8d8")
    for points in picture.arrows:
        way = [(x + dx, y + dy) for x, y in points]
        x, y = way[-1]  # where it points down
        axes.plot(*zip(*way, strict=True), color=_INK, linewidth=1.2, solid_joinstyle="miter")
        axes.add_patch(
            patches.Polygon(
                [(x - 0.035, y - 0.09), (x + 0.035, y - 0.09), (x, y)], color=_INK, linewidth=0
            )
        )
    for box in dict.fromkeys(picture.boxes.values()):
        x, y = box.x - box.width / 2 + dx, box.y + dy
        face, edge = _COLOURS[box.kind]
        rectangle(
            x, y, box.width, box.height, facecolor=face, edgecolor=edge, gid=f"box-{box.lines[0]}"
        )
        for number, line in enumerate(box.lines):
            baseline = y + MARGIN + (number + 0.78) * LINE
            colour = "#000000" if number == 0 else "#333333"
            write(
                box.x + dx, baseline, line, sans_serif(bold=number == 0), ha="center", color=colour
            )
    return figure


def _summary(network: Profile) -> str:
    totals, image = network.totals, network.rows[0].input
    return (
        f"{shape_text(image)} pixels, {network.classes} classes, {totals.parameters:,} parameters, "
        f"{totals.macs:,} multiply-accumulates"
    )


def _legend(picture: Picture, width: float) -> tuple[list[tuple[str, float, float]], float]:
    """Return the kinds in the picture with their places below the title, and the height of both."""
    present = {box.kind for box in picture.boxes.values()}
    entries, x, y = [], 0.0, 0.72
    for kind in filter(present.__contains__, _COLOURS):
        step = text_width(kind, sans_serif()) + 0.5
        if x and x + step - 0.25 > width:
            x, y = 0.0, y + 0.22
        entries.append((kind, x, y))
        x += step
    return entries, y + 0.35
