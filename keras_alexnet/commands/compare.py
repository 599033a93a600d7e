"""`compare`: several runs side by side."""

from pathlib import Path
from typing import Annotated

import typer

from keras_alexnet.commands.common import FormatOption, show
from keras_alexnet.core.figures import check_picture
from keras_alexnet.core.files import check_output
from keras_alexnet.core.tables import Format
from keras_alexnet.training.runs import plots
from keras_alexnet.training.runs.comparison import COLUMNS, compare_runs, read_runs
from keras_alexnet.training.runs.comparison_page import write_comparison


def compare_command(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders of runs, or a folder that holds them."),
    ],
    columns: Annotated[
        str | None,
        typer.Option(
            help=f"Columns, with commas: {', '.join(COLUMNS)}.", show_default="all", metavar="KEYS"
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(help="Column to sort by, the best first.", show_default="as named"),
    ] = None,
    format_: FormatOption = Format.TABLE,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw curves and accuracies too, into a .png, .svg or .pdf file.",
            show_default=False,
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--html", help="Write a page with the table and the curves.", show_default=False
        ),
    ] = None,
) -> None:
    """Compare runs: scores, settings, devices and time."""
    for path, check in ((plot, check_picture), (page, check_output)):
        if path is not None:
            check(path)
    found = read_runs(runs)
    chosen = COLUMNS if columns is None else [key.strip() for key in columns.split(",")]
    sheet = compare_runs(found, chosen, sort=sort)
    if plot is not None:
        every = compare_runs(found).records
        names = [record["run"] for record in every]
        plots.compare_curves(names, [run.rows for run in found], every, plot)
    if page is not None:
        write_comparison(found, page, chosen, sort=sort)
    show(sheet, format_)
