"""Images for evaluation: decoded, resized and cropped by Pillow in threads, in their order."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from keras_alexnet.core.ahead import ahead
from keras_alexnet.data.decoding import to_image
from keras_alexnet.data.examples import Arrays, Examples, Stored
from keras_alexnet.data.partial_resize import Picture
from keras_alexnet.data.preprocessing import resize_and_crop
from keras_alexnet.errors import ConfigurationError, DataError, ImageFileError
from keras_alexnet.specs.preprocessing import Preprocessing

Prepare = Callable[[Picture, Preprocessing], np.ndarray]


class EvaluationBatches:
    """Iterates over examples: (uint8 (B, ...), int64 indices (B,)), the same each time.

    The pixels equal torchvision's evaluation transforms on PIL images to the bit. Unreadable files
    are left out; the last batch may be smaller. `prepare` turns an
    image into pixels: `resize_and_crop` gives (h, w, C).

    Raises:
        ConfigurationError: The batch size is not positive.
        DataError: Grey images are for a network that sees colours.
    """

    def __init__(
        self,
        examples: Examples,
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        prepare: Prepare = resize_and_crop,
    ) -> None:
        if batch_size < 1:
            raise ConfigurationError(f"batch_size must be at least 1, got {batch_size}")
        if isinstance(examples, Arrays) and len(preprocessing.channels) > examples.images.shape[3]:
            raise DataError(
                f"the images are grey, but the network reads {preprocessing.channels}; use one for "
                "grey images, such as lenet5"
            )
        self._examples, self._preprocessing, self._batch_size = examples, preprocessing, batch_size
        self._prepare = prepare
        self._skipped: dict[Path, str] = {}

    def __len__(self) -> int:
        return len(self._examples)

    @property
    def skipped(self) -> Mapping[Path, str]:
        """Unreadable images so far, and why."""
        return self._skipped

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if isinstance(self._examples, Arrays) and self._fits(self._examples.images):
            for start in range(0, len(self), self._batch_size):
                images = self._examples.images[start : start + self._batch_size]
                yield images, np.arange(start, start + len(images), dtype=np.int64)
            return
        pixels: list[np.ndarray] = []
        indices: list[int] = []
        for index, found in enumerate(self._in_order()):
            if isinstance(found, str):
                assert isinstance(self._examples, Stored)
                self._skipped[self._examples.place(index)] = found
                continue
            pixels.append(found)
            indices.append(index)
            if len(pixels) == self._batch_size:
                yield np.stack(pixels), np.array(indices, np.int64)
                pixels, indices = [], []
        if pixels:
            yield np.stack(pixels), np.array(indices, np.int64)

    def _fits(self, images: np.ndarray) -> bool:
        """Return whether images are what the network sees as they are."""
        height, width, channels = images.shape[1:]
        wanted = self._preprocessing
        return (
            self._prepare is resize_and_crop
            and wanted.resize_size == min(height, width)
            and wanted.crop_size == (height, width)
            and channels == len(wanted.channels)
        )

    def _in_order(self) -> Iterator[np.ndarray | str]:
        """Yield the pixels of each example, or why it has none; a few are under way."""
        # Twice a batch: one is being made while the network computes the other.
        return ahead(self._group, range(len(self)), count=2 * self._batch_size)

    def _group(self, indices: Sequence[int]) -> list[np.ndarray | str]:
        return [self._pixels(index) for index in indices]

    def _pixels(self, index: int) -> np.ndarray | str:
        image: Picture
        if isinstance(self._examples, Arrays):
            image = to_image(self._examples.images[index])
        else:
            mode = self._preprocessing.mode
            # Of an array only what the crop needs becomes an image.
            read = self._examples.pixels if mode == "RGB" else self._examples.image
            try:
                image = read(index, mode)
            except ImageFileError as error:
                return error.reason
        return self._prepare(image, self._preprocessing)
