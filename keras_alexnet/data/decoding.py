"""Image files of every sort that users have, as RGB or grey pixels of 8 bits, upright."""

import io
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from keras_alexnet.errors import ImageFileError

Channels = Literal["RGB", "L"]

# What undoes an EXIF orientation; 1 is upright, other values mean nothing (EXIF 2.32, tag 274).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(
    source: str | Path | bytes, channels: Channels = "RGB", *, upright: bool = True
) -> np.ndarray:
    """Decode an image file, by its path or its content, as uint8 (H, W, 3), or (H, W, 1) of grey.

    It is the first frame, without its transparency. Grey, palette and CMYK images are converted as
    Pillow does, 16 bits are scaled to 8. `upright` applies the EXIF orientation that cameras write;
    torchvision's and timm's evaluations ignore it.

    Raises:
        ImageFileError: It is missing, no image, damaged or truncated, or suspiciously large.
    """
    return to_pixels(open_image(source, channels, upright=upright))


def to_pixels(image: Image.Image) -> np.ndarray:
    """Return an RGB or grey image as uint8 (H, W, C)."""
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def open_image(
    source: str | Path | bytes, channels: Channels = "RGB", *, upright: bool = True
) -> Image.Image:
    """Do the same as `decode_image`, but return a Pillow image of the mode `channels`."""
    name = "image" if isinstance(source, bytes) else str(source)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            turn = _UPRIGHT.get(_orientation(image)) if upright else None
            decoded = _eight_bits(image)
            if decoded.mode == channels:
                decoded.load()
            else:
                decoded = decoded.convert(channels)
            return decoded if turn is None else decoded.transpose(turn)
    except FileNotFoundError as error:
        raise ImageFileError(f"{name}: no such image file") from error
    except UnidentifiedImageError as error:
        raise ImageFileError(f"{name}: not an image that Pillow can read") from error
    except Image.DecompressionBombError as error:
        raise ImageFileError(f"{name}: refused, {error}") from error
    except Exception as error:
        # Pillow's readers raise whatever damaged input leads them to.
        raise ImageFileError(f"{name}: damaged image ({error})") from error


def plain_jpeg_size(path: str | Path) -> tuple[int, int] | None:
    """Return (height, width) of a JPEG file whose pixels need no conversion but that to RGB.

    Only the header is read. None stands for everything else: CMYK, an EXIF orientation, other
    formats, and what is no image at all.
    """
    try:
        with Image.open(path) as image:
            if (image.format, image.mode) not in (("JPEG", "RGB"), ("JPEG", "L")):
                return None
            return None if _orientation(image) in _UPRIGHT else (image.height, image.width)
    except Exception:  # as above; who decodes the file will say what is wrong with it
        return None


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged notes about an image do not damage the image
        return 1


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return an image that Pillow converts without clipping it, and without a warning."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        # The high byte, which is what Pillow keeps of 16-bit RGB.
        values = np.asarray(image).astype(np.int64) >> 8
        return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA")
    return image
