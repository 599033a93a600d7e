"""What the commands share: arguments, the console, the line of progress."""

import contextlib
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from keras_alexnet.core.tables import terminal
from keras_alexnet.specs import SPECS
from porting.conversion.sources import ALLOW_PICKLE, TRANSFORM_INPUT, WHICH

console = terminal()

Name = Annotated[str, typer.Argument(metavar="MODEL", help=f"One of: {', '.join(SPECS)}.")]
NetworkName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help=f"One of: {', '.join(SPECS)}; or any torch network of images: torchvision:NAME, "
        "timm:NAME (also timm:local-dir:FOLDER, timm:hf-hub:USER/NAME, and timm:features:NAME for "
        "its maps), or FILE.py:FUNCTION, your own code, which is run and returns a "
        "torch.nn.Module.",
    ),
]
TransformInput = Annotated[
    bool | None, typer.Option("--transform-input/--no-transform-input", help=TRANSFORM_INPUT)
]
AllowPickle = Annotated[bool, typer.Option("--allow-pickle", help=ALLOW_PICKLE)]
Which = Annotated[str | None, typer.Option(help=WHICH)]


@contextlib.contextmanager
def progress() -> Iterator[Any]:
    """Show the current step on a terminal, and nothing elsewhere."""
    with console.status("") as status:
        yield lambda step: status.update(f"{step} …")
