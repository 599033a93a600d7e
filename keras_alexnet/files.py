"""Output files that are complete or absent."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from keras_alexnet.errors import ConfigurationError


@contextlib.contextmanager
def atomic_output(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` once the block succeeded.

    The temporary file has the same suffix, since writers choose the format by it. An error or an
    interruption removes it and leaves what was at `path` before.

    Raises:
        ConfigurationError: The folder does not exist or cannot be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise ConfigurationError(f"cannot write {path}: it is a folder")
    if not path.parent.is_dir():
        raise ConfigurationError(f"cannot write {path}: the folder {path.parent} does not exist")
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        # Fails now, before any work is done, where the folder is read-only.
        temporary.touch(exist_ok=False)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is not None and Path(error.filename) not in (temporary, path):
            raise
        raise ConfigurationError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
