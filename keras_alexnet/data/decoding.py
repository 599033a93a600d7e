"""Image files of every sort that users have, as RGB or grey pixels of 8 bits, upright."""

import contextlib
import functools
import io
import logging
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from keras_alexnet.core.backend import installed, require
from keras_alexnet.errors import ImageFileError

Channels = Literal["RGB", "L"]
Source = str | Path | bytes | np.ndarray

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


def decode_image(source: Source, channels: Channels = "RGB", *, name: object = None) -> np.ndarray:
    """Decode an image file, by its path or its content, as uint8 (H, W, 3), or (H, W, 1) of grey.

    Pixels that are decoded already, uint8 (H, W, 3), are taken too. `name` is what messages call
    the image; a path speaks for itself.

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
    return to_pixels(_decoded(source, channels, name))


def open_image(source: Source, channels: Channels = "RGB", *, name: object = None) -> Image.Image:
    """Do the same as `decode_image`, but return a Pillow image of the mode `channels`."""
    return to_image(_decoded(source, channels, name))


def to_pixels(image: Image.Image | np.ndarray) -> np.ndarray:
    """Return an RGB or grey image as uint8 (H, W, C)."""
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def to_image(pixels: Image.Image | np.ndarray) -> Image.Image:
    """Return uint8 (H, W, C), C is 3 or 1, as a Pillow image of the mode RGB or L."""
    if isinstance(pixels, Image.Image):
        return pixels
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _decoded(source: Source, channels: Channels, name: object) -> Image.Image | np.ndarray:
    """Return an image of the mode `channels` in whichever of two forms costs less."""
    if isinstance(source, np.ndarray):
        return source if channels == "RGB" else to_image(source).convert(channels)
    name = name or ("image" if isinstance(source, bytes) else source)
    try:
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            if (pixels := _by_turbo(image, content, channels)) is not None:
                return pixels
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


@functools.cache
def _turbo() -> ModuleType | None:
    """Return the package simplejpeg, where it is installed."""
    return require("simplejpeg") if installed("simplejpeg") else None


def _by_turbo(image: Image.Image, content: bytes, channels: Channels) -> np.ndarray | None:
    """Return the pixels of a JPEG file that need no conversion, or None.

    They are Pillow's, of the same library, in three quarters of the time. None stands for
    everything else: CMYK, an EXIF orientation, other formats, and files with the smallest fault.
    """
    if image.mode not in ("L", channels) or (turbo := _turbo()) is None or not _is_plain(image):
        return None
    with contextlib.suppress(ValueError):  # Pillow says what is wrong with the file, or takes it
        return turbo.decode_jpeg(content, "GRAY" if channels == "L" else "RGB")
    return None


def is_plain_jpeg(content: bytes) -> bool:
    """Return whether these are a JPEG file whose pixels need no conversion but that to RGB."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return _is_plain(image)
    except Exception:  # as above; who decodes the file will say what is wrong with it
        return False


def _is_plain(image: Image.Image) -> bool:
    kind = image.format, image.mode
    return kind in (("JPEG", "RGB"), ("JPEG", "L")) and _orientation(image) not in _UPRIGHT


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged notes about an image do not damage the image
        return 1


def _eight_bits(image: Image.Image, name: object) -> Image.Image:
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


def _scaled(values: np.ndarray, is_full_range: bool, name: object) -> np.ndarray:
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
