"""CIFAR-10 and CIFAR-100: found, downloaded, checked and read.

Whatever is read is compared with its published digest before it is parsed.
"""

import contextlib
import hashlib
import sys
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from keras_alexnet.core.backend import keras_home, load_keras
from keras_alexnet.data.examples import Arrays, DataSet
from keras_alexnet.data.sources.cifar_formats import CIFAR10, CIFAR100, Cifar, Layout
from keras_alexnet.errors import DataError

_ORIGIN = "https://www.cs.toronto.edu/~kriz"
_LARGEST = 200_000_000  # bytes; the largest file, `train` of CIFAR-100, has 155 million


def read_cifar(cifar: Cifar, path: Path | None, *, download: bool) -> DataSet:
    """Read one of the data sets into memory, images uint8 (N, 32, 32, 3) in RGB.

    `path` is an archive, the folder that was in it, or a folder that holds either; None is the
    cache of Keras (`datasets` in `KERAS_HOME` or `~/.keras`), into which `download` downloads it
    if it is not there.

    Raises:
        DataError: It is not there, incomplete, not the published one, or cannot be downloaded.
        MissingDependencyError: Keras, which downloads, has no backend.
    """
    layout, place = _find(cifar, _cached(cifar, download=download) if path is None else path)
    parsed = {}
    for name, content in _files(layout, place):
        try:
            pixels, labels = layout.parse(content)  # (N, 3072), (N,)
            images = pixels.reshape(len(labels), 3, 32, 32).transpose(0, 2, 3, 1)
        except Exception as error:
            # Unpickling raises whatever the content leads to.
            raise DataError(f"{place}: {name} is no batch of {cifar.name} ({error})") from error
        parsed[name] = (np.ascontiguousarray(images), labels)
    if missing := [name for name in layout.digests if name not in parsed]:
        raise DataError(
            f"{place}: {cifar.name} is incomplete, {', '.join(missing)} missing; unpack or "
            f"download {layout.archive} again"
        )
    train, test = (
        Arrays(*map(np.concatenate, zip(*(parsed[name] for name in names), strict=True)))
        for names in (layout.train, layout.test)
    )
    return DataSet(cifar.name, cifar.classes, train=train, test=test)


def _find(cifar: Cifar, path: Path) -> tuple[Layout, Path]:
    """Return a form of the data, and the archive or folder that holds it."""
    if path.is_file():
        return _identify(cifar, path), path
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder; {cifar.name} was expected there")
    if found := _folder(cifar, path):
        return found
    if archive := _archive(cifar, path):
        return _identify(cifar, archive), archive
    others = [other for other in (CIFAR10, CIFAR100) if _folder(other, path)]
    forms = [name for layout in cifar.layouts for name in (layout.folder, layout.archive)]
    raise DataError(
        f"{path}: {cifar.name} is not there; one of {', '.join(forms)} was expected"
        + "".join(f". This is {other.name}; its kind is {other.kind}" for other in others)
    )


def _folder(cifar: Cifar, path: Path) -> tuple[Layout, Path] | None:
    for layout in cifar.layouts:
        for folder in (path, path / layout.folder):
            if any((folder / name).is_file() for name in layout.digests):
                return layout, folder
    return None


def _archive(cifar: Cifar, path: Path) -> Path | None:
    archives = (path / layout.archive for layout in cifar.layouts)
    return next((archive for archive in archives if archive.is_file()), None)


def _identify(cifar: Cifar, archive: Path) -> Layout:
    """Return what an archive is by its MD5, whatever its name."""
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "md5").hexdigest()
    for layout in cifar.layouts:
        if layout.archive_md5 == digest:
            return layout
    for other in (CIFAR10, CIFAR100):
        if any(layout.archive_md5 == digest for layout in other.layouts):
            raise DataError(f"{archive}: this is {other.name}; its kind is {other.kind}")
    wanted = " or ".join(f"{layout.archive_md5} ({layout.archive})" for layout in cifar.layouts)
    raise DataError(
        f"{archive}: not an official archive of {cifar.name}: its MD5 is {digest}, wanted is "
        f"{wanted}. If its download was cut short, delete it and download it again"
    )


def _files(layout: Layout, place: Path) -> Iterator[tuple[str, bytes]]:
    """Yield names and checked contents of the files that are there."""
    contents = _folder_contents if place.is_dir() else _archive_contents
    for name, content in contents(layout, place):
        algorithm, _, wanted = layout.digests[name].partition(":")
        found = hashlib.new(algorithm, content).hexdigest()
        if found != wanted:
            raise DataError(
                f"{place}: {name} is damaged: its {algorithm.upper()} is {found}, wanted is "
                f"{wanted}; unpack or download {layout.archive} again"
            )
        yield name, content


def _folder_contents(layout: Layout, folder: Path) -> Iterable[tuple[str, bytes]]:
    for name in layout.digests:
        with contextlib.suppress(FileNotFoundError):
            yield name, (folder / name).read_bytes()


def _archive_contents(layout: Layout, archive: Path) -> Iterable[tuple[str, bytes]]:
    """Read members in their order, in memory: nothing in an archive decides where files go."""
    names = {f"{layout.folder}/{name}": name for name in layout.digests}
    try:
        with tarfile.open(archive, "r|gz") as members:
            for member in members:
                if member.name in names and member.isfile() and member.size <= _LARGEST:
                    file = members.extractfile(member)
                    if file is not None:
                        yield names[member.name], file.read()
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{archive}: damaged archive ({error})") from error


def _cached(cifar: Cifar, *, download: bool) -> Path:
    """Return the place in the cache of Keras, which is filled if need be."""
    cache, layout = keras_home(), cifar.layouts[0]
    # The second is where `keras.datasets` unpacks it.
    for folder in (cache / "datasets", cache / "datasets" / f"{layout.folder}-target"):
        if _folder(cifar, folder):
            return folder
    url = f"{_ORIGIN}/{layout.archive}"
    if not download:
        if archive := _archive(cifar, cache / "datasets"):
            return archive
        reason = "downloads are switched off"
    else:
        keras = load_keras()
        try:
            cache.mkdir(parents=True, exist_ok=True)
            # Its progress bar does not belong to the results that a command prints.
            with contextlib.redirect_stdout(sys.stderr):
                archive_path = keras.utils.get_file(
                    layout.archive,
                    url,
                    file_hash=layout.archive_md5,
                    hash_algorithm="md5",
                    cache_dir=str(cache),
                )
            return Path(archive_path)
        except Exception as error:
            # Keras raises plain exceptions where there is no network, ValueError on a wrong MD5.
            reason = str(error)
    raise DataError(
        f"{cifar.name} is not in {cache / 'datasets'} and could not be downloaded: {reason}. "
        f"Fetch {url} where there is a network, and give the place of the file with --data-dir"
    )
