"""`python -m porting`: the command line of the kit. Its commands are in this folder."""

import typer

from keras_alexnet.commands.main import run
from porting.commands import (
    check as commands_check,
    convert as commands_convert,
    coverage as commands_coverage,
    explain as commands_explain,
)

_HELP = (
    "Turn torch networks of images into Keras models and back, and prove that both agree.\n\n"
    "Weights come from checkpoints of torch, torchvision, timm and Caffe; what is written are "
    "plain .keras files, which are compared with torch layer by layer on every backend.\n\n"
    "Examples:\n"
    "  python -m porting convert torchvision:resnet50 --source mine.pth --output resnet50.keras\n"
    "  python -m porting check torchvision:resnet50 --report resnet50.html"
)

app = typer.Typer(
    help=_HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("convert")(commands_convert.convert_command)
app.command("inspect")(commands_convert.inspect_command)
app.command("check")(commands_check.check_command)
app.command("check-training")(commands_check.check_training_command)
app.command("coverage")(commands_coverage.coverage_command)
app.command("explain")(commands_explain.explain_command)
app.command("diff")(commands_convert.diff_command)
app.command("export")(commands_convert.export_command)
app.command("seed")(commands_convert.seed_command)


def main() -> None:
    """Run the command line."""
    run(app)
