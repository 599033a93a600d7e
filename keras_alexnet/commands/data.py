"""`data`: what a data set holds, before anything is trained on it."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from keras_alexnet.commands.common import DataArgument, DataDirOption, FormatOption, show
from keras_alexnet.core.backend import keras_home
from keras_alexnet.core.figures import check_picture
from keras_alexnet.core.files import check_output, write_json
from keras_alexnet.core.progress import progress
from keras_alexnet.core.tables import Format
from keras_alexnet.data.choosing import EXAMPLES, choose_examples
from keras_alexnet.data.examples import DataSet
from keras_alexnet.data.sources.registry import find_data
from keras_alexnet.data.survey.results import class_sheet, notes, part_sheet, to_json
from keras_alexnet.data.survey.survey import survey_data
from keras_alexnet.training.experiment import Experiment
from keras_alexnet.training.presets import find_preset
from keras_alexnet.training.runs.plots import example_grid

# Classes that a person reads one by one.
_LISTED = 40


def data_command(
    data: DataArgument,
    data_dir: DataDirOption = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Draw what the network of this experiment sees, after its augmentation, below the "
            "images; see `train --list-presets`."
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw images with their classes, into a .png, .svg or .pdf file."),
    ] = None,
    format_: FormatOption = Format.TABLE,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything into this file too.")
    ] = None,
) -> None:
    """Look at data: classes, sizes, colours, what cannot be read, and what lies in two parts."""
    experiment = None
    if preset is not None:
        experiment = replace(find_preset(preset).experiment, data=data, data_dir=data_dir)
    for path, check in ((plot, check_picture), (json_file, check_output)):
        if path is not None:
            check(path)
    found = find_data(data, data_dir)
    with progress("images", sum(map(len, found.parts().values()))) as advance:
        survey = survey_data(found, advance)
    content = to_json(survey)
    if json_file is not None:
        write_json(json_file, content)
    if plot is not None:
        _draw(found, experiment, plot)
    classes, said = class_sheet(survey), notes(survey)
    if format_ in (Format.CSV, Format.JSON):
        show(classes, format_, content=content)
        return
    if len(survey.classes) > _LISTED:
        said.append(f"{len(survey.classes)} classes; --format csv lists them")
    else:
        show(classes, format_)
    show(part_sheet(survey), format_, said)


def _draw(data: DataSet, experiment: Experiment | None, plot: Path) -> None:
    """Draw some images, and below them what the network of an experiment sees."""
    if experiment is None:
        examples = next(iter(data.parts().values()))  # training, where there is
        chosen, originals = choose_examples(examples, EXAMPLES)
        example_grid(originals, [data.classes[label] for label in examples.labels[chosen]], plot)
        return
    # Keras
    from keras_alexnet.training.preparation import prepare
    from keras_alexnet.training.preview import preview

    shown = preview(experiment, prepare(experiment, keras_home() / "keras_alexnet"))
    example_grid(shown.originals, shown.names, plot, seen=shown.seen)
