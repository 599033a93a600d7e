"""Weights of a `.caffemodel`: Caffe's serialised `NetParameter`, old and new layers alike.

Field numbers are those of src/caffe/proto/caffe.proto in BVLC/caffe. Only the fields that weights
and the order of layers need are declared; protobuf skips the others. Messages are declared as bytes
of their parent and parsed one by one, so that memory follows the file: an empty message takes 2
bytes in a file and a hundred as an object. Packed floats have the wire format of bytes as well, and
NumPy reads those.
"""

import functools
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_alexnet.core.backend import require
from porting.checkpoints.caffe_net import Net, NetLayer, kind_of
from porting.errors import CheckpointError

# message -> (field, number, type, whether repeated)
_SCHEMA: dict[str, tuple[tuple[str, int, str, bool], ...]] = {
    "NetParameter": (
        ("name", 1, "string", False),
        ("layers", 2, "bytes", True),
        ("layer", 100, "bytes", True),
    ),
    "LayerParameter": (
        ("name", 1, "string", False),
        ("type", 2, "string", False),
        ("bottom", 3, "string", True),
        ("top", 4, "string", True),
        ("blobs", 7, "bytes", True),
        ("convolution_param", 106, "bytes", False),
        ("lrn_param", 118, "bytes", False),
        ("pooling_param", 121, "bytes", False),
        ("relu_param", 123, "bytes", False),
    ),
    "V1LayerParameter": (
        ("bottom", 2, "string", True),
        ("top", 3, "string", True),
        ("name", 4, "string", False),
        ("type", 5, "int32", False),
        ("blobs", 6, "bytes", True),
        ("convolution_param", 10, "bytes", False),
        ("lrn_param", 18, "bytes", False),
        ("pooling_param", 19, "bytes", False),
        ("relu_param", 30, "bytes", False),
    ),
    "convolution_param": (
        ("pad", 3, "uint32", True),
        ("kernel_size", 4, "uint32", True),
        ("group", 5, "uint32", False),
        ("stride", 6, "uint32", True),
        ("pad_h", 9, "uint32", False),
        ("pad_w", 10, "uint32", False),
        ("kernel_h", 11, "uint32", False),
        ("kernel_w", 12, "uint32", False),
        ("stride_h", 13, "uint32", False),
        ("stride_w", 14, "uint32", False),
        ("dilation", 18, "uint32", True),
    ),
    "pooling_param": (
        ("pool", 1, "int32", False),
        ("kernel_size", 2, "uint32", False),
        ("stride", 3, "uint32", False),
        ("pad", 4, "uint32", False),
        ("kernel_h", 5, "uint32", False),
        ("kernel_w", 6, "uint32", False),
        ("stride_h", 7, "uint32", False),
        ("stride_w", 8, "uint32", False),
        ("pad_h", 9, "uint32", False),
        ("pad_w", 10, "uint32", False),
        ("global_pooling", 12, "bool", False),
    ),
    "lrn_param": (
        ("local_size", 1, "uint32", False),
        ("alpha", 2, "float", False),
        ("beta", 3, "float", False),
        ("norm_region", 4, "int32", False),
        ("k", 5, "float", False),
    ),
    "relu_param": (("negative_slope", 1, "float", False),),
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
# Messages of a layer's settings, each called as its field.
_SETTINGS = ("convolution_param", "lrn_param", "pooling_param", "relu_param")
_PARTS = ("weight", "bias")
# Bytes that are looked at to tell a text from a message.
_HEAD = 4096


class CaffeModel(NamedTuple):
    """What a `.caffemodel` holds: named arrays, and what it says of its network."""

    arrays: dict[str, np.ndarray]
    net: Net


def read_caffe_model(path: Path) -> CaffeModel:
    """Read the weights of a `.caffemodel`, and the description of its network.

    Returns:
        Arrays called `<layer>.weight` and `<layer>.bias`, the layer's name with dots for slashes.
        Kernels are (O, I, H, W) and (O, I), as torch has them; biases (O,).

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
    name, pending = _raw_layers(path)
    layers: list[NetLayer] = []
    while pending:
        described, blobs = _next_layer(pending)
        layers.append(described)
        if not blobs:
            continue
        where = f"{path}: layer {described.name!r}"
        if len(blobs) > len(_PARTS):
            raise CheckpointError(
                f"{where} has {len(blobs)} blobs of weights; known are layers with a weight and a "
                "bias"
            )
        key = described.name.replace("/", ".")
        if f"{key}.weight" in arrays:
            raise CheckpointError(f"{where} has weights twice")
        for part in _PARTS[: len(blobs)]:
            array = _array(f"{where}, {part}", blobs.pop(0))
            if part == "bias":
                array = _squeezed(f"{where}, {part}", array, 1)
            elif described.kind == "InnerProduct":
                array = _squeezed(f"{where}, {part}", array, 2)
            arrays[f"{key}.{part}"] = array
    if not arrays:
        raise CheckpointError(f"{path}: not a .caffemodel, or one whose layers hold no weights")
    return CaffeModel(arrays, Net(path, name, tuple(layers)))


def _raw_layers(path: Path) -> tuple[str, list[tuple[str, bytes]]]:
    """Return the network's name, and message and content of every layer, the last one first."""
    net = _parse("NetParameter", path.read_bytes())
    layers = [(kind, raw) for field, kind in _LAYERS.items() for raw in getattr(net, field)]
    return net.name, layers[::-1]


def _next_layer(pending: list[tuple[str, bytes]]) -> tuple[NetLayer, list[bytes]]:
    """Take a layer: what the file says of it, and its blobs, undecoded."""
    message, raw = pending.pop()
    layer = _parse(message, raw)
    del raw
    settings: dict[str, float] = {}
    for name in _SETTINGS:
        if layer.HasField(name):
            for field, value in _parse(name, getattr(layer, name)).ListFields():
                # Of a kernel's height and width, where both are given, the first.
                settings[field.name] = float(value if isinstance(value, int | float) else value[0])
    described = NetLayer(
        layer.name, kind_of(layer.type), tuple(layer.bottom), tuple(layer.top), settings
    )
    return described, list(layer.blobs)


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
