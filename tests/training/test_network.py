"""What a run starts from: whose classes a classifier of a file knows."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_alexnet import create_model
from keras_alexnet.models.record import save_model
from keras_alexnet.specs import SPECS
from keras_alexnet.training.bodies import SpecBody
from keras_alexnet.training.network import start_from

NAMES = ("ant", "bee", "cat", "dog")
# Batch norm on the logits has a number for each class too; auxiliary heads have classes as well.
MODELS: dict[str, dict[str, Any]] = {
    "lenet5": {},
    "alexnet_cifar": {},
    "googlenet_lab": {"input_shape": (97, 97, 3), "aux_heads": True},
}


def filled(name: str, seed: int, classes: int = 4) -> Any:
    """A model whose every weight is different."""
    keras.utils.set_random_seed(seed)
    model = create_model(name, classes=classes, **MODELS[name])
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if "variance" not in weight.name:
            weight.assign(rng.normal(0, 0.05, weight.shape))
    return model


@pytest.fixture(
    scope="module",
    params=["lenet5", "alexnet_cifar", pytest.param("googlenet_lab", marks=pytest.mark.slow)],
)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def source(name: str) -> Any:
    return filled(name, 1)


def saved(model: Any, path: Path, labels: tuple[str, ...] | None) -> Path:
    record = {
        "model": {"include_preprocessing": False},
        "preprocessing": asdict(SPECS[model.name].preprocessing),
        "labels": labels,
    }
    save_model(model, path, record)
    return path


def outputs(model: Any) -> list[np.ndarray]:
    shape = (2, *model.input_shape[1:])
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = model(images)
    found = found if isinstance(found, dict) else {"logits": found}
    return [keras.ops.convert_to_numpy(value) for value in found.values()]


def test_the_same_classes_in_another_order(name: str, source: Any, tmp_path: Path) -> None:
    path = saved(source, tmp_path / "w.keras", ("dog", "cat", "ant", "bee"))
    target = filled(name, 2)
    said = start_from(target, path, SpecBody(SPECS[name]), NAMES)
    assert "the same in another order: its classifier was put into the data's" in said
    for got, wanted in zip(outputs(target), outputs(source), strict=True):
        np.testing.assert_allclose(got, wanted[:, [2, 3, 1, 0]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("labels", [NAMES, None])
def test_the_same_classes_and_classes_without_names(
    labels: tuple[str, ...] | None, name: str, source: Any, tmp_path: Path
) -> None:
    target = filled(name, 2)
    path = saved(source, tmp_path / "w.keras", labels)
    said = start_from(target, path, SpecBody(SPECS[name]), NAMES)
    assert ("whose classes are the same" if labels else "whose 4 classes have no names") in said
    assert said.endswith("drawn anew: nothing")
    for got, wanted in zip(outputs(target), outputs(source), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("labels", [("ant", "bee", "cat", "eel"), ("0", "1", "2", "3")])
def test_as_many_other_classes_are_drawn_anew(
    labels: tuple[str, ...], name: str, source: Any, tmp_path: Path
) -> None:
    target = filled(name, 2)
    before = {layer.name: layer.get_weights() for layer in target.layers if layer.weights}
    path = saved(source, tmp_path / "w.keras", labels)
    said = start_from(target, path, SpecBody(SPECS[name]), NAMES)
    assert f"whose classes are {', '.join(map(repr, labels[:3]))} and 1 more; drawn anew" in said
    drawn = said.partition("drawn anew: ")[2].split(", ")
    kept = {
        layer.name
        for layer in target.layers
        if layer.weights and all(map(np.array_equal, layer.get_weights(), before[layer.name]))
    }
    assert kept == set(drawn)
    heads = 1 + len(SPECS[name].aux)
    assert len(drawn) == heads * (2 if name == "alexnet_cifar" else 1)
