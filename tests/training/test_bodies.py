"""Networks of `.keras` files: a new classifier, normalisation of their own, and the way back."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import porting
from keras_alexnet import load_model, read_record
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.models.record import save_model
from keras_alexnet.specs.preprocessing import Preprocessing
from keras_alexnet.training.bodies import SpecBody, body_of
from keras_alexnet.training.experiment import Experiment, network_of
from keras_alexnet.training.network import (
    build_network,
    input_preprocessing,
    save_trained,
    start_from,
)
from keras_alexnet.training.phases import as_new, constant_layers, frozen_layers, set_trainable
from keras_alexnet.training.run import run_experiment

LABELS = ("ant", "bee", "cat")
OURS = Preprocessing(resize_size=14, crop_size=(12, 12), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))


class Net(nn.Module):
    """A classifier with what converted ones have: batch norm, a token, a table, a dropout."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 8).view(1, 8, 1, 1))
        self.register_buffer("table", torch.linspace(-1, 1, 36 * 36).view(36, 36), persistent=False)
        self.dropout, self.fc = nn.Dropout(0.2), nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x))) * self.scale
        x = x.flatten(2) @ self.table
        return self.fc(self.dropout(x.mean(2)))


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def file(net: Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network as `porting convert` writes it."""
    path = tmp_path_factory.mktemp("body") / "mine.keras"
    save(porting.from_torch(net, torch.randn(2, 3, 12, 12)), path)
    return path


def save(model: Any, path: Path, /, **changes: Any) -> None:
    from dataclasses import asdict

    from porting.weights.transfer import counterpart_of

    record = {
        "model": {"name": "Net", "target": "net.py:Net", "classes": 3},
        "preprocessing": asdict(OURS),
        "labels": list(LABELS),
        "counterpart": counterpart_of(model).to_json(),
        "num_batches_tracked": {"bn1.num_batches_tracked": 7},
        **changes,
    }
    record["model"]["include_preprocessing"] = False
    save_model(model, path, record)


def experiment_of(file: Path, **changes: Any) -> Experiment:
    return replace(Experiment(model=str(file)), **changes)


def network_for(experiment: Experiment, classes: int) -> Any:
    keras.utils.set_random_seed(1)
    return build_network(experiment, classes, input_preprocessing(experiment))


def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 12, 12, 3)).astype(np.float32)


def torchs(net: Any) -> np.ndarray:
    """What the torch network says of the pixels."""
    x = torch.from_numpy(pixels()).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (OURS.mean, OURS.std))
    with torch.no_grad():
        return np.asarray(net((x - mean) / std))


def test_the_same_classes_are_the_files_own_network(net: Net, file: Path) -> None:
    experiment = experiment_of(file)
    assert input_preprocessing(experiment).crop_size == (12, 12)
    model = network_for(experiment, 3)
    assert [layer.name for layer in model.layers if "conv" in layer.name] == ["conv1_pad", "conv1"]
    before = model.predict_on_batch(pixels())
    assert np.abs(before - torchs(net)).max() > 0.01  # its weights are drawn anew
    said = start_from(model, file, body_of(experiment), LABELS)
    assert said.endswith("drawn anew: nothing")
    np.testing.assert_allclose(model.predict_on_batch(pixels()), torchs(net), atol=1e-5)


def test_constants_are_no_weights_to_be_drawn(file: Path) -> None:
    model, source = network_for(experiment_of(file), 3), load_model(file)
    (layer,) = (each for each in model.layers if each.weights and not each.trainable)
    assert layer.count_params() == 36 * 36
    np.testing.assert_array_equal(
        layer.get_weights()[0], source.get_layer(layer.name).get_weights()[0]
    )


def test_other_classes_get_a_classifier_that_alone_trains_first(file: Path) -> None:
    experiment = experiment_of(file, dropout_rate=0.5)
    model, body = network_for(experiment, 5), body_of(experiment)
    said = start_from(model, file, body, ("a", "b", "c", "d", "e"))
    assert said.endswith("drawn anew: fc")
    assert model.output_shape == (None, 5)
    assert model.get_layer("classifier_dropout").rate == 0.5
    (constant,) = fixed = constant_layers(model)
    set_trainable(model, body, 0, fixed)
    assert {w.path for w in model.trainable_weights} == {"fc/kernel", "fc/bias"}
    set_trainable(model, body, 1, fixed)
    assert len(model.trainable_weights) > 6
    # What is no weight of the network's stays what it is.
    assert model.get_layer(constant).count_params() == 36 * 36
    assert not model.get_layer(constant).trainable


def test_parts_that_never_learn(file: Path) -> None:
    experiment = experiment_of(file)
    model, body = network_for(experiment, 5), body_of(experiment)
    constants, frozen = constant_layers(model), frozen_layers(model, body, "conv1, bn1")
    assert {"conv1", "bn1"} <= frozen
    set_trainable(model, body, 1, constants | frozen)
    learning = {w.path.partition("/")[0] for w in model.trainable_weights}
    assert "fc" in learning
    assert not learning & (constants | frozen)
    with as_new(model, constants):
        assert constant_layers(model) == constants
    assert {"conv1", "bn1"} < constant_layers(model)
    for freeze, text in (
        ("conv9", "has no layer 'conv9', and none that begins so; there are conv1, "),
        ("fc", "'fc' is the classifier, which has to learn"),
    ):
        with pytest.raises(ConfigurationError, match=text):
            frozen_layers(model, body, freeze)


def test_what_was_trained_goes_back_to_torch(file: Path, tmp_path: Path) -> None:
    """Its record has the way back, for the classes that it has now; and it trains on."""
    experiment = experiment_of(file, precision="mixed_bfloat16")
    model = network_for(experiment, 5)
    assert model.get_layer("conv1").compute_dtype == "bfloat16"
    names = tuple("abcde")
    start_from(model, file, body_of(experiment), names)
    path = tmp_path / "best.keras"
    save_trained(model, path, experiment, names, input_preprocessing(experiment), {"epoch": 1})
    record = read_record(path)
    assert record is not None
    assert record["model"]["target"] == "net.py:Net"
    assert (record["model"]["classes"], record["labels"]) == (5, list(names))
    twin = Net(5).eval()
    porting.export(path, tmp_path / "back.pth")
    twin.load_state_dict(torch.load(tmp_path / "back.pth"), strict=True)
    assert twin.bn1.num_batches_tracked == 7
    saved = load_model(path)
    np.testing.assert_allclose(saved.predict_on_batch(pixels()), torchs(twin), atol=1e-5)
    again = experiment_of(path)
    assert network_of(path) == str(path)
    further = network_for(again, 5)
    start_from(further, path, body_of(again), names)
    np.testing.assert_allclose(further.predict_on_batch(pixels()), torchs(twin), atol=1e-5)


def test_ones_own_normalisation_replaces_the_files(file: Path) -> None:
    experiment = experiment_of(file, mean=(0.0,) * 3, std=(1.0,) * 3)
    model = network_for(experiment, 3)
    start_from(model, file, body_of(experiment), LABELS)
    plain = load_model(file)
    wanted = plain.predict_on_batch(pixels() / 255)
    np.testing.assert_allclose(model.predict_on_batch(pixels()), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ([12, 20, 3], (12, 20)),
        ([3, 12, 20], (12, 20)),
        ([None, None, 3], (224, 224)),
        (None, (224, 224)),
    ],
)
def test_a_network_of_no_known_preprocessing_has_the_size_that_it_takes(
    shape: list[int] | None, size: tuple[int, int], net: Net, tmp_path: Path
) -> None:
    path = tmp_path / "own.keras"
    known = {"name": "Net", "target": "net.py:Net", "classes": 3, "input_shape": shape}
    save(porting.from_torch(net, torch.randn(2, 3, 12, 12)), path, preprocessing=None, model=known)
    experiment = experiment_of(path, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    assert body_of(experiment).preprocessing.crop_size == size


def test_what_cannot_be_trained_is_said(net: Net, file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"gone.keras: no such file"):
        experiment_of(tmp_path / "gone.keras").check_weights()
    with pytest.raises(ConfigurationError, match="has no auxiliary heads"):
        experiment_of(file, aux_heads=True)
    with pytest.raises(ConfigurationError, match=r"is channels_last: name --data-format"):
        network_for(experiment_of(file, data_format="channels_first"), 3)
    with pytest.raises(ConfigurationError, match=r"12 x 12 pixels, not 24 x 24; leave --input-si"):
        network_for(experiment_of(file, input_size=24), 3)
    bare = tmp_path / "bare.keras"
    load_model(file).save(bare)
    with pytest.raises(ConfigurationError, match="without a record of its preprocessing"):
        body_of(experiment_of(bare))
    unknown = tmp_path / "unknown.keras"
    save(porting.from_torch(net, torch.randn(2, 3, 12, 12)), unknown, preprocessing=None)
    with pytest.raises(ConfigurationError, match="nobody says how its images are normalised: name"):
        body_of(experiment_of(unknown))
    pooled = nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    ended = tmp_path / "ended.keras"
    save(porting.from_torch(pooled, torch.randn(2, 3, 12, 12)), ended)
    with pytest.raises(ConfigurationError, match="not with the dense layer of a classifier"):
        network_for(experiment_of(ended), 3)


def test_weights_name_their_network(tmp_path: Path) -> None:
    from keras_alexnet import create_model

    path = tmp_path / "lenet.keras"
    save_model(create_model("lenet5"), path, {"model": {"name": "lenet5"}})
    assert network_of(path) == "lenet5"
    assert isinstance(body_of(Experiment(model="lenet5")), SpecBody)


def test_a_run_leaves_constants_and_frozen_layers_as_they_are(file: Path, tmp_path: Path) -> None:
    """And what it writes, even while its body is frozen, learns again in the next run."""
    photos, rng = tmp_path / "photos", np.random.default_rng(0)
    for kind in "abcd":
        (photos / kind).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(photos / kind / f"{number}.png")
    experiment = Experiment(
        model=str(file),
        data=str(photos),
        weights=file,
        epochs=2,
        batch_size=8,
        freeze_epochs=1,
        freeze="conv1,bn1",
        keep_every=1,
        backend=keras.backend.backend(),
    )
    run_experiment(experiment, output=tmp_path / "run")
    source, first, second = (
        load_model(path)
        for path in (file, tmp_path / "run/epoch-001.keras", tmp_path / "run/epoch-002.keras")
    )
    constants = constant_layers(source)
    assert constants == constant_layers(first) == constant_layers(second) != frozenset()

    def changed(before: Any, after: Any) -> set[str]:
        pairs = ((before.get_layer(layer.name), layer) for layer in after.layers if layer.weights)
        return {
            new.name
            for old, new in pairs
            if not all(map(np.array_equal, old.get_weights(), new.get_weights()))
        }

    assert changed(source, first) == {"fc"}
    learning = changed(first, second)
    assert {"fc", "scale"} <= learning
    assert not learning & (constants | {"conv1", "bn1"})
