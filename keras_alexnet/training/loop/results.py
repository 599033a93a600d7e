"""What a finished run leaves behind: its test, tables, pictures and report."""

import csv
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.core.files import atomic_output, write_json
from keras_alexnet.data.batches.evaluation import EvaluationBatches
from keras_alexnet.inference.evaluation import Evaluation, evaluate
from keras_alexnet.inference.predictor import Predictor
from keras_alexnet.training.loop.engine import Engine
from keras_alexnet.training.runs.plots import confusion_matrix, learning_curves, sample_predictions
from keras_alexnet.training.runs.report import write_run_report

_SAMPLES = 20


def write_results(engine: Engine, *, name: str, preset: str | None) -> dict[str, Any]:
    """Evaluate the best model of a run and write everything that describes it.

    Args:
        engine: The run, all of its epochs done.
        name: What people call the run.
        preset: The preset that it began with.

    Returns:
        The content of `summary.json`.
    """
    folder, progress, data = engine.folder, engine.progress, engine.prepared.data
    predictor = Predictor.from_file(
        folder.best, batch_size=engine.experiment.batch_size, views=engine.experiment.views
    )
    part = "test" if data.test is not None else "val" if data.val is not None else "train"
    examples = data.parts()[part]
    result = evaluate(predictor, examples, data.classes)
    best = progress.rows[progress.best_epoch - 1]
    skipped = progress.skipped | {str(path): why for path, why in result.skipped.items()}
    summary = {
        "name": name,
        "preset": preset,
        "model": engine.experiment.model,
        "backend": engine.backend,
        "data": data.name,
        "data_sha256": engine.prepared.identity,
        "images": {part: len(examples) for part, examples in data.parts().items()},
        "parameters": engine.parameters,
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "seconds": progress.seconds,
        "train": {"loss": best["train_loss"], "accuracy": best["train_accuracy"]},
        "val": _numbers(best) if data.val is not None else None,
        "test": _scores(result) if part == "test" else None,
        "skipped": skipped,
    }
    write_json(folder.evaluation, {"part": part, **result.to_json()})
    _write_per_class(result, folder.path / "per_class.csv")
    learning_curves(progress.rows, folder.path / "learning_curves.png")
    confusion_matrix(result.confusion, data.classes, folder.path / "confusion_matrix.png")
    _write_samples(engine, result, examples)
    write_json(folder.summary, summary)
    write_run_report(folder.path)
    return summary


def _write_per_class(result: Evaluation, path: Path) -> None:
    rows = [asdict(row) for row in result.per_class]
    with (
        atomic_output(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _write_samples(engine: Engine, result: Evaluation, examples: Any) -> None:
    """Draw a fixed choice of images with what the model takes them for."""
    rng = np.random.default_rng(0)
    count = min(_SAMPLES, len(result.predictions))
    chosen = np.sort(rng.choice(len(result.predictions), count, replace=False))
    batches = EvaluationBatches(
        examples.subset(result.indices[chosen]), engine.prepared.preprocessing, batch_size=count
    )
    images = np.concatenate([images for images, _ in batches])
    sample_predictions(
        images,
        result.labels[chosen],
        result.predictions[chosen],
        result.confidences[chosen],
        engine.prepared.data.classes,
        engine.folder.path / "predictions.png",
    )


def _scores(result: Evaluation) -> dict[str, Any]:
    names = ("loss", "top1", "top5", "macro_f1")
    return {name: getattr(result, name) for name in names}


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    """Return the validation numbers of a row under the names of an evaluation."""
    return {
        "loss": row["val_loss"],
        "top1": row["val_accuracy"],
        "top5": row["val_top5"],
        "macro_f1": row["val_macro_f1"],
    }
