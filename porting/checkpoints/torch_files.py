"""Files of `torch.save` and TorchScript: their tensors, without torch and without running anything.

The format is that of torch/serialization.py: an archive of a pickle (`data.pkl`) and the storages
that it names, or, before version 1.6, pickles in a row and the storages behind them. A TorchScript
archive is alike; its code is not looked at.
"""

import mmap
import operator
import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np

from porting.checkpoints.guards import check_torch
from porting.checkpoints.unpickling import CONTAINERS, NUMPY, Array, Global, Inert, Unpickler

# Kinds of numbers by torch's class of their storages; quantised ones are placeholders.
_STORAGES: Mapping[str, str] = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
# Those, and what only tensors of an untyped storage have.
_KINDS = (*_STORAGES.values(), "uint16", "uint32", "uint64")
# The functions in whose place TorchScript's pickles name lists of numbers.
_LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")
# Of a file before version 1.6, in torch/serialization.py.
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
# Of a zip archive: a member's header in front of its content, up to the lengths of two texts.
_LOCAL_HEADER = struct.Struct("<26xHH")
# Modules within modules: GoogLeNet has 200, up to 4 deep.
_DEEPEST, _MOST_MODULES = 100, 100_000


@dataclass
class _Bytes:
    """The storages of a file, mapped into memory.

    Attributes:
        content: The whole file.
        places: Name of a storage -> its first byte, and how many it has.
        swapped: Whether its numbers have their highest byte first.
    """

    content: mmap.mmap
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    swapped: bool = False

    def place(self, key: str, start: int, length: int) -> None:
        """Note where a storage lies."""
        if start + length > len(self.content):
            raise ValueError(f"its storage {key} ends behind its end")
        self.places[key] = start, length

    def values(self, key: str, dtype: np.dtype) -> np.ndarray:
        """Return a storage's numbers, (N,); memory is taken where they are looked at."""
        if key not in self.places:
            raise ValueError(f"it lacks the storage {key}")
        start, length = self.places[key]
        values = np.frombuffer(self.content, dtype, length // dtype.itemsize, start)
        if self.swapped:
            part = dtype.itemsize // (2 if dtype.kind == "c" else 1)
            flipped = values.view(np.uint8).reshape(-1, part)[:, ::-1]
            values = np.ascontiguousarray(flipped).reshape(-1).view(dtype)
        return values


@dataclass(frozen=True)
class _DType:
    """Stands in for a dtype of torch and for a class of typed storages."""

    name: str

    def __setstate__(self, _: Any) -> None:
        raise pickle.UnpicklingError("it sets attributes of a dtype")


@dataclass(frozen=True)
class _Storage:
    file: _Bytes
    key: str
    dtype: str


@dataclass(frozen=True)
class Tensor:
    """A view of a storage, as a pickle describes it.

    Attributes:
        storage: Where its numbers are.
        offset: Which of them is the first.
        shape: Its shape.
        strides: Numbers from one to the next, by axis.
        dtype: torch's name of their kind.
    """

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str

    def array(self) -> np.ndarray:
        """Return its values, as a view of the file.

        Raises:
            TypeError: NumPy has no such numbers.
            ValueError: It is no part of what is stored.
        """
        if self.dtype not in _KINDS:
            raise TypeError("NumPy has no such numbers")
        dtype = _dtype(self.dtype)
        if 0 in self.shape:
            return np.zeros(self.shape, dtype)
        values = self.storage.file.values(self.storage.key, dtype)
        steps = list(zip(self.shape, self.strides, strict=True))
        last = self.offset + sum((length - 1) * stride for length, stride in steps)
        if min(self.offset, *self.shape, *self.strides, 0) < 0 or last >= len(values):
            raise ValueError(
                f"a tensor of shape {self.shape} is no part of the {len(values):,} numbers stored"
            )
        return np.lib.stride_tricks.as_strided(
            values[self.offset :], self.shape, [stride * dtype.itemsize for _, stride in steps]
        )


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, *_: Any, dtype: str | None = None
) -> Any:
    if not isinstance(storage, _Storage):
        return storage
    shape, strides = (tuple(map(operator.index, numbers)) for numbers in (shape, strides))
    return Tensor(storage, operator.index(offset), shape, strides, dtype or storage.dtype)


def _typed_tensor(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    _grad: Any,
    _hooks: Any,
    dtype: Any,
    *_: Any,
) -> Any:
    """Stand in for `_rebuild_tensor_v3`, whose storage has no type."""
    name = dtype.name if isinstance(dtype, _DType) else dtype.origin.removeprefix("torch.")
    return _tensor(storage, offset, shape, strides, dtype=name)


def _first(value: Any, *_: Any) -> Any:
    return value


def _subclass(function: Any, _kind: Any, arguments: Any, _state: Any) -> Any:
    """Stand in for `_rebuild_from_type_v2`: a tensor of a class of its own, or with attributes."""
    return function(*arguments)


_KNOWN: Mapping[Global, Any] = {
    **NUMPY,
    **CONTAINERS,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _typed_tensor,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
    ("torch._tensor", "_rebuild_from_type_v2"): _subclass,
    **{("torch.jit._pickle", name): _first for name in _LISTS},
    ("torch.storage", "UntypedStorage"): _DType("uint8"),
    **{
        (module, storage): _DType(dtype)
        for module in ("torch", "torch.cuda")
        for storage, dtype in _STORAGES.items()
    },
    **{("torch", dtype): _DType(dtype) for dtype in _KINDS},
}


class _TorchUnpickler(Unpickler):
    """Builds tensors out of storages too, which a pickle names by tuples."""

    def __init__(self, file: IO[bytes], storages: _Bytes) -> None:
        super().__init__(file, _KNOWN, encoding="latin1")
        self._storages = storages
        self.kinds: dict[str, str] = {}

    def persistent_load(self, name: Any) -> Any:
        """Return what stands for a storage; a module comes with its source, which is left."""
        what, kind, *rest = name
        if what == "module":
            return kind
        if what != "storage" or not isinstance(kind, _DType):
            return kind() if isinstance(kind, type) and issubclass(kind, Inert) else Inert()
        if rest[3:] and rest[3] is not None:
            raise ValueError("its storages share memory, as before torch 0.4")
        self.kinds[str(rest[0])] = kind.name
        return _Storage(self._storages, str(rest[0]), kind.name)


def read_torch(path: Path) -> Any:
    """Read what `torch.save` or TorchScript saved.

    Returns:
        Plain containers and values, `Tensor` for tensors, `unpickling.Inert` for everything else.
        A whole model is among the latter, see `state_of`.

    Raises:
        ModelFileError: As `keras_alexnet.models.archives.check_zip`.
        CheckpointError: As `guards.check_torch`.
        Exception: Whatever the readers raise of a damaged file.
    """
    check_torch(path)
    with path.open("rb") as file:
        # Private pages: who writes into an array changes no file.
        storages = _Bytes(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        if zipfile.is_zipfile(file):
            return _of_archive(file, storages)
        file.seek(0)
        return _of_pickles(file, storages)


def _of_archive(file: IO[bytes], storages: _Bytes) -> Any:
    with zipfile.ZipFile(file) as archive:
        # The folder's name is that of the file at its making.
        members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        storages.swapped = (
            "byteorder" in members and archive.read(members["byteorder"]).strip() == b"big"
        )
        for name, info in members.items():
            folder, _, key = name.rpartition("/")
            if folder == "data":
                head = storages.content[info.header_offset : info.header_offset + 30]
                start = info.header_offset + 30 + sum(_LOCAL_HEADER.unpack(head))
                storages.place(key, start, info.file_size)
        with archive.open(members["data.pkl"]) as pickled:
            return _TorchUnpickler(pickled, storages).load()


def _of_pickles(file: IO[bytes], storages: _Bytes) -> Any:
    magic, protocol, system = (_TorchUnpickler(file, storages).load() for _ in range(3))
    if (magic, protocol) != (_MAGIC, _PROTOCOL):
        raise ValueError("it does not begin as one")
    storages.swapped = not system.get("little_endian", True)
    unpickler = _TorchUnpickler(file, storages)
    content = unpickler.load()
    for key in map(str, _TorchUnpickler(file, storages).load()):
        (count,) = struct.unpack("<q", file.read(8))
        if key not in unpickler.kinds or count < 0:
            raise ValueError(f"nothing in it uses its storage {key}")
        length = count * _dtype(unpickler.kinds[key]).itemsize
        storages.place(key, file.tell(), length)
        file.seek(length, 1)
    return content


def _dtype(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def state_of(model: Inert) -> dict[str, Any]:
    """Return the state_dict of a whole model that was pickled, or of TorchScript's: key -> tensor.

    Raises:
        ValueError: Its modules are too many, or lie in circles.
    """
    return dict(_tensors(model, "", 0, iter(range(_MOST_MODULES))))


def _tensors(module: Inert, prefix: str, depth: int, visits: Iterator[int]) -> Iterator[Any]:
    if depth > _DEEPEST or next(visits, None) is None:
        raise ValueError("its modules are too many, or lie in circles")
    state = module.state if isinstance(module.state, Mapping) else {}
    own: Mapping[str, Any]
    if "_parameters" in state:
        passing = state.get("_non_persistent_buffers_set") or ()
        buffers = state.get("_buffers") or {}
        own = {**state["_parameters"], **{k: v for k, v in buffers.items() if k not in passing}}
        children = state.get("_modules") or {}
    elif module.origin.startswith("__torch__"):
        own = children = state
    else:
        return
    for key, value in own.items():
        if isinstance(value, Tensor | Array):
            yield f"{prefix}{key}", value
    for name, child in children.items():
        if isinstance(child, Inert):
            yield from _tensors(child, f"{prefix}{name}.", depth + 1, visits)
