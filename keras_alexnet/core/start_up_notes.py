"""TensorFlow's start-up notes, held to `TF_CPP_MIN_LOG_LEVEL`."""

import contextlib
import importlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from types import ModuleType

# Severity of a line, by the beginning of absl's format.
_LINE = re.compile(rb"([IWEF])\d{4} \d\d:\d\d:")
_SEVERITIES = b"IWEF"
_UNSIGNED = (b"WARNING: All log messages before absl", b"To enable the following instructions")


def import_tensorflow() -> ModuleType:
    """Import TensorFlow and let it look for devices, without the notes that were switched off.

    What it writes while its libraries are loaded does not obey the variable, as its logging is not
    set up by then.
    """
    level = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0")
    quiet = level.isdecimal() and int(level) > 0
    with _filtered(int(level)) if quiet else contextlib.nullcontext():
        tensorflow = importlib.import_module("tensorflow")
        if quiet:
            tensorflow.config.list_physical_devices()
    return tensorflow


@contextlib.contextmanager
def _filtered(level: int) -> Iterator[None]:
    """Within this block, hold back what is written to the process's standard error.

    Behind it what is left is written: lines of at least this severity, and those of others.
    """
    sys.stderr.flush()
    try:
        before = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            held.seek(0)
            for line in held:
                found = _LINE.match(line)
                severity = _SEVERITIES.index(found[1]) if found else len(_SEVERITIES)
                if severity >= level and not line.startswith(_UNSIGNED):
                    os.write(2, line)
