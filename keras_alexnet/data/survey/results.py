"""What a survey found, and what people and machines read of it."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.core.files import readable
from keras_alexnet.core.tables import Column, Sheet, markdown
from keras_alexnet.data.examples import left_out_note
from keras_alexnet.data.survey.twins import LEAST_SIDE, Place, Twins
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
    """What a data set holds, see `survey_data`; or its counts alone, see `count_data`.

    Attributes:
        name: Of the data set.
        classes: Names of the classes, by index.
        parts: What its parts hold, by name.
        left_out: Files that are not named like images.
        leaks: Pairs of images that show the same and lie in different parts.
        copies: Pairs with the same pixels within a part, each image with the first one like it.
        looked: Whether the images were looked at. Where not, all that takes a look is empty.
    """

    name: str
    classes: tuple[str, ...]
    parts: dict[str, PartSurvey]
    left_out: tuple[Path, ...]
    leaks: list[Twins]
    copies: list[Twins]
    looked: bool = True

    def _repr_markdown_(self) -> str:
        """Return what a notebook shows."""
        tables = (markdown(part_sheet(self)), markdown(class_sheet(self), notes(self)))
        return "\n\n".join(tables)


_COUNTS = (
    Column("part", "part", text=True),
    Column("images", "images"),
    Column("smallest", "smallest class"),
    Column("largest", "largest class"),
)
_LOOKS = (
    Column("sizes", "height x width", text=True, wraps=True),
    Column("modes", "pixels", text=True, wraps=True),
    Column("mean", "mean", text=True),
    Column("std", "deviation", text=True),
    Column("unreadable", "unreadable"),
)


def part_sheet(survey: DataSurvey) -> Sheet:
    """Return a row for each part; means and deviations of red, green and blue, or grey, of 0..1."""
    counts: list[tuple[Any, ...]] = [
        (name, part.images, int(part.by_class.min()), int(part.by_class.max()))
        for name, part in survey.parts.items()
    ]
    if not survey.looked:
        return Sheet(survey.name, _COUNTS, counts)
    looks = [
        (
            _sizes_in_words(part.sizes),
            ", ".join(mode for mode, _ in part.modes.most_common()) or "-",
            *map(_colour_in_words, (part.mean, part.std)),
            len(part.unreadable),
        )
        for part in survey.parts.values()
    ]
    rows = [(*count, *look) for count, look in zip(counts, looks, strict=True)]
    return Sheet(survey.name, _COUNTS + _LOOKS, rows)


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


def _colour_in_words(values: np.ndarray) -> str:
    texts = [f"{value:.3f}" for value in values]
    return " ".join(texts[:1] if len(set(texts)) == 1 else texts)


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
    if survey.looked and len(survey.parts) > 1 and not survey.leaks:
        sizes = {size for part in survey.parts.values() for size in part.sizes}
        nearly = ", or nearly the same" if any(min(size) >= LEAST_SIDE for size in sizes) else ""
        said.append(f"no image of one part is the same as one of another{nearly}")
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
        names = {"label": survey.classes[place.label], "label_index": place.label}
        return {**asdict(place), **names, "path": path}

    return {
        "name": survey.name,
        "looked": survey.looked,
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


def from_json(content: Mapping[str, Any]) -> DataSurvey:
    """Return the survey that `to_json` has written.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: It was changed.
    """

    def pairs(found: list[dict[str, Any]]) -> list[Twins]:
        return [Twins(_place(p["first"]), _place(p["second"]), bool(p["exact"])) for p in found]

    def _place(place: Mapping[str, Any]) -> Place:
        path = None if place["path"] is None else Path(place["path"])
        return Place(place["part"], place["index"], place["label_index"], path)

    def _size(text: str) -> tuple[int, int]:
        height, width = text.split("x")
        return int(height), int(width)

    def _moments(values: list[float] | None) -> np.ndarray:
        return np.full(3, np.nan) if values is None else np.array(values, float)

    def _part(part: Mapping[str, Any]) -> PartSurvey:
        return PartSurvey(
            part["images"],
            np.array(part["by_class"], np.int64),
            Counter({_size(text): count for text, count in part["sizes"].items()}),
            Counter(part["modes"]),
            _moments(part["mean"]),
            _moments(part["std"]),
            {Path(path): why for path, why in part["unreadable"].items()},
        )

    return DataSurvey(
        content["name"],
        tuple(content["classes"]),
        {name: _part(part) for name, part in content["parts"].items()},
        tuple(map(Path, content["left_out"])),
        pairs(content["leaks"]),
        pairs(content["copies"]),
        content["looked"],
    )
