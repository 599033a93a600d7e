"""What the machine has: devices, processor, versions of packages."""

import contextlib
import os
import platform
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from keras_alexnet.core.backend import load_keras, require
from keras_alexnet.errors import ConfigurationError

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
    """Raise `ConfigurationError` where a GPU is asked for and there is none."""
    if device == "gpu" and not gpus():
        backend = load_keras().backend.backend()
        raise ConfigurationError(
            f"device 'gpu' was asked for, but {backend} sees no GPU here. Install its build for "
            "your GPU and driver, or use --device cpu"
        )


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


def peak_memory() -> int:
    """Return the most bytes that were in use so far: of the first GPU, else of this process.

    It is 0 where nobody says.
    """
    backend = load_keras().backend.backend()
    framework = require(backend)
    if gpus():
        if backend == "tensorflow":
            return int(framework.config.experimental.get_memory_info("GPU:0")["peak"])
        if backend == "torch":
            return int(framework.cuda.max_memory_allocated())
        stats = framework.devices()[0].memory_stats() or {}
        return int(stats.get("peak_bytes_in_use", 0))
    try:
        import resource
    except ImportError:  # Windows has none
        return 0
    # In KiB on Linux, in bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def installed_versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the versions of those that are loaded or installed by these names.

    The same package may be installed by another one, such as tensorflow-cpu or keras-nightly.
    """
    found = {}
    for name in distributions:
        module = sys.modules.get(name.replace("-", "_"))
        if loaded := getattr(module, "__version__", None):
            found[name] = str(loaded)
            continue
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
