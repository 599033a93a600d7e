"""The differences of all layers as a chart: lines to draw, and what to say of each layer."""

import dataclasses
import math
from collections.abc import Mapping

from porting.checks.compare import Compared
from porting.checks.folding import folded
from porting.checks.results import Cell, ParityResult, relative_text
from porting.tolerances import TOLERANCES

# Of the drawing, in its own units; names of layers stand below.
_WIDTH, _HEIGHT = 1000.0, 260.0
# A logarithmic axis has no zero: exact layers lie on its floor.
_FLOOR, _LEAST_TOP = -9, -4  # exponents of ten
_NAMES = 28  # as many stand beside each other


@dataclasses.dataclass(frozen=True)
class Line:
    """The layers of a cell: `points` as SVG takes them; `beyond` are those out of tolerance."""

    backend: str
    data_format: str
    points: str
    beyond: tuple[tuple[float, float], ...]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer at a place on the axis: what it is, and its difference by cell, folded.

    `shape` is that of one image's output: height, width, channels, or as torch has it.
    """

    name: str
    kind: str
    shape: str
    x: float
    is_named: bool
    differences: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart of `width` by `height`; `ticks` are heights of powers of ten, by exponent."""

    width: float
    height: float
    step: float
    ticks: Mapping[int, float]
    tolerance: float
    lines: tuple[Line, ...]
    layers: tuple[Layer, ...]
    columns: tuple[tuple[str, tuple[str, ...]], ...]
    """Differences of all layers by cell, identical ones folded."""


def layer_chart(result: ParityResult) -> Chart | None:
    """Return the chart of a check's first input set, None where no cell has layers."""
    cells = [(cell, cell.sets[0].layers) for cell in result.cells if cell.sets]
    if not cells:
        return None
    _, first = cells[0]
    limit = math.log10(TOLERANCES["layer"].limit)
    known = [_exponent(layer) for _, layers in cells for layer in layers]
    top = max([_LEAST_TOP, *(math.ceil(value) for value in known if math.isfinite(value))])
    step = _WIDTH / len(first)

    def height(exponent: float) -> float:
        return round(_HEIGHT * (1 - (min(exponent, top) - _FLOOR) / (top - _FLOOR)), 1)

    def place(number: int, layer: Compared) -> tuple[float, float]:
        return round((number + 0.5) * step, 1), height(_exponent(layer))

    texts = {name_of(c): tuple(map(relative_text, layers)) for c, layers in cells}
    named = math.ceil(len(first) / _NAMES)
    return Chart(
        _WIDTH,
        _HEIGHT,
        step,
        {exponent: height(exponent) for exponent in range(_FLOOR, top + 1)},
        height(limit),
        tuple(
            Line(
                cell.backend,
                cell.data_format,
                " ".join("{},{}".format(*place(n, layer)) for n, layer in enumerate(layers)),
                tuple(place(n, layer) for n, layer in enumerate(layers) if not layer.passed),
            )
            for cell, layers in cells
        ),
        tuple(
            Layer(
                layer.name,
                layer.kind,
                "x".join(map(str, layer.shape[1:])),
                round((n + 0.5) * step, 1),
                n % named == 0,
                tuple(folded({cell: column[n] for cell, column in texts.items()})),
            )
            for n, layer in enumerate(first)
        ),
        tuple(folded(texts)),
    )


def _exponent(layer: Compared) -> float:
    """Return the power of ten of a difference: the floor's at least, infinite for other shapes."""
    if layer.difference is None:
        return math.inf
    return math.log10(max(layer.difference.relative, 10.0**_FLOOR))


def name_of(cell: Cell) -> str:
    """Return what a cell is called."""
    return f"{cell.backend}, {cell.data_format}"
