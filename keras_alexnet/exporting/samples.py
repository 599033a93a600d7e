"""What an exported model takes, and images of that kind: seeded noise, real photos, files."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.core.backend import installed, require
from keras_alexnet.data.preprocessing import load_images, resize_and_crop
from keras_alexnet.errors import ModelFileError
from keras_alexnet.models.interface import input_of
from keras_alexnet.models.record import ModelInput

COUNT = 3  # images of a set, and the larger of the batches that are compared


def fixed_input(model: Any, record: dict[str, Any] | None) -> ModelInput:
    """Return what a Keras model takes, at a size that its export can be proved at.

    Raises:
        ModelFileError: It takes no single image, or images of a size that nothing fixes; or its
            record is damaged.
    """
    takes = input_of(model, record)
    if None not in takes.shape:
        return takes
    if takes.preprocessing is None:
        raise ModelFileError(
            f"{model.name} takes images of any size, and its file has no record that says which to "
            "export for; save it with a fixed input_shape"
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


def samples(takes: ModelInput) -> dict[str, np.ndarray]:
    """Return `COUNT` images of seeded noise, and of photos where scikit-learn has them here."""
    rng = np.random.default_rng(0)
    size = (COUNT, *takes.image_shape)
    noise = rng.integers(0, 256, size) if takes.pixels else rng.standard_normal(size)
    sets = {"noise": noise.astype(np.float32)}
    if takes.preprocessing is not None and installed("sklearn"):
        photos = require("sklearn.datasets").load_sample_images().images
        images = [*photos, np.ascontiguousarray(photos[0][:, ::-1])][:COUNT]
        cut = [resize_and_crop(image, takes.preprocessing) for image in images]
        sets["photos"] = takes.of_images(np.stack(cut))
    return sets
