"""Where data come from: the kinds of data sets, and the table of their readers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from keras_alexnet.core.backend import require
from keras_alexnet.core.places import is_url
from keras_alexnet.data.examples import Arrays, DataSet, Examples, stratified_split
from keras_alexnet.data.packed.examples import is_packed, read_packed
from keras_alexnet.data.sources.cifar import read_cifar
from keras_alexnet.data.sources.cifar_formats import CIFAR10, CIFAR100, Cifar
from keras_alexnet.data.sources.csv_files import read_csv
from keras_alexnet.data.sources.folders import read_folder
from keras_alexnet.data.sources.ilsvrc import read_ilsvrc2010, read_ilsvrc2012
from keras_alexnet.errors import ConfigurationError, DataError


@dataclass(frozen=True)
class Source:
    """A kind of data set, which `read(path, download)` reads.

    Attributes:
        description: One line for `--help`.
        takes_path: Whether it can be read from a place that the user names.
        needs_path: Whether it can be read from nowhere else.
    """

    description: str
    read: Callable[[Path | None, bool], DataSet]
    takes_path: bool = True
    needs_path: bool = False


def _read_digits(_path: Path | None, _download: bool) -> DataSet:
    """Read scikit-learn's digits: 1797 images uint8 (8, 8, 1), a fifth of each class to test on."""
    digits = require("sklearn.datasets").load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]  # (1797, 8, 8, 1)
    examples = Arrays(images, digits.target.astype(np.int64))
    train, test = stratified_split(examples.labels, 0.2, seed=0, name="digits")
    return DataSet(
        "digits",
        tuple(map(str, digits.target_names)),
        train=examples.subset(train),
        test=examples.subset(test),
    )


def _read_digits_rgb(path: Path | None, download: bool) -> DataSet:
    """Read the same in the form of CIFAR's images, uint8 (32, 32, 3)."""

    def enlarged(examples: Examples | None) -> Arrays:
        assert isinstance(examples, Arrays)
        images = [Image.fromarray(image[..., 0]) for image in examples.images]
        large = [image.resize((32, 32), Image.Resampling.BICUBIC) for image in images]
        return Arrays(
            np.stack([np.asarray(image.convert("RGB")) for image in large]), examples.labels
        )

    digits = _read_digits(path, download)
    train, test = enlarged(digits.train), enlarged(digits.test)
    return replace(digits, name="digits-rgb", train=train, test=test)


def _cifar(cifar: Cifar) -> Source:
    return Source(
        f"{cifar.name}: an official archive or its folder, python or binary; else downloaded.",
        lambda path, download: read_cifar(cifar, path, download=download),
    )


def _on_disk(description: str, read: Callable[[Path], DataSet]) -> Source:
    def read_path(path: Path | None, _download: bool) -> DataSet:
        assert path is not None  # open_data checks
        return read(path)

    return Source(description, read_path, needs_path=True)


SOURCES: Mapping[str, Source] = {
    "digits": Source(
        "Handwritten digits, 8 x 8, embedded in scikit-learn.", _read_digits, takes_path=False
    ),
    "digits-rgb": Source(
        "The same enlarged to 32 x 32 and in three channels, for networks of CIFAR's images.",
        _read_digits_rgb,
        takes_path=False,
    ),
    CIFAR10.kind: _cifar(CIFAR10),
    CIFAR100.kind: _cifar(CIFAR100),
    "folder": _on_disk("Class folders, in folders train/val/test or not.", read_folder),
    "csv": _on_disk("A CSV file with the columns path,label or path,label,split.", read_csv),
    "ilsvrc2010": _on_disk("ImageNet's challenge of 2010 with its devkit.", read_ilsvrc2010),
    "ilsvrc2012": _on_disk("ImageNet's challenge of 2012 with its devkit.", read_ilsvrc2012),
    "packed": _on_disk("What `keras-alexnet pack` has written.", read_packed),
}


def open_data(kind: str, path: str | Path | None = None, *, download: bool = True) -> DataSet:
    """Open a data set of a kind in `SOURCES`: small images are read into memory, files are listed.

    `path` is where the data lie; None is the kind's own place, where it has one. `download` is
    whether data that are not there may be downloaded.

    Raises:
        ConfigurationError: There is no such kind, or it does not go with `path`.
        DataError: The data are missing, damaged, or contradict themselves.
        MissingDependencyError: A package that reads them is not installed.
    """
    source = SOURCES.get(kind)
    if source is None:
        raise ConfigurationError(f"no kind of data {kind!r}; there are {', '.join(SOURCES)}")
    if path is None and source.needs_path:
        raise ConfigurationError(f"data of the kind {kind} need a place: give it with --data-dir")
    if path is not None and not source.takes_path:
        raise ConfigurationError(
            f"data of the kind {kind} are built in: leave out the place {path} (--data-dir)"
        )
    try:
        return source.read(None if path is None else Path(path).expanduser(), download)
    except OSError as error:
        raise DataError(
            f"{error.filename or path}: cannot be read ({error.strerror or error})"
        ) from error


def find_data(data: str, path: str | Path | None = None, *, download: bool = True) -> DataSet:
    """Open a data set by its kind, as `open_data` does, or by its place alone.

    `data` is a key of `SOURCES`; else a folder of class folders, a file `*.csv`, or packed data:
    their folder, or a URL of it, such as `gs://bucket/packed`.

    Raises:
        ConfigurationError: `data` is neither a kind nor a place, or both places are given.
    """
    if data in SOURCES:
        return open_data(data, path, download=download)
    place = Path(data).expanduser()
    if is_url(data):
        return read_packed(data)
    if not place.exists():
        raise ConfigurationError(
            f"{data!r} is neither a kind of data ({', '.join(SOURCES)}) nor a folder or CSV file"
        )
    if path is not None:
        raise ConfigurationError(
            f"{data!r} is a place already: leave out {path} (--data-dir), or name a kind of data "
            f"({', '.join(SOURCES)})"
        )
    kind = "packed" if is_packed(place) else "folder" if place.is_dir() else "csv"
    return open_data(kind, place)
