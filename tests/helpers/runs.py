"""Folders as training runs leave them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_alexnet.core.files import write_json
from keras_alexnet.core.pages import data_url, thumbnail
from keras_alexnet.training.experiment import Experiment
from keras_alexnet.training.runs.folder import RunFolder

CLASSES = ("cat", "dog", "<b>owl</b>")


def epoch_row(epoch: int, accuracy: float | None) -> dict[str, Any]:
    row = {
        "epoch": epoch,
        "learning_rate": 0.1 / epoch,
        "train_loss": 2.0 / epoch,
        "train_accuracy": 0.25 * epoch,
        "images_per_second": 1000.0,
        "seconds": 40.0,
    }
    if accuracy is not None:
        row |= {"val_loss": 1.5, "val_accuracy": accuracy, "val_top5": 1.0, "val_macro_f1": 0.4}
    return row


def make_run(
    folder: Path, *, finished: bool = True, accuracies: tuple[float | None, ...] = (0.5, 0.75, 0.6)
) -> Path:
    """Write what a run of LeNet-5 writes, with results that were made up."""
    run = RunFolder.create(folder, "made-up")
    experiment = Experiment(
        model="lenet5", data="digits", epochs=4, views="mirror", mean=(0.1,) * 3, std=(1.0,) * 3
    )
    write_json(run.config, {"preset": "digits-lenet", "experiment": experiment.to_json()})
    environment = {
        "backend": "torch",
        "gpus": [],
        "versions": {"keras": "3.15.1"},
        "command": ["train", "--preset", "digits lenet"],
    }
    write_json(run.environment, environment)
    if accuracies:
        run.write_metrics([epoch_row(n, value) for n, value in enumerate(accuracies, 1)])
    if finished:
        run.best.write_bytes(b"a model")
        write_json(run.summary, SUMMARY)
        write_json(run.evaluation, EVALUATION)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "predictions.png")
    return folder


SUMMARY = {
    "name": "made-up",
    "preset": "digits-lenet",
    "model": "lenet5",
    "backend": "torch",
    "data": "digits",
    "parameters": 61_706,
    "epochs": 4,
    "best_epoch": 2,
    "seconds": 3725.4,
    "train": {"loss": 1.0, "accuracy": 0.5},
    "val": {"loss": 1.5, "top1": 0.75, "top5": 1.0, "macro_f1": 0.4},
    "test": {"loss": 1.25, "top1": 0.8125, "top5": None, "macro_f1": 0.7},
    "views": {"val": "center", "test": "mirror"},
    "skipped": {"/photos/<script>.jpg": "damaged image"},
}
EVALUATION = {
    "part": "test",
    "images": 16,
    "loss": 1.25,
    "top1": 0.8125,
    "top5": None,
    "macro_f1": 0.7,
    "classes": list(CLASSES),
    "per_class": [
        {
            "name": name,
            "images": images,
            "loss": loss,
            "accuracy": loss,
            "top5": None,
            "precision": None,
            "f1": 0.5,
        }
        for name, images, loss in zip(CLASSES, (8, 8, 0), (0.75, 0.875, None), strict=True)
    ],
    "confusion": [[6, 0, 2], [1, 7, 0], [0, 0, 0]],
    "calibration": {
        "ece": 0.0625,
        "bins": [
            {"low": 0.0, "high": 0.5, "images": 0, "confidence": None, "accuracy": None},
            {"low": 0.5, "high": 1.0, "images": 16, "confidence": 0.875, "accuracy": 0.8125},
        ],
    },
    "mistakes": [
        {
            "index": index,
            "path": None,
            "label": label,
            "prediction": prediction,
            "confidence": confidence,
            "picture": data_url(thumbnail(np.full((4, 5, 1), index, np.uint8)), "jpeg"),
        }
        for index, label, prediction, confidence in ((9, 0, 2, 0.975), (0, 1, 0, 0.75))
    ],
    "skipped": {},
}


def damage(path: Path, text: str) -> None:
    """Replace a file's content by something else."""
    assert path.is_file()
    path.write_text(text)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
