"""Several runs side by side: the table of a lab report."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_alexnet.core.tables import Column, Sheet, decimals, percent
from keras_alexnet.data.augmentation.record import Augmentation
from keras_alexnet.errors import ConfigurationError, DataError, counted
from keras_alexnet.training.presets import PRESETS
from keras_alexnet.training.runs.reader import Run, folders_in, read_run


def duration(seconds: float) -> str:
    """Return a time as 1:02:03, or 2:03 below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


# Those whose largest value is the best one have `descending`.
_COLUMNS = (
    Column("run", "run", text=True),
    Column("model", "model", text=True),
    Column("data", "data", text=True),
    Column("test_accuracy", "test %", show=percent, descending=True),
    Column("test_top5", "top-5 %", show=percent, descending=True),
    Column("test_macro_f1", "macro F1", show=decimals, descending=True),
    Column("test_loss", "test loss", show=decimals),
    Column("reported", "reported", text=True, wraps=True),
    Column("val_accuracy", "val %", show=percent, descending=True),
    Column("val_loss", "val loss", show=decimals),
    Column("train_accuracy", "train %", show=percent, descending=True),
    Column("train_loss", "train loss", show=decimals),
    Column("parameters", "parameters"),
    Column("epochs", "epochs"),
    Column("best_epoch", "best epoch"),
    Column("seconds", "training", show=duration),
    Column("test_seconds", "testing", show=duration),
    Column("optimizer", "optimiser", text=True),
    Column("learning_rate", "rate", show=lambda rate: f"{rate:g}"),
    Column("batch_size", "batch"),
    Column("augmentation", "augmentation", text=True, wraps=True),
    Column("backend", "backend", text=True),
    Column("device", "device", text=True, wraps=True),
    Column("note", "note", text=True, wraps=True, missing=""),
)
COLUMNS = tuple(column.key for column in _COLUMNS)


def read_runs(paths: Sequence[str | Path]) -> list[Run]:
    """Read the folders of several runs, or a folder that holds some, in the order of their names.

    Raises:
        DataError: Some are missing or damaged; the message names all of these.
    """
    runs, problems = [], []
    for folder in (each for path in paths for each in folders_in(path)):
        try:
            runs.append(read_run(folder))
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


def compare_runs(
    runs: Sequence[Run], columns: Sequence[str] = COLUMNS, *, sort: str | None = None
) -> Sheet:
    """Return a row for each run: losses in nats, accuracies in [0, 1], time in seconds.

    Train and validation are those of the best epoch. An unfinished run has what its finished
    epochs gave, and a note.

    Args:
        runs: What to compare.
        columns: Which of `COLUMNS` to show, in this order, behind the run's name.
        sort: The one by which rows are sorted, the best first; as `runs` are by default. Runs that
            lack it come last.

    Raises:
        ConfigurationError: There is no such column.
    """
    known = {column.key: column for column in _COLUMNS}
    if unknown := [key for key in (*columns, *filter(None, [sort])) if key not in known]:
        raise ConfigurationError(f"no column {unknown[0]!r}; there are {', '.join(known)}")
    rows = [
        _settings(run)
        | (_finished(run.summary) if run.summary is not None else _unfinished(run))
        | {"run": name}
        for name, run in zip(run_names(runs), runs, strict=True)
    ]
    if sort is not None:
        having = [row for row in rows if row.get(sort) is not None]
        having.sort(key=lambda row: row[sort], reverse=known[sort].descending)
        rows = having + [row for row in rows if row.get(sort) is None]
    shown = [known[key] for key in dict.fromkeys(("run", *columns))]
    return Sheet("runs", tuple(shown), [tuple(row.get(c.key) for c in shown) for row in rows])


def _settings(run: Run) -> dict[str, Any]:
    """Return what was decided before a run began."""
    settings = run.experiment
    preset = PRESETS.get(run.preset or "")
    gpus = run.environment.get("gpus") or ()
    device = ", ".join(gpus) if settings.get("device") != "cpu" else ""
    return {
        **{key: settings.get(key) for key in ("optimizer", "learning_rate", "batch_size")},
        "augmentation": _in_words(settings.get("augmentation") or {}),
        "backend": run.environment.get("backend"),
        "device": device or run.environment.get("cpu"),
        "reported": str(preset.reported) if preset is not None and preset.reported else None,
    }


def _in_words(augmentation: Mapping[str, Any]) -> str:
    """Return an augmentation as a run's `config.json` has it in a few words."""
    with contextlib.suppress(TypeError, ConfigurationError):  # of another version
        return Augmentation(**augmentation).in_words()
    return "unknown"


def _finished(summary: Mapping[str, Any]) -> dict[str, Any]:
    train, val, test = (summary.get(part) or {} for part in ("train", "val", "test"))
    skipped = len(summary.get("skipped") or ())
    return {
        # model, data, parameters, seconds, test_seconds, epochs, best_epoch, backend
        **summary,
        "train_loss": train.get("loss"),
        "train_accuracy": train.get("accuracy"),
        "val_loss": val.get("loss"),
        "val_accuracy": val.get("top1"),
        "test_loss": test.get("loss"),
        "test_accuracy": test.get("top1"),
        "test_top5": test.get("top5"),
        "test_macro_f1": test.get("macro_f1"),
        "note": f"{counted(skipped, 'image')} skipped" if skipped else None,
    }


def _unfinished(run: Run) -> dict[str, Any]:
    planned, best = int(run.experiment.get("epochs") or 0), run.best or {}
    epoch = best.get("epoch")
    return {
        **best,  # losses and accuracies
        "model": run.experiment.get("model"),
        "data": run.experiment.get("data"),
        "seconds": sum(row["seconds"] or 0.0 for row in run.rows) or None,
        "epochs": len(run.rows),
        "best_epoch": None if epoch is None else int(epoch),
        "note": f"unfinished: {len(run.rows)} of {counted(planned, 'epoch')}",
    }
