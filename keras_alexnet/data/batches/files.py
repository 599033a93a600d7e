"""Training batches of image files, decoded, cropped and mirrored on the host."""

from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.data.augmentation.array_ops import tensorflow_ops
from keras_alexnet.data.augmentation.colour import recolour
from keras_alexnet.data.augmentation.cropping import crop_with_pillow
from keras_alexnet.data.augmentation.draws import colour_columns, crop_geometry, resized_size
from keras_alexnet.data.augmentation.record import Augmentation
from keras_alexnet.data.batches.file_epoch import FileEpoch
from keras_alexnet.data.batches.file_shares import FileShares
from keras_alexnet.data.batches.plan import InputSpecs, Plan
from keras_alexnet.data.batches.shards import WHOLE, Shard
from keras_alexnet.data.decoding import Channels, open_image, plain_jpeg_size
from keras_alexnet.data.examples import Files
from keras_alexnet.errors import DataError, ImageFileError

_UNKNOWN = -1


class FileBatches:
    """See `TrainingBatches` for the arguments.

    Random resized crops of plain JPEG files are decoded box by box in TensorFlow; everything else,
    and whatever file is unusual, goes through Pillow. Unreadable files are left out: what follows
    moves up, so that all batches but the last are full, and the same each time. Where devices share
    a batch nothing moves up, as no process knows of the others' files: black ones of weight 0 stand
    in for them.

    Attributes:
        inputs: What the batches hold.
        skipped: The files left out so far, and why.
    """

    def __init__(
        self,
        examples: Files,
        augmentation: Augmentation,
        size: tuple[int, int],
        *,
        batch_size: int,
        drop_remainder: bool,
        on_device: bool,
        channels: int,
        pca: tuple[np.ndarray, np.ndarray] | None,
        shard: Shard,
    ) -> None:
        self.shard = shard
        self.examples, self.augmentation, self.size = examples, augmentation, size
        self.batch_size, self.drop_remainder = batch_size, drop_remainder
        self._channels: Channels = "L" if channels == 1 else "RGB"
        self._recolours, self._pca = augmentation.recolours and not on_device, pca
        # Whether TensorFlow decodes boxes of plain JPEG files.
        self.fuses = augmentation.crop == "random-resized" and channels == 3
        # (height, width) of the plain JPEG files, 0 for other files: headers are read once a run.
        self._sizes = np.full((len(examples), 2), _UNKNOWN, np.int32)
        self._reasons: dict[int, str] = {}
        self._is_checked = False
        self.skipped: dict[Path, str] = {}
        self.image_shape = (*size, channels)
        self.colours = len(colour_columns(augmentation))
        self.inputs: InputSpecs = {
            "image": (self.image_shape, "float32" if self._recolours else "uint8")
        }
        if augmentation.recolours and on_device:
            self.inputs["colours"] = ((self.colours,), "float32")

    def epoch(self, plan: Plan) -> FileEpoch:
        """Return the batches of a plan.

        Raises:
            DataError: No file can be used, or too few for a batch where the rest is dropped.
        """
        if not self._is_checked:
            self._check(plan)
            self._is_checked = True
        return FileEpoch(self, plan) if self.shard == WHOLE else FileShares(self, plan)

    def _check(self, plan: Plan) -> None:
        wanted = self.batch_size if self.drop_remainder else 1
        found = 0
        for position in range(len(plan)):
            found += bool(self.crop(plan, position)[1])
            if found == wanted:
                return
        index, why = next(iter(self._reasons.items()))
        some = f"only {found}, fewer than the batch_size {wanted}," if found else "none"
        raise DataError(
            f"{some} of {len(plan)} image files can be used; the first that cannot: "
            f"{self.examples.paths[index]}: {why}"
        )

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
        try:
            image = open_image(self.examples.paths[index], self._channels)
            have = image.height, image.width
            geometry = crop_geometry(self.augmentation, draws, *have, self.size)[0]
        except (ImageFileError, DataError) as error:
            self._reasons[index] = str(error).removeprefix(f"{self.examples.paths[index]}: ")
            return np.zeros(self.image_shape, np.uint8), np.False_
        whole = resized_size(self.augmentation, *have)
        return crop_with_pillow(image, geometry, self.size, whole), np.True_

    def skip(self, index: int) -> None:
        """Note that a file is left out."""
        path = self.examples.paths[index]
        if path not in self.skipped:
            self.skipped[path] = self._reasons.get(index) or _why_not(path)

    def recolour(self, tf: Any, images: Any, colours: Any) -> dict[str, Any]:
        """Return what batches hold: images with new colours, or both as they are."""
        if self._recolours:
            images = recolour(
                tf.cast(images, "float32"),
                colours,
                self.augmentation,
                ops=tensorflow_ops(),
                pca=self._pca,
            )
        return {"image": images} | ({"colours": colours} if "colours" in self.inputs else {})


def _why_not(path: Path) -> str:
    try:
        open_image(path)
    except ImageFileError as error:
        return str(error).removeprefix(f"{path}: ")
    return "damaged image (TensorFlow's decoder refuses it)"
