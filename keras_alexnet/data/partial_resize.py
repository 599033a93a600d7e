"""A part of a resized image without the rest of it, as Pillow computes it, to the bit."""

import functools
import math
from typing import NamedTuple

import numpy as np
from PIL import Image

from keras_alexnet.data.decoding import to_image

Picture = np.ndarray | Image.Image

# Radius of a filter in pixels of the smaller image (Pillow, src/libImaging/Resample.c).
_SUPPORT = {
    Image.Resampling.BILINEAR: 1.0,
    Image.Resampling.BICUBIC: 2.0,
    Image.Resampling.LANCZOS: 3.0,
}
# Multiples of 1 / 512 below 2^14 have centres that float32, in which Pillow takes boxes, holds.
_FINE, _LARGEST = 512, 1 << 14
# Pixels of a box in which noise tells the orders of passes apart; chance would make fewer equal.
_TELLING = 4096
_MOST_SHAPES = 10_000

_seen: set["_Shape"] = set()


class _Shape(NamedTuple):
    """Sizes are width and height, the box is left, top, right and bottom in the resized image."""

    old: tuple[int, int]
    new: tuple[int, int]
    box: tuple[int, int, int, int]
    resampling: Image.Resampling


def size_of(image: Picture) -> tuple[int, int]:
    """Return the width and height of an image or an array (H, W, C)."""
    return image.shape[1::-1] if isinstance(image, np.ndarray) else image.size


def resize_part(
    image: Picture,
    size: tuple[int, int],
    box: tuple[int, int, int, int],
    resampling: Image.Resampling,
) -> Image.Image:
    """Return `image.resize(size, resampling).crop(box)`; the box lies within the resized image.

    Pillow resizes the rows, rounds, and resizes the columns, or the other way round, as releases
    and shapes have it. Done one by one, the passes can leave out what the box does not need. Where
    that gives the same is tried out on noise, for each shape that comes up a second time.

    Args:
        image: uint8 (H, W, 3), or an RGB or grey image.
        size: Width and height of the whole resized image.
        box: Left, top, right and bottom in the resized image.
        resampling: Filter.
    """
    shape = _Shape(size_of(image), size, box, resampling)
    if shape in _seen and resampling in _SUPPORT:
        return _part(image, shape) if _is_same(shape) else _whole(image, shape)
    if len(_seen) < _MOST_SHAPES:
        _seen.add(shape)
    return _whole(image, shape)


@functools.lru_cache(_MOST_SHAPES)
def _is_same(shape: _Shape) -> bool:
    """Return whether `_part` does what `_whole` does."""
    left, top, right, bottom = shape.box
    if (right - left) * (bottom - top) < _TELLING or max(shape.old) >= _LARGEST:
        return False
    noise = np.random.default_rng(0).integers(0, 256, (*shape.old[::-1], 3), np.uint8)
    return _part(noise, shape).tobytes() == _whole(noise, shape).tobytes()


def _whole(image: Picture, shape: _Shape) -> Image.Image:
    return to_image(image).resize(shape.new, shape.resampling).crop(shape.box)


def _part(image: Picture, shape: _Shape) -> Image.Image:
    (width, height), (new_width, new_height), (left, top, right, bottom), resampling = shape
    # Rows that the filter sees from the box, and one beyond.
    step = height / new_height
    reach = _SUPPORT[resampling] * max(step, 1) + 1
    first = max(math.floor((top + 0.5) * step - reach), 0)
    last = min(math.ceil((bottom - 0.5) * step + reach), height)
    if isinstance(image, np.ndarray):
        rows = Image.fromarray(image[first:last])
    else:
        rows = image.crop((0, first, width, last))
    if _is_exact(width, new_width):
        span = left * width / new_width, right * width / new_width
        rows = rows.resize(
            (right - left, rows.height), resampling, (span[0], 0, span[1], rows.height)
        )
    else:
        rows = rows.resize((new_width, rows.height), resampling)
        rows = rows.crop((left, 0, right, rows.height))
    if _is_exact(height, new_height):
        span = top * step - first, bottom * step - first
        return rows.resize(
            (rows.width, bottom - top), resampling, (0, span[0], rows.width, span[1])
        )
    whole = Image.new(rows.mode, (rows.width, height))
    whole.paste(rows, (0, first))
    return whole.resize((rows.width, new_height), resampling).crop((0, top, rows.width, bottom))


def _is_exact(old: int, new: int) -> bool:
    """Return whether Pillow can begin a pass anywhere: at a place that float32 holds exactly."""
    return old * _FINE % new == 0
