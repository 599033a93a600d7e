"""The presets of the reports, field by field, against what the reports say."""

from typing import Any

import pytest

from keras_alexnet.errors import ConfigurationError
from keras_alexnet.training.experiment import Experiment
from keras_alexnet.training.presets import PRESETS, find_preset

STUDY_MEAN, STUDY_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
STUDY = {
    "model": "alexnet_bn_cifar100",
    "data": "cifar100",
    "optimizer": "sgd",
    "momentum": 0.0,
    "schedule": "constant",
    "classifier_activation": "relu",
    "normalize": "none",
}
LAB = {
    "data": "cifar10",
    "resize": 256,
    "crop": "random",
    "flip": 0.5,
    "normalize": "model",
    "optimizer": "sgd",
    "learning_rate": 0.001,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "batch_size": 4,
    "epochs": 10,
}
SIDE_BY_SIDE = {
    "data": "cifar10",
    "optimizer": "sgd",
    "learning_rate": 0.001,
    "momentum": 0.9,
    "val_fraction": 0.1,
    "drop_remainder": True,
}


def study(
    transforms: str, batch: int, rate: float, epochs: int, optimizer: str = "sgd"
) -> dict[str, Any]:
    crops, flips = "crop" in transforms, "flip" in transforms
    scaled = "normalise" in transforms
    return STUDY | {
        "resize": 230 if crops else 227,
        "crop": "random" if crops else "center",
        "flip": 0.5 if flips else 0.0,
        "mean": STUDY_MEAN if scaled else None,
        "std": STUDY_STD if scaled else None,
        "batch_size": batch,
        "learning_rate": rate,
        "epochs": epochs,
        "optimizer": optimizer,
    }


# What each report gives; a field that it is silent about is not here.
REPORTED: dict[str, dict[str, Any]] = {
    "cifar100-study-1": study("none", 32, 0.005, 10),
    "cifar100-study-2": study("crop", 64, 0.005, 10),
    "cifar100-study-3": study("crop, normalise", 64, 0.001, 10),
    "cifar100-study-4": study("crop, normalise, flip", 128, 0.005, 10),
    "cifar100-study-5": study("crop, flip", 64, 0.005, 10),
    "cifar100-study-6": study("crop, flip", 32, 0.005, 10),
    "cifar100-study-7": study("crop, flip, normalise", 32, 0.005, 20),
    "cifar100-study-8": study("crop, flip, normalise", 32, 0.005, 2, "adam"),
    "cifar10-lab-alexnet-lrn": LAB | {"model": "alexnet_lrn"},
    "cifar10-lab-alexnet": LAB | {"model": "alexnet"},
    "cifar10-lab-googlenet": LAB | {"model": "googlenet_lab", "aux_heads": True},
    "cifar10-lab-alexnet-pretrained": LAB | {"model": "alexnet"},
    "cifar10-lab-googlenet-pretrained": LAB
    | {"model": "googlenet", "aux_heads": True, "aux_weight": 0.3},
    "cifar10-alexnet-bn": {
        "model": "alexnet_cifar",
        "data": "cifar10",
        "normalize": "data",
        "crop": "random",
        "padding": 4,
        "flip": 0.5,
        "grayscale": 0.3,
        "brightness": 0.0,
        "contrast": 0.0,
        "saturation": 0.0,
        "hue": 0.0,
        "optimizer": "adam",
        "learning_rate": 0.001,
        "weight_decay": 0.0,
        "schedule": "constant",
        "batch_size": 512,
        "epochs": 100,
        "views": "center",
    },
    "cifar10-keras": SIDE_BY_SIDE
    | {
        "model": "alexnet_keras",
        "normalize": "none",
        "resize": 224,
        "flip": 0.0,
        "crop": "center",
        "batch_size": 64,
        "epochs": 20,
    },
    "cifar10-keras-augmented": SIDE_BY_SIDE
    | {
        "model": "alexnet_keras",
        "normalize": "none",
        "crop": "random",
        "flip": 0.5,
        "batch_size": 128,
        "epochs": 15,
    },
    "cifar10-wide": SIDE_BY_SIDE | {"model": "alexnet_wide", "batch_size": 64, "epochs": 20},
    "cifar10-pretrained": SIDE_BY_SIDE | {"model": "alexnet", "normalize": "model"},
    "ilsvrc2010-paper": {
        "model": "alexnet_paper",
        "data": "ilsvrc2010",
        "crop": "random-resized",
        "flip": 0.5,
        "pca": 0.1,
        "normalize": "model",
        "mean": None,
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "schedule": "step",
        "step_epochs": 30,
        "gamma": 0.1,
        "clip_norm": 2.0,
        "precision": "mixed_float16",
        "batch_size": 256,
        "epochs": 200,
        "views": "ten-crop",
        "val_views": "ten-crop",
        "keep_every": 5,
    },
}
# What stands in the reports' tables of results, as people read it beside our own numbers.
RESULTS = {
    "cifar100-study-1": "macro F1 0.245, accuracy 25.50 %",
    "cifar100-study-2": "macro F1 0.149, accuracy 18.10 %",
    "cifar100-study-3": "macro F1 0.003, accuracy 2.10 %",
    "cifar100-study-4": "macro F1 0.017, accuracy 4.80 %",
    "cifar100-study-5": "macro F1 0.128, accuracy 15.90 %",
    "cifar100-study-6": "macro F1 0.276, accuracy 28.80 %",
    "cifar100-study-7": "macro F1 0.473, accuracy 48.20 %",
    "cifar100-study-8": "macro F1 0.0002, accuracy 1.00 %",
    "cifar10-lab-alexnet-lrn": "loss 0.6008, accuracy 80.29 %, 26.2 minutes",
    "cifar10-lab-alexnet": "loss 0.6659, accuracy 77.41 %, 25.5 minutes",
    "cifar10-lab-googlenet": "loss 0.4734, accuracy 85.01 %, 117.2 minutes",
    "cifar10-lab-alexnet-pretrained": "loss 0.5410, accuracy 83.01 %, 22.4 minutes",
    "cifar10-lab-googlenet-pretrained": "loss 0.2375, accuracy 93.16 %, 91.6 minutes",
    "cifar10-alexnet-bn": "accuracy 89.90 %; at the end, 90.34 % at best",
    "cifar10-keras": None,
    "cifar10-keras-augmented": "accuracy 80.00 %; above that",
    "cifar10-wide": "accuracy 74.00 %",
    "cifar10-pretrained": "accuracy 91.77 %",
    "ilsvrc2010-paper": "accuracy 43.31 %; validation after 90 epochs, training 36.85 %; the paper "
    "62.5 %, top-5 83.0 %",
}
# Ours: no report has them.
OWN = {"digits-lenet5", "cifar10-cpu", "cifar10-fast"}


def test_every_preset_is_held_by_the_table() -> None:
    assert PRESETS.keys() == REPORTED.keys() | OWN
    assert REPORTED.keys() == RESULTS.keys()
    assert not any(PRESETS[name].reported for name in OWN)


def test_every_preset_shuffles() -> None:
    """One of the reports never did."""
    assert all(preset.experiment.shuffle for preset in PRESETS.values())


@pytest.mark.parametrize("name", REPORTED)
def test_fields_are_the_reports(name: str) -> None:
    experiment = find_preset(name).experiment
    for field, wanted in REPORTED[name].items():
        own = experiment if hasattr(experiment, field) else experiment.augmentation
        assert getattr(own, field) == wanted, field
    reported = find_preset(name).reported
    assert RESULTS[name] == (reported and str(reported))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"unfrozen_learning_rate": -1.0}, "unfrozen_learning_rate must be above 0, got -1.0"),
        ({"dropout_rate": 1.0}, r"dropout_rate must lie in \[0, 1\), got 1.0"),
        ({"classifier_activation": "softmax"}, "classifier_activation must be one of relu"),
        (
            {"freeze_epochs": 5, "epochs": 2},
            r"freeze_epochs \(5\) must be fewer than epochs \(2\); for a short trial give "
            "--freeze-epochs 1 too",
        ),
        ({"freeze_epochs": 5, "epochs": 1}, "give --freeze-epochs 0 too"),
    ],
)
def test_impossible_values(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Experiment(**fields)
