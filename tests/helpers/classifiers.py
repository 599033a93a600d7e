"""Small classifiers whose every number is known, and files of them."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_alexnet.data.examples import Arrays
from keras_alexnet.data.sources.registry import open_data
from keras_alexnet.models.record import save_model
from keras_alexnet.specs.preprocessing import Preprocessing

# The pixels as they are.
PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "scale": 1.0}
GREY = {"mean": (0.0,), "std": (1.0,), "scale": 1.0, "channels": "L"}


def lookup(classes: int, *, scale: float = 0.1) -> Any:
    """A model whose logits are its pixels times `scale`: grey images of one line."""
    image = keras.Input((1, classes, 1))
    return keras.Model(
        image, keras.layers.Rescaling(scale)(keras.layers.Flatten()(image)), name="x"
    )


def lookup_preprocessing(classes: int) -> Preprocessing:
    return Preprocessing(1, (1, classes), **GREY)


def lookup_examples(pixels: Any, labels: Sequence[int]) -> Arrays:
    """Images whose pixels `lookup` reads, (N, classes) of 0..255."""
    return Arrays(np.asarray(pixels, np.uint8)[:, None, :, None], np.asarray(labels, np.int64))


def linear(shape: tuple[int, int, int], classes: int, *, first: bool = False, seed: int = 0) -> Any:
    """A linear classifier of pixels 0..255 in a layer named `classifier`; `shape` is (h, w, C)."""
    height, width, channels = shape
    image = keras.Input((channels, height, width) if first else shape)
    x = keras.layers.Flatten(data_format="channels_first" if first else "channels_last")(image)
    dense = keras.layers.Dense(classes, name="classifier")
    model = keras.Model(image, dense(x), name="linear")
    rng = np.random.default_rng(seed)
    size = height * width * channels
    dense.set_weights([rng.normal(0, 0.5 / size, (size, classes)), rng.normal(size=classes)])
    return model


def logits_of(model: Any, images: np.ndarray) -> np.ndarray:
    """Logits of `linear` in float64, without Keras."""
    kernel, bias = model.get_layer("classifier").get_weights()
    return images.reshape(len(images), -1).astype(np.float64) @ kernel + bias


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def record_of(
    model: Any, preprocessing: Preprocessing, *, included: bool = True, labels: Any = None
) -> dict[str, Any]:
    return {
        "model": {
            "name": model.name,
            "classes": int(model.output_shape[-1]),
            "include_preprocessing": included,
            "transform_input": False,
            "aux_heads": False,
            "input_shape": list(model.input_shape[1:]),
        },
        "preprocessing": asdict(preprocessing),
        "labels": labels,
        "source": {},
    }


def digits_file(path: Path) -> Path:
    """A file of a linear classifier of scikit-learn's digits, fitted by least squares."""
    train = open_data("digits").train
    assert isinstance(train, Arrays)
    pixels = train.images.reshape(len(train), -1) / 255
    inputs = np.column_stack([pixels, np.ones(len(train))])
    weights, *_ = np.linalg.lstsq(inputs, 12 * np.eye(10)[train.labels], rcond=None)
    model = linear((8, 8, 1), 10)
    model.get_layer("classifier").set_weights([weights[:-1] / 255, weights[-1]])
    preprocessing = Preprocessing(8, (8, 8), **GREY)
    save_model(model, path, record_of(model, preprocessing, labels=[str(n) for n in range(10)]))
    return path
