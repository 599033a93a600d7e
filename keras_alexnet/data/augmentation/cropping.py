"""The crop of one image file: by Pillow, or straight out of a JPEG by TensorFlow."""

from typing import Any

import numpy as np
from PIL import Image

from keras_alexnet.data.decoding import to_pixels

# Up to here TensorFlow's mean over areas stands in for the triangle filter.
_MOST_BY_AREA = 2.0


def crop_with_pillow(
    image: Image.Image,
    geometry: np.ndarray,
    size: tuple[int, int],
    whole: tuple[int, int] | None,
) -> np.ndarray:
    """Resize an RGB or grey image, cut out and mirror: uint8 (h, w, C), black outside the image.

    Equal to torchvision's transforms for this box, up to a step or two of 255 in few pixels where
    it is cut out of a resized image. For `geometry` (5,) see `draws.crop_geometry`; `whole` is the
    size of the whole image before the crop, None where the crop comes first.
    """
    top, left, height, width, flip = geometry.tolist()
    bottom, right = min(top + height, image.height), min(left + width, image.width)
    shape = size[1], size[0]
    if whole is None:
        image = image.crop((round(left), round(top), round(right), round(bottom)))
        image = image.resize(shape, Image.Resampling.BILINEAR)
    elif whole == (image.height, image.width):
        x, y = round(left), round(top)
        image = image.crop((x, y, x + shape[0], y + shape[1]))
    elif min(top, left) >= 0 and bottom - top > height - 0.5 and right - left > width - 0.5:
        # The filter sees beyond the box, as if the whole image were resized.
        box = (left, top, right, bottom)
        image = image.resize(shape, Image.Resampling.BILINEAR, box)
    else:
        x, y = round(left * whole[1] / image.width), round(top * whole[0] / image.height)
        image = image.resize((whole[1], whole[0]), Image.Resampling.BILINEAR)
        image = image.crop((x, y, x + shape[0], y + shape[1]))
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return to_pixels(image)


def crop_jpeg(tf: Any, contents: Any, box: Any, flip: Any, size: tuple[int, int]) -> Any:
    """Decode a box of a JPEG alone, resize and mirror it, in `tf.data`: uint8 (h, w, 3).

    The box is int32 (4,): top, left, height, width in pixels. The result differs from Pillow's
    by .3 of 255 on average where the box grows, by .4 to 1.9 where it shrinks up to twofold
    (details decide), and by .3 beyond. There the mean over areas takes a sixth of the time of the
    triangle filter; without either, aliasing makes it .8 to 3.8.
    """
    # The accurate transform equals Pillow's, and takes no longer than the fast one.
    pixels = tf.io.decode_and_crop_jpeg(contents, box, channels=3, dct_method="INTEGER_ACCURATE")
    have = tf.shape(pixels)[:2]
    small = tf.minimum(have, size)

    def by_area() -> Any:
        shrunk = tf.image.resize(pixels, small, "area")
        return tf.cond(
            tf.reduce_all(small == size), lambda: shrunk, lambda: tf.image.resize(shrunk, size)
        )

    resized = tf.case(
        [
            (tf.reduce_all(have <= size), lambda: tf.image.resize(pixels, size)),
            (tf.reduce_all(have / size <= _MOST_BY_AREA), by_area),
        ],
        default=lambda: tf.image.resize(pixels, size, antialias=True),
    )
    rounded = tf.cast(resized + 0.5, tf.uint8)
    return tf.ensure_shape(
        tf.cond(flip, lambda: tf.reverse(rounded, [1]), lambda: rounded), (*size, 3)
    )
