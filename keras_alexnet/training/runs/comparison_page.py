"""Several runs as one self-contained HTML page: the table of a report, and their curves."""

import os
from collections.abc import Sequence
from pathlib import Path

from keras_alexnet.core.pages import write_page
from keras_alexnet.errors import counted
from keras_alexnet.training.runs import plots
from keras_alexnet.training.runs.comparison import COLUMNS, compare_runs, run_names
from keras_alexnet.training.runs.reader import Run


def write_comparison(
    runs: Sequence[Run],
    output: str | Path,
    columns: Sequence[str] = COLUMNS,
    *,
    sort: str | None = None,
) -> Path:
    """Write a page of what `compare_runs` makes of runs, completely or not at all; return its path.

    Each run is a link to its own report, by a relative path, where it has one.

    Raises:
        ConfigurationError: There is no such column, or the page cannot be written.
        MissingDependencyError: Jinja2 or matplotlib is not installed.
    """
    sheet, every = compare_runs(runs, columns, sort=sort), compare_runs(runs, sort=sort).records
    folders = dict(zip(run_names(runs), runs, strict=True))
    found = [folders[row["run"]] for row in every]
    links = []
    for run in found:
        report = run.folder / "report.html"
        relative = os.path.relpath(report.resolve(), Path(output).resolve().parent)
        links.append(Path(relative).as_posix() if report.is_file() else None)
    cells = [list(zip(sheet.columns, row, strict=True)) for row in sheet.cells]
    names = [row["run"] for row in every]
    return write_page(
        Path(__file__).with_name("comparison.html.j2"),
        output,
        count=counted(len(runs), "run"),
        columns=sheet.columns,
        rows=list(zip(cells, links, strict=True)),
        curves=plots.inline(plots.compare_curves, names, [run.rows for run in found], every),
    )
