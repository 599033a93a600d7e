"""`evaluate`: how well a model file does on labelled images."""

import sys
from enum import StrEnum
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_alexnet.commands.common import (
    BackendOption,
    BatchSizeOption,
    FormatOption,
    ResizeSizeOption,
    ViewsOption,
    show,
)
from keras_alexnet.core.backend import choose_backend
from keras_alexnet.core.figures import check_picture
from keras_alexnet.core.files import check_output, write_json
from keras_alexnet.core.progress import progress
from keras_alexnet.core.tables import Column, Format, Sheet, decimals, percent
from keras_alexnet.data.classes import mapped
from keras_alexnet.data.examples import left_out_note
from keras_alexnet.data.sources.registry import SOURCES, find_data
from keras_alexnet.errors import DataError
from keras_alexnet.inference.views import Views
from keras_alexnet.models.record import read_record
from keras_alexnet.training.runs.plots import confusion_matrix

if TYPE_CHECKING:
    from keras_alexnet.inference.evaluation import Evaluation

_SHOWN = 10  # skipped files that a table names


class Part(StrEnum):
    """Parts of a data set, in the order of preference."""

    TEST = "test"
    VAL = "val"
    TRAIN = "train"


_COLUMNS = (
    Column("name", "class", text=True),
    Column("images", "images"),
    Column("loss", "loss", show=decimals),
    Column("accuracy", "accuracy %", show=percent),
    Column("top5", "top-5 %", show=percent),
    Column("precision", "precision", show=decimals),
    Column("f1", "F1", show=decimals),
)


def evaluate_command(
    model: Annotated[Path, typer.Argument(metavar="MODEL.keras", help="File of the model.")],
    data: Annotated[
        str,
        typer.Option(
            help=f"Kind of data ({', '.join(SOURCES)}), or a folder of class folders, or a .csv."
        ),
    ],
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Where data of that kind lie.", show_default="the kind's own place"),
    ] = None,
    part: Annotated[
        Part | None,
        typer.Option(help="Part of the data.", show_default="test, else val, else train"),
    ] = None,
    class_map: Annotated[
        Path | None,
        typer.Option(
            help="CSV file that says which class of the data is which of the model: two names in "
            "a line.",
            show_default=False,
        ),
    ] = None,
    views: ViewsOption = Views.CENTER,
    resize_size: ResizeSizeOption = None,
    batch_size: BatchSizeOption = 64,
    backend: BackendOption = None,
    format_: FormatOption = Format.TABLE,
    output: Annotated[
        Path | None,
        typer.Option(help="Write everything into this JSON file too.", show_default=False),
    ] = None,
    confusion: Annotated[
        Path | None,
        typer.Option(
            help="Draw the confusion matrix into a .png, .svg or .pdf file.", show_default=False
        ),
    ] = None,
) -> None:
    """Measure loss, top-1, top-5 and F1 of a model on labelled images, in all and by class."""
    # Whatever can be wrong is found before a framework is imported, which takes seconds.
    if output is not None:
        check_output(output)
    if confusion is not None:
        check_picture(confusion)
    read_record(model)
    choose_backend(backend)
    found = find_data(data, data_dir)
    classes = found.classes if class_map is None else mapped(found.classes, class_map)
    parts = found.parts()
    chosen = part or next(name for name in Part if name in parts)
    if chosen not in parts:
        raise DataError(f"{found.name} has no {chosen} part; it has {', '.join(parts)}")

    from keras_alexnet.inference.evaluation import evaluate
    from keras_alexnet.inference.predictor import Predictor

    predictor = Predictor.from_file(
        model, batch_size=batch_size, views=views, resize_size=resize_size
    )
    with progress("evaluate", len(parts[chosen])) as advance_to:
        result = evaluate(predictor, parts[chosen], classes, on_batch=advance_to)
    content = {"model": str(model), "data": found.name, "part": chosen.value, "views": views.value}
    content |= result.to_json()
    if output is not None:
        write_json(output, content)
    if confusion is not None:
        confusion_matrix(result.confusion, result.classes, confusion)
    if found.left_out:
        print(f"warning: {left_out_note(found.left_out)}", file=sys.stderr)
    if result.skipped:
        print(
            f"warning: {len(result.skipped)} of {len(parts[chosen])} images could not be read and "
            "were left out",
            file=sys.stderr,
        )
    title = f"{model.name} on the {chosen} part of {found.name}, views: {views}"
    show(_sheet(title, result), format_, _notes(result), content=content)


def _sheet(title: str, result: "Evaluation") -> Sheet:
    """Return a row for each class that occurs, and one for all images."""
    get = attrgetter(*(column.key for column in _COLUMNS))
    total = ("all", len(result.labels), result.loss, result.top1, result.top5, None)
    return Sheet(
        title,
        _COLUMNS,
        [*(get(c) for c in result.per_class if c.f1 is not None), (*total, result.macro_f1)],
        has_total=True,
    )


def _notes(result: "Evaluation") -> list[str]:
    notes = [
        "loss: mean cross entropy in nats; accuracy of a class: its recall; F1 of all: mean over "
        "the classes",
        f"expected calibration error {result.calibration.ece:.4f}: how far confidence and accuracy "
        "are apart, in the mean",
    ]
    notes += [f"left out {path}: {why}" for path, why in list(result.skipped.items())[:_SHOWN]]
    if (more := len(result.skipped) - _SHOWN) > 0:
        notes.append(f"and {more} more; --format json and --output name all of them")
    return notes
