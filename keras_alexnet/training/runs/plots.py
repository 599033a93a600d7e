"""Pictures of results: learning curves, confusion, reliability, predictions, runs side by side.

Each function returns a `Picture`, which a notebook shows. Where a target is named it also writes a
.png, .svg or .pdf file, completely or not at all, or PNG into a buffer. Figures are matplotlib's
own objects: nothing of its global state is touched.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.core.backend import require
from keras_alexnet.core.figures import check_picture
from keras_alexnet.core.files import atomic_output
from keras_alexnet.core.pages import data_url
from keras_alexnet.inference.analysis import Calibration, confused_pairs

Rows = Sequence[Mapping[str, Any]]
Target = str | Path | io.BytesIO

_TRAIN, _VAL, _RATE = "#c0762c", "#3b6ea5", "#6a6a6a"
_PALE = "#8fb3d9"
_RIGHT, _WRONG = "#13723b", "#b3261e"
_NAMED_CLASSES = 30  # more names than these cannot be read beside a matrix
_COUNTED_CLASSES = 20  # nor more numbers inside of it
_NAMED_PAIRS = 10  # where the classes cannot be named
_DPI = 120
# Inches: an image of a grid, what lies between two, and titles of one or two lines.
_SIDE, _GAP, _ONE_LINE, _TWO_LINES = 2.1, 0.1, 0.3, 0.45


@dataclass(frozen=True)
class Picture:
    """A figure that a notebook shows where it is the last value of a cell.

    Attributes:
        figure: matplotlib's `Figure`, for whoever wants to change it.
    """

    figure: Any

    def _repr_png_(self) -> bytes:
        """Return what a notebook shows."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=_DPI)
        return buffer.getvalue()


def learning_curves(rows: Rows, target: Target | None = None) -> Picture:
    """Draw loss, accuracy and learning rate by epoch.

    Args:
        rows: A mapping for each epoch with the columns of a run's `metrics.csv`; values may be
            missing or None.
        target: What to write, if anything.
    """
    figure = _figure(11, 3.6)
    loss, accuracy, rate = figure.subplots(1, 3, width_ratios=(3, 3, 2))
    for axes, what, factor in ((loss, "loss", 1.0), (accuracy, "accuracy", 100.0)):
        _curve(axes, rows, f"train_{what}", factor, color=_TRAIN, label="training")
        _curve(axes, rows, f"val_{what}", factor, color=_VAL, label="validation")
        more = {"clean": ("training, not augmented", _TRAIN), "test": ("test", _RIGHT)}
        for part, (label, colour) in more.items():
            _curve(axes, rows, f"{part}_{what}", factor, color=colour, label=label, linestyle="--")
        if axes.lines:
            axes.legend(fontsize=8, frameon=False)
    loss.set_title("loss (nats)")
    accuracy.set_title("accuracy (%)")
    _curve(rate, rows, "learning_rate", 1.0, color=_RATE)
    rate.set_title("learning rate")
    _from_zero((loss, rate))
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    _epochs((loss, accuracy, rate))
    return _drawn(figure, target)


def confusion_matrix(
    confusion: np.ndarray, classes: Sequence[str], target: Target | None = None
) -> Picture:
    """Draw a confusion matrix, the colour of a cell being its share of the row.

    Where there are too many classes to name them all, the most confused pairs are ringed and named.

    Args:
        confusion: int (C, C), images by [label, prediction].
        classes: Names by index.
        target: What to write, if anything.
    """
    confusion = np.asarray(confusion)
    count = len(classes)
    images = confusion.sum(axis=1, keepdims=True)
    share = confusion / np.maximum(images, 1)
    side = 3.5 + 0.42 * min(count, 20) if count <= _NAMED_CLASSES else 10.0
    figure = _figure(side + 1.0, side if count <= _NAMED_CLASSES else side + 1.8)
    axes = figure.add_subplot()
    if count > _NAMED_CLASSES:
        _name_pairs(axes, confusion, classes)
    # Rare confusions are what one looks for: the root makes them visible.
    norm = require("matplotlib.colors").PowerNorm(0.5, 0.0, 1.0)
    picture = axes.imshow(share, cmap="Blues", norm=norm, interpolation="nearest")
    figure.colorbar(picture, ax=axes, label="share of the class", shrink=0.8)
    if count <= _NAMED_CLASSES:
        names = [_short(name, 18) for name in classes]
        axes.set_xticks(range(count), names, rotation=90, fontsize=8)
        axes.set_yticks(range(count), names, fontsize=8)
    if count <= _COUNTED_CLASSES:
        for (row, column), number in np.ndenumerate(confusion):
            if number:
                colour = "white" if share[row, column] > 0.4 else "black"
                axes.text(
                    column, row, str(number), ha="center", va="center", fontsize=7, color=colour
                )
    right = np.trace(confusion) / max(confusion.sum(), 1)
    axes.set(
        xlabel="prediction",
        ylabel="label",
        title=f"{confusion.sum():,} images, {100 * right:.2f} % right",
    )
    return _drawn(figure, target)


def _name_pairs(axes: Any, confusion: np.ndarray, classes: Sequence[str]) -> None:
    """Ring the cells of the most confused pairs, and name these below the axes."""
    lines = []
    for number, pair in enumerate(confused_pairs(confusion, _NAMED_PAIRS), 1):
        place = (pair.prediction, pair.label)
        ring = {"markersize": 11, "markerfacecolor": "none", "markeredgecolor": _WRONG}
        axes.plot(*place, "o", clip_on=False, **ring)
        axes.annotate(
            str(number), place, (7, 7), textcoords="offset points", fontsize=10, color=_WRONG
        )
        names = (
            f"{_short(classes[pair.label], 34)} taken for {_short(classes[pair.prediction], 34)}"
        )
        lines.append(f"{number}  {names}: {pair.images:,} ({100 * pair.share:.0f} %)")
    axes.figure.supxlabel("\n".join(lines), x=0.08, ha="left", fontsize=10, color=_WRONG)


def reliability_diagram(calibration: Calibration, target: Target | None = None) -> Picture:
    """Draw how often a model is right by how sure it is, and how many images that are.

    Args:
        calibration: Of an evaluation.
        target: What to write, if anything.
    """
    figure = _figure(6.5, 6.5)
    above, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    bins = [b for b in calibration.bins if b.accuracy is not None and b.confidence is not None]
    style = {"align": "edge", "edgecolor": "white", "linewidth": 0.8}
    lows, widths = [b.low for b in bins], [b.high - b.low for b in bins]
    accuracies = np.array([b.accuracy for b in bins])
    gaps = np.array([b.confidence for b in bins]) - accuracies
    above.bar(lows, accuracies, widths, color=_PALE, label="accuracy", **style)
    # The gap from the accuracy to the confidence, above the bar or within it.
    gap = {**style, "edgecolor": _WRONG, "facecolor": "none", "hatch": "///"}
    above.bar(lows, gaps, widths, accuracies, label="gap to the mean confidence", **gap)
    above.plot((0, 1), (0, 1), color="black", linewidth=0.8, linestyle=":")
    above.set(
        ylabel="accuracy",
        ylim=(0, 1),
        xlim=(0, 1),
        title=f"expected calibration error {calibration.ece:.4f}",
    )
    above.legend(fontsize=8, frameon=False, loc="upper left")
    below.bar(lows, [b.images for b in bins], widths, color=_RATE, **style)
    below.set(xlabel="confidence", ylabel="images")
    return _drawn(figure, target)


def sample_predictions(
    images: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    predictions: Sequence[int] | np.ndarray,
    confidences: Sequence[float] | np.ndarray,
    classes: Sequence[str],
    target: Target | None = None,
) -> Picture:
    """Draw images with what the model takes them for, and with the right class where it errs.

    Args:
        images: uint8 (N, h, w, C), R, G, B or grey; 12 to 20 make a good page.
        labels: (N,) right classes.
        predictions: (N,) best classes.
        confidences: (N,) their probabilities in [0, 1].
        classes: Names by index.
        target: What to write, if anything.
    """
    count = len(images)
    columns = min(5, count)
    lines = -(-count // columns)
    figure, grid = _cells(columns, [_TWO_LINES] * lines)
    for axes, image, label, guess, confidence in zip(
        grid.ravel(), images, labels, predictions, confidences, strict=False
    ):
        _show_image(axes, image)
        text = f"{_short(classes[guess], 20)} ({100 * confidence:.0f} %)"
        if label != guess:
            text += f"\nis {_short(classes[label], 22)}"
        colour = _RIGHT if label == guess else _WRONG
        axes.set_title(text, fontsize=9, color=colour)
    return _drawn(figure, target)


def example_grid(
    originals: Sequence[np.ndarray],
    names: Sequence[str],
    target: Target | None = None,
    *,
    seen: np.ndarray | Sequence[np.ndarray] = (),
) -> Picture:
    """Draw images with their classes, and below each what a network sees of it.

    Args:
        originals: uint8 (h, w, C) each, R, G, B or grey.
        names: Their classes.
        target: What to write, if anything.
        seen: uint8 (h, w, C) each, as many, or none.
    """
    columns = min(5, len(originals))
    lines = -(-len(originals) // columns)
    rows = 2 if len(seen) else 1
    figure, grid = _cells(columns, [_ONE_LINE, 0.0][:rows] * lines)
    for number, (image, name) in enumerate(zip(originals, names, strict=True)):
        line, column = divmod(number, columns)
        grid[line * rows, column].set_title(_short(name, 24), fontsize=9)
        _show_image(grid[line * rows, column], image)
        if len(seen):
            _show_image(grid[line * rows + 1, column], seen[number])
    return _drawn(figure, target)


def compare_curves(
    names: Sequence[str],
    curves: Sequence[Rows],
    results: Sequence[Mapping[str, float | None]],
    target: Target | None = None,
) -> Picture:
    """Draw several runs: curves of validation, and broken ones of training, and accuracies as bars.

    Args:
        names: What to call them.
        curves: The epochs of each, as for `learning_curves`.
        results: For each, `train_accuracy`, `val_accuracy` and `test_accuracy` in [0, 1], or None.
        target: What to write, if anything.
    """
    figure = _figure(13, max(4.0, 1.6 + 0.55 * len(names)))
    loss, accuracy, bars = figure.subplots(1, 3)
    for number, (name, rows) in enumerate(zip(names, curves, strict=True)):
        for axes, what, factor in ((loss, "loss", 1.0), (accuracy, "accuracy", 100.0)):
            style = {"color": f"C{number}"}
            _curve(axes, rows, f"train_{what}", factor, linestyle=":", **style)
            _curve(axes, rows, f"val_{what}", factor, label=_short(name, 30), **style)
    loss.set(title="loss (nats): validation, training dotted")
    accuracy.set(title="accuracy (%): validation, training dotted")
    if loss.get_legend_handles_labels()[1]:
        loss.legend(fontsize=8, frameon=False)
    _epochs((loss, accuracy))
    parts = {"train": "#e3b98c", "val": _PALE, "test": _VAL}
    for number, (part, colour) in enumerate(parts.items()):
        values = [100.0 * (result.get(f"{part}_accuracy") or 0.0) for result in results]
        places = np.arange(len(names)) + 0.27 * (number - 1)
        drawn = bars.barh(places, values, height=0.25, color=colour, label=part)
        bars.bar_label(drawn, [f"{v:.1f}" if v else "" for v in values], fontsize=7, padding=2)
    bars.set_yticks(range(len(names)), [_short(n, 30) for n in names], fontsize=8)
    bars.invert_yaxis()
    bars.set(title="accuracy (%)", xlim=(0, 109))
    bars.legend(fontsize=8, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.08))
    return _drawn(figure, target)


def inline(draw: Callable[..., Picture], *values: Any) -> str:
    """Return the picture that one of these functions draws, for a page that holds it itself."""
    return data_url(draw(*values)._repr_png_(), "png")


def _figure(width: float, height: float) -> Any:
    """Return an empty figure; sizes in inches."""
    return require("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")


def _cells(columns: int, heads: Sequence[float]) -> tuple[Any, np.ndarray]:
    """Return a figure of square axes for images, and them, (lines, columns).

    `heads` is what each line has above it for titles, in inches. The places are computed here:
    matplotlib's own layout measures every text several times, which takes longer than the rest.
    """
    width, height = columns * (_SIDE + _GAP), sum(heads) + len(heads) * (_SIDE + _GAP)
    figure = require("matplotlib.figure").Figure(figsize=(width, height))
    top, lines = height, []
    for head in heads:
        top -= head + _SIDE
        lines.append(
            [
                figure.add_axes(
                    (
                        (column * (_SIDE + _GAP) + _GAP / 2) / width,
                        top / height,
                        _SIDE / width,
                        _SIDE / height,
                    )
                )
                for column in range(columns)
            ]
        )
        top -= _GAP
    for axes in (each for line in lines for each in line):
        axes.set_axis_off()
    return figure, np.array(lines, object)


def _show_image(axes: Any, image: np.ndarray) -> None:
    """Draw uint8 (h, w, C)."""
    grey = image.shape[-1] == 1
    axes.imshow(image[..., 0] if grey else image, cmap="gray" if grey else None, vmin=0, vmax=255)


def _curve(axes: Any, rows: Rows, key: str, factor: float, **style: Any) -> None:
    """Draw a column of the epochs that have it."""
    points = [(row["epoch"], factor * row[key]) for row in rows if row.get(key) is not None]
    if points:
        marker = "o" if len(points) < 3 else None
        axes.plot(*zip(*points, strict=True), marker=marker, linewidth=1.4, **style)


def _from_zero(many: Sequence[Any]) -> None:
    """Let the values' axes begin at 0, and keep a margin at their other end."""
    for axes in many:
        axes.update_datalim([(0, 0)], updatex=False)
        axes.autoscale_view()
        axes.set_ylim(bottom=0)


def _epochs(many: Sequence[Any]) -> None:
    """Count epochs from 0 along the axes."""
    for axes in many:
        axes.update_datalim([(0, 0)], updatey=False)
        axes.autoscale_view()
        axes.set_xlim(left=0)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(visible=True, linewidth=0.3)


def _short(name: str, limit: int) -> str:
    """Return a name that is not too long, its dollars as they are: no formula."""
    name = name if len(name) <= limit else f"{name[: limit - 1]}…"
    return name.replace("$", r"\$")


def _drawn(figure: Any, target: Target | None) -> Picture:
    """Return a figure as a picture, and write it where a target is named."""
    picture = Picture(figure)
    if isinstance(target, io.BytesIO):
        target.write(picture._repr_png_())
    elif target is not None:
        check_picture(target)
        with atomic_output(target) as temporary:
            figure.savefig(temporary, format=Path(target).suffix[1:].lower(), dpi=_DPI)
    return picture
