"""`keras-alexnet`: the command line. Its commands are in this folder."""

import typer

from keras_alexnet.commands.benchmark import benchmark_command
from keras_alexnet.commands.compare import compare_command
from keras_alexnet.commands.data import data_command
from keras_alexnet.commands.evaluate import evaluate_command
from keras_alexnet.commands.export import export_command
from keras_alexnet.commands.main import run
from keras_alexnet.commands.models import models_command, summary_command
from keras_alexnet.commands.predict import predict_command
from keras_alexnet.commands.train import train_command

app = typer.Typer(
    help="AlexNet and GoogLeNet: which there are, what they cost, how well they do.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("models")(models_command)
app.command("summary")(summary_command)
app.command("data")(data_command)
app.command("train")(train_command)
app.command("evaluate")(evaluate_command)
app.command("predict")(predict_command)
app.command("compare")(compare_command)
app.command("export")(export_command)
app.command("benchmark")(benchmark_command)


def main() -> None:
    """Run the command line."""
    run(app)
