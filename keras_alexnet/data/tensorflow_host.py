"""TensorFlow as the host's loader, whatever framework computes the model."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_alexnet.backend import installed, require
from keras_alexnet.errors import MissingDependencyError

# TensorFlow keeps so many batches ready.
PREFETCH = 2


def load_tensorflow(framework: str) -> Any:
    """Import TensorFlow for its input pipelines.

    Beside another framework it leaves the GPUs alone, of which it would take all memory.

    Args:
        framework: Keras' backend.

    Raises:
        MissingDependencyError: It is not installed.
    """
    if framework != "tensorflow" and "tensorflow" not in sys.modules:
        # torch imports triton when it first compiles something; behind TensorFlow it would abort.
        if framework == "torch" and installed("triton"):
            require("triton")
        # What it writes about devices is of no interest; its errors are exceptions.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        tf = require("tensorflow")
    except MissingDependencyError as error:
        raise MissingDependencyError(
            f"{error} It decodes image files and augments on the host; images in memory can be "
            "augmented on the device without it (--augment-on device)"
        ) from error
    if framework != "tensorflow":
        with contextlib.suppress(RuntimeError):  # too late: it was in use before
            tf.config.set_visible_devices([], "GPU")
    return tf


def numpy_batches(dataset: Any) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Iterate over (inputs, labels) of a `tf.data.Dataset` as read-only arrays, uncopied."""
    # Nobody writes to inputs, but torch warns that somebody could.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    yield from dataset.as_numpy_iterator()
