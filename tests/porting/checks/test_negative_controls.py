"""Mistakes that people make must not pass: each control is a port with one of them."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_alexnet import create_model, load_images, normalize
from keras_alexnet.core.children import Workers
from keras_alexnet.data.preprocessing import IMAGENET
from keras_alexnet.specs import SPECS
from porting.checkpoints.files import write_checkpoint
from porting.checks.check import check
from porting.checks.compare import difference
from porting.checks.inputs import sample_photos
from porting.checks.request import CheckRequest
from porting.checks.results import ParityResult
from porting.tolerances import TOLERANCES
from porting.weights.layouts import dense_to_keras
from porting.weights.transfer import load_state_dict

StateDicts = Callable[[str], dict[str, np.ndarray]]


def with_changed_layers(model: Any, change: Callable[[dict[str, Any]], None]) -> Any:
    """Return a copy of a model, weights included, after a change to its layers' configurations."""
    config = copy.deepcopy(model.get_config())
    for layer in config["layers"]:
        change(layer)
    changed = type(model).from_config(config)
    changed.set_weights(model.get_weights())
    return changed


def same_padding(model: Any) -> Any:
    """Pad the first, strided convolution as Keras' "same" does: one more at bottom and right."""

    def change(layer: dict[str, Any]) -> None:
        if layer["class_name"] == "ZeroPadding2D" and layer["name"].endswith(("0_pad", "conv_pad")):
            before = layer["config"]["padding"][0][0]
            layer["config"]["padding"] = ((before - 1, before), (before - 1, before))

    return with_changed_layers(model, change)


def default_eps(model: Any) -> Any:
    """Give batch norm PyTorch's default eps instead of GoogLeNet's."""

    def change(layer: dict[str, Any]) -> None:
        if layer["class_name"] == "BatchNormalization":
            layer["config"]["epsilon"] = 1e-5

    return with_changed_layers(model, change)


def ported(name: str, state_dicts: StateDicts) -> Any:
    model = create_model(name)
    load_state_dict(model, state_dicts(name))
    return model


def unpermuted_flatten(model: Any, state_dict: dict[str, np.ndarray]) -> Any:
    """Transpose the first dense kernel without reordering C, H, W; every shape still fits."""
    layer = model.get_layer("classifier_0")
    layer.kernel.assign(dense_to_keras(state_dict["classifier.0.weight"]))
    return model


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return load_images(sample_photos())


@pytest.mark.parametrize(
    ("name", "mistake", "at_least"),
    [
        ("googlenet", same_padding, 0.05),
        ("alexnet", same_padding, 0.1),
        ("googlenet", default_eps, 1e-3),
    ],
    ids=["googlenet-same", "alexnet-same", "googlenet-eps"],
)
def test_a_wrong_layer_shows_in_the_logits(
    name: str,
    mistake: Callable[[Any], Any],
    at_least: float,
    state_dicts: StateDicts,
    images: np.ndarray,
) -> None:
    model = ported(name, state_dicts)
    inputs = normalize(images)
    right = model.predict(inputs, verbose=0)
    wrong = mistake(model).predict(inputs, verbose=0)
    assert difference(right, wrong).relative > max(at_least, 10 * TOLERANCES["logits"].limit)


@pytest.mark.parametrize("name", ["alexnet", "googlenet"])
def test_bgr_and_swapped_statistics_show(
    name: str, state_dicts: StateDicts, images: np.ndarray
) -> None:
    model = ported(name, state_dicts)
    right = model.predict(normalize(images), verbose=0)
    bgr = model.predict(normalize(images[..., ::-1]), verbose=0)
    assert difference(right, bgr).relative > 0.05
    # Deviations where variances are expected, as kimm has it.
    mean, std = np.float32(IMAGENET.mean), np.float32(IMAGENET.std)
    wrong = ((images / np.float32(255) - mean) / np.sqrt(std)).astype(np.float32)
    assert difference(right, model.predict(wrong, verbose=0)).relative > 0.05


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers() as started:
        yield started


def checked(
    name: str, model: Any, state_dict: dict[str, np.ndarray], folder: Path, workers: Workers
) -> ParityResult:
    weights, candidate = folder / "weights.safetensors", folder / "candidate.keras"
    write_checkpoint(weights, state_dict)
    model.save(candidate)
    request = CheckRequest(
        name,
        weights,
        candidate,
        images=[],
        sizes=(SPECS[name].default_size,),
        noise=1,
        backends=("torch",),
        data_formats=("channels_last",),
    )
    return check(request, folder, workers=workers)


@pytest.mark.slow
def test_the_check_finds_a_wrong_flatten_order(
    state_dicts: StateDicts, tmp_path: Path, workers: Workers
) -> None:
    state_dict = state_dicts("lenet5")
    model = unpermuted_flatten(ported("lenet5", state_dicts), state_dict)
    result = checked("lenet5", model, state_dict, tmp_path, workers)
    assert not result.passed
    (cell,) = result.cells
    assert cell.divergence is not None
    assert cell.divergence.layer == "classifier_0"
    assert "H, W, C order" in cell.divergence.cause
    assert cell.worst_logits is not None
    assert cell.worst_logits.difference is not None
    assert cell.worst_logits.difference.relative > 0.3


def test_the_check_finds_wrong_padding_in_a_users_file(
    state_dicts: StateDicts, tmp_path: Path, workers: Workers
) -> None:
    state_dict = {k: v for k, v in state_dicts("googlenet").items() if not k.startswith("aux")}
    model = same_padding(ported("googlenet", state_dicts))
    result = checked("googlenet", model, state_dict, tmp_path, workers)
    assert not result.passed
    (cell,) = result.cells
    assert cell.divergence is not None
    assert cell.divergence.layer == "conv1_conv"
    assert "padding" in cell.divergence.cause
