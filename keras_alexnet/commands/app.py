"""`keras-alexnet`: the command line. Its commands are in this folder."""

import typer

from keras_alexnet.commands.benchmark import benchmark_command
from keras_alexnet.commands.compare import compare_command
from keras_alexnet.commands.data import data_command
from keras_alexnet.commands.evaluate import evaluate_command
from keras_alexnet.commands.explain import explain_command
from keras_alexnet.commands.export import export_command
from keras_alexnet.commands.main import run
from keras_alexnet.commands.models import models_command, summary_command
from keras_alexnet.commands.pack import pack_command
from keras_alexnet.commands.predict import predict_command
from keras_alexnet.commands.train import train_command

_HELP = (
    "AlexNet, GoogLeNet and their variants in Keras, on TensorFlow, PyTorch and JAX.\n\n"
    "Shows what they cost; trains, evaluates, exports and times them, and any network that "
    "`python -m porting` has converted.\n\n"
    "Examples:\n"
    "  keras-alexnet train --preset cifar10-cpu --output runs/first\n"
    "  keras-alexnet predict runs/first/best.keras photos/"
)

app = typer.Typer(help=_HELP, no_args_is_help=True, pretty_exceptions_enable=False)
app.command("models")(models_command)
app.command("summary")(summary_command)
app.command("data")(data_command)
app.command("pack")(pack_command)
app.command("train")(train_command)
app.command("evaluate")(evaluate_command)
app.command("predict")(predict_command)
app.command("explain")(explain_command)
app.command("compare")(compare_command)
app.command("export")(export_command)
app.command("benchmark")(benchmark_command)


def main() -> None:
    """Run the command line."""
    run(app)
