"""The crop of one image: cut out, resized and mirrored."""

import functools
from typing import Any

import numpy as np
from PIL import Image

from keras_alexnet.core.backend import require
from keras_alexnet.data.decoding import to_image, to_pixels


def crop(
    image: np.ndarray,
    geometry: np.ndarray,
    size: tuple[int, int],
    whole: tuple[int, int] | None,
) -> np.ndarray:
    """Cut a box out of RGB or grey (H, W, C), resize and mirror it: uint8 (h, w, C).

    What lies outside the image is black. For `geometry` (5,) see `draws.crop_geometry`; `whole` is
    the size of the whole image before the crop, None where the crop comes first.

    Where the crop comes first, a box that grows is torchvision's up to a step of 255; one that
    shrinks up to twofold differs by .5 to 1.2 on average, beyond by up to 3 (details decide), as
    means stand in for the triangle filter, which takes three times as long. A box of a resized
    image is torchvision's up to a step or two in few pixels.

    Raises:
        MissingDependencyError: OpenCV is not installed.
    """
    *box, flip = geometry.tolist()
    cut = (
        _cut_then_resized(image, box, size)
        if whole is None
        else _resized_then_cut(to_image(image), box, size, whole)
    )
    return _opencv().flip(cut, 1).reshape(cut.shape) if flip else cut  # a ninth of NumPy's time


# Up to this factor a linear filter alone comes as close: .8 of 255 on average, and .5 up to 1.05.
_LINEAR = 1.1


@functools.cache
def _opencv() -> Any:
    """Return OpenCV, which leaves threads to whoever calls it for several images at once."""
    cv2 = require("cv2")
    cv2.setNumThreads(1)
    return cv2


def _cut_then_resized(image: np.ndarray, box: list[float], size: tuple[int, int]) -> np.ndarray:
    cv2 = _opencv()
    top, left, height, width = map(round, box)
    cut = image[top : top + height, left : left + width]
    # OpenCV's linear filter does not widen as an image shrinks: details would alias. Twice as many
    # pixels and the mean of each two of them come close to the filter that does.
    sides = zip((height, width), size, strict=True)
    fine = tuple(2 * new if old > _LINEAR * new else new for old, new in sides)
    if fine[0] * _LINEAR >= height and fine[1] * _LINEAR >= width:
        cut = cv2.resize(cut, fine[::-1], interpolation=cv2.INTER_LINEAR)
        if fine != size:  # at half of a side a linear filter is the mean of two
            cut = cv2.resize(cut, size[::-1], interpolation=cv2.INTER_LINEAR)
    else:
        shrunk = min(height, size[0]), min(width, size[1])
        cut = cv2.resize(cut, shrunk[::-1], interpolation=cv2.INTER_AREA)
        if shrunk != size:
            cut = cv2.resize(cut, size[::-1], interpolation=cv2.INTER_LINEAR)
    return cut.reshape(*size, image.shape[2])  # OpenCV leaves the only channel of grey out


def _resized_then_cut(
    image: Image.Image, box: list[float], size: tuple[int, int], whole: tuple[int, int]
) -> np.ndarray:
    top, left, height, width = box
    bottom, right = min(top + height, image.height), min(left + width, image.width)
    shape = size[1], size[0]
    if whole == (image.height, image.width):
        x, y = round(left), round(top)
        image = image.crop((x, y, x + shape[0], y + shape[1]))
    elif min(top, left) >= 0 and bottom - top > height - 0.5 and right - left > width - 0.5:
        # The filter sees beyond the box, as if the whole image were resized.
        box_ = (left, top, right, bottom)
        image = image.resize(shape, Image.Resampling.BILINEAR, box_)
    else:
        x, y = round(left * whole[1] / image.width), round(top * whole[0] / image.height)
        image = image.resize((whole[1], whole[0]), Image.Resampling.BILINEAR)
        image = image.crop((x, y, x + shape[0], y + shape[1]))
    return to_pixels(image)
