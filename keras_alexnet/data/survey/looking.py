"""Looks at images, each once: size, colours, and what two that show the same have in common."""

import functools
import hashlib
import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image

from keras_alexnet.core.backend import require
from keras_alexnet.data.decoding import open_image
from keras_alexnet.data.examples import Arrays, Examples
from keras_alexnet.errors import ImageFileError


class Look(NamedTuple):
    """What is kept of an image."""

    size: tuple[int, int]  # height, width
    mode: str
    histogram: np.ndarray  # int64 (3, 256)
    digest: bytes  # of its size and its pixels
    hash: int  # perceptual, 64 bits


def looks(examples: Examples) -> Iterator[Look | str]:
    """Yield what is kept of each image, or why it cannot be read."""
    workers = os.cpu_count() or 1
    look = functools.partial(_look, examples)
    with ThreadPoolExecutor(workers) as threads:
        for start in range(0, len(examples), 16 * workers):
            chosen = range(start, min(start + 16 * workers, len(examples)))
            yield from threads.map(look, chosen)


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
        pixels = examples.images[index]
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        return image.convert("RGB"), image.mode
    content = examples.content(index)
    image = open_image(content, name=examples.place(index))
    if isinstance(content, np.ndarray):
        return image, image.mode
    with Image.open(io.BytesIO(content)) as header:
        return image, header.mode
