"""A training run as one self-contained HTML page, made from the files in its folder."""

import base64
import contextlib
import io
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.core.pages import write_page
from keras_alexnet.errors import ModelFileError
from keras_alexnet.inference.views import Views
from keras_alexnet.models.record import read_record, use_of
from keras_alexnet.specs import SPECS
from keras_alexnet.training.runs import plots
from keras_alexnet.training.runs.comparison import compare, duration
from keras_alexnet.training.runs.reader import Run, read_run


def write_run_report(folder: str | Path) -> Path:
    """Write `report.html` into the folder of a run, completely or not at all; return where it is.

    An unfinished run gets what there is: its settings, and the curves of its finished epochs.

    Raises:
        DataError: There is no such folder, it is none of a run, or a file in it is damaged.
        MissingDependencyError: Jinja2 or matplotlib is not installed.
        ConfigurationError: The page cannot be written.
    """
    run = read_run(folder)
    evaluation = run.evaluation or {}
    predictions = run.folder / "predictions.png"
    return write_page(
        Path(__file__).with_name("report.html.j2"),
        run.folder / "report.html",
        filters={"duration": duration},
        run=run,
        row=compare([run]).records[0],
        results=_results(run),
        curves=_drawn(plots.learning_curves, run.rows) if run.rows else None,
        confusion=_drawn(
            plots.confusion_matrix, np.asarray(evaluation["confusion"]), evaluation["classes"]
        )
        if evaluation
        else None,
        per_class=evaluation.get("per_class", []),
        evaluated=evaluation.get("part"),
        predictions=_data_url(predictions.read_bytes()) if predictions.is_file() else None,
        skipped=(run.summary or {}).get("skipped", {}),
        settings=_settings(run),
        views=(run.summary or {}).get("views", {}),
        environment=_environment(run.environment),
        commands=_commands(run),
    )


def _results(run: Run) -> list[tuple[Any, ...]]:
    """Return name, loss, top-1, top-5 and macro F1 of each part that has results."""
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
    return [(part, *numbers) for part, numbers in found.items() if numbers[0] is not None]


def _drawn(draw: Callable[..., None], *values: Any) -> str:
    """Return the picture that a function of `plots` draws."""
    buffer = io.BytesIO()
    draw(*values, buffer)
    return _data_url(buffer.getvalue())


def _data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


# Field of an experiment -> whether it has an effect on a run with these settings.
_APPLIES: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "momentum": lambda s: s.get("optimizer") == "sgd",
    "nesterov": lambda s: s.get("optimizer") == "sgd",
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
    with contextlib.suppress(ModelFileError):  # an unfinished run may have no file yet
        used, _, _ = use_of(read_record(run.folder / "best.keras") or {})
        if used is not None:
            found |= {"mean": used.mean, "std": used.std, "eval_resize": used.resize_size}
            found |= {"input_size": " x ".join(map(str, used.crop_size))}
    return {
        name: ", ".join(f"{number:.4g}" for number in value) if isinstance(value, tuple) else value
        for name, value in found.items()
    }


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
        evaluate = ["keras-alexnet", "evaluate", model, "--data", str(experiment.get("data"))]
        if experiment.get("data_dir"):
            evaluate += ["--data-dir", str(experiment["data_dir"])]
        if experiment.get("views", Views.CENTER) != Views.CENTER:
            evaluate += ["--views", experiment["views"]]
        commands["evaluate its best model"] = shlex.join(evaluate)
        commands["classify photos"] = shlex.join(["keras-alexnet", "predict", model, "photo.jpg"])
    return commands
