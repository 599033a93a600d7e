"""`predict`: the most probable classes of photos."""

import csv
import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_alexnet.commands.common import (
    BackendOption,
    BatchSizeOption,
    ResizeSizeOption,
    ViewsOption,
)
from keras_alexnet.core.backend import choose_backend
from keras_alexnet.core.files import readable
from keras_alexnet.core.places import path_of
from keras_alexnet.core.progress import progress
from keras_alexnet.data.examples import Stored, unlabelled
from keras_alexnet.data.packed.examples import Packed, all_packed, is_packed
from keras_alexnet.data.sources.folders import expand
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.inference.ray_job import PredictionJob, run_job
from keras_alexnet.inference.views import Views
from keras_alexnet.models.record import read_record

if TYPE_CHECKING:
    from keras_alexnet.inference.guesses import Answer


class PredictionFormat(StrEnum):
    """How predictions are written: as they come, in the order of the files."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def predict_command(
    model: Annotated[Path, typer.Argument(metavar="MODEL.keras", help="File of the model.")],
    photos: Annotated[
        list[str],
        typer.Argument(
            metavar="PHOTO|DIR...",
            help="Image files or folders of them, or packed data; paths, or URLs such as gs://...",
        ),
    ],
    top: Annotated[int, typer.Option(min=1, help="Number of classes to name.")] = 5,
    recursive: Annotated[bool, typer.Option(help="Look into the folders' folders too.")] = True,
    views: ViewsOption = Views.CENTER,
    resize_size: ResizeSizeOption = None,
    batch_size: BatchSizeOption = 64,
    backend: BackendOption = None,
    format_: Annotated[
        PredictionFormat, typer.Option("--format", help="How to write the predictions.")
    ] = PredictionFormat.TABLE,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for Parquet files instead; Ray computes them in any order."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With --output: processes that compute.",
            show_default="one on each GPU, or on each four cores",
        ),
    ] = None,
) -> None:
    """Name the most probable classes of photos.

    A file that cannot be read is reported in its place; the exit code is then 1. With --output the
    same command, given again, goes on where it was stopped.
    """
    if output is None and workers is not None:
        raise ConfigurationError("--workers is for large jobs: give --output, a folder, too")
    # Whatever can be wrong is found before a framework is imported, which takes seconds.
    read_record(model)
    choose_backend(backend)
    packed = _packed(photos)
    images = (
        unlabelled(expand(map(path_of, photos), recursive=recursive)) if packed is None else packed
    )
    if output is not None:
        job = PredictionJob(
            model,
            output,
            top,
            views,
            resize_size,
            batch_size,
            backend,
            workers,
            packed=None if packed is None else photos[0],
        )
        _predict_all(job, images)
        return

    from keras_alexnet.inference.guesses import predictions
    from keras_alexnet.inference.predictor import Predictor

    predictor = Predictor.from_file(
        model, batch_size=batch_size, views=views, resize_size=resize_size
    )
    failures = 0
    # Beside rows on the same terminal a bar would only be in the way.
    with progress("predict", len(images), shown=not sys.stdout.isatty()) as advance_to:
        write = _Writer(format_)
        for number, answer in enumerate(predictions(predictor, images, top=top), 1):
            write(answer)
            failures += answer.error is not None
            advance_to(number)
        write.end()
    _report(failures, len(images))


def _packed(places: Sequence[str]) -> Packed | None:
    """Return the images of packed data, where these are the only place."""
    found = [place for place in places if is_packed(path_of(place))]
    if found and len(places) > 1:
        raise ConfigurationError(f"{found[0]} are packed data: name them alone")
    return all_packed(found[0]) if found else None


def _predict_all(job: PredictionJob, images: Stored) -> None:
    """Predict what a job has not predicted yet."""
    done = job.parts().done()
    names = {str(images.place(index)): index for index in range(len(images))}
    left = [name for name in names if readable(name) not in done]
    if done:
        print(f"{len(images) - len(left):,} of {len(images):,} images are done already")
    if not left:
        return
    with progress("predict", len(left)) as advance_to:
        chosen = [name if job.packed is None else names[name] for name in left]
        outcome = run_job(job, chosen, on_part=advance_to, say=_warn)
    print(f"{outcome.predicted:,} images predicted: {job.output}")
    _report(outcome.failed, len(left))


def _report(failures: int, number: int) -> None:
    if failures:
        _warn(f"{failures} of {number} images could not be read")
        raise typer.Exit(1)


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


class _Writer:
    """Prints answers one by one."""

    def __init__(self, format_: PredictionFormat) -> None:
        self._format, self._count = format_, 0
        self._csv = csv.writer(sys.stdout, lineterminator="\n")
        if format_ is PredictionFormat.CSV:
            self._csv.writerow(("file", "rank", "class", "name", "probability", "error"))

    def __call__(self, answer: "Answer") -> None:
        if self._format is PredictionFormat.CSV:
            for rank, guess in enumerate(answer.guesses, 1):
                self._csv.writerow((answer.file, rank, *guess, ""))
            if answer.error is not None:
                self._csv.writerow((answer.file, "", "", "", "", answer.error))
        elif self._format is PredictionFormat.JSON:
            content: dict[str, object] = {"file": str(answer.file)}
            if answer.error is None:
                content["predictions"] = [
                    {"class": g.label, "name": g.name, "probability": g.probability}
                    for g in answer.guesses
                ]
            else:
                content["error"] = answer.error
            print("," if self._count else "[", json.dumps(content), sep="\n", end="")
        else:
            print(answer.file if answer.error is None else f"{answer.file}: {answer.error}")
            for guess in answer.guesses:
                print(f"  {100 * guess.probability:6.2f} %  {guess.name}")
        self._count += 1

    def end(self) -> None:
        """Print what ends the whole."""
        if self._format is PredictionFormat.JSON:
            print("\n]")
