"""What a training run has left in its folder, read back."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_alexnet.errors import DataError
from keras_alexnet.training.runs.folder import ADDED_METRICS, METRICS, RunFolder


@dataclass(frozen=True)
class Run:
    """A run, finished or not.

    Attributes:
        folder: Where it lies.
        preset: What its experiment began as; None where it was put together by hand.
        experiment: Fields of the experiment.
        environment: Versions and hardware; empty while they are not known.
        rows: Numbers of each finished epoch, None where there is none.
        summary: Final results; None while it is unfinished.
        evaluation: Results by class; None while it is unfinished.
    """

    folder: Path
    preset: str | None
    experiment: Mapping[str, Any]
    environment: Mapping[str, Any]
    rows: tuple[Mapping[str, float | None], ...]
    summary: Mapping[str, Any] | None
    evaluation: Mapping[str, Any] | None

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.folder.resolve().name

    @property
    def best(self) -> Mapping[str, float | None] | None:
        """The epoch of highest validation accuracy, or the last one where there is none."""
        scored = [row for row in self.rows if row["val_accuracy"] is not None]
        if not scored:
            return self.rows[-1] if self.rows else None
        return max(scored, key=lambda row: row["val_accuracy"] or 0.0)


def folders_in(path: str | Path) -> list[Path]:
    """Return the folders of the runs that a folder holds, or itself where it holds none."""
    found = sorted(RunFolder(each).path for each in Path(path).glob("*/") if _is_run(each))
    return found if found and not _is_run(Path(path)) else [Path(path)]


def _is_run(path: Path) -> bool:
    return RunFolder(path).config.is_file()


def read_run(path: str | Path) -> Run:
    """Read the folder of a run.

    Raises:
        DataError: There is no such folder, it is none of a run, or a file in it is damaged.
    """
    folder = RunFolder(Path(path))
    if not folder.path.is_dir():
        what = "a file, not the folder of a run" if folder.path.exists() else "no such folder"
        raise DataError(f"{path}: {what}")
    if not folder.config.is_file():
        raise DataError(f"{path}: not the folder of a run (no {folder.config.name} in it)")
    config = _read_json(folder.config, "experiment")
    return Run(
        folder.path,
        config.get("preset"),
        config["experiment"],
        _read_json(folder.environment) if folder.environment.is_file() else {},
        _read_rows(folder.metrics) if folder.metrics.is_file() else (),
        _read_json(folder.summary) if folder.summary.is_file() else None,
        _read_json(folder.evaluation, "classes", "confusion", "per_class")
        if folder.evaluation.is_file()
        else None,
    )


def _read_json(path: Path, *needed: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: damaged (it holds no object)")
    for key in needed:
        if key not in content:
            raise DataError(f"{path}: damaged (it lacks {key!r})")
    return content


def _read_rows(path: Path) -> tuple[dict[str, float | None], ...]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            return tuple(
                {
                    key: _number(row[key]) if key in row or key not in ADDED_METRICS else None
                    for key in METRICS
                }
                for row in reader
            )
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"{path}: damaged ({error!r})") from error


def _number(text: str) -> float | None:
    return float(text) if text != "" else None
