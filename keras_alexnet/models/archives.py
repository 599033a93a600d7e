"""Weight archives before anybody reads them: what they declare against what they hold.

A small file can declare terabytes, name files outside its folder, or lead to other files. These
checks read no values; their time and memory follow the size of the file, not what it declares.
"""

import io
import json
import os
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

from keras_alexnet.core.backend import require
from keras_alexnet.errors import ModelFileError

# Weights hardly shrink: pruned to a tenth they take an eighth. Deflate reaches 1032 on zeros.
_MOST_EXPANSION = 20
# What any file may unpack to: small archives of new, constant weights.
_ALWAYS_FINE = 64 * 2**20
# GoogLeNet's configuration takes 0.3 MB.
_MOST_JSON = 16 * 2**20
_WEIGHTS = "model.weights.h5"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Local file header of a zip member: its length, and where it says how long name and extra are.
_LOCAL_HEADER, _LOCAL_LENGTHS = 30, 26


def check_expansion(path: str | Path, declared: int, what: str) -> None:
    """Refuse a file whose content would take far more memory than the file.

    Raises:
        ModelFileError: `what` would take `declared` bytes, more than 64 MiB and more than 20 times
            the size of the file.
    """
    size = Path(path).stat().st_size
    if declared > max(_ALWAYS_FINE, _MOST_EXPANSION * size):
        raise ModelFileError(
            f"{path}: refused: {what} would take {declared:,} bytes and the file has {size:,}; "
            f"weights are at most {_MOST_EXPANSION} times as large as their file"
        )


def check_zip(path: str | Path) -> list[zipfile.ZipInfo]:
    """Check the directory of a zip archive and return its members.

    Raises:
        ModelFileError: A member's name leads out of the archive or comes twice, its compression
            is none of stored and deflate, or the members would unpack to far more than the file.
        Exception: Whatever `zipfile` raises of a damaged archive.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    names = set()
    for member in members:
        if _leads_out(member.orig_filename):
            raise ModelFileError(
                f"{path}: refused: its member {member.orig_filename!r} leads out of the archive"
            )
        if member.filename in names:
            raise ModelFileError(f"{path}: refused: its member {member.filename!r} comes twice")
        names.add(member.filename)
        if member.compress_type not in _METHODS:
            raise ModelFileError(
                f"{path}: refused: its member {member.filename!r} is compressed by method "
                f"{member.compress_type}; known are 0 (stored) and 8 (deflate)"
            )
    check_expansion(path, sum(member.file_size for member in members), "its unpacked members")
    return members


def check_model_file(path: str | Path) -> None:
    """Check a `.keras` archive: its members, its JSON and its weights.

    Raises:
        ModelFileError: As `check_zip` and `check_weights_file`, or a JSON member is overlong.
        Exception: Whatever the readers raise of a damaged file.
    """
    members = {member.filename: member for member in check_zip(path)}
    with Path(path).open("rb") as file, zipfile.ZipFile(file) as archive:
        for name, member in members.items():
            if not name.endswith(".json"):
                continue
            if member.file_size > _MOST_JSON:
                raise ModelFileError(
                    f"{path}: refused: its {name} has {member.file_size:,} bytes; at most "
                    f"{_MOST_JSON:,} are read"
                )
            json.loads(archive.read(member))
        if _WEIGHTS in members:
            _check_h5(path, _open_member(file, archive, members[_WEIGHTS]))


def check_weights_file(path: str | Path) -> None:
    """Check an HDF5 file of weights.

    Raises:
        ModelFileError: It leads to other files, holds something else than numbers, or declares
            far more of them than it stores.
        Exception: Whatever `h5py` raises of a damaged file.
    """
    with Path(path).open("rb") as file:
        _check_h5(path, file)


def _check_h5(path: str | Path, file: Any) -> None:
    h5py = require("h5py")
    declared = 0
    with h5py.File(file, "r") as root:
        pending, seen = [root], set()
        while pending:
            group = pending.pop()
            for name in group:
                where = f"{group.name.rstrip('/')}/{name}"
                link = group.get(name, getlink=True)
                if not isinstance(link, h5py.HardLink):
                    raise ModelFileError(
                        f"{path}: refused: {where} is a {type(link).__name__}, which can lead to "
                        "another file; Keras writes none"
                    )
                entry = group[name]
                if isinstance(entry, h5py.Dataset):
                    declared += _declared(path, where, entry)
                elif isinstance(entry, h5py.Group):
                    # Hard links can form circles.
                    address = h5py.h5o.get_info(entry.id).addr
                    if address not in seen:
                        seen.add(address)
                        pending.append(entry)
    check_expansion(path, declared, "its data sets")


def _declared(path: str | Path, where: str, dataset: Any) -> int:
    """Return the bytes that a data set would take in memory, or refuse it."""
    if dataset.external or dataset.is_virtual:
        raise ModelFileError(f"{path}: refused: the values of {where} lie in another file")
    if dataset.dtype.hasobject:
        raise ModelFileError(f"{path}: refused: {where} holds objects of any length, not numbers")
    return int(dataset.size or 0) * dataset.dtype.itemsize


def _leads_out(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    drive = len(parts[0]) == 2 and parts[0].endswith(":")
    return ".." in parts or not parts[0] or drive


def _open_member(file: IO[bytes], archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Any:
    """Return a member as a seekable file; a stored one, as Keras writes it, without a copy."""
    if member.compress_type != zipfile.ZIP_STORED:
        return io.BytesIO(archive.read(member))
    file.seek(member.header_offset + _LOCAL_LENGTHS)
    lengths = struct.unpack("<HH", file.read(4))
    return _Part(file, member.header_offset + _LOCAL_HEADER + sum(lengths), member.file_size)


class _Part(io.RawIOBase):
    """Bytes `start` to `start + size` of a file, as a file of their own."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._at))
        self._file.seek(self._start + self._at)
        content = self._file.read(count)
        view[: len(content)] = content
        self._at += len(content)
        return len(content)
