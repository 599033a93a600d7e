"""Where data lie: paths, and URLs of the file systems that fsspec knows."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_alexnet.core.backend import require
from keras_alexnet.errors import DataError, KerasAlexNetError, one_line


def is_url(place: str) -> bool:
    """Return whether a place is one of another file system, such as `gs://bucket/photos`."""
    return "://" in place


def path_of(place: str) -> Path:
    """Return a place as a path: of a URL it is a `upath.UPath`, which has a path's methods.

    Raises:
        MissingDependencyError: A package for URLs is not installed.
        DataError: There is no such kind of URL, or its own package is not installed.
    """
    if not is_url(place):
        return Path(place)
    file_system(place)
    return require("upath").UPath(place)


def file_system(place: str) -> tuple[Any, str]:
    """Return the file system of a place, and its path there.

    Raises:
        MissingDependencyError, DataError: As `path_of`.
    """
    try:
        return require("fsspec").url_to_fs(place)
    except (ValueError, ImportError) as error:
        raise DataError(f"{place}: cannot be opened ({one_line(error)})") from error


@contextlib.contextmanager
def reaching(place: object) -> Iterator[None]:
    """Turn whatever a URL's file system raises within this block into an error of ours.

    Raises:
        DataError: The file system failed, for want of a network or of rights.
    """
    try:
        yield
    except KerasAlexNetError:
        raise
    except Exception as error:
        if not is_url(str(place)):
            raise
        reason = one_line(error, named=True)
        raise DataError(f"{place}: its file system cannot be used ({reason})") from error
