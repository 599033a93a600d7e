"""`explain`: what a model's guesses about photos rest on, as a page of pictures."""

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from keras_alexnet.commands.common import BackendOption, ClassesOption, PageOption, PhotosArgument
from keras_alexnet.commands.options import with_options
from keras_alexnet.core.backend import choose_backend, require
from keras_alexnet.core.files import check_output
from keras_alexnet.core.progress import progress
from keras_alexnet.data.sources.folders import expand
from keras_alexnet.errors import counted
from keras_alexnet.explaining.methods import (
    METHODS,
    ExplanationDetail,
    chosen_detail,
    chosen_methods,
)
from keras_alexnet.models.record import read_record

# Every option of `explain` below its heading in `--help`.
PANELS = {
    "Arguments": ("model", "photos"),
    "Page": ("output", "methods", "classes", "backend"),
    "Grad-CAM and maps": ("layer",),
    "Integrated gradients": ("steps",),
    "Occlusion": ("window", "stride"),
    "Nearest photos": ("among", "neighbours"),
}


def _explain(
    model: Annotated[Path, typer.Argument(metavar="MODEL.keras", help="File of the model.")],
    photos: PhotosArgument,
    output: PageOption,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            help="What to show; may be repeated. "
            + "; ".join(f"{name}: {shows}" for name, shows in METHODS.items())
            + ".",
            show_default="all, neighbours with --among",
        ),
    ] = None,
    classes: ClassesOption = None,
    layer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Layer of both.",
            show_default="the last with maps; the first convolution",
        ),
    ] = None,
    among: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PHOTO|DIR",
            help="Photos to search for neighbours; may be repeated.",
            show_default=False,
        ),
    ] = None,
    backend: BackendOption = None,
    *,
    overrides: dict[str, Any],
) -> None:
    """Show what a model's guesses about photos rest on, as a page of pictures."""
    # Whatever can be wrong is found before a framework is imported, which takes seconds.
    wanted = chosen_methods(methods or (), among=bool(among))
    detail = chosen_detail(overrides, wanted)
    read_record(model)
    check_output(output)
    for package in ("jinja2", "matplotlib"):
        require(package)
    choose_backend(backend)
    files, others = expand(photos), expand(among or ())

    from keras_alexnet.explaining.explainer import Explainer
    from keras_alexnet.explaining.page import write_explanation

    explainer = Explainer.from_file(model)
    with progress("explain", len(files)) as advance_to:
        page = write_explanation(
            explainer,
            files,
            output,
            methods=wanted,
            classes=classes or (),
            layer=layer,
            among=others,
            detail=detail,
            on_photo=advance_to,
        )
    print(f"{counted(len(files), 'photo')} explained: {page}")


explain_command = with_options(
    _explain, fields(ExplanationDetail), get_type_hints(ExplanationDetail), PANELS
)
