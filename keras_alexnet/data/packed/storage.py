"""Where packed data lie: a folder, or a place of any file system that fsspec knows."""

import contextlib
import posixpath
from collections.abc import Iterator
from pathlib import Path

from keras_alexnet.core.files import reason_of
from keras_alexnet.core.places import file_system
from keras_alexnet.errors import DataError, one_line


class Storage:
    """A folder, by its path or URL.

    Raises:
        MissingDependencyError: fsspec, or its part for this kind of URL, is not installed.
        DataError: There is no such kind.
    """

    def __init__(self, place: str | Path) -> None:
        self.place = str(place)
        self._files, self._folder = file_system(self.place)

    def path(self, file: str) -> str:
        """Return the path of a file, for messages."""
        return posixpath.join(self.place, file)

    def read(self, file: str, start: int | None = None, end: int | None = None) -> bytes:
        """Read the bytes of a file from `start` on, up to `end`.

        Raises:
            DataError: It is missing or cannot be read.
        """
        with self._reading(file) as path:
            return self._files.cat_file(path, start=start, end=end)

    def size(self, file: str) -> int:
        """Return the bytes of a file.

        Raises:
            DataError: It is missing or cannot be read.
        """
        with self._reading(file) as path:
            return int(self._files.size(path))

    @contextlib.contextmanager
    def _reading(self, file: str) -> Iterator[str]:
        """Yield a file's path there; what its file system raises becomes a DataError."""
        try:
            yield posixpath.join(self._folder, file)
        except FileNotFoundError as error:
            raise DataError(f"{self.path(file)}: no such file") from error
        except Exception as error:  # other file systems have kinds of their own
            reason = reason_of(error) if isinstance(error, OSError) else one_line(error)
            raise DataError(f"{self.path(file)}: cannot be read ({reason})") from error
