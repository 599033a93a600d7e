"""Output files that are complete or absent, and texts that users write."""

import codecs
import contextlib
import errno
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_alexnet.errors import ConfigurationError, KerasAlexNetError


def _as_hexadecimal(error: UnicodeError) -> tuple[str, int]:
    r"""Return bytes of a file's name that are no UTF-8, which Python hides in text, as `\xe9`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    hidden = error.object[error.start : error.end]
    return "".join(f"\\x{ord(character) & 0xFF:02x}" for character in hidden), error.end


_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_NUMBER = re.compile(r"\bos error (\d+)\b")

# How texts with names of files, which are bytes, are written.
READABLY = "keras_alexnet.readably"
codecs.register_error(READABLY, _as_hexadecimal)


def readable(name: str) -> str:
    """Return a name of a file as people can read it, whatever bytes it is made of."""
    return name.encode("utf-8", READABLY).decode("utf-8")


def check_output(path: str | Path) -> Path:
    """Check that a file can be written at `path`, before any work is done for it.

    Returns:
        A name beside it for the temporary file, with the same suffix, as writers choose the
        format by it.

    Raises:
        ConfigurationError: The folder does not exist or cannot be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise ConfigurationError(f"cannot write {path}: it is a folder")
    if not path.parent.is_dir():
        raise ConfigurationError(f"cannot write {path}: there is no folder {path.parent}")
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        try:
            temporary.touch()
        finally:  # an interruption leaves nothing either
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {reason_of(error)}") from error
    return temporary


def reason_of(error: OSError) -> str:
    """Return in the system's words why something failed; HDF5 brings a report of several lines."""
    return os.strerror(error.errno) if error.errno else str(error)


def out_of_room(error: BaseException | None) -> OSError | None:
    """Return the system's error behind another one, where a disk is full; otherwise None.

    HDF5 fails once more while it closes the file, and safetensors tells the number alone.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return error
        told = _NUMBER.search(str(error))
        if told and (number := int(told[1])) in _NO_ROOM:
            return OSError(number, os.strerror(number))
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def atomic_output(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` once the block succeeded.

    An error or an interruption removes it and leaves what was at `path` before.

    Raises:
        ConfigurationError: The folder does not exist, cannot be written to, or the disk is full.
    """
    path = Path(path)
    temporary = check_output(path)
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # some writers leave files that only their owner can read
        temporary.replace(path)
    except OSError as error:
        if error.filename is not None and Path(error.filename) not in (temporary, path):
            raise
        raise ConfigurationError(f"cannot write {path}: {reason_of(error)}") from error
    except Exception as error:  # whatever a writer makes of the system's
        if (full := out_of_room(error)) is None:
            raise
        raise ConfigurationError(f"cannot write {path}: {reason_of(full)}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file, which knows no NaN, completely or not at all."""
    with atomic_output(path) as temporary:
        temporary.write_text(
            json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8"
        )


def read_text(path: Path, *, error: type[KerasAlexNetError] = ConfigurationError) -> str:
    """Return a text in UTF-8, with a byte order mark or without.

    Raises:
        KerasAlexNetError: Of the class `error`: there is no such file, or it is no such text.
    """
    if not path.is_file():
        raise error(f"{path}: {'it is a folder' if path.is_dir() else 'no such file'}")
    try:
        content = path.read_bytes()
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise error(
            f"{path}: line {line} is not UTF-8 text ({problem.reason}); save the file as UTF-8"
        ) from problem
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror or problem})") from problem
