"""What a run computes in, and from which seed."""

import random

import numpy as np

from keras_alexnet.core.backend import load_keras, require
from keras_alexnet.core.machine import gpus
from keras_alexnet.errors import ConfigurationError, one_line

# Backend -> dtype policies in which a step of training on a CPU takes longer than in float32
# (benchmarks/RESULTS.md).
_SLOW_ON_CPU = {
    "jax": ("mixed_bfloat16", "mixed_float16"),
    "torch": ("mixed_float16",),
    "tensorflow": ("mixed_float16",),
}


def check_precision(policy: str) -> None:
    """Refuse a dtype policy that the device cannot train in.

    Raises:
        ConfigurationError: A small convolution and its gradient fail in it.
    """
    if policy == "float32":
        return
    keras = load_keras()
    model = keras.Sequential(
        [
            keras.layers.Conv2D(8, 3, dtype=policy),
            keras.layers.MaxPooling2D(dtype=policy),
            keras.layers.Flatten(dtype=policy),
            keras.layers.Dense(2, dtype=policy),
        ]
    )
    model.compile(optimizer="sgd", loss="mse", auto_scale_loss=False)
    images = keras.ops.convert_to_numpy(keras.ops.ones((4, 8, 8, 3)))
    try:
        model.train_on_batch(images, keras.ops.convert_to_numpy(keras.ops.ones((4, 2))))
    except Exception as error:  # whatever the backend raises for what it has no kernel for
        raise ConfigurationError(
            f"precision {policy!r} is not supported by {keras.backend.backend()} on this device "
            f"({one_line(error)}); use float32 or another device"
        ) from error


def precision_warning(policy: str) -> str | None:
    """Return what speaks against training in a dtype policy on this device, or None."""
    backend = load_keras().backend.backend()
    if policy in _SLOW_ON_CPU.get(backend, ()) and not gpus():
        much = "30 to 50 times " if policy == "mixed_float16" else ""
        return (
            f"{backend} trains {much}slower in {policy} than in float32 on a CPU; use --precision "
            "float32"
        )
    return None


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and the backend, and choose deterministic GPU kernels where cheap."""
    keras = load_keras()
    if keras.backend.backend() == "tensorflow":
        keras.utils.set_random_seed(seed)
        return
    # `set_random_seed` would import TensorFlow wherever it is installed. Keras' layers and
    # initialisers get their seeds from Python's generator.
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    if keras.backend.backend() == "torch":
        torch = require("torch")
        torch.manual_seed(seed)
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
