"""What an exported model takes, and images of that kind: seeded noise, real photos, files."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.core.backend import installed, require
from keras_alexnet.data.preprocessing import load_images, resize_and_crop
from keras_alexnet.errors import ModelFileError
from keras_alexnet.models.interface import inputs_of
from keras_alexnet.models.record import ModelInput

COUNT = 3  # images of a set, and the larger of the batches that are compared


def fixed_inputs(model: Any, record: dict[str, Any] | None) -> dict[str, ModelInput]:
    """Return what each input of a Keras model takes, at a size that its export can be proved at.

    Raises:
        ModelFileError: A single input takes no images, or one takes what has a size that nothing
            fixes; or the record is damaged.
    """
    return {name: _fixed(model, name, takes) for name, takes in inputs_of(model, record).items()}


def _fixed(model: Any, name: str, takes: ModelInput) -> ModelInput:
    if None not in takes.shape:
        return takes
    if takes.preprocessing is None:
        raise ModelFileError(
            f"{model.name}: its input {name!r} {takes.shape} takes any size, and its file has no "
            "record that says which to export for; save it with a fixed input_shape"
        )
    size, channels = takes.preprocessing.crop_size, len(takes.preprocessing.channels)
    return replace(takes, shape=(channels, *size) if takes.channels_first else (*size, channels))


def load(takes: ModelInput, paths: Iterable[str | Path]) -> np.ndarray:
    """Read image files as a model's float32 input.

    Raises:
        ImageFileError: A file cannot be decoded.
        ModelFileError: The preprocessing is not known.
    """
    if takes.preprocessing is None:
        raise ModelFileError(
            "the model file has no record of its preprocessing, so image files cannot be made into "
            "its input; save it with keras_alexnet.save_model"
        )
    return takes.of_images(load_images(paths, takes.preprocessing))


def samples(inputs: Mapping[str, ModelInput]) -> dict[str, dict[str, np.ndarray]]:
    """Return `COUNT` of each input by name: seeded noise, and photos where scikit-learn has them.

    Photos go into the first input, beside the noise of the others.
    """
    rng = np.random.default_rng(0)
    noise = {}
    for name, takes in inputs.items():
        size = (COUNT, *takes.image_shape)
        values = rng.integers(0, 256, size) if takes.pixels else rng.standard_normal(size)
        noise[name] = values.astype(np.float32)
    sets = {"noise": noise}
    first, takes = next(iter(inputs.items()))
    if takes.preprocessing is not None and installed("sklearn"):
        photos = require("sklearn.datasets").load_sample_images().images
        images = [*photos, np.ascontiguousarray(photos[0][:, ::-1])][:COUNT]
        cut = [resize_and_crop(image, takes.preprocessing) for image in images]
        sets["photos"] = noise | {first: takes.of_images(np.stack(cut))}
    return sets
