"""The layer that augments on the device, on every backend."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_alexnet.data.augmentation.array_ops import tensorflow_ops
from keras_alexnet.data.augmentation.colour import recolour
from keras_alexnet.data.augmentation.draws import crop_geometry, draw, resized_size
from keras_alexnet.data.augmentation.layer import Augment
from keras_alexnet.data.augmentation.record import Augmentation
from keras_alexnet.data.augmentation.resample import resample
from keras_alexnet.errors import ConfigurationError

PCA = (np.array([0.2, 0.02, 0.004]), np.eye(3))
EVERYTHING = Augmentation(
    resize=80,
    crop="random",
    flip=0.5,
    brightness=0.4,
    contrast=0.3,
    saturation=0.2,
    hue=0.1,
    grayscale=0.3,
    pca=0.1,
)
SIZE = (64, 72)


def inputs(augmentation: Augmentation, count: int = 6, channels: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    draws = draw(augmentation, count, rng)
    return {
        "image": rng.integers(0, 256, (count, 32, 36, channels), np.uint8),
        "geometry": crop_geometry(augmentation, draws, 32, 36, SIZE),
        "colours": draws.colours,
    }


def on_the_host(augmentation: Augmentation, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """What a `tf.data` pipeline computes."""
    ops = tensorflow_ops()
    image, geometry, colours = (ops.convert_to_tensor(array) for array in arrays.values())
    x = resample(image, geometry, SIZE, whole=resized_size(augmentation, 32, 36), ops=ops)
    return np.asarray(recolour(x, colours, augmentation, ops=ops, pca=PCA))


def model(arrays: dict[str, np.ndarray], augmentation: Augmentation, **arguments: Any) -> Any:
    tensors = {
        name: keras.Input(array.shape[1:], dtype=str(array.dtype), name=name)
        for name, array in arrays.items()
    }
    arguments = {"data_format": "channels_last", "pca": PCA} | arguments
    return keras.Model(tensors, Augment(augmentation, SIZE, **arguments)(tensors))


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_device_equals_host(policy: str, data_format: str) -> None:
    arrays = inputs(EVERYTHING)
    keras.config.set_dtype_policy(policy)
    try:
        augment = model(arrays, EVERYTHING, data_format=data_format)
    finally:
        keras.config.set_dtype_policy("float32")
    found = augment.predict_on_batch(arrays)
    assert found.dtype == np.float32
    assert augment.output_shape[1:] == found.shape[1:]
    if data_format == "channels_first":
        found = found.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, on_the_host(EVERYTHING, arrays), atol=0.01, rtol=0)
    assert not augment.weights


CHILD = """
import sys, keras, numpy as np
from keras_alexnet.data.augmentation.record import Augmentation
from keras_alexnet.data.augmentation.layer import Augment
with np.load(sys.argv[1]) as stored:
    arrays = {name: stored[name] for name in stored.files}
tensors = {
    name: keras.Input(array.shape[1:], dtype=str(array.dtype), name=name)
    for name, array in arrays.items()
}
pca = (np.array([0.2, 0.02, 0.004]), np.eye(3))
layer = Augment(eval(sys.argv[2]), (64, 72), data_format="channels_last", pca=pca)
model = keras.Model(tensors, layer(tensors))
model.compile(jit_compile=True)
np.save(sys.argv[3], model.predict(arrays, batch_size=4, verbose=0))
if keras.backend.backend() == "jax":
    assert "tensorflow" not in sys.modules
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_compiled_on_other_backends(backend: str, tmp_path: Path, run_python: Any) -> None:
    """Under XLA; the last batch is smaller. JAX needs no TensorFlow."""
    arrays = inputs(EVERYTHING)
    np.savez(tmp_path / "in.npz", **arrays)
    paths = tmp_path / "in.npz", EVERYTHING, tmp_path / "out.npy"
    run_python(CHILD, *paths, KERAS_BACKEND=backend)
    found = np.load(tmp_path / "out.npy")
    np.testing.assert_allclose(found, on_the_host(EVERYTHING, arrays), atol=0.01, rtol=0)


def test_host_did_it_all() -> None:
    """Without geometry and colours only the type changes."""
    image = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), np.uint8)
    found = model({"image": image}, Augmentation()).predict_on_batch({"image": image})
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, image)


def test_images_of_another_size_need_geometry() -> None:
    with pytest.raises(ConfigurationError, match=r"must have the size \(64, 72\), got \(32, 36\)"):
        model({"image": inputs(Augmentation(resize=80))["image"]}, Augmentation())


def test_grey_images() -> None:
    augmentation = Augmentation(resize=80, crop="random")
    arrays = inputs(augmentation, channels=1)
    del arrays["colours"]
    assert model(arrays, augmentation).predict_on_batch(arrays).shape == (6, *SIZE, 1)
    arrays = inputs(EVERYTHING, channels=1)
    with pytest.raises(ConfigurationError, match="grey images have no colours"):
        model(arrays, EVERYTHING)


def test_missing_components() -> None:
    with pytest.raises(ConfigurationError, match="needs the principal components"):
        model(inputs(EVERYTHING), EVERYTHING, pca=None)


def test_unknown_data_format() -> None:
    with pytest.raises(ConfigurationError, match="'channels_last' or 'channels_first', got 'NCHW'"):
        Augment(Augmentation(), SIZE, data_format="NCHW")
