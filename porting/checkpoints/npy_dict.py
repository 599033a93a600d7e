"""Weights in a `.npy` file: a pickled dictionary of layers, as converters from Caffe wrote them.

The file is a pickle, and a pickle calls what it names. This reader builds nothing but lists,
dictionaries and arrays, the latter with stand-ins for NumPy's own classes: no function that a file
names is called, NumPy's included.
"""

import functools
import pickle
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from porting.checkpoints.guards import check_pickle, npy_header
from porting.errors import CheckpointError

# NumPy's codes of the dtypes that weights have; "O" is a list of any objects.
_CODES = ("f2", "f4", "f8", "O8")
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
    if isinstance(content, _Array):
        content = content.only()
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path}: holds no dictionary of layers (name -> [weights, biases]), but a "
            f"{type(content).__name__.strip('_')}"
        )
    return {
        f"{layer}.{part}": array
        for name, entry in content.items()
        for layer in [_text(name)]
        for part, array in _parts(path, layer, entry)
    }


def _parts(path: Path, layer: str, entry: Any) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(entry, _Array) and entry.items is not None:
        entry = entry.items
    if isinstance(entry, Mapping):
        named = [(_FIELDS.get(_text(key), ""), value) for key, value in entry.items()]
    elif isinstance(entry, list | tuple):
        named = list(zip(("weight", "bias"), entry, strict=False)) if len(entry) <= 2 else []
    else:
        named = []
    if not named or not all(
        part and isinstance(value, _Array) and value.values is not None for part, value in named
    ):
        raise CheckpointError(
            f"{path}: layer {layer!r} is neither [weights, biases] nor a dictionary of `weights` "
            "and `biases`"
        )
    for part, value in named:
        yield part, value.values


def _text(name: Any) -> str:
    return name.decode("latin1") if isinstance(name, bytes) else str(name)


class _DType:
    """Stands in for `numpy.dtype`: the code, and the byte order from the state."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = _text(code)
        if self.code not in _CODES:
            raise ValueError(f"an array of dtype {self.code!r}; weights are {', '.join(_CODES)}")
        self.order = "<"

    def __setstate__(self, state: Any) -> None:
        order = _text(state[1])
        self.order = order if order in "<>" else "<"


class _Array:
    """Stands in for `numpy.ndarray`: its values, or the items of an array of objects."""

    values: np.ndarray | None = None
    items: list[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        if dtype.code == "O8":
            self.items = list(content)
            return
        if not isinstance(content, bytes):
            content = content.encode("latin1")
        values = np.frombuffer(content, np.dtype(dtype.order + dtype.code))
        self.values = values.reshape(shape, order="F" if fortran else "C")

    def only(self) -> Any:
        """Return the one item of an array of objects, or the array."""
        return self.items[0] if self.items is not None and len(self.items) == 1 else self


def _reconstruct(*_: Any) -> _Array:
    """Stand in for NumPy's function of this name, which makes an array to be filled by a state."""
    return _Array()


def _scalar(dtype: _DType, content: Any) -> _Array:
    """Stand in for NumPy's function of this name: one number."""
    array = _Array()
    array.__setstate__((1, (), dtype, False, content))
    return array


def _encode(text: str, encoding: str) -> bytes:
    """Stand in for `codecs.encode`, as which Python 3 writes bytes for Python 2."""
    if _text(encoding) != "latin1":
        raise ValueError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


# NumPy 2 moved its functions; a file names them as the NumPy that wrote it.
_GLOBALS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): OrderedDict,
}


class _Unpickler(pickle.Unpickler):
    """Unpickles arrays, lists and dictionaries, and refuses to look up anything else."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        # Texts of Python 2 stay bytes: most of them are values of arrays.
        super().__init__(file, encoding="bytes")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _GLOBALS:
            raise CheckpointError(
                f"{self._path}: refused: its pickle would call {module}.{name}; a dictionary of "
                "arrays needs no such thing"
            )
        found = _GLOBALS[module, name]
        # A pickle can set attributes of a function: it gets a wrapper to spoil.
        return found if isinstance(found, type) else functools.partial(found)
