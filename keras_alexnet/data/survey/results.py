"""What a survey found, and what people and machines read of it."""

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.core.files import readable
from keras_alexnet.core.tables import Column, Sheet, markdown
from keras_alexnet.data.examples import left_out_note
from keras_alexnet.data.survey.twins import Place, Twins
from keras_alexnet.errors import counted, listed


@dataclass(frozen=True, eq=False)
class PartSurvey:
    """What one part of a data set holds.

    Attributes:
        images: How many it lists, those that cannot be read among them.
        by_class: Images of each class, int64 (classes,).
        sizes: How many images have which (height, width) in pixels, upright.
        modes: How many have which kind of pixels by Pillow's names: RGB, L (grey), CMYK, ...
        mean: Of red, green and blue over all pixels, float64 (3,), in 0..1; NaN without any.
        std: Their standard deviation, the same.
        unreadable: Files that cannot be read, and why.
    """

    images: int
    by_class: np.ndarray
    sizes: Counter[tuple[int, int]]
    modes: Counter[str]
    mean: np.ndarray
    std: np.ndarray
    unreadable: dict[Path, str]


@dataclass(frozen=True, eq=False)
class DataSurvey:
    """What a data set holds, see `survey_data`.

    Attributes:
        name: Of the data set.
        classes: Names of the classes, by index.
        parts: What its parts hold, by name.
        left_out: Files that are not named like images.
        leaks: Pairs of images that show the same and lie in different parts.
        copies: Pairs with the same pixels within a part, each image with the first one like it.
    """

    name: str
    classes: tuple[str, ...]
    parts: dict[str, PartSurvey]
    left_out: tuple[Path, ...]
    leaks: list[Twins]
    copies: list[Twins]

    def _repr_markdown_(self) -> str:
        """Return what a notebook shows."""
        tables = (markdown(part_sheet(self)), markdown(class_sheet(self), notes(self)))
        return "\n\n".join(tables)


_PARTS = (
    Column("part", "part", text=True),
    Column("images", "images"),
    Column("smallest", "smallest class"),
    Column("largest", "largest class"),
    Column("sizes", "height x width", text=True, wraps=True),
    Column("modes", "pixels", text=True, wraps=True),
    Column("mean", "mean", text=True),
    Column("std", "deviation", text=True),
    Column("unreadable", "unreadable"),
)


def part_sheet(survey: DataSurvey) -> Sheet:
    """Return a row for each part; means and deviations of red, green and blue are of 0..1."""
    rows: list[tuple[Any, ...]] = [
        (
            name,
            part.images,
            int(part.by_class.min()),
            int(part.by_class.max()),
            _sizes_in_words(part.sizes),
            ", ".join(mode for mode, _ in part.modes.most_common()) or "-",
            *(" ".join(f"{value:.3f}" for value in values) for values in (part.mean, part.std)),
            len(part.unreadable),
        )
        for name, part in survey.parts.items()
    ]
    return Sheet(survey.name, _PARTS, rows)


def _sizes_in_words(sizes: Counter[tuple[int, int]]) -> str:
    if not sizes:
        return "-"
    ((height, width), often), *others = sizes.most_common()
    if not others:
        return f"{height}x{width}"
    heights, widths = zip(*sizes, strict=True)
    return (
        f"{min(heights)}..{max(heights)} x {min(widths)}..{max(widths)} "
        f"({height}x{width}: {100 * often / sizes.total():.0f} %)"
    )


def class_sheet(survey: DataSurvey) -> Sheet:
    """Return a row for each class: its images in each part."""
    columns = (Column("class", "class", text=True), *(Column(part, part) for part in survey.parts))
    counts = [part.by_class.tolist() for part in survey.parts.values()]
    return Sheet("classes", columns, list(zip(survey.classes, *counts, strict=True)))


def notes(survey: DataSurvey) -> list[str]:
    """Return what is to be known of a data set beside its tables, with a few examples."""
    said = []
    for name, part in survey.parts.items():
        reasons = defaultdict(list)
        for path, reason in part.unreadable.items():
            reasons[reason].append(readable(str(path)))
        said += [
            f"{name}: {counted(len(paths), 'image')} cannot be read, {reason}: {listed(paths)}"
            for reason, paths in reasons.items()
        ]
    if survey.left_out:
        said.append(left_out_note(survey.left_out))
    by_parts: dict[tuple[str, str, bool], list[Twins]] = defaultdict(list)
    for twins in survey.leaks:
        by_parts[twins.first.part, twins.second.part, twins.exact].append(twins)
    for (first, second, exact), pairs in by_parts.items():
        alike = "the same as" if exact else "nearly the same as"
        said.append(_said(f"leak: {second} has", pairs, f"{alike} one of {first}"))
    if len(survey.parts) > 1 and not survey.leaks:
        said.append("no image of one part is the same as one of another, or nearly the same")
    if survey.copies:
        said.append(_said("there are", survey.copies, "the same as an earlier one of their part"))
    return said


def _said(beginning: str, pairs: list[Twins], relation: str) -> str:
    images = counted(len({pair.second for pair in pairs}), "image")
    others = sum(pair.contradict for pair in pairs)
    classes = f" ({others} of another class)" if others else ""
    return f"{beginning} {images} {relation}{classes}: {listed(map(_pair, pairs))}"


def _pair(twins: Twins) -> str:
    return readable(f"{twins.second} = {twins.first}")


def to_json(survey: DataSurvey) -> dict[str, Any]:
    """Return all of a survey as JSON holds it."""

    def pairs(twins: list[Twins]) -> list[dict[str, Any]]:
        return [
            {
                "first": _place(pair.first),
                "second": _place(pair.second),
                "exact": pair.exact,
                "contradict": pair.contradict,
            }
            for pair in twins
        ]

    def _place(place: Place) -> dict[str, Any]:
        path = None if place.path is None else readable(str(place.path))
        return {**asdict(place), "label": survey.classes[place.label], "path": path}

    return {
        "name": survey.name,
        "classes": list(survey.classes),
        "parts": {
            name: {
                "images": part.images,
                "by_class": part.by_class.tolist(),
                "sizes": {f"{h}x{w}": count for (h, w), count in part.sizes.most_common()},
                "modes": dict(part.modes.most_common()),
                "mean": part.mean.tolist() if part.sizes else None,
                "std": part.std.tolist() if part.sizes else None,
                "unreadable": {readable(str(p)): why for p, why in part.unreadable.items()},
            }
            for name, part in survey.parts.items()
        },
        "left_out": [readable(str(path)) for path in survey.left_out],
        "leaks": pairs(survey.leaks),
        "copies": pairs(survey.copies),
    }
