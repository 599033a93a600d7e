"""Image files that a CSV file lists with their classes."""

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_alexnet.core.files import read_text
from keras_alexnet.data.examples import DataSet, Files
from keras_alexnet.data.sources.folders import PARTS
from keras_alexnet.errors import DataError, listed


class _Row(NamedTuple):
    """A line of the file: which image, of which class, in which part of the data."""

    line: int
    path: Path
    label: str
    part: str


def read_csv(path: Path) -> DataSet:
    """Read a table of images with a header: `path,label`, or `path,label,split`.

    Paths are relative to the table's folder. Labels are names of classes, which are indexed in the
    order of their names; where all of them are integers, they are the indices, from 0 without
    gaps. A split is one of train, val and test; without that column everything is the training
    part. Other columns are not read.

    Raises:
        DataError: The file is missing or no such table, an image is missing or named twice, or the
            training part lacks a class of another part.
    """
    rows = list(_rows(path, read_text(path, error=DataError)))
    if not rows:
        raise DataError(f"{path}: below its header, no line names an image")
    lines: dict[str, int] = {}
    for row in rows:
        before = lines.setdefault(os.path.normpath(row.path), row.line)
        if before != row.line:
            raise DataError(
                f"{path}: lines {before} and {row.line} name the same image, {row.path}"
            )
    # Path.is_file raises for names that are too long.
    missing = [row for row in rows if not os.path.isfile(row.path)]  # noqa: PTH113
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of its {len(rows)} images do not exist: "
            + listed([f"{row.path} (line {row.line})" for row in missing])
            + f". Paths are relative to {path.parent}"
        )
    classes, labels = _index(path, [row.label for row in rows])
    if len(classes) == 1:
        raise DataError(
            f"{path}: {classes[0]!r} is its only class; there is nothing to tell apart. Is the "
            "column label the right one?"
        )
    parts: dict[str, Files] = {}
    for part in dict.fromkeys(row.part for row in rows):
        chosen = [number for number, row in enumerate(rows) if row.part == part]
        parts[part] = Files(tuple(rows[number].path for number in chosen), labels[chosen])
    if "train" in parts:
        for part, files in parts.items():
            untaught = np.setdiff1d(files.labels, parts["train"].labels)
            if untaught.size:
                raise DataError(
                    f"{path}: the {part} part has classes that the train part lacks: "
                    + listed([classes[index] for index in untaught])
                )
    return DataSet.of_files(path.stem, classes, parts)


def _rows(path: Path, text: str) -> Iterator[_Row]:
    """Yield the lines below the header."""
    # newline="": line breaks within quotes are the reader's.
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        if lacking := [name for name in ("path", "label") if name not in header]:
            raise DataError(
                f"{path}: line 1 must name the columns path,label or path,label,split; it lacks "
                f"{' and '.join(lacking)} and is {','.join(header)!r}"
            )
        for cells in reader:
            where = f"{path}: line {reader.line_num}"
            if not cells:
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{where} has {len(cells)} values for the {len(header)} columns "
                    f"{','.join(header)}; values with commas must be quoted"
                )
            row = dict(zip(header, map(str.strip, cells), strict=True))
            if not row["path"] or not row["label"]:
                raise DataError(f"{where} has no {'label' if row['path'] else 'path'}")
            split = row.get("split", "train")
            if split.lower() not in PARTS:
                raise DataError(f"{where} has the split {split!r}; it must be train, val or test")
            image = path.parent / row["path"]
            if "\\" in row["path"] and not os.path.exists(image):  # noqa: PTH110  (as above)
                image = path.parent / row["path"].replace("\\", "/")  # as Windows writes it
            yield _Row(reader.line_num, image, row["label"], PARTS[split.lower()])
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num} is no CSV ({error})") from error


def _index(path: Path, labels: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names of the classes, and int64 (N,) indices of the labels in them."""
    if all(re.fullmatch(r"-?[0-9]{1,9}", label) for label in labels):
        indices = np.array([int(label) for label in labels])
        present = np.unique(indices)
        if not np.array_equal(present, np.arange(len(present))):
            absent = np.setdiff1d(np.arange(len(present)), present)
            raise DataError(
                f"{path}: labels that are numbers must be 0, 1, 2 and so on without gaps; here "
                f"they go from {present[0]} to {present[-1]}, and none is {absent[0]}. Write "
                "names if they are not the indices of classes"
            )
        return tuple(map(str, present)), indices
    classes, indices = np.unique(labels, return_inverse=True)
    return tuple(map(str, classes)), indices
