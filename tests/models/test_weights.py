"""Arguments that no model can be built with, and weights from files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers.models import EACH, assert_close, call, random_images, random_pixels, variant
from helpers.small import SMALL

from keras_alexnet import (
    AlexNet,
    GoogLeNet,
    create_model,
    load_model,
)
from keras_alexnet.errors import ConfigurationError, ModelFileError
from keras_alexnet.models.record import read_record
from keras_alexnet.models.weights import load_weights

# Bad arguments


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"data_format": "NHWC"}, "data_format must be 'channels_last', .*got 'NHWC'"),
        ({"pooling": "mean"}, "pooling must be None, 'avg' or 'max', got 'mean'"),
        ({"classes": 0}, "classes must be a positive integer, got 0"),
        ({"classes": -3}, "classes must be a positive integer, got -3"),
        ({"classes": 2.0}, "classes must be a positive integer, got 2.0"),
        ({"classes": "10"}, "classes must be a positive integer, got '10'"),
        ({"dropout_rate": 1.0}, r"dropout_rate must lie in \[0, 1\), got 1.0"),
        ({"dropout_rate": -0.1}, r"dropout_rate must lie in \[0, 1\), got -0.1"),
        ({"dropout_rate": float("nan")}, r"dropout_rate must lie in \[0, 1\), got nan"),
        (
            {"input_shape": (64, 64)},
            r"input_shape must be \(height, width, channels\) for channels_last, got \(64, 64\)",
        ),
        (
            {"input_shape": (None, 3, 64, 64), "data_format": "channels_first"},
            r"input_shape must be \(channels, height, width\) for channels_first, got \(None, 3",
        ),
        (
            {"input_shape": (64, 64, 4), "include_preprocessing": True},
            r"needs 3 \(RGB\) channels; input_shape \(64, 64, 4\) is read as \(height, width",
        ),
        (
            {"input_shape": (3, 64, 64), "include_preprocessing": True},
            r"needs 3 \(RGB\) channels; input_shape \(3, 64, 64\) is read as \(height, width, chan",
        ),
        (
            {"input_shape": (64, 64, None)},
            r"needs a fixed number of channels; input_shape \(64, 64, None\)",
        ),
        ({"input_shape": (64, 64, 0)}, "needs a fixed number of channels"),
        (
            {"input_shape": (224, 224, 3), "data_format": "channels_first"},
            r"at least .* got 224 x 3 \(input_shape \(224, 224, 3\), channels_first\)",
        ),
        (
            {"input_tensor": np.zeros((1, 64, 64, 3))},
            "input_tensor must be the output of keras.Input or of a Keras layer, got ndarray",
        ),
        ({"input_shape": 64}, "input_shape must be"),
    ],
)
@EACH
def test_bad_arguments(name: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        create_model(name, **options)


def test_input_shape_contradicts_input_tensor() -> None:
    text = r"input_shape \(64, 64, 3\) contradicts input_tensor, whose shape is \(32, 32, 3\)"
    with pytest.raises(ConfigurationError, match=text):
        GoogLeNet(input_tensor=keras.Input((32, 32, 3)), input_shape=(64, 64, 3))
    with pytest.raises(ConfigurationError, match="at least 15 x 15 pixels"):
        GoogLeNet(input_tensor=keras.Input((8, 32, 3)))


def test_auxiliary_heads_need_the_top() -> None:
    with pytest.raises(ConfigurationError, match="aux_heads=True needs include_top=True"):
        GoogLeNet(aux_heads=True, include_top=False)


def test_transform_input_needs_three_channels() -> None:
    """It is a scale per colour: one channel would silently become three."""
    with pytest.raises(ConfigurationError, match="channels"):
        GoogLeNet(input_shape=(32, 32, 1), transform_input=True)


# Files


@pytest.mark.parametrize("file", ["small.keras", "small.weights.h5"])
def test_weights_from_a_file(file: str, small: Any, small_files: Path) -> None:
    model = GoogLeNet(**SMALL, weights=small_files / file)
    for got, wanted in zip(model.get_weights(), small.get_weights(), strict=True):
        np.testing.assert_array_equal(got, wanted)
    as_text = GoogLeNet(**SMALL, weights=str(small_files / file))
    np.testing.assert_array_equal(as_text.get_weights()[0], small.get_weights()[0])


def test_weights_by_name_allow_other_options(small: Any, small_files: Path) -> None:
    """A `.keras` file may hold a head that the model lacks, or another data format and size."""
    model = GoogLeNet(
        include_top=False, data_format="channels_first", weights=small_files / "small.keras"
    )
    for layer in model.layers:
        for got, wanted in (
            zip(layer.get_weights(), small.get_layer(layer.name).get_weights(), strict=True)
            if layer.weights
            else ()
        ):
            np.testing.assert_array_equal(got, wanted)


def test_weights_of_another_class_count(small_files: Path) -> None:
    with pytest.raises(ModelFileError, match="does not fit googlenet") as caught:
        GoogLeNet(input_shape=(32, 32, 3), classes=7, weights=small_files / "small.keras")
    text = str(caught.value)
    assert "fc/kernel: the file has shape (1024, 5), the model wants (1024, 7)" in text
    assert "fc/bias: the file has shape (5,), the model wants (7,)" in text
    assert "Pass the file's own `classes`" in text
    with pytest.raises(ModelFileError, match=r"small.weights.h5: does not fit googlenet"):
        GoogLeNet(input_shape=(32, 32, 3), classes=7, weights=small_files / "small.weights.h5")


def test_weights_of_another_network(small_files: Path) -> None:
    with pytest.raises(ModelFileError, match="layer features_0 is not in the file"):
        AlexNet(include_top=False, weights=small_files / "small.keras")


def test_many_misfits_are_counted(small: Any, tmp_path: Path) -> None:
    image = keras.Input((4,))
    keras.Model(image, keras.layers.Dense(2)(image)).save(tmp_path / "other.keras")
    weighted = sum(bool(layer.weights) for layer in small.layers)
    with pytest.raises(ModelFileError, match="layer conv1_conv is not in the file") as caught:
        load_weights(small, tmp_path / "other.keras")
    assert f"and {weighted - 20} more" in str(caught.value)
    assert str(caught.value).count("is not in the file") == 20


@pytest.mark.parametrize("file", ["small.keras", "small.weights.h5"])
def test_failed_load_leaves_the_model_alone(file: str, small_files: Path) -> None:
    model = GoogLeNet(input_shape=(32, 32, 3), classes=7)
    before = model.get_weights()
    with pytest.raises(ModelFileError, match="does not fit googlenet"):
        load_weights(model, small_files / file)
    changed = [
        weight.path
        for weight, values in zip(model.weights, before, strict=True)
        if not np.array_equal(weight.numpy(), values)
    ]
    assert not changed


@pytest.mark.parametrize("name", ["net.pth", "net.pt", "net.safetensors", "net.npz"])
def test_torch_checkpoints_are_pointed_to_the_converter(name: str) -> None:
    text = (
        f"weights must be a .keras or .weights.h5 file. For a PyTorch checkpoint run: "
        f"python -m porting convert googlenet --source folder/{name} --output net.keras"
    )
    with pytest.raises(ModelFileError, match=text):
        GoogLeNet(**SMALL, weights=f"folder/{name}")


@pytest.mark.parametrize("name", ["none.keras", "none.weights.h5"])
def test_missing_weights_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=f"{name}: no such file"):
        GoogLeNet(**SMALL, weights=tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text"),
    [("small.keras", "Keras cannot load it"), ("small.weights.h5", "does not fit .*truncated")],
)
def test_truncated_weights_file(name: str, text: str, small_files: Path, tmp_path: Path) -> None:
    content = (small_files / name).read_bytes()
    damaged = tmp_path / name
    damaged.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelFileError, match=f"{name}: .*{text}"):
        GoogLeNet(**SMALL, weights=damaged)


def test_load_model(small: Any, small_files: Path, tmp_path: Path) -> None:
    images = random_images(32, 32)
    loaded = load_model(small_files / "small.keras")
    np.testing.assert_array_equal(call(loaded, images), call(small, images))
    with pytest.raises(ModelFileError, match=r"none.keras: no such file"):
        load_model(tmp_path / "none.keras")
    (tmp_path / "text.keras").write_text("not a model")
    with pytest.raises(ModelFileError, match=r"text.keras: Keras cannot load it"):
        load_model(tmp_path / "text.keras")


@pytest.mark.slow
def test_files_load_without_this_package(
    tmp_path: Path, run_python: Callable[..., Any], live: dict[str, Any]
) -> None:
    """Preprocessing, transform_input and all heads included."""
    model = variant(
        live["googlenet"],
        "googlenet",
        input_shape=(32, 40, 3),
        include_preprocessing=True,
        transform_input=True,
        aux_heads=True,
    )
    pixels = random_pixels(32, 40)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "pixels.npy", pixels)
    code = """
import sys
import numpy as np
import keras
model = keras.saving.load_model("model.keras", compile=False)
outputs = model(np.load("pixels.npy"), training=False)
np.savez("outputs.npz", **{k: keras.ops.convert_to_numpy(v) for k, v in outputs.items()})
assert not [name for name in sys.modules if name.partition(".")[0] in ("keras_alexnet", "porting")]
"""
    run_python(code, cwd=tmp_path, on_path=False)
    with np.load(tmp_path / "outputs.npz") as outputs:
        for name, wanted in call(model, pixels).items():
            assert_close(wanted, outputs[name], "logits")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".caffemodel"])
def test_weights_of_others_are_to_be_converted(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"mine{suffix}"
    path.write_bytes(b"anything")
    text = f"not a .keras file. .* porting convert MODEL --source {path} --output mine.keras"
    with pytest.raises(ModelFileError, match=text):
        read_record(path)
