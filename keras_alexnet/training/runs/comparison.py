"""Several runs side by side: the table of a lab report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_alexnet.core.tables import Column, Sheet, decimals, percent
from keras_alexnet.errors import DataError, counted
from keras_alexnet.training.runs.reader import Run, read_run


def duration(seconds: float) -> str:
    """Return a time as 1:02:03, or 2:03 below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


_COLUMNS = (
    Column("run", "run", text=True),
    Column("model", "model", text=True),
    Column("data", "data", text=True),
    Column("train_loss", "train loss", show=decimals),
    Column("train_accuracy", "train %", show=percent),
    Column("val_loss", "val loss", show=decimals),
    Column("val_accuracy", "val %", show=percent),
    Column("test_loss", "test loss", show=decimals),
    Column("test_accuracy", "test %", show=percent),
    Column("parameters", "parameters"),
    Column("seconds", "time", show=duration),
    Column("epochs", "epochs"),
    Column("best_epoch", "best epoch"),
    Column("note", "note", text=True, missing=""),
)


def read_runs(paths: Sequence[str | Path]) -> list[Run]:
    """Read the folders of several runs.

    Raises:
        DataError: Some are missing or damaged; the message names all of these.
    """
    runs, problems = [], []
    for path in paths:
        try:
            runs.append(read_run(path))
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError("; ".join(problems))
    return runs


def run_names(runs: Sequence[Run]) -> list[str]:
    """Return what to call each run: its folder's name, or its path where names repeat."""
    names = [run.name for run in runs]
    return [
        name if names.count(name) == 1 else str(run.folder)
        for name, run in zip(names, runs, strict=True)
    ]


def compare(runs: Sequence[Run]) -> Sheet:
    """Return a row for each run: losses in nats, accuracies in [0, 1], time in seconds.

    Train and validation are those of the best epoch. An unfinished run has what its finished
    epochs gave, and a note.
    """
    rows = [
        _finished(name, run.summary) if run.summary is not None else _unfinished(name, run)
        for name, run in zip(run_names(runs), runs, strict=True)
    ]
    return Sheet("runs", _COLUMNS, [tuple(row.get(c.key) for c in _COLUMNS) for row in rows])


def _finished(name: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    train, val, test = (summary.get(part) or {} for part in ("train", "val", "test"))
    skipped = len(summary.get("skipped") or ())
    return {
        **summary,  # model, data, parameters, seconds, epochs, best_epoch
        "run": name,
        "train_loss": train.get("loss"),
        "train_accuracy": train.get("accuracy"),
        "val_loss": val.get("loss"),
        "val_accuracy": val.get("top1"),
        "test_loss": test.get("loss"),
        "test_accuracy": test.get("top1"),
        "note": f"{counted(skipped, 'image')} skipped" if skipped else None,
    }


def _unfinished(name: str, run: Run) -> dict[str, Any]:
    planned, best = int(run.experiment.get("epochs") or 0), run.best or {}
    epoch = best.get("epoch")
    return {
        **best,  # losses and accuracies
        "run": name,
        "model": run.experiment.get("model"),
        "data": run.experiment.get("data"),
        "seconds": sum(row["seconds"] or 0.0 for row in run.rows) or None,
        "epochs": len(run.rows),
        "best_epoch": None if epoch is None else int(epoch),
        "note": f"unfinished: {len(run.rows)} of {counted(planned, 'epoch')}",
    }
