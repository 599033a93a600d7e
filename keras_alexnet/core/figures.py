"""Files of pictures that matplotlib draws."""

from collections.abc import Mapping
from pathlib import Path

from keras_alexnet.core.backend import require
from keras_alexnet.core.files import check_output
from keras_alexnet.errors import ConfigurationError

# Suffix -> metadata that would give the same picture other bytes each time.
METADATA: Mapping[str, Mapping[str, None]] = {
    ".svg": {"Date": None},
    ".png": {},
    ".pdf": {"CreationDate": None},
}


def check_picture(path: str | Path) -> None:
    """Refuse a path that no picture can be drawn into, before any work is done.

    Raises:
        ConfigurationError: Its suffix is unknown, or the folder is missing or not writable.
        MissingDependencyError: matplotlib is not installed.
    """
    if Path(path).suffix.lower() not in METADATA:
        raise ConfigurationError(
            f"cannot draw {path}: its suffix must be one of {', '.join(METADATA)}"
        )
    check_output(path)
    require("matplotlib")
