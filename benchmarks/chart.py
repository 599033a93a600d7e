"""Ratios to a baseline as horizontal bars: a panel for each network and kind of work."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_alexnet.benchmarking.report import Quartiles
from keras_alexnet.core.files import atomic_output

_REACHED, _MISSED, _OTHER = "#13723b", "#b3261e", "#8fb3d9"
_LINES = "#444444"


@dataclass(frozen=True)
class Bar:
    """One competitor's ratio.

    Attributes:
        model: The network; networks stand side by side.
        what: The work; different work stands below each other.
        label: The competitor.
        ratio: How many times as fast as the baseline, and its spread.
        goal: Least ratio to reach, or None: it gets a mark, and the bar a colour for either case.
    """

    model: str
    what: str
    label: str
    ratio: Quartiles
    goal: float | None = None

    @property
    def color(self) -> str:
        """Colour of the bar."""
        if self.goal is None:
            return _OTHER
        return _REACHED if self.ratio.median >= self.goal else _MISSED


def draw(bars: Sequence[Bar], path: Path) -> Any:
    """Draw bars into a PNG file, completely or not at all, in the order in which they come.

    Returns matplotlib's `Figure`.
    """
    from matplotlib.figure import Figure

    titles = list(dict.fromkeys(bar.what for bar in bars))
    networks = list(dict.fromkeys(bar.model for bar in bars))
    groups = [
        [[x for x in bars if (x.what, x.model) == (title, name)] for name in networks]
        for title in titles
    ]
    heights = [max(map(len, group)) for group in groups]
    figure = Figure(
        figsize=(2 + 5 * len(networks), 0.3 * sum(heights) + 0.62 * len(heights)),
        layout="constrained",
    )
    panels = figure.subplots(
        len(titles), len(networks), squeeze=False, height_ratios=heights, sharex=True
    )
    for title, group, line in zip(titles, groups, panels, strict=True):
        for name, chosen, axes in zip(networks, group, line, strict=True):
            _draw_panel(axes, chosen)
            axes.set_title(f"{name}: {title}", fontsize=9, loc="left")
    for axes in panels[-1]:
        axes.set_xlabel("ratio to the baseline; black: to reach", fontsize=8)
        axes.margins(x=0.08)
    with atomic_output(path) as temporary:
        figure.savefig(temporary, dpi=100, metadata={"Software": None})
    return figure


def _draw_panel(axes: Any, bars: Sequence[Bar]) -> None:
    for place, bar in enumerate(bars):
        ratio = bar.ratio
        if bar.goal is not None:
            axes.plot([bar.goal] * 2, [place - 0.4, place + 0.4], color="black", linewidth=1.6)
        spread = [[ratio.median - ratio.low], [ratio.high - ratio.median]]
        axes.barh(place, ratio.median, height=0.7, color=bar.color, alpha=0.85)
        axes.errorbar(ratio.median, place, xerr=spread, color=_LINES, linewidth=1)
        axes.text(ratio.high, place, f"  {ratio.median:.2f}", va="center", fontsize=8)
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color=_LINES, linewidth=0.6, linestyle=":")
    axes.spines[["top", "right"]].set_visible(False)
