"""Labelled images, in memory or as files, and how they are divided."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from keras_alexnet.core.backend import require
from keras_alexnet.core.files import readable, reason_of
from keras_alexnet.data.decoding import Channels, decode_image, open_image
from keras_alexnet.errors import DataError, ImageFileError, counted, listed, one_line


@dataclass(frozen=True, eq=False)
class Arrays:
    """Images of one size in memory.

    Attributes:
        images: uint8 (N, H, W, C), 0..255, C is 3 (RGB) or 1 (grey).
        labels: int64 (N,), class indices.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: np.ndarray) -> Self:
        """Return the examples at `indices`, in their order."""
        return type(self)(self.images[indices], self.labels[indices])

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """Return a random order of the examples, int64 (N,)."""
        return rng.permutation(len(self))


class Stored(ABC):
    """Images that are read one by one, each as it is needed.

    Attributes:
        labels: int64 (N,), class indices.
    """

    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def place(self, index: int) -> Path:
        """Return where an image lies, for messages; each has a place of its own."""

    @abstractmethod
    def content(self, index: int) -> bytes | np.ndarray:
        """Read the content of an image file, or pixels, uint8 (H, W, 3).

        Raises:
            ImageFileError: It cannot be read.
        """

    @abstractmethod
    def subset(self, indices: np.ndarray) -> Self:
        """Return the examples at `indices`, in their order."""

    @abstractmethod
    def identity(self) -> bytes:
        """Return what tells these examples from others, wherever they lie, without their labels."""

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """Return a random order of the examples, int64 (N,), in which they are read well."""
        return rng.permutation(len(self))

    def expect(self, indices: np.ndarray) -> None:  # noqa: B027  (most have nothing to do)
        """Prepare for the examples at `indices`, which are going to be read, but not yet."""

    def sizes(self) -> np.ndarray | None:
        """Return heights and widths of images that need no decoder, int64 (N, 2), else None."""
        return None

    def pixels(self, index: int, channels: Channels = "RGB") -> np.ndarray:
        """Return an image as `decode_image` does: uint8 (H, W, C).

        Raises:
            ImageFileError: It cannot be read or decoded.
        """
        return decode_image(self.content(index), channels, name=_Place(self, index))

    def image(self, index: int, channels: Channels = "RGB") -> Image.Image:
        """Return an image as `open_image` does, of the mode `channels`.

        Raises:
            ImageFileError: It cannot be read or decoded.
        """
        return open_image(self.content(index), channels, name=_Place(self, index))


@dataclass(frozen=True)
class _Place:
    """The place of an image, which is looked up where a message needs it."""

    examples: Stored
    index: int

    def __str__(self) -> str:
        return str(self.examples.place(self.index))


@dataclass(frozen=True, eq=False)
class Files(Stored):
    """Image files, one for each example, and their class indices, int64 (N,).

    `left_out` are the other files that were found among them; a subset has none.
    """

    paths: tuple[Path, ...]
    labels: np.ndarray
    left_out: tuple[Path, ...] = ()

    def place(self, index: int) -> Path:
        """Return the path of a file."""
        return self.paths[index]

    def content(self, index: int) -> bytes:
        """Read a file."""
        path = self.paths[index]
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise ImageFileError(path, "no such image file") from error
        except OSError as error:
            raise ImageFileError(path, f"cannot be read ({reason_of(error)})") from error
        except Exception as error:  # of another file system's
            raise ImageFileError(path, f"cannot be read ({one_line(error)})") from error

    def subset(self, indices: np.ndarray) -> Self:
        """Return the examples at `indices`, in their order."""
        return type(self)(tuple(self.paths[i] for i in indices), self.labels[indices])

    def identity(self) -> bytes:
        """Return the last two parts of the paths, which are the same wherever the files lie."""
        return os.fsencode("\n".join("/".join(path.parts[-2:]) for path in self.paths))


Examples = Arrays | Stored


def unlabelled(paths: Sequence[Path]) -> Files:
    """Return image files of which no class is known: all labels are 0."""
    return Files(tuple(paths), np.zeros(len(paths), np.int64))


@dataclass(frozen=True, eq=False)
class DataSet:
    """Labelled images in up to three parts that share no example; a missing part is None.

    Attributes:
        name: What people call it.
        classes: Names of the classes, by index.
        train: Examples to learn from.
        val: Examples to choose the best epoch by.
        test: Examples to report.
        left_out: Files that were found where images were looked for, but are none by their names.
    """

    name: str
    classes: tuple[str, ...]
    train: Examples | None = None
    val: Examples | None = None
    test: Examples | None = None
    left_out: tuple[Path, ...] = ()

    @classmethod
    def of_files(cls, name: str, classes: tuple[str, ...], parts: Mapping[str, Files]) -> Self:
        """Return a data set of files by part, and of what was left out of each."""
        left_out = tuple(path for files in parts.values() for path in files.left_out)
        return cls(name, classes, **parts, left_out=left_out)

    def __post_init__(self) -> None:
        for part, examples in self.parts().items():
            if not len(examples):
                raise DataError(f"{self.name}: its {part} part holds no images")
            low, high = int(examples.labels.min()), int(examples.labels.max())
            if low < 0 or high >= len(self.classes):
                raise DataError(
                    f"{self.name}: the {part} part has labels from {low} to {high}, but there are "
                    f"{len(self.classes)} classes (0..{len(self.classes) - 1})"
                )

    def parts(self) -> dict[str, Examples]:
        """Return the parts that exist, by name."""
        named = {"train": self.train, "val": self.val, "test": self.test}
        return {name: part for name, part in named.items() if part is not None}

    def with_validation(self, fraction: float, *, seed: int) -> Self:
        """Return the data with a validation part, cut from the training part where it has none.

        Each class gives the same share of its examples, `fraction` in (0, 1).

        Raises:
            DataError: The training part is missing or too small to be divided.
        """
        if self.val is not None:
            return self
        if self.train is None:
            raise DataError(f"{self.name} has no training part to cut a validation part from")
        train, val = stratified_split(self.train.labels, fraction, seed=seed, name=self.name)
        return replace(self, train=self.train.subset(train), val=self.train.subset(val))


def left_out_note(left_out: Sequence[Path]) -> str:
    """Return a sentence that counts and names the files that are no images by their names."""
    names = listed(readable(str(path)) for path in left_out)
    return f"{counted(len(left_out), 'file')} left out, not named like images: {names}"


def stratified_split(
    labels: np.ndarray, fraction: float, *, seed: int, name: str = "data"
) -> tuple[np.ndarray, np.ndarray]:
    """Divide examples with labels int (N,) in two, every class in the same proportion.

    The second part gets the share `fraction`, in (0, 1). Error messages call the examples `name`.

    Returns:
        Sorted int64 indices of both parts: disjoint, together all of them.

    Raises:
        DataError: A class has too few examples.
    """
    selection = require("sklearn.model_selection")
    try:
        first, second = selection.train_test_split(
            np.arange(len(labels)), test_size=fraction, random_state=seed, stratify=labels
        )
    except ValueError as error:
        counts = np.bincount(labels)
        raise DataError(
            f"{name}: {len(labels)} examples of {len(counts)} classes cannot be divided with "
            f"{fraction:g} of every class in the second part: each part needs one of each class at "
            f"least, and the smallest class has {counts.min()}. Take another "
            "share (--val-fraction; 0 for no validation), or more examples"
        ) from error
    return np.sort(first), np.sort(second)


def fingerprint(data: DataSet) -> str:
    """Return the SHA-256 of who is in which part: labels, and file names or pixels."""
    digest = hashlib.sha256()
    for part, examples in data.parts().items():
        digest.update(f"{part} {len(examples)}\n".encode())
        digest.update(np.ascontiguousarray(examples.labels, "<i8").data)
        if isinstance(examples, Stored):
            digest.update(examples.identity())
        else:
            digest.update(np.ascontiguousarray(examples.images).data)
    return digest.hexdigest()
