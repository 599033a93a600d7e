"""Pictures of what explains a guess: uint8 arrays (h, w, 3) of arrays."""

import math

import numpy as np
from PIL import Image

from keras_alexnet.core.backend import require

_FOR, _AGAINST = np.array((200, 30, 40)), np.array((30, 90, 200))  # R, G, B
_GAP = 1  # pixels between two tiles, before they are enlarged
# Of the numbers of a signed map, so few may lie outside of its colours: single pixels stand out.
_OUTSIDE = 1  # percent


def heat_overlay(photo: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay a map of numbers from 0 up over a photo, from blue, 0, over green to red, its largest.

    Args:
        photo: uint8 (h, w, 3), or (h, w, 1) of grey.
        heat: (rows, columns) of any size.
    """
    colours = require("matplotlib").colormaps["turbo"](_to_one(_enlarged(heat, photo)))[..., :3]
    return _bytes(0.5 * _grey(photo) + 0.5 * 255 * colours)


def signed_overlay(photo: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay a map over a pale grey photo, red where it is above 0 and blue where it is below.

    Args:
        photo: uint8 (h, w, 3), or (h, w, 1) of grey.
        heat: (rows, columns) of any size; 0 is left as it is.
    """
    heat = _enlarged(heat, photo)
    limit = np.percentile(np.abs(heat), 100 - _OUTSIDE)
    share = np.clip(np.abs(heat) / max(limit, np.finfo(np.float32).tiny), 0, 1)[..., None]
    colour = np.where(heat[..., None] > 0, _FOR, _AGAINST)
    return _bytes((1 - share) * (160 + 0.35 * _grey(photo)) + share * colour)


def tiles(pictures: np.ndarray, *, width: int) -> np.ndarray:
    """Put small pictures side by side, in lines of about as many as there are lines.

    Args:
        pictures: (N, h, w, C) in [0, 1].
        width: Of the result, at least, in pixels: every pixel becomes a square.
    """
    count, rows, columns, _ = pictures.shape
    across = min(count, math.ceil(math.sqrt(2 * count * rows / columns)))
    down = math.ceil(count / across)
    # Transparency is no use in a picture that may lie on black or white: the gaps are grey.
    sheet = np.full((down * (rows + _GAP) - _GAP, across * (columns + _GAP) - _GAP, 3), 0.5)
    for number, picture in enumerate(pictures):
        top, left = (number // across) * (rows + _GAP), (number % across) * (columns + _GAP)
        sheet[top : top + rows, left : left + columns] = picture  # grey is broadcast
    scale = max(math.ceil(width / sheet.shape[1]), 1)
    return _bytes(255 * sheet.repeat(scale, axis=0).repeat(scale, axis=1))


def contrasted(maps: np.ndarray) -> np.ndarray:
    """Return maps (N, h, w) as grey pictures (N, h, w, 1), each from its least to its most."""
    least, most = (bound(axis=(1, 2), keepdims=True) for bound in (maps.min, maps.max))
    spread = np.maximum(most - least, np.finfo(np.float32).tiny)
    return ((maps - least) / spread)[..., None]


def _enlarged(heat: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """Return a map at the size of a photo, bilinear."""
    height, width = photo.shape[:2]
    image = Image.fromarray(np.asarray(heat, np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def _to_one(heat: np.ndarray) -> np.ndarray:
    return heat / max(heat.max(), np.finfo(np.float32).tiny)


def _grey(photo: np.ndarray) -> np.ndarray:
    return photo.mean(axis=-1, keepdims=True)


def _bytes(picture: np.ndarray) -> np.ndarray:
    return np.clip(picture.round(), 0, 255).astype(np.uint8)
