"""Views of an image that an evaluation averages over."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path

import numpy as np
from PIL import Image

from keras_alexnet.data.batches.evaluation import EvaluationBatches
from keras_alexnet.data.examples import Arrays, Examples
from keras_alexnet.data.preprocessing import center_crop, resize, resize_and_crop
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.specs.preprocessing import Preprocessing


class Views(StrEnum):
    """Which views of an image."""

    CENTER = "center"
    MIRROR = "mirror"
    TEN_CROP = "ten-crop"

    @property
    def number(self) -> int:
        """Number of views of an image."""
        return {Views.CENTER: 1, Views.MIRROR: 2, Views.TEN_CROP: 10}[self]

    def check(self, preprocessing: Preprocessing) -> None:
        """Raise a ConfigurationError where resized images are smaller than a view."""
        height, width = preprocessing.crop_size
        if preprocessing.resize_size < min(height, width):
            raise ConfigurationError(
                f"images whose short side is resized to {preprocessing.resize_size} pixels leave "
                f"no room for the crop of {height} x {width}"
            )
        if self is Views.TEN_CROP and preprocessing.resize_size < max(height, width):
            raise ConfigurationError(
                f"ten-crop cuts {height} x {width} pixels out of images whose short side has "
                f"{preprocessing.resize_size}; there is no room for that"
            )


class ViewBatches:
    """Iterates over the views of examples: (uint8 (B, V, h, w, C), int64 indices (B,)).

    Raises:
        ConfigurationError: All views of these images would be the same.
        DataError: Grey images are for a network that sees colours.
    """

    def __init__(
        self, examples: Examples, preprocessing: Preprocessing, views: Views, *, batch_size: int
    ) -> None:
        if views is Views.TEN_CROP and isinstance(examples, Arrays):
            height, width = examples.images.shape[1:3]
            resized = resize(Image.new("RGB", (width, height)), preprocessing).shape[:2]
            if resized == preprocessing.crop_size:
                size = f"{resized[0]} x {resized[1]}"
                raise ConfigurationError(
                    f"ten-crop needs images larger than the {size} pixels that the model takes, "
                    f"but they are resized to {size}; use views mirror or center"
                )
        self._views = views
        self._images = EvaluationBatches(
            examples,
            preprocessing,
            batch_size=batch_size,
            prepare=ten_crops if views is Views.TEN_CROP else resize_and_crop,
        )

    @property
    def skipped(self) -> Mapping[Path, str]:
        """Unreadable images so far, and why."""
        return self._images.skipped

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for images, indices in self._images:
            match self._views:
                case Views.CENTER:
                    yield images[:, None], indices
                case Views.MIRROR:
                    yield np.stack([images, images[:, :, ::-1]], axis=1), indices
                case Views.TEN_CROP:
                    yield images, indices


def ten_crops(image: Image.Image | np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Cut `torchvision.transforms.TenCrop`'s views out of the resized image: uint8 (10, h, w, C).

    They are top left, top right, bottom left, bottom right, centre, and the same of the mirrored
    image. The image is what `preprocessing.resize_and_crop` takes.
    """
    pixels = resize(image, preprocessing)  # (H, W, C)
    height, width = preprocessing.crop_size
    crops = []
    for side in (pixels, pixels[:, ::-1]):
        crops += [
            side[:height, :width],
            side[:height, -width:],
            side[-height:, :width],
            side[-height:, -width:],
            center_crop(side, (height, width)),
        ]
    return np.stack(crops)
