"""What a check feeds to both frameworks: photos from files and seeded noise, 0..255."""

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.data.decoding import open_image
from keras_alexnet.data.preprocessing import load_images
from keras_alexnet.data.sources.folders import expand
from keras_alexnet.specs.preprocessing import Preprocessing
from porting.errors import UsageError
from porting.weights.table import Shape, Size


@dataclasses.dataclass(frozen=True)
class InputSet:
    """So many images of one size (height, width) in pixels: photos from files, or seeded noise.

    `name` is unique, such as `photos 224x224`. `preprocessing` brings a photo to this size and to
    the network's values. `beside` is the shape of each further input, of one image.
    """

    name: str
    size: Size
    preprocessing: Preprocessing
    paths: tuple[str, ...] = ()
    count: int = 0
    seed: int = 0
    beside: tuple[Shape, ...] = ()

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "InputSet":
        """Return the set whose fields travelled as JSON, which knows no tuples."""
        own = {
            "size": tuple(fields["size"]),
            "preprocessing": Preprocessing.from_record(fields["preprocessing"]),
            "beside": tuple(map(tuple, fields["beside"])),
        }
        return cls(**{**fields, **own})

    def pixels(self) -> np.ndarray:
        """Return the images, uint8 (N, height, width, C): R, G, B or grey."""
        if self.paths:
            return load_images(self.paths, self.preprocessing)
        rng = np.random.default_rng([self.seed, *self.size])
        channels = len(self.preprocessing.channels)
        return rng.integers(0, 256, (self.count, *self.size, channels), dtype=np.uint8)

    def others(self) -> list[np.ndarray]:
        """Return the further inputs, normal noise, float32 (count, *shape), as torch has them."""
        rng = np.random.default_rng([self.seed, *self.size, 1])
        return [rng.normal(0, 1, (self.count, *s)).astype(np.float32) for s in self.beside]


def input_sets(
    images: Sequence[str | Path] | None,
    sizes: Sequence[Size],
    preprocessing: Preprocessing,
    *,
    noise: int,
    seed: int,
    beside: Sequence[Shape] = (),
) -> list[InputSet]:
    """Return the input sets of a check: photos and `noise` images of noise at every size.

    `images` are files and folders, None stands for scikit-learn's two sample photos, where they are
    installed. `preprocessing` is what the network's images go through, at its own size. Noise is
    `beside` them, of these shapes.

    Raises:
        UsageError: Nothing is left to compare.
        ImageFileError: A photo does not exist or cannot be decoded.
        DataError: A folder holds no image.
    """
    paths = sample_photos() if images is None else expand(images)
    for path in paths:
        open_image(path)  # found out here rather than minutes later in a child
    sets = []
    for height, width in sizes:
        title = f"{height}x{width}"
        record = preprocessing.at_size(height, width)
        if paths:
            names = tuple(str(path) for path in paths)
            sets.append(InputSet(f"photos {title}", (height, width), record, names, len(paths)))
        if noise:
            sets.append(InputSet(f"noise {title}", (height, width), record, count=noise, seed=seed))
    sets = [dataclasses.replace(each, beside=tuple(beside)) for each in sets]
    if not sets:
        raise UsageError("nothing to compare: no photos, and noise images are switched off")
    return sets


def sample_photos() -> list[Path]:
    """Return scikit-learn's sample photos (china.jpg, flower.jpg), or none if it is missing."""
    found = importlib.util.find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        return []
    folder = Path(found.submodule_search_locations[0], "datasets", "images")
    return sorted(folder.glob("*.jpg"))


def gradient_labels(count: int) -> np.ndarray:
    """Return labels for the loss whose gradients are compared, int64 (count,).

    What remains of one divided by the number of classes is the class of an image.
    """
    return np.arange(1, count + 1, dtype=np.int64) * 7
