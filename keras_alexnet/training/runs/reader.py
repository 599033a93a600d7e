"""What a training run has left in its folder, read back."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from keras_alexnet.data.survey.results import DataSurvey, from_json
from keras_alexnet.errors import DataError
from keras_alexnet.inference.analysis import Calibration, ClassResult, Mistake, ReliabilityBin
from keras_alexnet.training.runs.folder import ADDED_METRICS, METRICS, RunFolder

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """A run, finished or not.

    Attributes:
        folder: Where it lies.
        preset: What its experiment began as; None where it was put together by hand.
        experiment: Fields of the experiment.
        environment: Versions and hardware; empty while they are not known.
        data: What its parts hold, or their counts alone; None for runs of earlier times.
        rows: Numbers of each finished epoch, None where there is none.
        summary: Final results; None while it is unfinished.
        evaluation: Results by class; None while it is unfinished.
    """

    folder: Path
    preset: str | None
    experiment: Mapping[str, Any]
    environment: Mapping[str, Any]
    data: DataSurvey | None
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
        _read_data(folder.data) if folder.data.is_file() else None,
        _read_rows(folder.metrics) if folder.metrics.is_file() else (),
        _read_json(folder.summary) if folder.summary.is_file() else None,
        _read_evaluation(folder.evaluation) if folder.evaluation.is_file() else None,
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


def _read_data(path: Path) -> DataSurvey:
    content = _read_json(path)
    try:
        return from_json(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path}: damaged ({error!r}); move it away for a report without the data"
        ) from error


# What runs of earlier versions lack, and a report can do without.
_ADDED_RESULTS = ("calibration", "mistakes")


def _read_evaluation(path: Path) -> dict[str, Any]:
    content = _read_json(path, "classes", "confusion", "per_class")
    classes = content["classes"]
    part = "classes"
    try:
        for name in classes:
            _check(isinstance(name, str), f"{name!r} is no name")
        part = "confusion"
        confusion = np.asarray(content[part])
        _check(
            confusion.shape == (len(classes),) * 2 and confusion.dtype.kind in "iu",
            f"it is no table of {len(classes)} x {len(classes)} whole numbers",
        )
        part = "per_class"
        for row in content[part]:
            _record(ClassResult, row)
        part = "calibration"
        if (found := content.get(part)) is not None:
            _record(Calibration, {**found, "bins": tuple(found["bins"])})
            for each in found["bins"]:
                _record(ReliabilityBin, each)
        part = "mistakes"
        for row in content.get(part, []):
            mistake = _record(Mistake, row)
            _check(
                {mistake.label, mistake.prediction} <= set(range(len(classes))),
                f"class {max(mistake.label, mistake.prediction)} of {len(classes)}",
            )
            _check(isinstance(row.get("picture", ""), str), "a picture is no text")
    except (KeyError, TypeError, ValueError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        way = f"; take {part!r} out for a report without it" if part in _ADDED_RESULTS else ""
        raise DataError(f"{path}: damaged (of {part!r}: {reason}){way}") from error
    return content


def _check(right: bool, problem: str) -> None:
    if not right:
        raise ValueError(problem)


def _record(kind: type[T], values: Mapping[str, Any]) -> T:
    """Return the record whose fields were read from JSON.

    Raises:
        KeyError, TypeError, ValueError: One is missing, or none of its kind.
    """
    for name, hint in get_type_hints(kind).items():
        kinds = get_args(hint) if isinstance(hint, UnionType) else (get_origin(hint) or hint,)
        kinds = (*kinds, int) if float in kinds else kinds
        _check(isinstance(values[name], kinds), f"{name} is {values[name]!r}")
    return kind(**{name: values[name] for name in get_type_hints(kind)})


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
