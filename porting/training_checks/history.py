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


def sample(array: np.ndarray) -> np.ndarray:
    """Return up to 1000 values from all over an array, the same positions for the same shape."""
    count = min(_SAMPLES, array.size)
    return array.flat[np.linspace(0, array.size - 1, count).astype(np.int64)]


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
