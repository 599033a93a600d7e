"""Image files in a folder for each class."""

import itertools
import os
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_alexnet.core.files import readable
from keras_alexnet.core.places import reaching
from keras_alexnet.data.examples import DataSet, Files
from keras_alexnet.errors import DataError, ImageFileError, listed

# torchvision.datasets.folder.IMG_EXTENSIONS, and others that Pillow reads: first frames of GIF.
IMAGE_SUFFIXES = frozenset(
    [
        *(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"),
        *(".jfif", ".jpe", ".jp2", ".j2k", ".avif"),
    ]
)

# What people call the parts of a data set, in lower case, and what we call them.
PARTS: Mapping[str, str] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def subfolders(folder: Path) -> dict[str, Path]:
    """Return the folders in a folder by name, sorted, without hidden ones.

    Raises:
        DataError: It does not exist or is a file.
    """
    if not folder.is_dir():
        what = "it is a file, a folder was expected" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {what}")
    return {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.is_dir() and not path.name.startswith(".")
    }


class Found(NamedTuple):
    """The image files in a folder and below, and all other files there, which are left out."""

    images: list[Path]
    others: list[Path]


def search(folder: Path) -> Found:
    """Return the files in a folder and below, without hidden ones, in a fixed order.

    Links to files and folders are followed, but to a folder in which they lie themselves.
    """
    found = Found([], [])
    if isinstance(folder, Path):
        _search(folder, found, frozenset())
    else:
        _search_url(folder, found)
    return found


def _search_url(folder: Any, found: Found) -> None:
    """Search a `UPath`, whose file system lists all that is below at once."""
    for name in sorted(folder.fs.find(folder.path)):
        path = folder / posixpath.relpath(name, folder.path)
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            is_image = path.suffix.lower() in IMAGE_SUFFIXES
            (found.images if is_image else found.others).append(path)


def _search(folder: Path, found: Found, above: frozenset[tuple[int, int]]) -> None:
    status = folder.stat()
    identity = status.st_dev, status.st_ino
    if identity in above:
        return
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    folders = []
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            folders.append(entry.path)
            continue
        suffix = os.path.splitext(entry.name)[1]  # noqa: PTH122  (a Path for every file is slow)
        is_image = suffix.lower() in IMAGE_SUFFIXES
        (found.images if is_image else found.others).append(Path(entry.path))
    for path in folders:
        _search(Path(path), found, above | {identity})


def find_images(folder: Path) -> list[Path]:
    """Return the image files that `search` finds."""
    return search(folder).images


def expand(
    places: Iterable[str | Path],
    *,
    recursive: bool = True,
    limit: int | None = None,
    purpose: str = "",
) -> list[Path]:
    """Return image files: those that are named, and those in the folders that are.

    Places may be those of other file systems, as `core.places.path_of` returns them.
    `recursive` searches folders in folders too. Of more than `limit` files every n-th is taken, as
    folders are sorted by class. `purpose` is who needs them, for messages.

    Raises:
        ImageFileError: A place does not exist.
        DataError: A folder holds no image files, or cannot be read.
    """
    files: list[Path] = []
    for place in (Path(place) if isinstance(place, str) else place for place in places):
        with reaching(place):
            files += _images_at(place, recursive, purpose)
    if limit is not None and len(files) > limit:
        files = [files[i] for i in np.linspace(0, len(files) - 1, limit).round().astype(int)]
    return files


def _images_at(place: Path, recursive: bool, purpose: str) -> list[Path]:
    """Return the image files of one of `expand`'s places."""
    if not place.is_dir():
        if not place.exists():
            raise ImageFileError(place, "no such image file or folder")
        return [place]
    found = find_images(place)
    if not recursive:
        found = [path for path in found if path.parent == place]
    if not found:
        who = f", which {purpose} needs" if purpose else ""
        raise DataError(f"{place}: no image files in this folder{who}")
    return found


def class_folder_files(folder: Path, classes: Mapping[str, int], origin: Path) -> Files:
    """Return the images of a folder that holds one folder for each class, and no others.

    `classes` are the folders' names and the labels of their images; `origin` is where they are
    from, for messages.

    Raises:
        DataError: Class folders are missing, unknown, or without images.
    """
    found = subfolders(folder)
    differences = {
        "missing": [name for name in classes if name not in found],
        "unexpected": [name for name in found if name not in classes],
    }
    if problems := [f"{what} {listed(names)}" for what, names in differences.items() if names]:
        raise DataError(
            f"{folder}: its class folders differ from the classes in {origin}: "
            + "; ".join(problems)
        )
    files = {name: search(found[name]) for name in classes}
    if empty := [name for name, each in files.items() if not each.images]:
        raise DataError(
            f"{folder}: the class folders {listed(empty)} hold no images "
            f"(files that end in {' '.join(sorted(IMAGE_SUFFIXES))})"
        )
    labels = np.repeat(
        np.fromiter(classes.values(), np.int64), [len(each.images) for each in files.values()]
    )
    images, others = (
        tuple(itertools.chain(*column)) for column in zip(*files.values(), strict=True)
    )
    return Files(images, labels, left_out=others)


def _check_classes(path: Path, names: Sequence[str]) -> None:
    """Refuse folders such as seg_train and seg_test, of which nobody wants to be told apart."""
    parts: dict[str, str] = {}
    for name in names:
        for word in re.split(r"[^a-z]+", name.lower()):
            if word in PARTS:
                parts[name] = PARTS[word]
    if len(set(parts.values())) > 1:
        raise DataError(
            f"{path}: the folders {listed(sorted(parts))} look like parts of the data, not like "
            "classes. Call them train, val and test, with the class folders directly in them; if "
            "they are classes, put them into a folder named train"
        )


def read_folder(path: Path) -> DataSet:
    """Find images by class: `path/train/cat/1.jpg`, or `path/cat/1.jpg` where there are no parts.

    Parts are called train or training; val, valid or validation; test or testing. Without them
    everything is the training part. Images may lie deeper in a class folder. Classes are indexed
    in the order of their names, and every part must have the same.

    Raises:
        DataError: Something is missing, empty, or called in a way that can be read in two.
    """
    children = subfolders(path)
    folders: dict[str, Path] = {}
    for name, folder in children.items():
        part = PARTS.get(name.lower())
        if part in folders:
            raise DataError(
                f"{path}: both {folders[part].name} and {name} are its {part} part; keep one"
            )
        if part is not None:
            folders[part] = folder
    others = [name for name in children if name.lower() not in PARTS]
    if folders and (mixed := [name for name in others if find_images(children[name])]):
        raise DataError(
            f"{path}: beside {listed(folder.name for folder in folders.values())} there are images "
            f"in {listed(mixed)}. Move those away if they are no part of the data; if all are "
            "classes, put them into a folder named train"
        )
    if not folders:
        _check_classes(path, others)
        folders = {"train": path}
    first = next(folders[part] for part in ("train", "val", "test") if part in folders)
    for folder in folders.values():
        if not subfolders(folder):
            raise DataError(
                f"{folder}: no class folders; images are expected as {folder}/CLASS/IMAGE. (To "
                "classify images whose class is not known, use `keras-alexnet predict`.)"
            )
    classes = {name: index for index, name in enumerate(subfolders(first))}
    if len(classes) == 1:
        raise DataError(
            f"{first}: {listed(classes)} is its only class folder; is that folder the data set?"
        )
    parts = {part: class_folder_files(folder, classes, first) for part, folder in folders.items()}
    return DataSet.of_files(readable(path.resolve().name), tuple(map(readable, classes)), parts)
