"""What a finished run leaves behind: its test, tables, pictures and report."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_alexnet.core.files import atomic_output, write_json
from keras_alexnet.core.pages import data_url, thumbnail
from keras_alexnet.data.batches.evaluation import EvaluationBatches
from keras_alexnet.data.examples import Examples, Stored
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.explaining.explainer import Explainer
from keras_alexnet.explaining.pictures import tiles
from keras_alexnet.inference.evaluation import Evaluation, evaluate
from keras_alexnet.inference.predictor import Predictor
from keras_alexnet.training.loop.engine import Engine
from keras_alexnet.training.loop.progress import VALIDATION
from keras_alexnet.training.loop.tensorboard import Scalars
from keras_alexnet.training.runs.folder import CONFUSION, CURVES, FILTERS, RELIABILITY, write_rows
from keras_alexnet.training.runs.plots import (
    confusion_matrix,
    learning_curves,
    reliability_diagram,
    sample_predictions,
)
from keras_alexnet.training.runs.report import write_run_report

_SAMPLES = 20
_WIDTH = 640  # pixels of a sheet of filters, at least
_PICTURES = ("predictions.png", CONFUSION, FILTERS)  # that TensorBoard shows
_ANSWER = ("index", "path", "label", "prediction", "confidence")


def write_results(engine: Engine, *, name: str, preset: str | None) -> dict[str, Any]:
    """Evaluate the best model of a run that is done, and write everything that describes it.

    Returns the content of `summary.json`, with the name and the preset of the run.
    """
    folder, progress, data = engine.folder, engine.progress, engine.prepared.data
    predictor = Predictor.from_file(
        folder.best, batch_size=engine.experiment.batch_size, views=engine.experiment.views
    )
    part = "test" if data.test is not None else "val" if data.val is not None else "train"
    examples = data.parts()[part]
    began = time.monotonic()
    result = evaluate(predictor, examples, data.classes)
    test_seconds = time.monotonic() - began
    best = progress.rows[progress.best_epoch - 1]
    skipped = progress.skipped | {str(path): why for path, why in result.skipped.items()}
    summary = {
        "name": name,
        "preset": preset,
        "model": engine.body.name,
        "backend": engine.backend,
        "data": data.name,
        "data_sha256": engine.prepared.identity,
        "images": {part: len(examples) for part, examples in data.parts().items()},
        "parameters": engine.parameters,
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "seconds": progress.seconds,
        "test_seconds": test_seconds,
        "train": {"loss": best["train_loss"], "accuracy": best["train_accuracy"]},
        "val": None if data.val is None else {n: best[column] for column, n in VALIDATION.items()},
        "test": None,
        "views": {"val": engine.experiment.val_views, part: engine.experiment.views},
        "skipped": skipped,
    }
    if part != "train":  # where nothing is left to test on, validation has the final views
        summary[part] = {name: getattr(result, name) for name in VALIDATION.values()}
    evaluation = {"part": part, "views": engine.experiment.views, **result.to_json()}
    pictures = _pixels(engine, examples, [mistake.index for mistake in result.mistakes])
    for mistake, pixels in zip(evaluation["mistakes"], pictures, strict=True):
        mistake["picture"] = data_url(thumbnail(pixels), "jpeg")
    write_json(folder.evaluation, evaluation)
    per_class = [asdict(row) for row in result.per_class]
    write_rows(folder.path / "per_class.csv", per_class, list(per_class[0]))
    write_rows(folder.path / "predictions.csv", list(_answers(result, examples)), _ANSWER)
    learning_curves(progress.rows, folder.path / CURVES)
    confusion_matrix(result.confusion, data.classes, folder.path / CONFUSION)
    reliability_diagram(result.calibration, folder.path / RELIABILITY)
    _write_samples(engine, result, examples)
    _write_filters(predictor, folder.path / FILTERS)
    write_json(folder.summary, summary)
    with Scalars(folder.path, engine.steps) as scalars:
        settings = engine.experiment.to_json()
        augmentation = settings.pop("augmentation")
        final = {name: getattr(result, name) for name in VALIDATION.values()}
        scalars.add_results(
            engine.steps,
            settings | augmentation,
            {f"final/{part}_{name}": n for name, n in final.items() if n is not None},
            {path.stem: path for path in map(folder.path.joinpath, _PICTURES) if path.is_file()},
        )
    write_run_report(folder.path, drawn=True)
    return summary


def _answers(result: Evaluation, examples: Examples) -> Iterator[dict[str, Any]]:
    """Yield what the model takes each image for, by the columns of `predictions.csv`."""
    columns = (result.indices, result.labels, result.predictions, result.confidences)
    for index, label, prediction, confidence in zip(*map(np.ndarray.tolist, columns), strict=True):
        path = examples.place(index) if isinstance(examples, Stored) else ""
        names = (result.classes[label], result.classes[prediction])
        yield dict(zip(_ANSWER, (index, path, *names, confidence), strict=True))


def _write_filters(predictor: Predictor, path: Path) -> None:
    """Draw the kernels of the first convolution, where a network has one that reads the image."""
    try:
        kernels = Explainer(predictor).filters()
    except ConfigurationError:
        return
    with atomic_output(path) as temporary:
        Image.fromarray(tiles(kernels, width=_WIDTH)).save(temporary, "PNG")


def _write_samples(engine: Engine, result: Evaluation, examples: Examples) -> None:
    """Draw a fixed choice of images with what the model takes them for."""
    rng = np.random.default_rng(0)
    count = min(_SAMPLES, len(result.predictions))
    chosen = np.sort(rng.choice(len(result.predictions), count, replace=False))
    sample_predictions(
        np.stack(_pixels(engine, examples, result.indices[chosen])),
        result.labels[chosen],
        result.predictions[chosen],
        result.confidences[chosen],
        engine.prepared.data.classes,
        engine.folder.path / "predictions.png",
    )


def _pixels(
    engine: Engine, examples: Examples, indices: Sequence[int] | np.ndarray
) -> list[np.ndarray]:
    """Return what the network sees of some examples, each uint8 (h, w, C)."""
    chosen = examples.subset(np.asarray(indices, np.int64))
    batches = EvaluationBatches(chosen, engine.prepared.preprocessing, batch_size=_SAMPLES)
    return [pixels for images, _ in batches for pixels in images]
