"""Weights in a `.npy` file: a pickled dictionary of layers, as converters from Caffe wrote them.

The file is a pickle, and a pickle calls what it names. This reader builds nothing but lists,
dictionaries and arrays, the latter with stand-ins for NumPy's own classes: no function that a file
names is called, NumPy's included.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from porting.checkpoints.guards import check_pickle, npy_header
from porting.checkpoints.unpickling import CONTAINERS, NUMPY, Array, Unpickler, text
from porting.errors import CheckpointError

# NumPy's codes of the dtypes that weights have.
_CODES = ("f2", "f4", "f8")
_FIELDS = {"weights": "weight", "biases": "bias"}


def read_npy_dict(path: Path, *, allow_pickle: bool) -> dict[str, np.ndarray]:
    """Read a dictionary `layer -> [weights, biases]`, or `-> {"weights": …, "biases": …}`.

    Names are text or bytes, the pickle that of Python 2 or 3. `allow_pickle` is the user's word
    that it may be unpickled.

    Returns:
        `<layer>.weight` and `<layer>.bias` as they are in the file: in Keras' layout, (H, W, I, O)
        and (I, O).

    Raises:
        CheckpointError: The file may not be unpickled, holds one bare array, or a pickle of
            something else.
        Exception: Whatever the readers raise of a damaged file.
    """
    with path.open("rb") as file:
        shape, _, dtype = npy_header(file)
        if not dtype.hasobject:
            raise CheckpointError(
                f"{path}: one bare array, {dtype} {shape}; weights are many arrays with names: an "
                ".npz archive, or a .npy file of a dictionary"
            )
        if not allow_pickle:
            raise CheckpointError(
                f"{path}: a pickle, a kind of file that can run code when it is read. If you trust "
                "where it comes from, allow it: --allow-pickle (in Python, allow_pickle=True)"
            )
        begin = file.tell()
        check_pickle(file)
        file.seek(begin)
        content = _Unpickler(path, file).load()
    if isinstance(content, Array):
        content = content.only()
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path}: holds no dictionary of layers (name -> [weights, biases]), but a "
            f"{type(content).__name__.strip('_')}"
        )
    return {
        f"{layer}.{part}": array
        for name, entry in content.items()
        for layer in [text(name)]
        for part, array in _parts(path, layer, entry)
    }


def _parts(path: Path, layer: str, entry: Any) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(entry, Array) and entry.items is not None:
        entry = entry.items
    if isinstance(entry, Mapping):
        named = [(_FIELDS.get(text(key), ""), value) for key, value in entry.items()]
    elif isinstance(entry, list | tuple):
        named = list(zip(("weight", "bias"), entry, strict=False)) if len(entry) <= 2 else []
    else:
        named = []
    if not named or not all(part and isinstance(value, Array) for part, value in named):
        raise CheckpointError(
            f"{path}: layer {layer!r} is neither [weights, biases] nor a dictionary of `weights` "
            "and `biases`"
        )
    for part, value in named:
        if value.dtype not in _CODES:
            raise CheckpointError(
                f"{path}: layer {layer!r} has an array of dtype {value.dtype!r}; weights are "
                f"{', '.join(_CODES)}"
            )
        yield part, value.array()


class _Unpickler(Unpickler):
    """Unpickles arrays, lists and dictionaries, and refuses to look up anything else."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        # Texts of Python 2 stay bytes: most of them are values of arrays.
        super().__init__(file, {**NUMPY, **CONTAINERS}, encoding="bytes")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if self.unknown:
            raise CheckpointError(
                f"{self._path}: refused: its pickle would call {module}.{name}; a dictionary of "
                "arrays needs no such thing"
            )
        return found
