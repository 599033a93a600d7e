"""Looks at images, each once: size, colours, and what two that show the same have in common."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from keras_alexnet.core.ahead import ahead
from keras_alexnet.core.backend import require
from keras_alexnet.data.decoding import open_image, to_image
from keras_alexnet.data.examples import Arrays, Examples
from keras_alexnet.errors import ImageFileError

_AHEAD = 32  # images that threads look at before they are asked for


class Look(NamedTuple):
    """What is kept of an image."""

    size: tuple[int, int]  # height, width
    mode: str
    histogram: np.ndarray  # int64 (3, 256)
    digest: bytes  # of its size and its pixels
    hash: int  # perceptual, 64 bits


def looks(examples: Examples) -> Iterator[Look | str]:
    """Yield what is kept of each image, or why it cannot be read."""

    def look(indices: Sequence[int]) -> list[Look | str]:
        return [_look(examples, index) for index in indices]

    return ahead(look, range(len(examples)), count=_AHEAD)


def _look(examples: Examples, index: int) -> Look | str:
    try:
        image, mode = opened(examples, index)
    except ImageFileError as error:
        return error.reason
    digest = hashlib.sha256(f"{image.size}".encode())
    digest.update(image.tobytes())
    bits = require("imagehash").phash(image).hash  # bool (8, 8)
    return Look(
        (image.height, image.width),
        mode,
        np.array(image.histogram(), np.int64).reshape(3, 256),
        digest.digest(),
        int.from_bytes(np.packbits(bits).tobytes(), "big"),
    )


def opened(examples: Examples, index: int) -> tuple[Image.Image, str]:
    """Return an example as an RGB image, and the mode that it has."""
    if isinstance(examples, Arrays):
        image = to_image(examples.images[index])
        return image.convert("RGB"), image.mode
    content = examples.content(index)
    image = open_image(content, name=examples.place(index))
    if isinstance(content, np.ndarray):
        return image, image.mode
    with Image.open(io.BytesIO(content)) as header:
        return image, header.mode
