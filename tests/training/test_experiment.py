"""Experiments as records."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

from keras_alexnet.data.augmentation.record import Augmentation
from keras_alexnet.data.sources.registry import SOURCES
from keras_alexnet.errors import ConfigurationError, UnknownModelError
from keras_alexnet.specs import SPECS, find_spec
from keras_alexnet.training.experiment import Experiment, option_fields
from keras_alexnet.training.presets import PRESETS, check_weights, find_preset


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name: str) -> None:
    experiment = PRESETS[name].experiment
    assert Experiment.from_json(json.loads(json.dumps(experiment.to_json()))) == experiment
    assert experiment.model in SPECS
    assert experiment.data in SOURCES


def test_paths_survive_json() -> None:
    experiment = Experiment(
        weights=Path("a.keras"), data_dir=Path("data"), mean=(0.1, 0.2, 0.3), std=(1, 1, 1)
    )
    assert Experiment.from_json(experiment.to_json()) == experiment


def test_every_field_is_an_option_with_help() -> None:
    names = [field.name for field in option_fields()]
    assert len(set(names)) == len(names)
    expected = {f.name for f in fields(Experiment)} - {"augmentation"}
    assert set(names) == expected | {f.name for f in fields(Augmentation)}
    assert all(field.metadata["help"].endswith(".") for field in option_fields())


def test_override_reaches_the_augmentation() -> None:
    changed = Experiment().override(flip=0.5, epochs=3)
    assert (changed.augmentation.flip, changed.epochs) == (0.5, 3)
    with pytest.raises(ConfigurationError, match=r"unknown field 'epoch'. Known: .*epochs"):
        Experiment().override(epoch=3)


BAD = {
    "epochs must be at least 1, got 0": {"epochs": 0},
    "batch_size must be at least 1": {"batch_size": 0},
    r"momentum must lie in \[0, 1\), got 1": {"momentum": 1.0},
    r"val_fraction must lie in \[0, 1\)": {"val_fraction": 1.0},
    "learning_rate must be above 0, got nan": {"learning_rate": float("nan")},
    "optimizer must be one of sgd, adam, adamw, lars, lamb; got 'rmsprop'": {
        "optimizer": "rmsprop"
    },
    "precision must be one of": {"precision": "float64"},
    "alexnet has no auxiliary heads": {"aux_heads": True},
    "mean and std belong together": {"mean": (0.5, 0.5, 0.5)},
    "std must be above 0": {"mean": (0.5, 0.5, 0.5), "std": (0.0, 1.0, 1.0)},
    r"freeze_epochs \(10\) must be fewer than epochs \(10\)": {"freeze_epochs": 10},
    "schedule 'plateau' needs val_fraction": {"schedule": "plateau", "val_fraction": 0.0},
    "schedule 'plateau' has no warm-up": {"schedule": "plateau", "warmup_epochs": 1.0},
    r"flip must lie in \[0, 1\], got 2": {"flip": 2.0},
    r"hue must lie in \[0, 0.5\]": {"hue": 0.6},
    "padding needs crop='random'": {"padding": 4},
    "crop must be 'center', 'random' or 'random-resized'": {"crop": "middle"},
}


@pytest.mark.parametrize("message", BAD)
def test_impossible_values(message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Experiment().override(**BAD[message])


def test_unknown_names() -> None:
    with pytest.raises(UnknownModelError, match="alexnett"):
        Experiment(model="alexnett")
    with pytest.raises(ConfigurationError, match=r"unknown preset 'fast'. Known: digits-lenet5"):
        find_preset("fast")
    with pytest.raises(ConfigurationError, match="unknown field 'epoch'"):
        Experiment.from_json({"epoch": 1})


def test_weights_are_asked_for_before_any_work(tmp_path: Path) -> None:
    name = "cifar10-lab-googlenet-pretrained"
    with pytest.raises(ConfigurationError, match="porting convert googlenet"):
        check_weights(name, PRESETS[name].experiment)
    with pytest.raises(ConfigurationError, match="freeze_epochs needs weights"):
        Experiment(freeze_epochs=1).check_weights()
    with pytest.raises(ConfigurationError, match="freeze needs weights"):
        Experiment(freeze="conv1").check_weights()
    with pytest.raises(ConfigurationError, match="no such file"):
        Experiment(weights=tmp_path / "none.keras").check_weights()


def test_sizes_of_presets_fit_their_models() -> None:
    for preset in PRESETS.values():
        experiment = preset.experiment
        side = max(find_spec(experiment.model).default_size)
        assert (experiment.augmentation.resize or side) >= side
