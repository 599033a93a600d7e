"""`.caffemodel` files, written by an encoder of the tests' own."""

from collections.abc import Mapping

import numpy as np

# Protobuf's wire format, as its documentation describes it


def varint(number: int) -> bytes:
    content = b""
    while number > 127:
        content += bytes([number & 127 | 128])
        number >>= 7
    return content + bytes([number])


def field(number: int, value: int | bytes) -> bytes:
    """A varint or something with a length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def blob(array: np.ndarray, *, old: bool, shape: tuple[int, ...] | None = None) -> bytes:
    shape = array.shape if shape is None else shape
    values = field(5, np.ascontiguousarray(array, "<f4").tobytes())
    if old:
        shape = (1,) * (4 - len(shape)) + shape
        return b"".join(field(1 + axis, length) for axis, length in enumerate(shape)) + values
    return field(7, field(1, b"".join(map(varint, shape)))) + values


def layer(name: str, blobs: list[bytes], *, old: bool = False, dense: bool = False) -> bytes:
    if old:
        content = field(2, b"bottom") + field(4, name.encode()) + field(5, 14 if dense else 4)
        return field(2, content + b"".join(field(6, each) for each in blobs))
    kind = b"InnerProduct" if dense else b"Convolution"
    content = field(1, name.encode()) + field(2, kind) + field(10, 1)
    return field(100, content + b"".join(field(7, each) for each in blobs))


def encode_net(arrays: Mapping[str, np.ndarray], *, old: bool = False) -> bytes:
    """A net of layers `<name>.weight`, `<name>.bias`, and of one without weights."""
    content = field(1, b"Net") + layer("data", [], old=old)
    for key in arrays:
        name, _, part = key.rpartition(".")
        if part == "weight":
            parts = [arrays[each] for each in (key, f"{name}.bias") if each in arrays]
            blobs = [blob(array, old=old) for array in parts]
            content += layer(name.replace(".", "/"), blobs, old=old, dense=arrays[key].ndim == 2)
    return content


def small_net() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        key: rng.normal(size=shape).astype(np.float32)
        for key, shape in {
            "conv1.7x7_s2.weight": (4, 3, 7, 7),
            "conv1.7x7_s2.bias": (4,),
            "narrow.weight": (1, 1, 3, 5),
            "narrow.bias": (1,),
            "loss3.classifier.weight": (1, 6),
            "loss3.classifier.bias": (1,),
            "no_bias.weight": (2, 1, 1, 1),
        }.items()
    }
