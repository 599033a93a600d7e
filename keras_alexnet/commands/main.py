"""What every command line of ours does around its commands: signals, errors, pipes."""

import contextlib
import io
import os
import signal
import sys

import typer

from keras_alexnet.core.backend import leave_wrappers_out
from keras_alexnet.core.files import READABLY
from keras_alexnet.core.interruption import end_by_signals
from keras_alexnet.errors import KerasAlexNetError


def run(commands: typer.Typer) -> None:
    """Run a command line; a user's mistake ends with one message and exit code 2."""
    end_by_signals()
    leave_wrappers_out()
    # The start-up notes of TensorFlow are not our output.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=READABLY)
    try:
        try:
            commands()
        finally:
            sys.stdout.flush()
    except KerasAlexNetError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        # What is still unwritten would fail, and complain, once more at the interpreter's end.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # the reader has left, as `| head` does
            sys.exit(1)
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
