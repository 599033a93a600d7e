"""Packs a data set into shards: in parallel, each shard complete or absent."""

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from keras_alexnet import __version__
from keras_alexnet.core.ahead import ahead
from keras_alexnet.core.backend import require
from keras_alexnet.core.files import atomic_output, readable, reason_of, write_json
from keras_alexnet.data.augmentation.draws import resized_size
from keras_alexnet.data.augmentation.record import Augmentation
from keras_alexnet.data.decoding import is_plain_jpeg, open_image, to_image
from keras_alexnet.data.examples import Arrays, DataSet, Examples, fingerprint
from keras_alexnet.data.packed.examples import PackedFolder
from keras_alexnet.data.packed.index import INDEX, PLAN, ROW, Encoding, Index, Shard, write_index
from keras_alexnet.data.packed.records import HEAD, TAIL, example, record
from keras_alexnet.errors import ConfigurationError, DataError, ImageFileError

LOCK, NOTES = ".packing.lock", "notes"

_AHEAD = 64  # images that threads encode before they are written
_SEED = 0  # of the order of training images, the same each time


@dataclass(frozen=True)
class Packing:
    """How images are packed.

    Attributes:
        encode: As JPEG files, or as raw pixels, which need no decoder and five times the room.
        short_side: Pixels of the shorter side to which larger images are reduced; None keeps all.
        quality: Of JPEG files that are made: 1 to 100 by Pillow's measure. Plain JPEG files that
            are not reduced are kept as they are.
        shards: Files of the largest part; others have as many as their images need.
    """

    encode: Encoding = Encoding.JPEG
    short_side: int | None = None
    quality: int = 95
    shards: int = 64

    def __post_init__(self) -> None:
        if self.encode not in tuple(Encoding):
            raise ConfigurationError(f"encode must be 'jpeg' or 'raw', got {self.encode!r}")
        for name, lowest, highest in (
            ("short_side", 1, 65_500),
            ("quality", 1, 100),
            ("shards", 1, 100_000),
        ):
            value = getattr(self, name)
            if value is not None and not lowest <= value <= highest:
                raise ConfigurationError(
                    f"{name} must lie between {lowest} and {highest}, got {value}"
                )


@dataclass(frozen=True, eq=False)
class Outcome:
    """What was packed: the index, and how many shards were there already."""

    index: Index
    found: int


class _Encoded(NamedTuple):
    """An image as it is packed."""

    content: bytes
    height: int
    width: int


def pack_data(
    data: DataSet,
    output: str | Path,
    packing: Packing = Packing(),
    *,
    source: str = "",
    advance: Callable[[int], None] = lambda done: None,
) -> Outcome:
    """Pack a data set into a folder, or go on with one; `open_data("packed", ...)` opens it.

    Training images are shuffled, the same way each time. Images that cannot be read are left out,
    and named in the index.

    Args:
        data: All its parts are packed.
        output: Folder, which is made; or one in which the same was begun.
        packing: How.
        source: What the index calls the place of the data.
        advance: Is told how many images are done.

    Raises:
        ConfigurationError: The folder holds something else, or another process packs into it, or
            it cannot be written to.
        DataError: No image of a part can be read.
        MissingDependencyError: A package is not installed.
    """
    folder = Path(output).expanduser()
    for package in ("fsspec", "google_crc32c", "filelock"):
        require(package)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot write {folder}: {reason_of(error)}") from error
    recipe = {**asdict(packing), "keras_alexnet": __version__}
    filelock = require("filelock")
    try:
        with filelock.FileLock(folder / LOCK, timeout=0):
            _begin(folder, {"packing": recipe, "data": fingerprint(data)})
            described = recipe | {"source": source}
            return _complete(folder) or _pack(data, folder, packing, described, advance)
    except filelock.Timeout as error:
        raise ConfigurationError(
            f"{folder}: another process is packing into this folder; wait for it, or stop it"
        ) from error


def _begin(folder: Path, plan: Mapping[str, Any]) -> None:
    """Write what is packed how, or check that the same was begun."""
    path = folder / PLAN
    if path.is_file():
        try:
            begun = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            begun = None
        if begun == plan:
            return
        raise ConfigurationError(
            f"{folder}: other data were packed into this folder, or in another way ({PLAN} says "
            "how); choose another --output, or delete it"
        )
    if strangers := sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")):
        raise ConfigurationError(
            f"{folder}: this folder holds other files, such as {readable(strangers[0])}; choose "
            "another --output"
        )
    write_json(path, plan)


def _complete(folder: Path) -> Outcome | None:
    """Return what was packed before, where all of it is there."""
    if not (folder / INDEX).is_file():
        return None
    try:
        index = PackedFolder(folder).index
    except DataError:
        (folder / INDEX).unlink()
        return None
    return Outcome(index, len(index.shards))


class _Work(NamedTuple):
    """A shard to write: its file, its part, and which examples it holds in which order."""

    file: str
    part: str
    examples: Examples
    indices: np.ndarray


def _works(data: DataSet, shards: int) -> Iterator[_Work]:
    parts = data.parts()
    most = max(map(len, parts.values()))
    for part, examples in parts.items():
        count = min(len(examples), max(1, round(shards * len(examples) / most)))
        order = np.arange(len(examples))
        if part == "train":
            order = np.random.default_rng(_SEED).permutation(len(examples))
        for number, indices in enumerate(np.array_split(order, count)):
            yield _Work(f"{part}-{number:05}-of-{count:05}.tfrecord", part, examples, indices)


def _pack(
    data: DataSet,
    folder: Path,
    packing: Packing,
    described: Mapping[str, Any],
    advance: Callable[[int], None],
) -> Outcome:
    for unfinished in folder.glob(".*.tfrecord"):  # of a process that was killed
        unfinished.unlink()
    done, found = 0, 0
    shards, tables, names = [], [], list[str]()
    unreadable: dict[str, str] = {}
    works = list(_works(data, packing.shards))
    for number, work in enumerate(works):
        note = _note_of(folder, work)
        if note is not None:
            found += 1
        else:
            note = _write(folder, work, packing, partial(_advanced, advance, done))
        done += len(work.indices)
        advance(done)
        shards.append(Shard(**note["shard"]))
        table = np.zeros(len(note["rows"]), ROW)
        table[:] = [(number, *row) for row in note["rows"]]
        tables.append(table)
        names += note["names"]
        unreadable |= note["unreadable"]
    for part in data.parts():
        if not sum(shard.images for shard in shards if shard.part == part):
            place, why = next(item for item in unreadable.items() if item[0].startswith(part))
            raise DataError(f"no image of the part {part} can be read; one is {place}: {why}")
    index = Index(
        data.name,
        data.classes,
        described,
        tuple(shards),
        np.concatenate(tables),
        unreadable,
        tuple(readable(str(path)) for path in data.left_out),
    )
    write_index(folder, index, names)
    shutil.rmtree(folder / NOTES)
    return Outcome(index, found)


def _advanced(advance: Callable[[int], None], before: int, more: int) -> None:
    advance(before + more)


def _note_of(folder: Path, work: _Work) -> dict[str, Any] | None:
    """Return the note of a shard that is complete."""
    try:
        note = json.loads(_note_path(folder, work).read_text(encoding="utf-8"))
        if (folder / work.file).stat().st_size == note["shard"]["bytes"]:
            return note
    except (OSError, ValueError, KeyError, TypeError):
        pass  # it is written anew
    return None


def _note_path(folder: Path, work: _Work) -> Path:
    return folder / NOTES / f"{work.file}.json"


def _write(
    folder: Path, work: _Work, packing: Packing, advance: Callable[[int], None]
) -> dict[str, Any]:
    """Write a shard, then a note of what it holds, which is returned."""
    rows: list[tuple[int, ...]] = []
    names: list[str] = []
    unreadable: dict[str, str] = {}
    digest, start = hashlib.sha256(), 0

    def encode(indices: Sequence[int]) -> list[_Encoded | str]:
        return [_encoded(work.examples, index, packing) for index in indices]

    with atomic_output(folder / work.file) as temporary, temporary.open("wb") as file:
        images = ahead(encode, work.indices.tolist(), count=_AHEAD)
        for done, (index, image) in enumerate(zip(work.indices.tolist(), images, strict=True), 1):
            advance(done)
            name = _name(work, index)
            if isinstance(image, str):
                unreadable[name] = image
                continue
            label = int(work.examples.labels[index])
            data = example(
                {
                    "image/class/label": label,
                    "image/height": image.height,
                    "image/width": image.width,
                    "image/filename": name.encode(),
                    "image/format": str(packing.encode).encode(),
                    "image/encoded": image.content,  # last, see `Index`
                }
            )
            content = record(data)
            file.write(content)
            digest.update(content)
            crc = int.from_bytes(content[-TAIL:], "little")
            rows.append(
                (start, len(data), len(image.content), label, image.height, image.width, crc)
            )
            names.append(name)
            start += HEAD + len(data) + TAIL
    shard = Shard(work.file, work.part, len(rows), start, digest.hexdigest())
    note = {
        "shard": shard._asdict(),
        "rows": rows,
        "names": names,
        "unreadable": unreadable,
    }
    path = _note_path(folder, work)
    path.parent.mkdir(exist_ok=True)
    write_json(path, note)
    return note


def _name(work: _Work, index: int) -> str:
    """Return what an image is called: the end of its path, or its number in its part."""
    if isinstance(work.examples, Arrays):
        return f"{work.part}/{index}"
    return readable("/".join((work.part, *work.examples.place(index).parts[-2:])))


def _encoded(examples: Examples, index: int, packing: Packing) -> _Encoded | str:
    """Return an image as it is packed, or why it cannot be read."""
    content: bytes | np.ndarray = b""
    try:
        if isinstance(examples, Arrays):
            image = to_image(examples.images[index])
        else:
            content = examples.content(index)
            image = open_image(content, name=examples.place(index))
    except ImageFileError as error:
        return error.reason
    height, width = image.height, image.width
    if packing.short_side is not None and min(height, width) > packing.short_side:
        size = resized_size(Augmentation(resize=packing.short_side), height, width)
        assert size is not None  # a crop behind it
        height, width = size
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        content = b""
    if packing.encode == Encoding.RAW:
        return _Encoded(image.convert("RGB").tobytes(), height, width)
    if isinstance(content, bytes) and is_plain_jpeg(content):
        return _Encoded(content, height, width)
    made = io.BytesIO()
    image.save(made, "JPEG", quality=packing.quality)
    return _Encoded(made.getvalue(), height, width)
