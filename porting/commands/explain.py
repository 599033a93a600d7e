"""`explain`: what guesses rest on, in Keras and in torch side by side."""

import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from keras_alexnet.commands.common import (
    BackendOption,
    ClassesOption,
    PageOption,
    PhotosArgument,
)
from keras_alexnet.commands.options import with_options
from keras_alexnet.core.backend import choose_backend
from keras_alexnet.core.files import check_output
from keras_alexnet.core.tables import Column, Format, Sheet, write_sheet
from keras_alexnet.data.sources.folders import expand
from keras_alexnet.explaining.methods import (
    METHOD_OF,
    OF_SCORES,
    ExplanationDetail,
    chosen_detail,
)
from keras_alexnet.models.record import read_record
from porting.commands.common import AllowPickle, NetworkName, Which, console, progress

_COLUMNS = (
    Column("photo", "photo", text=True),
    Column("label", "class", text=True),
    Column("method", "method", text=True),
    Column("relative", "largest difference", show=lambda gap: f"{gap:.1e}"),
)

# The settings of the methods that are compared.
_DETAIL = [entry for entry in fields(ExplanationDetail) if METHOD_OF[entry.name] in OF_SCORES]
# Every option of `explain` below its heading in `--help`.
PANELS = {
    "Arguments": ("model", "candidate", "photos"),
    "Weights": ("source", "allow_pickle", "which"),
    "Page": ("output", "methods", "classes", "backend"),
    "Grad-CAM": ("layer",),
    "Integrated gradients": ("steps",),
    "Occlusion": ("window", "stride"),
}


def _explain(
    model: NetworkName,
    candidate: Annotated[
        Path, typer.Argument(metavar="MODEL.keras", help="What was converted from it.")
    ],
    photos: PhotosArgument,
    source: Annotated[str, typer.Option(help="Its weights: a file, or its library's name.")],
    output: PageOption,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--method", help=f"{', '.join(OF_SCORES)}; may be repeated.", show_default="all"
        ),
    ] = None,
    classes: ClassesOption = None,
    layer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Keras layer or torch module.",
            show_default="the last with maps",
        ),
    ] = None,
    backend: BackendOption = None,
    allow_pickle: AllowPickle = False,
    which: Which = None,
    *,
    overrides: dict[str, Any],
) -> None:
    """Show what guesses about photos rest on, in Keras and in torch, and how far both differ.

    Near a ReLU's or a pooling's decision float32 rounds to either side, which moves gradients of
    single pixels: `check` has the proof in float64.
    """
    detail = chosen_detail(overrides, methods or OF_SCORES)
    check_output(output)
    read_record(candidate)  # which says what is wrong with a file before Keras is imported
    choose_backend(backend)
    files = expand(photos)

    from porting.checks.explanations import compare_explanations

    with tempfile.TemporaryDirectory(prefix="porting-") as folder, progress() as say:
        found = compare_explanations(
            model,
            candidate,
            files,
            output,
            Path(folder),
            source=source,
            methods=methods or OF_SCORES,
            classes=classes or (),
            layer=layer,
            detail=detail,
            allow_pickle=allow_pickle,
            which=which,
            say=say,
        )
    rows = [(each.photo.name, each.label, each.method, each.relative) for each in found]
    write_sheet(Sheet("of torch's largest number", _COLUMNS, list(rows)), Format.TABLE)
    console.print(f"page: {output.resolve()}", markup=False, soft_wrap=True)


explain_command = with_options(_explain, _DETAIL, get_type_hints(ExplanationDetail), PANELS)
