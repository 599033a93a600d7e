"""What is in a weights file, and how two of them differ, tensor by tensor."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.models.record import read_record
from keras_alexnet.specs import SPECS
from porting.checkpoints.files import Checkpoint, read_checkpoint
from porting.conversion.convert import load_model
from porting.weights.dialects import identify, translate
from porting.weights.spec_tables import Fit
from porting.weights.transfer import to_state_dict


@dataclass(frozen=True)
class Tensor:
    """Facts about one tensor; the statistics are over its finite values, NaN if there are none."""

    key: str
    shape: tuple[int, ...]
    dtype: str
    mean: float
    std: float
    minimum: float
    maximum: float
    not_finite: int


@dataclass(frozen=True)
class Inspection:
    """Content of a weights file.

    Attributes:
        path: The file.
        tensors: Its tensors, under the keys of a torch state_dict.
        fits: Every known architecture, the best first.
        notes: Wrappers and prefixes that were removed.
        record: What a `.keras` file says of itself.
    """

    path: Path
    tensors: tuple[Tensor, ...]
    fits: tuple[Fit, ...]
    notes: tuple[str, ...] = ()
    record: dict[str, Any] | None = None


@dataclass(frozen=True)
class TensorDifference:
    """A key of one or both files.

    Attributes:
        key: The key.
        status: `identical`, `differs`, `other shape`, `only in A` or `only in B`.
        max_abs: Largest absolute difference where the shapes agree, else None.
        relative: `max_abs` divided by A's largest absolute value.
    """

    key: str
    status: str
    max_abs: float | None = None
    relative: float | None = None


def read_weights(
    path: str | Path, *, allow_pickle: bool = False, which: str | None = None
) -> Checkpoint:
    """Return the content of a weights file or, by torch key, of a `.keras` model.

    Args:
        path: The file.
        allow_pickle: As in `read_checkpoint`.
        which: As in `read_checkpoint`.

    Raises:
        CheckpointError: The weights file cannot be read.
        ModelFileError: The `.keras` file cannot be read.
        TransferError: The `.keras` file holds none of the known architectures.
    """
    if Path(path).suffix == ".keras":
        arrays = to_state_dict(load_model(path), framework="numpy")
        return Checkpoint(Path(path), arrays, {key: str(a.dtype) for key, a in arrays.items()})
    return read_checkpoint(path, allow_pickle=allow_pickle, which=which)


def inspect(
    path: str | Path, *, allow_pickle: bool = False, which: str | None = None
) -> Inspection:
    """Describe a weights file or `.keras` model; arguments and errors as in `read_weights`."""
    content = read_weights(path, allow_pickle=allow_pickle, which=which)
    return Inspection(
        Path(path),
        tuple(_describe(key, array, content.dtypes[key]) for key, array in content.arrays.items()),
        tuple(identify(content)),
        content.notes,
        read_record(path) if Path(path).suffix == ".keras" else None,
    )


def _describe(key: str, array: np.ndarray, dtype: str) -> Tensor:
    values = np.asarray(array, np.float64).ravel()
    finite = values[np.isfinite(values)]
    lost = values.size - finite.size
    if not finite.size:
        finite = np.array([np.nan])  # as all its statistics are
    return Tensor(
        key,
        array.shape,
        dtype,
        float(finite.mean()),
        float(finite.std()),
        float(finite.min()),
        float(finite.max()),
        lost,
    )


def diff(a: str | Path, b: str | Path, *, allow_pickle: bool = False) -> list[TensorDifference]:
    """Compare two weights files or `.keras` models; arguments and errors as in `read_weights`.

    Both are compared under the names and axes of the architecture that the first one fits, so that
    a file of Caffe's equals the model that was made of it.
    """
    first = read_weights(a, allow_pickle=allow_pickle)
    second = read_weights(b, allow_pickle=allow_pickle)
    best = identify(first)[0]
    if best.problems == 0:
        spec = SPECS[best.name]
        first, second = translate(first, spec), translate(second, spec)
    left, right = first.arrays, second.arrays
    rows = [_compare(key, array, right.get(key)) for key, array in left.items()]
    return rows + [TensorDifference(key, "only in B") for key in right if key not in left]


def _compare(key: str, a: np.ndarray, b: np.ndarray | None) -> TensorDifference:
    if b is None:
        return TensorDifference(key, "only in A")
    if a.shape != b.shape:
        return TensorDifference(key, "other shape")
    # NaN at the same places are the same weights.
    if np.array_equal(a, b, equal_nan=a.dtype.kind == "f" and b.dtype.kind == "f"):
        return TensorDifference(key, "identical", 0.0, 0.0)
    gap = np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))
    worst = float(gap.max()) if np.isfinite(gap).all() else float("inf")
    scale = float(np.abs(a).max())
    return TensorDifference(key, "differs", worst, worst / scale if scale else float("inf"))
