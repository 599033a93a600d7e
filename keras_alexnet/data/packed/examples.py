"""Images of packed data."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from keras_alexnet.core.places import path_of, reaching
from keras_alexnet.data.examples import DataSet, Stored
from keras_alexnet.data.packed.blocks import WINDOW, Blocks
from keras_alexnet.data.packed.index import INDEX, NAMES, PLAN, Encoding, Index, checked, read_index
from keras_alexnet.data.packed.records import HEAD, TAIL, masked_crc
from keras_alexnet.data.packed.storage import Storage
from keras_alexnet.errors import DataError, ImageFileError, listed


class PackedFolder:
    """A folder of packed data, opened.

    Attributes:
        index: What it holds.
        sha256: Of the index.
        blocks: Reads its shards.

    Raises:
        DataError: Its index is damaged or of a newer version; shards are missing, cut off, or
            others than those that were indexed.
        MissingDependencyError: A package that reads it is not installed.
    """

    def __init__(self, place: str | Path) -> None:
        self.storage = Storage(place)
        self.index, self.sha256 = read_index(self.storage)
        files = [shard.file for shard in self.index.shards]
        self.blocks = Blocks(self.storage, files, self.index.rows)
        self._check_shards()

    @cached_property
    def names(self) -> list[str]:
        """Names of the images in their source, by row."""
        lines = checked(self.storage, NAMES, self.index.files[NAMES]).splitlines()
        if len(lines) != len(self.index.rows):
            raise DataError(f"{self.storage.path(NAMES)}: as many names as images are needed")
        return [json.loads(line) for line in lines]

    def path(self, row: int) -> Path:
        """Return the name of an image below that of its shard."""
        shard = self.index.shards[self.index.rows["shard"][row]]
        return path_of(self.storage.path(shard.file)) / self.names[row]

    def _check_shards(self) -> None:
        """Compare the shards' sizes and the checksums of their first and last records."""
        rows, shards = self.index.rows, self.index.shards
        numbers = np.arange(len(shards))
        firsts = np.searchsorted(rows["shard"], numbers, "left")
        lasts = np.searchsorted(rows["shard"], numbers, "right") - 1

        def problem(number: int) -> str | None:
            shard = shards[number]
            try:
                size = self.storage.size(shard.file)
                if size != shard.bytes:
                    return f"{shard.file} has {size:,} bytes instead of {shard.bytes:,}"
                for row in rows[[firsts[number], lasts[number]]] if shard.images else ():
                    end = int(row["start"]) + HEAD + int(row["length"]) + TAIL
                    tail = self.storage.read(shard.file, end - TAIL, end)
                    if int.from_bytes(tail, "little") != row["crc"]:
                        return f"{shard.file} holds other records"
            except DataError as error:
                return str(error).removeprefix(f"{self.storage.path('')}")
            return None

        with ThreadPoolExecutor(8) as threads:
            problems = [found for found in threads.map(problem, range(len(shards))) if found]
        if problems:
            raise DataError(
                f"{self.storage.place}: {listed(problems)}; the index was written with others. "
                "Copy these files again, or pack the data again"
            )


class Packed(Stored):
    """Images of a folder of packed data.

    Args:
        folder: The folder.
        rows: int64 (N,), which of its images.
    """

    def __init__(self, folder: PackedFolder, rows: np.ndarray) -> None:
        self._folder, self._rows = folder, rows
        self.labels = folder.index.rows["label"][rows].astype(np.int64)

    def place(self, index: int) -> Path:
        """Return the name of an image below that of its shard."""
        return self._folder.path(int(self._rows[index]))

    def content(self, index: int) -> bytes | np.ndarray:
        """Read a JPEG file's content, or pixels, uint8 (H, W, 3).

        Raises:
            ImageFileError: Its record is damaged.
            DataError: Its shard is missing or cannot be read, nor can thousands of others then.
        """
        number = int(self._rows[index])
        row = self._folder.index.rows[number]
        record = self._folder.blocks.record(number)
        data = record[HEAD:-TAIL]
        if len(data) != row["length"] or masked_crc(data) != row["crc"]:
            raise ImageFileError(
                self.place(index), "damaged record (its checksum is not the index')"
            )
        image = data[len(data) - int(row["image"]) :]
        if self._is_raw:
            return np.frombuffer(image, np.uint8).reshape(row["height"], row["width"], 3)
        return bytes(image)

    @property
    def _is_raw(self) -> bool:
        return self._folder.index.packing["encode"] == Encoding.RAW

    def sizes(self) -> np.ndarray | None:
        """Return heights and widths of images that are pixels, int64 (N, 2)."""
        rows = self._folder.index.rows[self._rows]
        both = np.stack([rows["height"], rows["width"]], axis=1)
        return both.astype(np.int64) if self._is_raw else None

    def subset(self, indices: np.ndarray) -> Self:
        """Return the examples at `indices`, in their order."""
        return type(self)(self._folder, self._rows[indices])

    def identity(self) -> bytes:
        """Return the SHA-256 of the index, and of which rows of it these are."""
        rows = np.ascontiguousarray(self._rows, "<i8")
        return self._folder.sha256.encode() + hashlib.sha256(rows.tobytes()).digest()

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """Return a random order: of the blocks, and of the images of each window of blocks."""
        blocks = self._folder.blocks.of[self._rows]
        window = rng.permutation(int(self._folder.blocks.of.max()) + 1) // WINDOW
        order = rng.permutation(len(self))
        return order[np.argsort(window[blocks[order]], kind="stable")]

    def expect(self, indices: np.ndarray) -> None:
        """Have blocks read ahead in the order of the examples at `indices`."""
        self._folder.blocks.expect(self._rows[indices])


def is_packed(folder: Path) -> bool:
    """Return whether a folder holds packed data, or such as are not complete yet."""
    with reaching(folder):
        return any((folder / file).is_file() for file in (INDEX, PLAN))


def all_packed(place: str | Path) -> Packed:
    """Open a folder of packed data, or a URL of one, and return its images of all parts.

    Raises:
        DataError: As `PackedFolder`.
    """
    folder = PackedFolder(place)
    return Packed(folder, np.arange(len(folder.index.rows)))


def read_packed(place: str | Path) -> DataSet:
    """Open a folder of packed data, or a URL of one.

    Raises:
        DataError: As `PackedFolder`.
    """
    folder = PackedFolder(place)
    index: Index = folder.index
    parts: Mapping[str, list[int]] = {
        part: [n for n, shard in enumerate(index.shards) if shard.part == part]
        for part in dict.fromkeys(shard.part for shard in index.shards)
    }
    examples = {
        part: Packed(folder, np.flatnonzero(np.isin(index.rows["shard"], numbers)))
        for part, numbers in parts.items()
    }
    return DataSet(index.name, index.classes, **examples, left_out=tuple(map(Path, index.left_out)))
