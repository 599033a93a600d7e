"""What happens to a photo before the first layer, after the record of its weights file.

Resizing and cropping work on decoded pixels through Pillow, which is what torchvision's presets
use, so both give the same uint8 values. Normalisation exists twice with the same arithmetic: here
as NumPy (`normalize`), and as Keras layers inside a model (`models.builder`).
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from keras_alexnet.data.decoding import open_image, to_image, to_pixels
from keras_alexnet.data.partial_resize import Picture, resize_part, size_of
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.specs.preprocessing import Preprocessing
from keras_alexnet.specs.shared import IMAGENET, TRANSFORM_INPUT_OFFSET, TRANSFORM_INPUT_SCALE


def resize_and_crop(image: Picture, preprocessing: Preprocessing = IMAGENET) -> np.ndarray:
    """Resize the short side, antialiased, and cut out the centre.

    Bit-exact with `torchvision.transforms._presets.ImageClassification` on a PIL image, before its
    conversion to float.

    Args:
        image: RGB image, or a uint8 array (H, W, 3).
        preprocessing: Sizes and filter to use, and whether the network sees grey.

    Returns:
        uint8 array (crop height, crop width, 3), values 0..255 in the order R, G, B whatever the
        network's; (crop height, crop width, 1) for a network that sees grey.

    Raises:
        ConfigurationError: The array is not (H, W, 3) of uint8.

    Example:
        >>> resize_and_crop(np.zeros((300, 500, 3), np.uint8)).shape
        (224, 224, 3)
    """
    image = _checked(image, preprocessing)
    size, (height, width) = _resized_size(image, preprocessing), preprocessing.crop_size
    left, top = map(_crop_start, size, (width, height))
    box = left, top, left + width, top + height
    if size != size_of(image) and left >= 0 and top >= 0:
        resampling = Image.Resampling[preprocessing.interpolation.upper()]
        return to_pixels(resize_part(image, size, box, resampling))
    # As `center_crop`, but in Pillow, which fills margins with black: what lies outside the crop
    # need not become an array first.
    return to_pixels(_resized(image, preprocessing).crop(box))


def resize(image: Picture, preprocessing: Preprocessing = IMAGENET) -> np.ndarray:
    """Do the first half of `resize_and_crop`: return all of the resized image, (H, W, C)."""
    return to_pixels(_resized(image, preprocessing))


def _resized(image: Picture, preprocessing: Preprocessing) -> Image.Image:
    image = to_image(_checked(image, preprocessing))
    if (size := _resized_size(image, preprocessing)) != image.size:
        image = image.resize(size, Image.Resampling[preprocessing.interpolation.upper()])
    return image


def _checked(image: Picture, preprocessing: Preprocessing) -> Picture:
    """Return an image of the network's mode; RGB arrays may stay arrays."""
    if isinstance(image, np.ndarray) and (
        image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size
    ):
        raise ConfigurationError(
            f"an image array must be uint8 of shape (height, width, 3); "
            f"got {image.dtype} of shape {image.shape}"
        )
    mode = "RGB" if isinstance(image, np.ndarray) else image.mode
    return image if mode == preprocessing.mode else to_image(image).convert(preprocessing.mode)


def _resized_size(image: Picture, preprocessing: Preprocessing) -> tuple[int, int]:
    """Return the width and height that an image is resized to."""
    width, height = size_of(image)
    if preprocessing.squash:
        height, width = preprocessing.squashed_size
        return width, height
    short, long = sorted((width, height))
    if short == preprocessing.resize_size:
        return width, height
    long = int(preprocessing.resize_size * long / short)
    short = preprocessing.resize_size
    return (short, long) if width <= height else (long, short)


def center_crop(pixels: np.ndarray, crop_size: tuple[int, int]) -> np.ndarray:
    """Cut the centre out of (H, W, C), with black margins where the image is smaller."""
    top, left = starts = [*map(_crop_start, pixels.shape[:2], crop_size)]
    margins = [
        (max(-start, 0), max(start + want - have, 0))
        for start, have, want in zip(starts, pixels.shape[:2], crop_size, strict=True)
    ]
    if any(map(any, margins)):
        pixels = np.pad(pixels, (*margins, (0, 0)))
    top, left = max(top, 0), max(left, 0)
    return pixels[top : top + crop_size[0], left : left + crop_size[1]]


def _crop_start(have: int, want: int) -> int:
    """Return the first pixel of a centre crop as torchvision cuts it; below 0 before a margin."""
    return round((have - want) / 2) if have >= want else -((want - have) // 2)


def load_images(paths: Iterable[str | Path], preprocessing: Preprocessing = IMAGENET) -> np.ndarray:
    """Decode, turn upright, resize and crop files into one uint8 batch (N, height, width, C).

    These are the pixels that every command sees; see `resize_and_crop` for what is torchvision's.

    Raises:
        ImageFileError: A file cannot be decoded.
        ConfigurationError: There are no paths.

    Example:
        >>> load_images([])
        Traceback (most recent call last):
        keras_alexnet.errors.ConfigurationError: no image files were given
    """
    images = [
        resize_and_crop(open_image(path, preprocessing.mode), preprocessing) for path in paths
    ]
    if not images:
        raise ConfigurationError("no image files were given")
    return np.stack(images)


def normalize(
    pixels: np.ndarray, preprocessing: Preprocessing = IMAGENET, *, transform_input: bool = False
) -> np.ndarray:
    """Turn pixel values 0..255 into a network's input, in torchvision's order of operations.

    Args:
        pixels: Array (..., 3) in the order R, G, B, or (..., 1) of grey; any real dtype.
        preprocessing: Channel order, scale, mean and deviation to use.
        transform_input: Whether GoogLeNet's `transform_input` follows.

    Returns:
        float32 array of the same shape, its channels in the network's order.

    Example:
        >>> normalize(np.full((1, 1, 3), 255, np.uint8)).round().tolist()
        [[[2.0, 2.0, 3.0]]]
    """
    given = np.asarray(pixels)
    x = np.array(
        given[..., ::-1] if preprocessing.channels == "BGR" else given, np.float32, order="C"
    )
    # In place and row by row: three numbers at a time take NumPy four times as long.
    width = x.shape[-2] if x.ndim > 1 else 1
    rows = x.reshape(*x.shape[:-2], width * x.shape[-1])
    rows /= np.float32(preprocessing.scale)
    rows -= np.tile(np.asarray(preprocessing.mean, np.float32), width)
    rows /= np.tile(np.asarray(preprocessing.std, np.float32), width)
    if transform_input:
        scale = np.asarray(TRANSFORM_INPUT_SCALE, np.float32)
        x = x * scale + np.asarray(TRANSFORM_INPUT_OFFSET, np.float32)
    return x
