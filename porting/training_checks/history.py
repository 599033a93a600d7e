"""What a child of a training check writes down: losses, samples of the weights, the weights.

A `.npz` holds `losses` (steps,), `steps/KEY` (steps, n) with n values of the tensor behind every
step, and `final/KEY`, the whole tensor behind the last one, as torch lays it out. The samples are
for saying where a difference began; ten copies of AlexNet would take five gigabytes.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from keras_alexnet.core.backend import require

_SAMPLES = 1000
_INPUT = "inputs/"


def sample(array: np.ndarray) -> np.ndarray:
    """Return up to 1000 values from all over an array, the same positions for the same shape."""
    count = min(_SAMPLES, array.size)
    return array.flat[np.linspace(0, array.size - 1, count).astype(np.int64)]


def write_batches(path: str | Path, inputs: Sequence[np.ndarray], labels: np.ndarray) -> None:
    """Write what is trained with: inputs (steps, N, ...) as torch has them, labels (steps, N)."""
    arrays = {f"{_INPUT}{i}": array for i, array in enumerate(inputs)} | {"labels": labels}
    np.savez(path, **arrays)  # type: ignore[arg-type]


def read_batches(path: str | Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Return what `write_batches` wrote."""
    with np.load(path) as arrays:
        inputs = [arrays[f"{_INPUT}{i}"] for i in range(len(arrays.files) - 1)]
        return inputs, arrays["labels"]


class History:
    """The course of one training."""

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._samples: dict[str, list[np.ndarray]] = {}

    def record(self, loss: float, samples: Mapping[str, np.ndarray]) -> None:
        """Note the loss of a step and samples of the weights behind it, by key."""
        self._losses.append(loss)
        for key, values in samples.items():
            self._samples.setdefault(key, []).append(values)

    def save(
        self,
        path: str | Path,
        final: Mapping[str, np.ndarray],
        packages: Sequence[str],
        **others: np.ndarray,
    ) -> None:
        """Write the course, the weights at its end, versions of packages, and other arrays."""
        versions = {name: require(name).__version__ for name in packages}
        arrays = {f"steps/{key}": np.stack(values) for key, values in self._samples.items()}
        arrays |= {f"final/{key}": array for key, array in final.items()} | others
        arrays |= {"losses": np.array(self._losses), "versions": np.array(json.dumps(versions))}
        np.savez(path, **arrays)  # type: ignore[arg-type]
