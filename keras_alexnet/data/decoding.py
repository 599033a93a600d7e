"""Image files of every sort that users have, as RGB or grey pixels of 8 bits, upright."""

import io
import logging
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


# What grey numbers of more than 8 bits may reach to, and how that is called: the first that holds
# all of an image is taken for its white.
_INTEGERS = tuple((2**bits - 1, f"{bits} bits") for bits in (8, 12, 16, 32))
_FLOATS = ((1, "0..1"), (255, "0..255"), (65535, "0..65535"))
# Formats that scale 16 bits themselves: their numbers take the whole range.
_FULL_RANGE = ("PNG", "PPM")
_log = logging.getLogger(__name__)
_said: set[str] = set()


def decode_image(source: str | Path | bytes, channels: Channels = "RGB") -> np.ndarray:
    """Decode an image file, by its path or its content, as uint8 (H, W, 3), or (H, W, 1) of grey.

    It is the first frame, without its transparency, turned as the EXIF orientation says that
    cameras write (torchvision's and timm's evaluations ignore that). Grey, palette and CMYK images
    are converted as Pillow does.

    Wider numbers are scaled. Those of 16 bits in PNG and PPM files take the whole range, as the
    formats say, and give their high byte. Else the range is that of the fewest bits, of 8, 12, 16
    and 32, that hold the image's largest number; of floats it is 0..1, 0..255 or 0..65535. Where
    that is a guess, it is logged once for each kind.

    Raises:
        ImageFileError: It is missing, no image, damaged or truncated, or suspiciously large, or
            its numbers lie in no range of a picture.
    """
    return to_pixels(open_image(source, channels))


def to_pixels(image: Image.Image) -> np.ndarray:
    """Return an RGB or grey image as uint8 (H, W, C)."""
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def open_image(source: str | Path | bytes, channels: Channels = "RGB") -> Image.Image:
    """Do the same as `decode_image`, but return a Pillow image of the mode `channels`."""
    name = "image" if isinstance(source, bytes) else str(source)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            decoded = _eight_bits(image, name)  # before the notes, for which some files are read
            turn = _UPRIGHT.get(_orientation(image))
            if decoded.mode == channels:
                decoded.load()
            else:
                decoded = decoded.convert(channels)
            return decoded if turn is None else decoded.transpose(turn)
    except FileNotFoundError as error:
        raise ImageFileError(name, "no such image file") from error
    except UnidentifiedImageError as error:
        raise ImageFileError(name, "not an image that Pillow can read") from error
    except ImageFileError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageFileError(name, f"refused, {error}") from error
    except Exception as error:
        # Pillow's readers raise whatever damaged input leads them to.
        raise ImageFileError(name, f"damaged image ({error})") from error


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


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Return an image that Pillow converts without clipping it, and without a warning."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_scaled(np.asarray(image), image.format in _FULL_RANGE, name))
    # Of 16-bit colours Pillow keeps the high byte, in which little is left of 12 bits.
    wide = image.mode == "RGB" and any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    if wide and 0 < np.asarray(image).max() < 16:
        raise ImageFileError(
            name, "colours of 12 bits in 16, of which 4 bits are read; convert it to 8 bits"
        )
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA")
    return image


def _scaled(values: np.ndarray, is_full_range: bool, name: str) -> np.ndarray:
    """Return grey numbers of any range as uint8, see `decode_image`."""
    kind = values.dtype
    ranges = _FLOATS if kind.kind == "f" else _INTEGERS
    low, high = values.min(), values.max()
    fitting = [each for each in ranges if high <= each[0]]
    if not (low >= 0 and fitting):  # NaN is neither
        raise ImageFileError(
            name,
            f"its numbers, {kind} from {low:g} to {high:g}, lie in no range of a picture "
            f"({', '.join(text for _, text in ranges)})",
        )
    white, text = (65535, "16 bits") if is_full_range else fitting[0]
    if white != 2 ** (8 * kind.itemsize) - 1:
        _say_once(f"{kind.name} numbers were taken for {text}", f"{name}, up to {high:g}")
    if kind.kind == "f":
        return np.rint(values * (255 / white)).astype(np.uint8)
    # The high byte, which is what Pillow keeps of 16-bit colours.
    return (values.astype(np.int64) * 256 // (white + 1)).astype(np.uint8)


def _say_once(guess: str, example: str) -> None:
    """Log how the numbers of images were understood, once for each kind of them."""
    if guess not in _said:
        _said.add(guess)
        _log.warning("images whose %s, such as %s", guess, example)
