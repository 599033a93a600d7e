"""Images that show the same, found by their pixels and by perceptual hashes."""

import functools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from keras_alexnet.data.examples import DataSet
from keras_alexnet.data.survey.looking import Look, opened

# Bits of 64 in which perceptual hashes of nearly equal images may differ.
_NEAR_BITS = 8
# Sides of the grey thumbnails of two such images, and how large their correlation is at least:
# images without detail have near hashes whatever they show.
_THUMBNAIL, _ALIKE = 32, 0.9
# Shorter sides leave too little detail for that: two handwritten digits of 8 x 8 pixels are alike.
LEAST_SIDE = _THUMBNAIL
_CANDIDATES = 1 << 22  # pairs that are compared at once


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


def find_copies(looks: dict[Place, Look]) -> tuple[list[Twins], dict[Place, Look]]:
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


def near_leaks(data: DataSet, looks: dict[Place, Look]) -> list[Twins]:
    """Return the pairs of images in different parts that show nearly the same."""
    parts = data.parts()
    places: dict[str, list[Place]] = {part: [] for part in parts}
    for place, look in looks.items():
        if min(look.size) >= LEAST_SIDE:
            places[place.part].append(place)
    hashes = {
        part: np.array([looks[place].hash for place in found], np.uint64)
        for part, found in places.items()
    }

    @functools.lru_cache(maxsize=1024)
    def thumbnail(place: Place) -> np.ndarray:
        image, _ = opened(parts[place.part], place.index)
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
