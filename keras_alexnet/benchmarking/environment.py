"""The same conditions for everybody: allocator, cores, device, precision of matrices."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from keras_alexnet.core.backend import require
from keras_alexnet.core.machine import hide_gpus
from keras_alexnet.errors import ConfigurationError

# For glibc. Without it, processes that run torch were seen to become slower from one to the next.
ALLOCATOR: Mapping[str, str] = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "200000000000",
    "MALLOC_TOP_PAD_": "134217728",
}
# NPROC is XLA's.
_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "NPROC",
)


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Within this block, new processes get the allocator and the number of threads."""
    values = {**ALLOCATOR, **dict.fromkeys(_THREADS, str(threads))}
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def settle(threads: int, device: str) -> None:
    """Confine this process to so many cores and to the device; before any framework is imported.

    Raises:
        ConfigurationError: There are fewer cores.
    """
    if threads > cores():
        raise ConfigurationError(f"threads is {threads}, but there are {cores()} processor cores")
    if hasattr(os, "sched_setaffinity"):
        # Holds for every framework, whatever it makes of the environment.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    if device == "cpu":
        hide_gpus()


def settle_torch(device: str) -> Any:
    """Import torch and return it; on a GPU float32 may use TF32, as in the other frameworks.

    Raises:
        ConfigurationError: A GPU is asked for and there is none.
    """
    torch = require("torch")
    if device == "gpu":
        if not torch.cuda.is_available():
            raise ConfigurationError(
                "device 'gpu' was asked for, but torch sees no GPU here. Install its build for "
                "your GPU and driver, or use --device cpu"
            )
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    return torch
