"""`keras-alexnet`: the command line. Its commands are in `keras_alexnet.commands`."""

import contextlib
import io
import os
import signal
import sys

import typer

from keras_alexnet.commands.benchmark import benchmark_command
from keras_alexnet.commands.compare import compare_command
from keras_alexnet.commands.evaluate import evaluate_command
from keras_alexnet.commands.export import export_command
from keras_alexnet.commands.models import models_command, summary_command
from keras_alexnet.commands.predict import predict_command
from keras_alexnet.commands.train import train_command
from keras_alexnet.core.interruption import end_by_signals
from keras_alexnet.errors import KerasAlexNetError

app = typer.Typer(
    help="AlexNet and GoogLeNet: which there are, what they cost, how well they do.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("models")(models_command)
app.command("summary")(summary_command)
app.command("train")(train_command)
app.command("evaluate")(evaluate_command)
app.command("predict")(predict_command)
app.command("compare")(compare_command)
app.command("export")(export_command)
app.command("benchmark")(benchmark_command)


def main(commands: typer.Typer = app) -> None:
    """Run a command line; a user's mistake ends with one message and exit code 2."""
    end_by_signals()
    # The start-up notes of TensorFlow are not our output.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files may hold bytes that are no text.
        sys.stdout.reconfigure(errors="backslashreplace")
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
