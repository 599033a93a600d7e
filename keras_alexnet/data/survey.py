"""What a data set holds: classes, sizes, colours, what cannot be read, and what is there twice."""

import functools
import hashlib
import io
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from keras_alexnet.core.backend import require
from keras_alexnet.core.files import readable
from keras_alexnet.core.tables import Column, Sheet, markdown
from keras_alexnet.data.decoding import open_image
from keras_alexnet.data.examples import Arrays, DataSet, Examples, Stored, left_out_note
from keras_alexnet.data.statistics import moments
from keras_alexnet.errors import ImageFileError, counted, listed

Advance = Callable[[int], None]  # is told how many images are done

EXAMPLES = 10  # images of a picture
# Bits of 64 in which perceptual hashes of nearly equal images may differ.
_NEAR_BITS = 8
# Sides of the grey thumbnails of two such images, and how large their correlation is at least:
# images without detail have near hashes whatever they show.
_THUMBNAIL, _ALIKE = 32, 0.9
_CANDIDATES = 1 << 22  # pairs that are compared at once


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


@dataclass(frozen=True)
class Place:
    """An image of a data set: its part, its index there, its class, and its file if it has one."""

    part: str
    index: int
    label: int
    path: Path | None

    def __str__(self) -> str:
        return f"{self.part} {self.index}" if self.path is None else str(self.path)


@dataclass(frozen=True)
class Twins:
    """Two images that show the same.

    Attributes:
        first: One of them.
        second: The other one.
        exact: Whether they have the same pixels.
    """

    first: Place
    second: Place
    exact: bool

    @property
    def contradict(self) -> bool:
        """Whether they are of different classes."""
        return self.first.label != self.second.label


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


class _Look(NamedTuple):
    """What is kept of an image."""

    size: tuple[int, int]  # height, width
    mode: str
    histogram: np.ndarray  # int64 (3, 256)
    digest: bytes  # of its size and its pixels
    hash: int  # perceptual, 64 bits


def survey_data(data: DataSet, advance: Advance = lambda done: None) -> DataSurvey:
    """Look at every image of a data set once.

    Images show the same where their pixels are equal, or nearly: their perceptual hashes (`phash`
    of the package ImageHash, 64 bits of a cosine transform) differ in eight bits at most, and their
    thumbnails, grey and of 32 x 32 pixels, correlate by .9 at least. (199 pairs of CIFAR-10's
    images do, all of them of one class, and none of 300 photos of ImageNet.)

    Args:
        data: Its parts are looked at one after the other.
        advance: Is told how many images of all parts are done.

    Raises:
        MissingDependencyError: ImageHash is not installed.
    """
    require("imagehash")
    parts: dict[str, PartSurvey] = {}
    looks: dict[Place, _Look] = {}
    before = 0
    for part, examples in data.parts().items():
        unreadable: dict[Path, str] = {}
        sizes, modes = Counter[tuple[int, int]](), Counter[str]()
        histogram = np.zeros((3, 256), np.int64)
        for index, found in enumerate(_looks(examples)):
            path = examples.place(index) if isinstance(examples, Stored) else None
            if isinstance(found, str):
                assert path is not None
                unreadable[path] = found
            else:
                sizes[found.size] += 1
                modes[found.mode] += 1
                histogram += found.histogram
                looks[Place(part, index, int(examples.labels[index]), path)] = found
            advance(before + index + 1)
        before += len(examples)
        by_class = np.bincount(examples.labels, minlength=len(data.classes))
        mean, std = moments(histogram)
        parts[part] = PartSurvey(len(examples), by_class, sizes, modes, mean, std, unreadable)
    copies, originals = _copies(looks)
    leaks = [pair for pair in copies if pair.first.part != pair.second.part]
    leaks += _near_leaks(data, originals)
    within = [pair for pair in copies if pair.first.part == pair.second.part]
    return DataSurvey(data.name, data.classes, parts, data.left_out, leaks, within)


def _looks(examples: Examples) -> Iterator[_Look | str]:
    """Yield what is kept of each image, or why it cannot be read."""
    workers = os.cpu_count() or 1
    look = functools.partial(_look, examples)
    with ThreadPoolExecutor(workers) as threads:
        for start in range(0, len(examples), 16 * workers):
            chosen = range(start, min(start + 16 * workers, len(examples)))
            yield from threads.map(look, chosen)


def _look(examples: Examples, index: int) -> _Look | str:
    try:
        image, mode = _opened(examples, index)
    except ImageFileError as error:
        return error.reason
    digest = hashlib.sha256(f"{image.size}".encode())
    digest.update(image.tobytes())
    bits = require("imagehash").phash(image).hash  # bool (8, 8)
    return _Look(
        (image.height, image.width),
        mode,
        np.array(image.histogram(), np.int64).reshape(3, 256),
        digest.digest(),
        int.from_bytes(np.packbits(bits).tobytes(), "big"),
    )


def _opened(examples: Examples, index: int) -> tuple[Image.Image, str]:
    """Return an example as an RGB image, and the mode that it has."""
    if isinstance(examples, Arrays):
        pixels = examples.images[index]
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        return image.convert("RGB"), image.mode
    content = examples.content(index)
    image = open_image(content, name=examples.place(index))
    if isinstance(content, np.ndarray):
        return image, image.mode
    with Image.open(io.BytesIO(content)) as header:
        return image, header.mode


def _copies(looks: dict[Place, _Look]) -> tuple[list[Twins], dict[Place, _Look]]:
    """Return the images with the pixels of an earlier one, and the images that are left.

    An image is paired with the first one like it in each part.
    """
    alike: dict[bytes, dict[str, Place]] = defaultdict(dict)
    copies, originals = [], {}
    for place, look in looks.items():
        known = alike[look.digest]
        copies += [Twins(first, place, exact=True) for first in known.values()]
        if place.part not in known:
            known[place.part] = place
            originals[place] = look
    return copies, originals


def _near_leaks(data: DataSet, looks: dict[Place, _Look]) -> list[Twins]:
    """Return the pairs of images in different parts that show nearly the same."""
    parts = data.parts()
    places: dict[str, list[Place]] = {part: [] for part in parts}
    for place in looks:
        places[place.part].append(place)
    hashes = {
        part: np.array([looks[place].hash for place in found], np.uint64)
        for part, found in places.items()
    }

    @functools.lru_cache(maxsize=1024)
    def thumbnail(place: Place) -> np.ndarray:
        image, _ = _opened(parts[place.part], place.index)
        small = image.convert("L").resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
        values = np.asarray(small, np.float64).ravel()
        values -= values.mean()
        return values / max(float(np.linalg.norm(values)), 1e-9)

    leaks = []
    names = list(parts)
    for number, one in enumerate(names):
        for other in names[number + 1 :]:
            for i, j in near_pairs(hashes[one], hashes[other], _NEAR_BITS):
                first, second = places[one][i], places[other][j]
                if looks[first].digest == looks[second].digest:
                    continue
                if thumbnail(first) @ thumbnail(second) >= _ALIKE:
                    leaks.append(Twins(first, second, exact=False))
    return leaks


def near_pairs(first: np.ndarray, second: np.ndarray, most: int) -> list[tuple[int, int]]:
    """Return the pairs (index in `first`, index in `second`) of hashes, sorted, that are near.

    Args:
        first: uint64 (N,).
        second: uint64 (M,).
        most: In how many bits they may differ.

    Hashes that differ in so few bits have one of `most` + 1 bands of bits in common: only those are
    compared, not N x M.
    """
    found: set[tuple[int, int]] = set()
    for band in np.array_split(np.arange(64, dtype=np.uint64), most + 1):
        mask = np.bitwise_or.reduce(np.uint64(1) << band)
        order = np.argsort(second & mask, kind="stable")
        keys = (second & mask)[order]
        begins = np.searchsorted(keys, first & mask, "left")
        counts = np.searchsorted(keys, first & mask, "right") - begins
        for chunk in _chunks(counts):
            i = np.repeat(chunk, counts[chunk])
            # 0, 1, ... of each one's own candidates.
            own = np.arange(len(i)) - np.repeat(
                np.cumsum(counts[chunk]) - counts[chunk], counts[chunk]
            )
            j = order[begins[i] + own]
            near = _bits(first[i] ^ second[j]) <= most
            found.update(zip(i[near].tolist(), j[near].tolist(), strict=True))
    return sorted(found)


def _chunks(counts: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the indices in order, as many at a time as have few candidates together."""
    total = np.cumsum(counts)
    start = 0
    while start < len(counts):
        done = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, done + _CANDIDATES, "right")))
        yield np.arange(start, stop)
        start = stop


def _bits(values: np.ndarray) -> np.ndarray:
    """Return how many bits of uint64 (N,) are set."""
    return np.unpackbits(values.view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1)


def choose_examples(
    examples: Examples, count: int, *, seed: int = 0
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Choose images that can be read, of as many classes as possible.

    Returns:
        Their indices, int64 (N,), and their pixels, uint8 (h, w, C) each.
    """
    order = np.random.default_rng(seed).permutation(len(examples))
    labels = examples.labels[order]
    # How many of its class come before each one.
    turns = np.zeros(len(order), np.int64)
    for label in np.unique(labels):
        turns[labels == label] = np.arange(np.count_nonzero(labels == label))
    chosen: list[int] = []
    originals: list[np.ndarray] = []
    for index in order[np.argsort(turns, kind="stable")].tolist():
        if len(chosen) == count:
            break
        if isinstance(examples, Arrays):
            originals.append(examples.images[index])
        else:
            try:
                originals.append(examples.pixels(index))
            except ImageFileError:
                continue  # a survey and a run's log name it
        chosen.append(index)
    return np.array(chosen, np.int64), originals


# What people and machines read of a survey

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


def _contradictions(pairs: list[Twins]) -> str:
    count = sum(pair.contradict for pair in pairs)
    return f" ({count} of another class)" if count else ""


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
