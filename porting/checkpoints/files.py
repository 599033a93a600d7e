"""Weight files as they come: to named NumPy arrays, and back."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keras_alexnet.core.backend import require
from keras_alexnet.core.files import atomic_output
from keras_alexnet.errors import ModelFileError
from keras_alexnet.models.archives import check_expansion
from porting.checkpoints.caffe_net import Net
from porting.checkpoints.parametrized import computed
from porting.checkpoints.readers import READERS, read
from porting.checkpoints.states import architecture_in, find_state
from porting.checkpoints.torch_files import Tensor
from porting.checkpoints.unpickling import Array, Inert
from porting.errors import CheckpointError

Layout = Literal["torch", "keras"]


@dataclass(frozen=True)
class Checkpoint:
    """The content of a weights file.

    Attributes:
        path: The file.
        arrays: Key -> array, wrappers and prefixes removed; bfloat16 widened to float32.
        dtypes: Key -> name of the dtype in the file.
        notes: What was changed on the way in, for people.
        layout: Whose axes the arrays have: those of `layouts`' functions `to_torch` or `to_keras`.
        translated: Whether `dialects.translate` changed names, axes or values.
        wrapped: The keys in front of which a wrapper's part was removed.
        which: The choice among several models in it, see `read_checkpoint`.
        net: What the file, or a `.prototxt` beside it, says of its network's layers.
        architecture: What it says that its network is called.
    """

    path: Path
    arrays: dict[str, np.ndarray]
    dtypes: dict[str, str]
    notes: tuple[str, ...] = ()
    layout: Layout = "torch"
    translated: bool = False
    wrapped: frozenset[str] = frozenset()
    which: str | None = None
    net: Net | None = None
    architecture: str | None = None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Key -> shape."""
        return {key: array.shape for key, array in self.arrays.items()}


def read_checkpoint(
    path: str | Path, *, allow_pickle: bool = False, which: str | None = None
) -> Checkpoint:
    """Read named arrays from a file of torch, safetensors, NumPy or Caffe.

    Nothing in a file is run: of the pickles of torch's files only tensors and plain containers are
    built. The state_dict may lie in one of the usual entries beside other things, or in a whole
    model or a TorchScript archive. Pruned and normalised tensors are computed.

    Args:
        path: A `.pth`, `.pt`, `.safetensors`, `.npz`, `.caffemodel` or `.npy` file.
        allow_pickle: Whether a `.npy` file, which is a pickle, may be read.
        which: Of several in a file: `"model"`, `"ema"`, or the name of an entry or prefix. By
            default the model's own before averages.

    Raises:
        CheckpointError: The file is missing, damaged, unsafe, holds no weights, or several models.
        MissingDependencyError: protobuf is needed and not installed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise CheckpointError(f"{path}: unknown kind of weights file; known: {', '.join(READERS)}")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path}: the file is empty")
    content, net = read(path, allow_pickle=allow_pickle)
    state = find_state(path, content, which)
    dtypes, arrays = {}, {}
    for key, value in state.tensors.items():
        dtypes[key] = str(getattr(value, "dtype", "torch")).removeprefix("torch.")
        try:
            arrays[key] = to_numpy(value)
        except TypeError as error:
            raise CheckpointError(
                f"{path}: {key} is a {dtypes[key]} tensor of a kind that has no plain array "
                f"({error}); save dense floating-point weights"
            ) from error
        except ValueError as error:
            raise CheckpointError(f"{path}: damaged: {key} is {error}") from error
    try:
        # A view can repeat one stored number any number of times.
        check_expansion(path, sum(array.nbytes for array in arrays.values()), "its arrays")
    except ModelFileError as error:
        raise CheckpointError(str(error)) from error
    arrays, notes = computed(path, arrays)
    return Checkpoint(
        path,
        arrays,
        {key: dtypes.get(key, array.dtype.name) for key, array in arrays.items()},
        (*state.notes, *notes),
        "keras" if suffix == ".npy" else "torch",
        wrapped=state.wrapped,
        which=which,
        net=net,
        architecture=architecture_in(content),
    )


def to_numpy(value: Any) -> np.ndarray:
    """Return a tensor of any kind or an array-like as a NumPy array; bfloat16 becomes float32.

    Raises:
        TypeError: It has no such numbers as NumPy has.
        ValueError: It is no part of what its file stores.
    """
    if isinstance(value, Inert):
        raise TypeError(value.origin)
    if isinstance(value, Tensor | Array):
        value = value.array()
    elif hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            value = value.float()
        return value.numpy()
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checkpoint(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays in the format of the suffix, completely or not at all.

    Raises:
        CheckpointError: The suffix names no known format.
        ConfigurationError: The folder is missing or not writable.
        MissingDependencyError: A torch file, and torch is not installed.
    """
    path = Path(path)
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise CheckpointError(f"{path}: unknown kind of weights file; known: {', '.join(_WRITERS)}")
    # Writers of contiguous buffers would store a transposed view in the wrong order.
    contiguous = {key: np.require(array, requirements="C") for key, array in arrays.items()}
    with atomic_output(path) as temporary:
        writer(temporary, contiguous)


def as_tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return arrays as torch tensors of their own memory, in the same order."""
    torch = require("torch")
    return {key: torch.from_numpy(np.array(array, order="C")) for key, array in arrays.items()}


def _write_torch(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with path.open("wb") as file:  # whose errors are the system's; torch's own writer tells none
        require("torch").save(as_tensors(arrays), file)


def _write_safetensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    save_file(dict(arrays), path)


def _write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


_WRITERS: dict[str, Callable[[Path, Mapping[str, np.ndarray]], None]] = {
    ".pth": _write_torch,
    ".pt": _write_torch,
    ".safetensors": _write_safetensors,
    ".npz": _write_npz,
}
# What is written; `readers.READERS` has what is read.
SUFFIXES = tuple(_WRITERS)
