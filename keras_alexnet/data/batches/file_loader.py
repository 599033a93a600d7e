"""Image files as training wants them: decoded, cropped, mirrored; who is left out, and why."""

from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.data.augmentation.array_ops import tensorflow_ops
from keras_alexnet.data.augmentation.colour import recolour
from keras_alexnet.data.augmentation.cropping import crop_with_pillow
from keras_alexnet.data.augmentation.draws import colour_columns, crop_geometry, resized_size
from keras_alexnet.data.batches.plan import BatchSettings, InputSpecs, Plan
from keras_alexnet.data.decoding import Channels, open_image, plain_jpeg_size
from keras_alexnet.data.examples import Files
from keras_alexnet.errors import DataError, ImageFileError

_UNKNOWN = -1


class FileLoader:
    """Loads training images from files.

    Random resized crops of plain JPEG files are decoded box by box in TensorFlow; everything else,
    and whatever file is unusual, goes through Pillow.

    Attributes:
        inputs: What batches hold, as in `TrainingBatches`.
        image_shape: (height, width, C) of an image.
        colours: Number of random numbers of an image's colours.
        fuses: Whether TensorFlow decodes boxes of plain JPEG files.
        reasons: Why files cannot be used, by their number.
        skipped: The files left out so far, and why.
    """

    def __init__(self, examples: Files, settings: BatchSettings) -> None:
        self.examples, self.settings = examples, settings
        augmentation, channels = settings.augmentation, settings.channels
        self._channels: Channels = "L" if channels == 1 else "RGB"
        self._recolours = augmentation.recolours and not settings.on_device
        self.fuses = augmentation.crop == "random-resized" and channels == 3
        # (height, width) of the plain JPEG files, 0 for other files: headers are read once a run.
        self._sizes = np.full((len(examples), 2), _UNKNOWN, np.int32)
        self.reasons: dict[int, str] = {}
        self.skipped: dict[Path, str] = {}
        self.image_shape = (*settings.size, channels)
        self.colours = len(colour_columns(augmentation))
        self.inputs: InputSpecs = {
            "image": (self.image_shape, "float32" if self._recolours else "uint8")
        }
        if augmentation.recolours and settings.on_device:
            self.inputs["colours"] = ((self.colours,), "float32")

    def plain_sizes(self, indices: np.ndarray) -> np.ndarray:
        """Return (n, 2), height and width of plain JPEG files, 0 for others."""
        for index in indices[self._sizes[indices, 0] == _UNKNOWN]:
            self._sizes[index] = plain_jpeg_size(self.examples.paths[index]) or 0
        return self._sizes[indices]

    def crop(self, plan: Plan, position: int) -> tuple[np.ndarray, np.bool_]:
        """Return the image at a position, uint8 (h, w, C), and True; or nothing of use and False.

        Besides unreadable files, images that are smaller than a random crop cannot be used.
        """
        index = plan.order[position]
        draws = plan.draws.take(slice(position, position + 1))
        augmentation, size = self.settings.augmentation, self.settings.size
        try:
            image = open_image(self.examples.paths[index], self._channels)
            have = image.height, image.width
            geometry = crop_geometry(augmentation, draws, *have, size)[0]
        except (ImageFileError, DataError) as error:
            self.reasons[index] = str(error).removeprefix(f"{self.examples.paths[index]}: ")
            return np.zeros(self.image_shape, np.uint8), np.False_
        whole = resized_size(augmentation, *have)
        return crop_with_pillow(image, geometry, size, whole), np.True_

    def skip(self, index: int) -> None:
        """Note that a file is left out."""
        path = self.examples.paths[index]
        if path not in self.skipped:
            self.skipped[path] = self.reasons.get(index) or _why_not(path)

    def recolour(self, tf: Any, images: Any, colours: Any) -> dict[str, Any]:
        """Return what batches hold: images with new colours, or both as they are."""
        if self._recolours:
            images = recolour(
                tf.cast(images, "float32"),
                colours,
                self.settings.augmentation,
                ops=tensorflow_ops(),
                pca=self.settings.pca,
            )
        return {"image": images} | ({"colours": colours} if "colours" in self.inputs else {})


def _why_not(path: Path) -> str:
    try:
        open_image(path)
    except ImageFileError as error:
        return error.reason
    return "damaged image (TensorFlow's decoder refuses it)"
