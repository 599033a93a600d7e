"""Where everything in the picture of a network lies: boxes, arrows, and frames behind the blocks.

The boxes form a chain from top to bottom, the branches of a block side by side. Lengths are in
inches, y grows downwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from math import ceil
from typing import Any

from keras_alexnet.core.backend import require
from keras_alexnet.specs.schema import Concat, Row
from keras_alexnet.summary.picture_boxes import KINDS, groups, label, shape_text
from keras_alexnet.summary.profile import Profile

_TERMINAL = "input, output"

LINE, MARGIN = 0.155, 0.09  # height of a line of text, margin inside a box
EDGE = 0.35  # around the picture
_GAP, _COLUMN_GAP = 0.28, 0.24  # between boxes, between columns
_TEXT = 8.0  # size of the font in points

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A box with lines of text, the first one its name; x is its middle, y its upper edge."""

    lines: tuple[str, ...]
    kind: str
    x: float
    y: float
    width: float

    @property
    def height(self) -> float:
        """Height of the lines and the margins."""
        return len(self.lines) * LINE + 2 * MARGIN

    @property
    def top(self) -> Point:
        """Where an arrow comes in."""
        return self.x, self.y

    @property
    def bottom(self) -> Point:
        """Where an arrow goes out."""
        return self.x, self.y + self.height


@dataclass(frozen=True)
class Picture:
    """Where everything lies, the main chain around x = 0.

    `boxes` are by the name of a row, input or output, and merged rows share one. `arrows` are
    polylines with the head at their last point, `frames` left, top, right and bottom of the areas
    behind the blocks.
    """

    boxes: dict[str, Box] = field(default_factory=dict)
    arrows: list[tuple[Point, ...]] = field(default_factory=list)
    frames: list[tuple[float, float, float, float]] = field(default_factory=list)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of everything."""
        sides = [
            (b.x - b.width / 2, b.y, b.x + b.width / 2, b.bottom[1]) for b in self.boxes.values()
        ]
        left, top, right, bottom = zip(*sides, *self.frames, strict=True)
        return min(left), min(top), max(right), max(bottom)


def arrange(network: Profile) -> Picture:
    """Place the boxes of a network around their texts, which matplotlib measures."""
    layout = _Layout(network, Picture())
    spec, picture = network.spec, layout.picture
    image = layout.terminal("image", shape_text(network.rows[0].input), 0.0, 0.0)
    end = layout.chain((*spec.body, *spec.head), 0.0, image.bottom[1] + _GAP, image.bottom)
    layout.output("logits", end)
    side, free = picture.extent[2] + 2 * EDGE, 0.0
    for aux in spec.aux if network.aux_heads else ():
        source, first_arrow = picture.boxes[aux.reads], len(picture.arrows)
        level, middle = source.y + source.height / 2, side + layout.width(aux.rows) / 2
        end = layout.chain(aux.rows, middle, max(level + _GAP, free), (middle, level))
        # The arrow leaves its box sideways.
        right = (source.x + source.width / 2, level)
        picture.arrows[first_arrow] = (right, *picture.arrows[first_arrow])
        free = layout.output(aux.name, end).bottom[1] + _GAP
    return picture


@dataclass(frozen=True)
class _Layout:
    """Fills a picture from top to bottom."""

    network: Profile
    picture: Picture

    def box(
        self, names: list[str], lines: tuple[str, ...], kind: str, x: float, y: float, width: float
    ) -> Box:
        """Place one box under the names of its rows."""
        box = Box(lines, kind, x, y, width)
        self.picture.boxes.update(dict.fromkeys(names, box))
        return box

    def terminal(self, name: str, detail: str, x: float, y: float) -> Box:
        """Place the box of an input or output."""
        return self.box([name], (name, detail), _TERMINAL, x, y, _width((name, detail)))

    def output(self, name: str, source: Box) -> Box:
        """Place an output below the last box of its chain."""
        detail = f"{self.network.classes} classes"
        box = self.terminal(name, detail, source.x, source.bottom[1] + _GAP)
        self.picture.arrows.append((source.bottom, box.top))
        return box

    def chain(self, rows: Sequence[Row], x: float, y: float, source: Point) -> Box:
        """Place rows below each other, the first one fed from `source`; return the last box."""
        width = self.box_width(rows)
        for group in groups(rows):
            first = group[0]
            if isinstance(first, Concat):
                box = self.block(first, self.columns(rows), x, y, source)
            else:
                names = [row.name for row in group]
                box = self.box(names, label(self.network, group), KINDS[type(first)], x, y, width)
                self.picture.arrows.append(_route(source, box.top))
            source, y = box.bottom, box.bottom[1] + _GAP
        return box

    def block(self, row: Concat, columns: list[float], x: float, y: float, source: Point) -> Box:
        """Place branches side by side and the box that joins them below; return that box."""
        widths = columns[: len(row.branches)]
        total = sum(widths) + _COLUMN_GAP * (len(widths) - 1)
        left, ends = x - total / 2, []
        for branch, width in zip(row.branches, widths, strict=True):
            ends.append(self.chain(branch, left + width / 2, y + _GAP, source))
            left += width + _COLUMN_GAP
        bottom = max(end.bottom[1] for end in ends)
        lines = label(self.network, (row,))
        box = self.box([row.name], lines, KINDS[Concat], x, bottom + _GAP, _width(lines))
        self.picture.arrows.extend(_route(end.bottom, box.top) for end in ends)
        half = (total + _COLUMN_GAP) / 2
        self.picture.frames.append((x - half, y, x + half, box.bottom[1] + _GAP / 2))
        return box

    def columns(self, rows: Sequence[Row]) -> list[float]:
        """Return the widths of the branches, the same for all blocks of a chain."""
        blocks = [map(self.width, row.branches) for row in rows if isinstance(row, Concat)]
        return [max(widths) for widths in zip_longest(*blocks, fillvalue=0.0)]

    def width(self, rows: Sequence[Row]) -> float:
        """Return the width of a chain."""
        return max(self.box_width(rows), sum(width + _COLUMN_GAP for width in self.columns(rows)))

    def box_width(self, rows: Sequence[Row]) -> float:
        """Return the common width of the boxes of a chain, blocks left aside."""
        return max(_width(label(self.network, group)) for group in groups(rows))


def _route(start: Point, end: Point) -> tuple[Point, ...]:
    """Return the way down from one point to another, along the axes."""
    if start[0] == end[0]:
        return start, end
    bus = end[1] - _GAP / 2
    return start, (start[0], bus), (end[0], bus), end


def sans_serif(size: float = _TEXT, *, bold: bool = False) -> Any:
    """Return the font of all texts at a size in points, for matplotlib."""
    fonts = require("matplotlib.font_manager")
    return fonts.FontProperties(family="sans-serif", size=size, weight="bold" if bold else "normal")


def text_width(text: str, font: Any) -> float:
    """Return the width of one line, as matplotlib measures it."""
    paths = require("matplotlib.textpath").text_to_path
    return paths.get_text_width_height_descent(text, font, ismath=False)[0] / 72


def _width(lines: tuple[str, ...]) -> float:
    """Return the width of a box around lines, the first one bold."""
    widths = [text_width(line, sans_serif(bold=not i)) for i, line in enumerate(lines)]
    # Rounded up, as nearly equal widths look like mistakes.
    return ceil(10 * (max(widths) + 2 * MARGIN)) / 10
