"""`python -m porting`: the command line of the kit. Its commands are in `commands_*`."""

import os
import sys

import typer

from keras_alexnet.core.interruption import end_by_signals
from keras_alexnet.errors import KerasAlexNetError
from porting.commands import check as commands_check
from porting.commands import convert as commands_convert

app = typer.Typer(
    help="Move AlexNets and GoogLeNets between PyTorch and Keras, and prove that both agree.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("convert")(commands_convert.convert_command)
app.command("inspect")(commands_convert.inspect_command)
app.command("check")(commands_check.check_command)
app.command("check-training")(commands_check.check_training_command)
app.command("diff")(commands_convert.diff_command)
app.command("export")(commands_convert.export_command)
app.command("seed")(commands_convert.seed_command)


def main() -> None:
    """Run the command line; a user's mistake ends with one message and exit code 2."""
    end_by_signals()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its start-up notes are not our output
    try:
        app(standalone_mode=True)
    except (KerasAlexNetError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
