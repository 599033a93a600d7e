"""A small GoogLeNet and its files."""

from pathlib import Path
from typing import Any

import pytest

SMALL = {"input_shape": (32, 32, 3), "classes": 5}


@pytest.fixture(scope="session")
def small() -> Any:
    """GoogLeNet for 32 x 32 pixels and 5 classes, with new weights."""
    import keras

    from keras_alexnet import GoogLeNet

    keras.utils.set_random_seed(0)
    return GoogLeNet(**SMALL)


@pytest.fixture(scope="session")
def small_files(small: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `small` as `small.keras` and `small.weights.h5`."""
    folder = tmp_path_factory.mktemp("small")
    small.save(folder / "small.keras")
    small.save_weights(folder / "small.weights.h5")
    return folder
