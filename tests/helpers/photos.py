"""Files of photos, as different as those that people have."""

from pathlib import Path

import numpy as np
from PIL import Image

from keras_alexnet.data.examples import Files


def photo(height: int, width: int, seed: int = 0) -> Image.Image:
    """Smooth, as photos are, with some noise: JPEG keeps it, and shifts by a pixel show."""
    rng = np.random.default_rng([seed, height, width])
    coarse = rng.integers(0, 256, (5, 6, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    noise = rng.normal(0, 8, (height, width, 1))
    return Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))


def photo_files(
    folder: Path, count: int = 21, kinds: tuple[str, ...] = ("jpg", "png", "cmyk")
) -> Files:
    """Photos of different sizes in `folder`; those of the kind "cmyk" are unusual JPEG files."""
    rng = np.random.default_rng(0)
    paths = []
    for index in range(count):
        kind = kinds[index % len(kinds)]
        path = folder / f"{index:02}.{kind.replace('cmyk', 'jpg')}"
        image = photo(*map(int, rng.integers(50, 90, 2)), seed=index)
        (image.convert("CMYK") if kind == "cmyk" else image).save(path)
        paths.append(path)
    return Files(tuple(paths), np.arange(count))
