"""A training run as one self-contained HTML page, made from the files in its folder."""

import contextlib
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.core.pages import data_url, write_page
from keras_alexnet.data.survey.results import class_sheet, notes, part_sheet
from keras_alexnet.errors import ModelFileError
from keras_alexnet.inference.analysis import (
    Calibration,
    ReliabilityBin,
    confused_pairs,
    worst_and_best,
)
from keras_alexnet.inference.views import Views
from keras_alexnet.models.record import read_record, use_of
from keras_alexnet.specs import SPECS
from keras_alexnet.specs.preprocessing import Preprocessing
from keras_alexnet.training.experiment import Experiment
from keras_alexnet.training.presets import PRESETS, Reported
from keras_alexnet.training.runs import plots
from keras_alexnet.training.runs.comparison import compare_runs, duration
from keras_alexnet.training.runs.folder import (
    CONFUSION,
    CURVES,
    EXAMPLES,
    FILTERS,
    RELIABILITY,
)
from keras_alexnet.training.runs.reader import Run, read_run

_PAIRS = 12  # most confused ones
_EXTREMES = 5  # worst classes, and best ones


def write_run_report(folder: str | Path, *, drawn: bool = False) -> Path:
    """Write `report.html` into the folder of a run, completely or not at all; return where it is.

    An unfinished run gets what there is: its settings, and the curves of its finished epochs. Where
    pictures of its results were `drawn` into the folder a moment ago, the page shows those.

    Raises:
        DataError: There is no such folder, it is none of a run, or a file in it is damaged.
        MissingDependencyError: Jinja2 or matplotlib is not installed.
        ConfigurationError: The page cannot be written.
    """
    run = read_run(folder)
    evaluation = run.evaluation or {}
    found = _calibration(evaluation)
    preset = PRESETS.get(str(run.preset))
    said = None if preset is None else preset.reported

    def picture(name: str, draw: Callable[..., plots.Picture], *values: Any) -> str | None:
        return _picture(run, name) if drawn else plots.inline(draw, *values)

    return write_page(
        Path(__file__).with_name("report.html.j2"),
        run.folder / "report.html",
        filters={"duration": duration},
        run=run,
        row=compare_runs([run]).records[0],
        results=_results(run),
        reported=_beside(run, said) if said else [],
        reported_note=said.note if said else "",
        changes=_changes(run, preset.experiment) if preset else [],
        curves=picture(CURVES, plots.learning_curves, run.rows) if run.rows else None,
        mistakes=evaluation.get("mistakes", []),
        pairs=_pairs(evaluation),
        confusion=picture(
            CONFUSION,
            plots.confusion_matrix,
            np.asarray(evaluation["confusion"]),
            evaluation["classes"],
        )
        if evaluation
        else None,
        classes=evaluation.get("classes", []),
        per_class=evaluation.get("per_class", []),
        extremes=_extremes(evaluation),
        calibration=found,
        confidence=_mean_confidence(found),
        reliability=picture(RELIABILITY, plots.reliability_diagram, found) if found else None,
        evaluated=evaluation.get("part"),
        predictions=_picture(run, "predictions.png"),
        data=_data(run),
        examples=_picture(run, EXAMPLES),
        kernels=_picture(run, FILTERS),
        skipped=(run.summary or {}).get("skipped", {}),
        used=_used_in_words(run),
        settings=_settings(run),
        environment=_environment(run.environment),
        commands=_commands(run),
    )


def _results(run: Run) -> list[tuple[Any, ...]]:
    """Return name, views, loss, top-1, top-5 and macro F1 of each part that has results."""
    if run.summary is None:
        best = run.best or {}
        found = {
            "train": (best.get("train_loss"), best.get("train_accuracy"), None, None),
            "val": tuple(best.get(f"val_{k}") for k in ("loss", "accuracy", "top5", "macro_f1")),
        }
    else:
        found = {
            part: (
                numbers.get("loss"),
                numbers.get("top1", numbers.get("accuracy")),
                numbers.get("top5"),
                numbers.get("macro_f1"),
            )
            for part in ("train", "val", "test")
            if (numbers := run.summary.get(part))
        }
    views = {"train": "augmented", **(run.summary or {}).get("views", {})}
    return [
        (part, views.get(part), *numbers)
        for part, numbers in found.items()
        if numbers[0] is not None
    ]


def _beside(run: Run, said: Reported) -> list[tuple[str, float | None, float, str]]:
    """Return the figures that a source reports: name, the run's, the source's, and their format."""
    summary = run.summary or {}
    reached = summary.get("test") or summary.get("val") or {}
    top1, seconds = reached.get("top1"), summary.get("seconds")
    rows = (
        ("loss (nats)", reached.get("loss"), said.loss, "%.4f"),
        ("accuracy (%)", top1 and 100 * top1, said.top1 and 100 * said.top1, "%.2f"),
        ("macro F1", reached.get("macro_f1"), said.macro_f1, "%.4f"),
        ("minutes", seconds and seconds / 60, said.minutes, "%.1f"),
    )
    return [
        (name, found, reported, shown)
        for name, found, reported, shown in rows
        if reported is not None
    ]


# Settings that say where something is or is computed, not what.
_PLACES = {"data_dir", "weights", "backend", "device", "checkpoint_steps", "keep_every", "survey"}


def _changes(run: Run, preset: Experiment) -> list[tuple[str, Any, Any]]:
    """Return the settings that are not the preset's: name, the run's value, the preset's."""
    original = dict(_flat(preset.to_json()))
    return [
        (name, value, original[name])
        for name, value in _flat(run.experiment)
        if name in original and name not in _PLACES and value != original[name]
    ]


def _pairs(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the most confused pairs of classes, by name, with how often it was the other way."""
    if not evaluation:
        return []
    confusion, classes = np.asarray(evaluation["confusion"]), evaluation["classes"]
    return [
        {
            "label": classes[pair.label],
            "prediction": classes[pair.prediction],
            "images": pair.images,
            "share": pair.share,
            "back": int(confusion[pair.prediction, pair.label]),
        }
        for pair in confused_pairs(confusion, _PAIRS)
    ]


def _extremes(evaluation: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """Return the results of the worst and of the best classes."""
    rows = evaluation.get("per_class", [])
    worst, best = worst_and_best([row["accuracy"] for row in rows], _EXTREMES)
    return [rows[i] for i in worst], [rows[i] for i in best]


def _calibration(evaluation: Mapping[str, Any]) -> Calibration | None:
    """Return the calibration of an evaluation; those of earlier times have none."""
    found = evaluation.get("calibration")
    if found is None:
        return None
    return Calibration(found["ece"], tuple(ReliabilityBin(**each) for each in found["bins"]))


def _mean_confidence(found: Calibration | None) -> float | None:
    if found is None:
        return None
    total = sum(each.images * (each.confidence or 0.0) for each in found.bins)
    return total / max(sum(each.images for each in found.bins), 1)


def _data(run: Run) -> dict[str, Any] | None:
    """Return the tables of a run's data, and what was found in them."""
    if run.data is None:
        return None
    return {
        "parts": part_sheet(run.data),
        "classes": class_sheet(run.data),
        "notes": notes(run.data),
        "looked": run.data.looked,
        "command": shlex.join(["keras-alexnet", "data", *_place_of_data(run)[1:]]),
    }


def _place_of_data(run: Run) -> list[str]:
    """Return the options that name the data of a run."""
    options = ["--data", str(run.experiment.get("data"))]
    if run.experiment.get("data_dir"):
        options += ["--data-dir", str(run.experiment["data_dir"])]
    return options


def _picture(run: Run, name: str) -> str | None:
    """Return a picture in a run's folder for a page, where it is there."""
    path = run.folder / name
    return data_url(path.read_bytes(), "png") if path.is_file() else None


# Field of an experiment -> whether it has an effect on a run with these settings.
_APPLIES: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "momentum": lambda s: s.get("optimizer") in ("sgd", "lars"),
    "nesterov": lambda s: s.get("optimizer") in ("sgd", "lars"),
    "decoupled": lambda s: s.get("optimizer") != "adamw" and bool(s.get("weight_decay")),
    "step_epochs": lambda s: s.get("schedule") == "step",
    "gamma": lambda s: s.get("schedule") in ("step", "plateau"),
    "patience": lambda s: s.get("schedule") == "plateau",
    "aux_weight": lambda s: bool(s.get("aux_heads")),
    "unfrozen_learning_rate": lambda s: bool(s.get("freeze_epochs")),
    "scale": lambda s: s.get("crop") == "random-resized",
    "ratio": lambda s: s.get("crop") == "random-resized",
    "padding": lambda s: s.get("crop") == "random",
    "resize": lambda s: s.get("crop") != "random-resized",
}
# What None stands for, where no file of the run says more.
_UNSET = {
    "weights": "none",
    "train_limit": "all",
    "eval_limit": "all",
    "data_dir": "the data's own place",
    "classifier_activation": "none",
    "freeze": "none",
}


def _settings(run: Run) -> dict[str, Any]:
    """Return the fields of an experiment that had an effect, with the values that were used."""
    values = dict(_flat(run.experiment))
    known = {**_UNSET, "backend": (run.summary or {}).get("backend"), **_used(run)}
    if values.get("unfrozen_learning_rate") is None:
        known["unfrozen_learning_rate"] = values.get("learning_rate")
    return {
        name: known.get(name) if value is None else value
        for name, value in values.items()
        if _APPLIES.get(name, lambda _: True)(values)
        and (value is not None or known.get(name) is not None)
    }


def _used(run: Run) -> dict[str, Any]:
    """Return the settings that the model's file, or else its architecture, knows."""
    spec = SPECS.get(str(run.experiment.get("model")))
    found: dict[str, Any] = {} if spec is None else {"dropout_rate": spec.dropout_rate}
    if (used := _preprocessing(run)) is not None:
        found |= {"mean": _listed(used.mean), "std": _listed(used.std)}
        found |= {"eval_resize": used.resize_size}
        found |= {"input_size": " x ".join(map(str, used.crop_size))}
    return found


def _preprocessing(run: Run) -> Preprocessing | None:
    """Return what the run's model does to images; None while it has no file."""
    with contextlib.suppress(ModelFileError):
        return use_of(read_record(run.folder / "best.keras") or {})[0]
    return None


def _listed(numbers: Iterable[float]) -> str:
    return ", ".join(f"{number:.4g}" for number in numbers)


# `normalize` of an experiment -> whose mean and deviation these are.
_WHOSE = {"model": "the model's own", "data": "the training images'", "none": "none: 0..1"}


def _used_in_words(run: Run) -> dict[str, str]:
    """Return in words what was done to images and how the results were computed."""
    experiment, used, words = run.experiment, _preprocessing(run), {}
    if used is not None:
        own = experiment.get("mean") is None
        whose = _WHOSE.get(str(experiment.get("normalize")), "") if own else "as given"
        words["normalisation"] = (
            f"(pixel / {used.scale:g} - mean) / deviation, mean {_listed(used.mean)}, "
            f"deviation {_listed(used.std)} ({whose})"
        )
    rate = experiment.get("dropout_rate")
    if rate is None:
        rate = _used(run).get("dropout_rate")
    if rate is not None:
        words["dropout"] = f"{rate:g} before the classifier" if rate else "none"
    for name, views in (run.summary or {}).get("views", {}).items():
        number = Views(views).number
        words[f"views of a {name} image"] = (
            f"{views}: the mean of {number}" if number > 1 else f"{views}: one"
        )
    return words


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the fields of an experiment, those of its augmentation in their place."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value)
        else:
            yield key, value


def _environment(values: Mapping[str, Any]) -> dict[str, str]:
    """Return versions, hardware and command line as lines of text."""
    lines = {}
    for key, value in values.items():
        if key == "command" and isinstance(value, list):
            lines[key] = shlex.join(map(str, value))
        elif isinstance(value, dict):
            lines[key] = ", ".join(f"{name} {version}" for name, version in value.items())
        elif isinstance(value, list):
            lines[key] = ", ".join(map(str, value)) or "none"
        else:
            lines[key] = str(value)
    return lines


def _commands(run: Run) -> dict[str, str]:
    """Return what one may want to do with the run, as command lines by purpose."""
    folder, experiment = str(run.folder), run.experiment
    commands = {}
    if run.summary is None:
        commands["continue the run"] = shlex.join(["keras-alexnet", "train", "--resume", folder])
    if (run.folder / "best.keras").is_file():
        model = str(run.folder / "best.keras")
        evaluate = ["keras-alexnet", "evaluate", model, *_place_of_data(run)]
        if experiment.get("views", Views.CENTER) != Views.CENTER:
            evaluate += ["--views", experiment["views"]]
        commands["evaluate its best model"] = shlex.join(evaluate)
        commands["classify photos"] = shlex.join(["keras-alexnet", "predict", model, "photo.jpg"])
    return commands
