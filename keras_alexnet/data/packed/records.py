"""TFRecord files of `tf.train.Example`, as TensorFlow reads them, without TensorFlow.

A record is its length in 8 bytes, the masked CRC-32C of these, the data, and the masked CRC-32C of
the data, all little-endian (tensorflow/core/lib/io/record_writer.h). The data are a protocol
buffer, Example{features{feature{key, value}}} (tensorflow/core/example/example.proto).
"""

import struct
from collections.abc import Mapping

import numpy as np

from keras_alexnet.core.backend import require

HEAD, TAIL = 12, 4  # bytes of a record before and behind its data

_MASK = 0xA282EAD8  # tensorflow/core/lib/hash/crc32c.h

# Numbers of fields and kinds of values, of the protocol buffers above.
_BYTES_LIST, _INT64_LIST = 1, 3
_VARINT, _DELIMITED = 0, 2


def masked_crc(data: bytes | memoryview) -> int:
    """Return the masked CRC-32C of some bytes.

    Raises:
        MissingDependencyError: The package google-crc32c is not installed.
    """
    # It takes no memoryview; an array of one is no copy.
    crc = require("google_crc32c").value(np.frombuffer(data, np.uint8))
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def record(data: bytes) -> bytes:
    """Return some data as a record of a TFRecord file."""
    length = struct.pack("<Q", len(data))
    checks = (struct.pack("<I", masked_crc(part)) for part in (length, data))
    return b"".join([length, next(checks), data, next(checks)])


def example(features: Mapping[str, bytes | int]) -> bytes:
    """Return a `tf.train.Example` whose last bytes are those of the last feature's value."""
    return _field(1, b"".join(_field(1, _entry(*pair)) for pair in features.items()))


def _entry(name: str, value: bytes | int) -> bytes:
    """Return a feature with its name: the key and the value of a map."""
    if isinstance(value, int):
        kind, content = _INT64_LIST, _varint(1 << 3 | _VARINT) + _varint(value)
    else:
        kind, content = _BYTES_LIST, _field(1, value)
    return _field(1, name.encode()) + _field(2, _field(kind, content))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _DELIMITED) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    """Return a number, at least 0, in groups of seven bits, the lowest first."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)
