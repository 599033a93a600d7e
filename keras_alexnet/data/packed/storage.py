"""Where packed data lie: a folder, or a place of any file system that fsspec knows."""

import posixpath
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
        try:
            return self._files.cat_file(posixpath.join(self._folder, file), start=start, end=end)
        except FileNotFoundError as error:
            raise DataError(f"{self.path(file)}: no such file") from error
        except Exception as error:  # other file systems have kinds of their own
            reason = reason_of(error) if isinstance(error, OSError) else one_line(error)
            raise DataError(f"{self.path(file)}: cannot be read ({reason})") from error

    def size(self, file: str) -> int:
        """Return the bytes of a file.

        Raises:
            DataError: It is missing or cannot be read.
        """
        try:
            return int(self._files.size(posixpath.join(self._folder, file)))
        except FileNotFoundError as error:
            raise DataError(f"{self.path(file)}: no such file") from error
        except Exception as error:  # other file systems have kinds of their own
            reason = reason_of(error) if isinstance(error, OSError) else one_line(error)
            raise DataError(f"{self.path(file)}: cannot be read ({reason})") from error
