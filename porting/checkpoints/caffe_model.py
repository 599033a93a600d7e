"""Weights of a `.caffemodel`: Caffe's serialised `NetParameter`, old and new layers alike.

Field numbers are those of src/caffe/proto/caffe.proto in BVLC/caffe. Only the fields that weights
need are declared; protobuf skips the others. Messages are declared as bytes of their parent and
parsed one by one, so that memory follows the file: an empty message takes 2 bytes in a file and a
hundred as an object. Packed floats have the wire format of bytes as well, and NumPy reads those.
"""

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.core.backend import require
from porting.errors import CheckpointError

# message -> (field, number, type, whether repeated)
_SCHEMA: dict[str, tuple[tuple[str, int, str, bool], ...]] = {
    "NetParameter": (("layers", 2, "bytes", True), ("layer", 100, "bytes", True)),
    "LayerParameter": (
        ("name", 1, "string", False),
        ("type", 2, "string", False),
        ("blobs", 7, "bytes", True),
    ),
    "V1LayerParameter": (
        ("name", 4, "string", False),
        ("type", 5, "int32", False),
        ("blobs", 6, "bytes", True),
    ),
    "BlobProto": (
        ("num", 1, "int64", False),
        ("channels", 2, "int64", False),
        ("height", 3, "int64", False),
        ("width", 4, "int64", False),
        ("data", 5, "bytes", True),
        ("shape", 7, "bytes", False),
        ("double_data", 8, "bytes", True),
    ),
    "BlobShape": (("dim", 1, "int64", True),),
}
# Field of NetParameter -> message of its entries.
_LAYERS = {"layers": "V1LayerParameter", "layer": "LayerParameter"}
# `InnerProduct` as V1LayerParameter.LayerType counts and as newer files name it.
_DENSE = (14, "InnerProduct")
_PARTS = ("weight", "bias")
# Bytes that are looked at to tell a text from a message.
_HEAD = 4096


def read_caffe_model(path: Path) -> dict[str, np.ndarray]:
    """Read the weights of a `.caffemodel`.

    Returns:
        `<layer>.weight` and `<layer>.bias`, the layer's name with dots for slashes. Kernels are
        (O, I, H, W) and (O, I), as torch has them; biases (O,).

    Raises:
        CheckpointError: The file is a text, or holds no weights, or such that have no place in a
            weight and a bias of one name.
        MissingDependencyError: protobuf is not installed.
        Exception: Whatever protobuf raises of a damaged file.
    """
    arrays: dict[str, np.ndarray] = {}
    with path.open("rb") as file:
        if _is_text(file.read(_HEAD)):
            raise CheckpointError(
                f"{path}: a text, not a .caffemodel. A .prototxt describes a network; its weights "
                "come in a .caffemodel file of their own"
            )
    # From here on every copy replaces the one before it: at no time are there three of a value.
    pending = _raw_layers(path)
    while pending:
        name, kernel_is_dense, blobs = _next_layer(pending)
        if not blobs:
            continue
        where = f"{path}: layer {name!r}"
        if len(blobs) > len(_PARTS):
            raise CheckpointError(
                f"{where} has {len(blobs)} blobs of weights; known are layers with a weight and a "
                "bias"
            )
        key = name.replace("/", ".")
        if f"{key}.weight" in arrays:
            raise CheckpointError(f"{where} has weights twice")
        for part in _PARTS[: len(blobs)]:
            array = _array(f"{where}, {part}", blobs.pop(0))
            if part == "bias":
                array = _squeezed(f"{where}, {part}", array, 1)
            elif kernel_is_dense:
                array = _squeezed(f"{where}, {part}", array, 2)
            arrays[f"{key}.{part}"] = array
    if not arrays:
        raise CheckpointError(f"{path}: not a .caffemodel, or one whose layers hold no weights")
    return arrays


def _raw_layers(path: Path) -> list[tuple[str, bytes]]:
    """Return message and content of every layer, the last one first."""
    net = _parse("NetParameter", path.read_bytes())
    layers = [(kind, raw) for field, kind in _LAYERS.items() for raw in getattr(net, field)]
    return layers[::-1]


def _next_layer(pending: list[tuple[str, bytes]]) -> tuple[str, bool, list[bytes]]:
    """Take a layer: its name, whether it is dense, and its blobs, undecoded."""
    message, raw = pending.pop()
    layer = _parse(message, raw)
    del raw
    return layer.name, layer.type in _DENSE, list(layer.blobs)


def _array(where: str, raw: bytes) -> np.ndarray:
    """Return a blob's values in its declared shape, once their number is that of the shape."""
    blob = _parse("BlobProto", raw)
    del raw
    if blob.HasField("shape"):
        shape = tuple(_parse("BlobShape", blob.shape).dim)
    else:
        shape = (blob.num, blob.channels, blob.height, blob.width)
    doubles = len(blob.double_data) > 0
    segments, dtype = (blob.double_data, "<f8") if doubles else (blob.data, "<f4")
    values = segments[0] if len(segments) == 1 else b"".join(segments)
    wanted = math.prod(shape) * np.dtype(dtype).itemsize
    if min(shape, default=0) < 0 or len(values) != wanted:
        hint = "" if values else "; values that are not packed are not read"
        raise CheckpointError(
            f"{where}: declares the shape {shape}, {wanted:,} bytes, and holds {len(values):,}"
            + hint
        )
    return np.frombuffer(values, dtype).reshape(shape)


def _squeezed(where: str, array: np.ndarray, axes: int) -> np.ndarray:
    """Leave the last `axes` axes: all old blobs have four, the first of them of length 1."""
    first = max(0, array.ndim - axes)
    if any(length != 1 for length in array.shape[:first]):
        raise CheckpointError(f"{where}: its shape is {array.shape}, wanted {axes} axes")
    return array.reshape(array.shape[first:])


def _is_text(content: bytes) -> bool:
    return all(32 <= byte < 127 or byte in b"\t\r\n" for byte in content)


def _parse(message: str, raw: bytes) -> Any:
    parsed = _messages()[message]()
    parsed.ParseFromString(raw)
    return parsed


@functools.cache
def _messages() -> dict[str, Any]:
    """Return name -> message class of the schema, known to no pool but our own."""
    descriptor = require("google.protobuf.descriptor_pb2")
    pool = require("google.protobuf.descriptor_pool").DescriptorPool()
    file = descriptor.FileDescriptorProto(
        name="caffe_weights.proto", package="caffe_weights", syntax="proto2"
    )
    kinds = descriptor.FieldDescriptorProto
    for message, fields in _SCHEMA.items():
        declared = file.message_type.add(name=message)
        for name, number, kind, repeated in fields:
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            declared.field.add(
                name=name, number=number, type=getattr(kinds, f"TYPE_{kind.upper()}"), label=label
            )
    pool.Add(file)
    create = require("google.protobuf.message_factory").GetMessageClass
    return {name: create(pool.FindMessageTypeByName(f"caffe_weights.{name}")) for name in _SCHEMA}
