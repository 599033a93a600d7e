"""Backend and device of a run: chosen before Keras is imported, described afterwards."""

import contextlib
import os
import platform
import random
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.core.backend import load_keras, require
from keras_alexnet.errors import ConfigurationError

# Backend -> dtype policies in which a step of training on a CPU takes longer than in float32
# (benchmarks/RESULTS.md).
_SLOW_ON_CPU = {"jax": ("mixed_bfloat16",)}

_DISTRIBUTIONS = ("keras-alexnet", "keras", "tensorflow", "torch", "jax", "numpy", "pillow")


def hide_gpus() -> None:
    """Keep the backend off the GPUs; works only before its import."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["KERAS_TORCH_DEVICE"] = "cpu"


def gpus() -> list[str]:
    """Return the names of the GPUs that the backend sees."""
    backend = load_keras().backend.backend()
    framework = require(backend)
    if backend == "tensorflow":
        devices = framework.config.list_physical_devices("GPU")
        details = framework.config.experimental.get_device_details
        return [details(device).get("device_name", device.name) for device in devices]
    if backend == "torch":
        return [
            framework.cuda.get_device_name(number)
            for number in range(framework.cuda.device_count())
        ]
    return [d.device_kind for d in framework.devices() if d.platform in ("gpu", "cuda", "rocm")]


def check_device(device: str) -> None:
    """Refuse to go on where a GPU is asked for and there is none.

    Raises:
        ConfigurationError: There is none.
    """
    if device == "gpu" and not gpus():
        backend = load_keras().backend.backend()
        raise ConfigurationError(
            f"device 'gpu' was asked for, but {backend} sees no GPU here. Install its build for "
            "your GPU and driver, or use --device cpu"
        )


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
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ConfigurationError(
            f"precision {policy!r} is not supported by {keras.backend.backend()} on this device "
            f"({line}); use float32 or another device"
        ) from error


def precision_warning(policy: str) -> str | None:
    """Return what speaks against training in a dtype policy on this device, or None."""
    backend = load_keras().backend.backend()
    if policy in _SLOW_ON_CPU.get(backend, ()) and not gpus():
        return (
            f"{backend} trains slower in {policy} than in float32 on a CPU; use --precision float32"
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


def describe() -> dict[str, Any]:
    """Return versions, hardware and command line, for the record of a run."""
    return {
        "backend": load_keras().backend.backend(),
        "gpus": gpus(),
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": installed_versions(_DISTRIBUTIONS),
        "command": sys.argv,
    }


def installed_versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the versions of those that are installed by these names.

    The same package may be installed by another one, such as tensorflow-cpu.
    """
    found = {}
    for name in distributions:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def processor_name() -> str:
    """Return what the system calls the processor."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
