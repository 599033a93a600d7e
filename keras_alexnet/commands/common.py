"""What several commands share: options, and how they show results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from keras_alexnet.core.backend import BACKENDS
from keras_alexnet.core.tables import Format, Sheet, print_json, write_sheet
from keras_alexnet.data.sources.registry import SOURCES
from keras_alexnet.inference.views import Views

SizeOption = Annotated[
    str | None, typer.Option(help="N or HEIGHTxWIDTH, in pixels.", show_default="the model's")
]
FormatOption = Annotated[Format, typer.Option("--format", help="How to write the table.")]
BackendOption = Annotated[
    str | None,
    typer.Option(
        "--backend",
        help=f"Keras backend: {', '.join(BACKENDS)}.",
        show_default="the configured one",
    ),
]
BatchSizeOption = Annotated[
    int, typer.Option("--batch-size", min=1, help="Images that the model computes at a time.")
]
ResizeSizeOption = Annotated[
    int | None,
    typer.Option(
        "--resize-size",
        min=1,
        help="Short side of images before the centre crop, in pixels.",
        show_default="the model's",
    ),
]
ViewsOption = Annotated[
    Views,
    typer.Option(
        "--views",
        help="Views of an image whose probabilities are averaged: its centre; the centre and its "
        "mirror image; four corners, the centre, and the mirror images of all five.",
    ),
]


DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help=f"A kind of data set ({', '.join(SOURCES)}), a folder of class folders, or a CSV "
        "file.",
    ),
]
DataDirOption = Annotated[
    Path | None, typer.Option(help="Where data of a kind lie; downloaded where they can be.")
]
PhotosArgument = Annotated[
    list[Path], typer.Argument(metavar="PHOTO|DIR...", help="Image files, or folders of them.")
]
# Of `explain`, here and in the kit.
PageOption = Annotated[Path, typer.Option("--output", help="The page to write, an HTML file.")]
ClassesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--class",
        metavar="NAME",
        help="Name or index of a class to explain; may be repeated.",
        show_default="the most probable one",
    ),
]


def show(sheet: Sheet, format_: Format, notes: Sequence[str] = (), *, content: Any = None) -> None:
    """Print a sheet and notes; as JSON `content` instead, the sheet's rows where that is None."""
    if format_ is Format.JSON:
        print_json(sheet.records if content is None else content)
    else:
        write_sheet(sheet, format_, notes)
