"""The random numbers of an augmentation, drawn apart from their application.

NumPy draws them for each image, so the host and the device, every backend, and a resumed run all
see the same ones. Geometry is turned into boxes here too: it needs the images' sizes, no pixels.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from keras_alexnet.data.augmentation.record import Augmentation
from keras_alexnet.errors import DataError

Sizes = int | np.ndarray

# torchvision.transforms.RandomResizedCrop.get_params gives up after so many attempts.
ATTEMPTS = 10


@dataclass(frozen=True, eq=False)
class Draws:
    """Random numbers of n images, as float32.

    Attributes:
        position: (n, 2) in [0, 1), where the crop lies, vertically and horizontally.
        attempts: (n, 10, 2) in [0, 1), the areas and aspect ratios that a random resized crop
            tries; (n, 0, 2) for other crops.
        flip: (n,) 1 for images to be mirrored, else 0.
        colours: (n, K), the columns that `colour_columns` names.
    """

    position: np.ndarray
    attempts: np.ndarray
    flip: np.ndarray
    colours: np.ndarray

    def __len__(self) -> int:
        return len(self.flip)

    def take(self, indices: np.ndarray | slice) -> Self:
        """Return the draws of the images at `indices`, in their order."""
        return type(self)(*(values[indices] for values in vars(self).values()))


def colour_columns(augmentation: Augmentation) -> tuple[str, ...]:
    """Return what the columns of `Draws.colours` hold.

    The factors of the jitters in use, in torchvision's units; their ranks 0, 1, ... in the random
    order of application; 1 for images that turn grey, else 0; and the factors alpha of the three
    principal components.
    """
    jitters = augmentation.jitters
    ranks = tuple(f"{name}_rank" for name in jitters)
    gray = ("grayscale",) if augmentation.grayscale else ()
    components = ("alpha_1", "alpha_2", "alpha_3") if augmentation.pca else ()
    return jitters + ranks + gray + components


def draw(augmentation: Augmentation, count: int, rng: np.random.Generator) -> Draws:
    """Draw for `count` images, with the distributions of torchvision's transforms.

    Random crops draw positions; `ColorJitter` draws factors uniformly and the order of the
    operations for each image; the PCA factors are normal (Krizhevsky et al. 2012, section 4.1).
    """
    tries = ATTEMPTS if augmentation.crop == "random-resized" else 0
    position = rng.random((count, 2), np.float32)
    attempts = rng.random((count, tries, 2), np.float32)
    flip = (rng.random(count, np.float32) < augmentation.flip).astype(np.float32)
    jitters = augmentation.jitters
    columns = [
        _between(jitter_range(augmentation, name), rng.random((count, 1))) for name in jitters
    ]
    if jitters:
        columns.append(rng.random((count, len(jitters))).argsort(axis=1))
    if augmentation.grayscale:
        columns.append(rng.random((count, 1)) < augmentation.grayscale)
    if augmentation.pca:
        columns.append(augmentation.pca * rng.standard_normal((count, 3)))
    colours = np.concatenate([np.zeros((count, 0)), *columns], axis=1).astype(np.float32)
    return Draws(position, attempts, flip, colours)


def jitter_range(augmentation: Augmentation, name: str) -> tuple[float, float]:
    """Return the range of a jitter's factors, as `torchvision.transforms.ColorJitter` has it."""
    strength = getattr(augmentation, name)
    return (-strength, strength) if name == "hue" else (max(0.0, 1 - strength), 1 + strength)


def resized_size(augmentation: Augmentation, height: int, width: int) -> tuple[int, int] | None:
    """Return (height, width) in pixels of the whole image that the crop is cut from.

    It is `torchvision.transforms.Resize`'s for the short side, the image's own where nothing is
    resized, or None where the crop comes before the resize.
    """
    if augmentation.crop == "random-resized":
        return None
    heights, widths = _resized(augmentation.resize, np.asarray(height), np.asarray(width))
    return int(heights), int(widths)


def _resized(
    resize: int | None, heights: np.ndarray, widths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if resize is None:
        return heights, widths
    short = np.minimum(heights, widths)
    # The long side is truncated: torchvision.transforms.functional._compute_resized_output_size.
    # Its division is the very one of Python, so the two agree on every size.
    return (
        np.where(heights == short, resize, (resize * heights / short).astype(np.int64)),
        np.where(widths == short, resize, (resize * widths / short).astype(np.int64)),
    )


def crop_geometry(
    augmentation: Augmentation,
    draws: Draws,
    heights: Sizes,
    widths: Sizes,
    size: tuple[int, int],
) -> np.ndarray:
    """Return the box that each image shows in a result of `size`, and whether it is mirrored.

    Heights and widths are those of the images as they are stored, in pixels: one for all, or (n,).

    Returns:
        float32 (n, 5): top, left, height, width in pixels of the image as it is stored, before any
        resize, and 1 for mirrored images, else 0. Boxes that reach beyond the image show black.

    Raises:
        DataError: A random crop is larger than a padded image.
    """
    heights = np.broadcast_to(np.asarray(heights, np.int64), len(draws))
    widths = np.broadcast_to(np.asarray(widths, np.int64), len(draws))
    if augmentation.crop == "random-resized":
        box = _random_resized(augmentation, draws, heights, widths)
    else:
        tall, wide = _resized(augmentation.resize, heights, widths)
        top = _start(augmentation, draws.position[:, 0], tall, size[0])
        left = _start(augmentation, draws.position[:, 1], wide, size[1])
        down, across = heights / tall, widths / wide
        box = top * down, left * across, size[0] * down, size[1] * across
    return np.stack([*box, draws.flip], axis=1).astype(np.float32)


def _start(
    augmentation: Augmentation, position: np.ndarray, have: np.ndarray, want: int
) -> np.ndarray:
    """Return where a crop starts on an axis; below 0 where it gets a black margin.

    Every place of a random crop has the same probability.
    """
    if augmentation.crop == "center":
        # torchvision.transforms.functional.center_crop: half to even, margins rounded down.
        start = np.where(have < want, -((want - have) // 2), np.rint((have - want) / 2))
        return start.astype(np.int64)
    places = have + 2 * augmentation.padding - want + 1
    if (places < 1).any():
        raise DataError(
            f"a random crop of {want} pixels does not fit into an image whose side has "
            f"{have.min()} pixels (padding {augmentation.padding}): set resize to at least {want}, "
            "or more padding"
        )
    # In float64, where the product stays below `places`.
    return (position.astype(np.float64) * places).astype(np.int64) - augmentation.padding


def largest_boxes(augmentation: Augmentation, sizes: np.ndarray) -> np.ndarray:
    """Return height and width that no box of a random resized crop exceeds, int64 (2,).

    `sizes` are the heights and widths of the images, int64 (N, 2).
    """
    low, high = augmentation.ratio
    area = sizes.prod(axis=1, dtype=np.float64) * augmentation.scale[1]
    reach = np.rint(np.sqrt(np.stack([area / low, area * high], axis=1))).astype(np.int64)
    return np.minimum(sizes, reach).max(axis=0)


def _random_resized(
    augmentation: Augmentation, draws: Draws, heights: np.ndarray, widths: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Return top, left, height, width as `torchvision.transforms.RandomResizedCrop` picks them."""
    # (n, 1) and (n, attempts)
    area = (heights * widths)[:, None] * _between(augmentation.scale, draws.attempts[..., 0])
    low, high = augmentation.ratio
    ratio = np.exp(_between((math.log(low), math.log(high)), draws.attempts[..., 1]))
    tall = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    wide = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    fits = (tall > 0) & (tall <= heights[:, None]) & (wide > 0) & (wide <= widths[:, None])
    first = fits.argmax(axis=1)[:, None]
    tall = np.take_along_axis(tall, first, axis=1)[:, 0]
    wide = np.take_along_axis(wide, first, axis=1)[:, 0]
    position = draws.position.astype(np.float64)
    top = (position[:, 0] * (heights - tall + 1)).astype(np.int64)
    left = (position[:, 1] * (widths - wide + 1)).astype(np.int64)

    # The largest centre crop within the range of ratios, where no attempt fits.
    given_up = ~fits.any(axis=1)
    shape = widths / heights
    central_tall = np.where(shape < low, np.rint(widths / low).astype(np.int64), heights)
    central_wide = np.where(shape > high, np.rint(heights * high).astype(np.int64), widths)
    return (
        np.where(given_up, (heights - central_tall) // 2, top),
        np.where(given_up, (widths - central_wide) // 2, left),
        np.where(given_up, central_tall, tall),
        np.where(given_up, central_wide, wide),
    )


def _between(limits: tuple[float, float], share: np.ndarray) -> np.ndarray:
    return limits[0] + (limits[1] - limits[0]) * share.astype(np.float64)
