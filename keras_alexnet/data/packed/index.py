"""The index of a packed data set: what is in which shard, where, and how it was packed.

A folder holds `index.json`; `index.npy`, a row for each image; `names.txt`, the name of each in its
source; and the shards, `train-00000-of-00064.tfrecord` and so on.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_alexnet.core.files import atomic_output, write_json
from keras_alexnet.data.packed.records import HEAD, TAIL
from keras_alexnet.data.packed.storage import Storage
from keras_alexnet.errors import DataError

INDEX, TABLE, NAMES = "index.json", "index.npy", "names.txt"
PLAN = "packing.json"  # how an index is made, from the first shard on


class Encoding(StrEnum):
    """What an image is in a record: a JPEG file, or its pixels, row by row, R, G, B."""

    JPEG = "jpeg"
    RAW = "raw"


_FORMAT, _VERSION = "keras_alexnet packed images", 1

# A row of the table: where a record starts in its shard, the bytes of its data, how many of them,
# at their end, are the image, the image's class and size in pixels, and the record's masked CRC.
ROW = np.dtype(
    [
        ("shard", "<u4"),
        ("start", "<u8"),
        ("length", "<u4"),
        ("image", "<u4"),
        ("label", "<i4"),
        ("height", "<u4"),
        ("width", "<u4"),
        ("crc", "<u4"),
    ]
)


class Shard(NamedTuple):
    """A file of records: its name, part, number of images, bytes, and SHA-256 of its content."""

    file: str
    part: str
    images: int
    bytes: int
    sha256: str


@dataclass(frozen=True, eq=False)
class Index:
    """What is to be known of a packed data set.

    Attributes:
        name: What people call it.
        classes: Names of the classes, by index.
        packing: How it was made: source, encoding, short side, quality, version of this package.
        shards: In the order of `rows`' numbers of them.
        rows: (N,) of `ROW`, by shard and place.
        unreadable: Images of the source that are missing here, and why.
        left_out: Files of the source that are not named like images.
        files: SHA-256 of the files that belong to the index.
    """

    name: str
    classes: tuple[str, ...]
    packing: Mapping[str, Any]
    shards: tuple[Shard, ...]
    rows: np.ndarray
    unreadable: Mapping[str, str]
    left_out: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)


def write_index(folder: Path, index: Index, names: list[str]) -> None:
    """Write an index, its JSON file last: the folder is packed data once that is there."""
    table = io.BytesIO()
    np.save(table, index.rows)
    # A name is a line, whatever is in it.
    lines = "".join(f"{json.dumps(name)}\n" for name in names).encode("ascii")
    contents = {TABLE: table.getvalue(), NAMES: lines}
    for file, content in contents.items():
        with atomic_output(folder / file) as temporary:
            temporary.write_bytes(content)
    write_json(
        folder / INDEX,
        {
            "format": _FORMAT,
            "version": _VERSION,
            "name": index.name,
            "classes": index.classes,
            "packing": index.packing,
            "shards": [shard._asdict() for shard in index.shards],
            "files": {file: _sha256(content) for file, content in contents.items()},
            "unreadable": index.unreadable,
            "left_out": index.left_out,
        },
    )


def read_index(storage: Storage) -> tuple[Index, str]:
    """Read an index, check it, and return it with its SHA-256.

    Raises:
        DataError: It is none, damaged, of a newer version, or contradicts itself.
    """
    place = storage.path(INDEX)
    try:
        content = storage.read(INDEX)
    except DataError as error:
        raise DataError(
            f"{error}: these are no packed data, or not all of them yet; run the same "
            "`keras-alexnet pack` once more to complete them"
        ) from error
    try:
        found = json.loads(content)
        known = found["format"] == _FORMAT
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{place}: not an index of packed data ({error}); {_AGAIN}") from error
    if not known:
        raise DataError(f"{place}: not an index of packed data; {_AGAIN}")
    if found.get("version") != _VERSION:
        raise DataError(
            f"{place}: an index of version {found.get('version')!r}, but this keras_alexnet reads "
            f"version {_VERSION}; update it (pip install -U keras-alexnet), or pack the data again"
        )
    try:
        table = checked(storage, TABLE, found["files"][TABLE])
        rows = np.load(io.BytesIO(table), allow_pickle=False)
        index = Index(
            str(found["name"]),
            tuple(map(str, found["classes"])),
            found["packing"],
            tuple(Shard(**shard) for shard in found["shards"]),
            rows,
            found["unreadable"],
            tuple(found["left_out"]),
            found["files"],
        )
        _check(index)
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{place}: a damaged index ({error!r}); {_AGAIN}") from error
    return index, _sha256(content)


def checked(storage: Storage, file: str, sha256: str) -> bytes:
    """Read one of the index' files.

    Raises:
        DataError: It is missing, or not the one that the index was written with.
    """
    content = storage.read(file)
    if _sha256(content) != sha256:
        raise DataError(
            f"{storage.path(file)}: not the file that {INDEX} was written with; {_AGAIN}"
        )
    return content


_AGAIN = "pack the data again, or copy the whole folder again"


def _check(index: Index) -> None:
    """Check that a table can be trusted to lead to places within the shards."""
    rows = index.rows
    if rows.dtype != ROW or rows.ndim != 1:
        raise ValueError(f"its table has the type {rows.dtype}")
    if strange := {shard.part for shard in index.shards} - {"train", "val", "test"}:
        raise ValueError(f"unknown parts {strange}")
    counts = np.bincount(rows["shard"], minlength=len(index.shards))
    if counts.tolist() != [shard.images for shard in index.shards]:
        raise ValueError("its table and its shards count differently")
    ends = np.array([shard.bytes for shard in index.shards], np.uint64)[rows["shard"]]
    length = rows["length"].astype(np.uint64)
    pixels = rows["height"].astype(np.uint64) * rows["width"] * 3
    raw = Encoding(index.packing["encode"]) is Encoding.RAW
    wrong = (
        (rows["start"] > ends)
        | (rows["start"] + length + HEAD + TAIL > ends)
        | (rows["image"] > length)
        | (rows["label"] < 0)
        | (rows["label"] >= len(index.classes))
        | (raw & (rows["image"] != pixels))
    )
    if wrong.any():
        raise ValueError(f"row {int(wrong.argmax())} of its table leads nowhere")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
