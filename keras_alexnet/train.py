"""`python -m keras_alexnet.train`, which is `keras-alexnet train`: one experiment, one command."""

import typer

from keras_alexnet.commands.main import run
from keras_alexnet.commands.train import train_command

if __name__ == "__main__":
    alone = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    alone.command("train")(train_command)
    run(alone)
