"""Training batches of image files, decoded, cropped and mirrored on the host."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.data.array_ops import tensorflow_ops
from keras_alexnet.data.augmentation import Augmentation
from keras_alexnet.data.colour import recolour
from keras_alexnet.data.cropping import crop_jpeg, crop_with_pillow
from keras_alexnet.data.decoding import Channels, open_image, plain_jpeg_size
from keras_alexnet.data.draws import colour_columns, crop_geometry, resized_size
from keras_alexnet.data.examples import Files
from keras_alexnet.data.plan import InputSpecs, Plan
from keras_alexnet.data.tensorflow_host import PREFETCH
from keras_alexnet.errors import DataError, ImageFileError

# Files whose headers are read, and whose boxes are computed, at once.
_BLOCK = 64
# Blocks of headers under way: on a slow disk they wait more than they work.
_BLOCKS_AHEAD = 4

_UNKNOWN = -1
_END_OF_IMAGE = b"\xff\xd9"


class FileBatches:
    """See `TrainingBatches` for the arguments.

    Random resized crops of plain JPEG files are decoded box by box in TensorFlow; everything else,
    and whatever file is unusual, goes through Pillow. Unreadable files are left out: what follows
    moves up, so that all batches but the last are full, and the same each time.

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
    ) -> None:
        self._examples, self._augmentation, self._size = examples, augmentation, size
        self._batch_size, self._drop_remainder = batch_size, drop_remainder
        self._channels: Channels = "L" if channels == 1 else "RGB"
        self._recolours, self._pca = augmentation.recolours and not on_device, pca
        self._sends_colours = augmentation.recolours and on_device
        self._fuses = augmentation.crop == "random-resized" and self._channels == "RGB"
        # (height, width) of the plain JPEG files, 0 for other files: headers are read once a run.
        self._sizes = np.full((len(examples), 2), _UNKNOWN, np.int32)
        self._reasons: dict[int, str] = {}
        self._ends: list[int] = []
        self._checked = False
        self.skipped: dict[Path, str] = {}
        self.inputs: InputSpecs = {
            "image": ((*size, channels), "float32" if self._recolours else "uint8")
        }
        if self._sends_colours:
            self.inputs["colours"] = ((len(colour_columns(augmentation)),), "float32")

    def position(self, batches: int) -> int:
        """Return the position behind so many batches, at least one, of the latest dataset."""
        return self._ends[batches - 1]

    def dataset(self, plan: Plan, tf: Any) -> Any:
        """Return the batches of a plan as a `tf.data.Dataset`.

        Raises:
            DataError: No file can be read, or too few for a batch where the rest is dropped.
        """
        self._check_files(plan)
        self._ends = ends = list[int]()
        images = self._images(plan, tf).batch(self._batch_size, self._drop_remainder)
        images = images.map(lambda positions, images, readable: (positions, images))

        # An empty batch marks the end. Each is held back until the next one is known, since what
        # follows the last one counts as done.
        nothing = (np.zeros(0, np.int64), np.zeros((0, *self._image_shape), np.uint8))
        marked = images.concatenate(tf.data.Dataset.from_tensors(nothing))
        held = marked.scan(nothing, lambda before, now: (now, (*before, now[0]))).skip(1)

        def settle(positions: np.ndarray, following: np.ndarray) -> list[np.ndarray]:
            self._settle(plan, ends, positions, is_last=not len(following))
            labels = self._examples.labels[plan.order[positions]].astype(np.int32)
            return [plan.draws.colours[positions], labels]

        def batch(positions: Any, images: Any, following: Any) -> tuple[dict[str, Any], Any]:
            colours, labels = tf.numpy_function(
                settle, [positions, following], ["float32", "int32"]
            )
            colours = tf.ensure_shape(colours, (None, plan.draws.colours.shape[1]))
            inputs = {"image": images}
            if self._sends_colours:
                inputs["colours"] = colours
            elif self._recolours:
                inputs["image"] = recolour(
                    tf.cast(images, "float32"),
                    colours,
                    self._augmentation,
                    ops=tensorflow_ops(),
                    pca=self._pca,
                )
            return inputs, tf.ensure_shape(labels, (None,))

        # One after the other, as `settle` counts them.
        return held.map(batch).prefetch(PREFETCH)

    @property
    def _image_shape(self) -> tuple[int, int, int]:
        return (*self._size, len(self._channels))

    def _images(self, plan: Plan, tf: Any) -> Any:
        """Return a dataset of (int64 position, uint8 image), without the unreadable ones."""

        def by_pillow(position: Any) -> tuple[Any, Any]:
            image, readable = tf.numpy_function(
                lambda position: self._by_pillow(plan, int(position)), [position], ["uint8", "bool"]
            )
            return tf.ensure_shape(image, self._image_shape), tf.ensure_shape(readable, ())

        def by_tensorflow(position: Any, path: Any, geometry: Any) -> tuple[Any, Any]:
            contents = tf.io.read_file(path)
            box, flip = tf.cast(geometry[:4], "int32"), geometry[4] > 0.5
            # A JPEG that does not end where it should may be cut off below the box: Pillow tells.
            return tf.cond(
                tf.strings.substr(contents, -2, 2) == _END_OF_IMAGE,
                lambda: (crop_jpeg(tf, contents, box, flip, self._size), True),
                lambda: by_pillow(position),
            )

        def image(position: Any, path: Any, geometry: Any, plain: Any) -> tuple[Any, Any, Any]:
            either = tf.cond(
                plain,
                lambda: by_tensorflow(position, path, geometry),
                lambda: by_pillow(position),
            )
            return position, *either

        def block(begin: Any) -> Any:
            columns = tf.numpy_function(
                lambda begin: self._block(plan, int(begin)),
                [begin],
                ["int64", "string", "float32", "bool"],
            )
            return tuple(map(tf.ensure_shape, columns, [(None,), (None,), (None, 5), (None,)]))

        threads = os.cpu_count()
        if self._fuses:
            begins = tf.data.Dataset.range(plan.start, len(plan), _BLOCK)
            columns = begins.map(block, num_parallel_calls=_BLOCKS_AHEAD).unbatch()
            # TensorFlow's decoder has no other way to say that it cannot.
            images = columns.map(image, num_parallel_calls=threads).ignore_errors()
        else:
            positions = tf.data.Dataset.range(plan.start, len(plan))
            images = positions.map(
                lambda position: (position, *by_pillow(position)), num_parallel_calls=threads
            )
        return images.filter(lambda position, image, readable: readable)

    def _block(self, plan: Plan, begin: int) -> list[np.ndarray]:
        """Return position, path, geometry (n, 5) and whether it is a plain JPEG of some files.

        The geometry is that of the plain ones; others must be decoded to know their size.
        """
        positions = np.arange(begin, min(begin + _BLOCK, len(plan)))
        indices = plan.order[positions]
        for index in indices[self._sizes[indices, 0] == _UNKNOWN]:
            self._sizes[index] = plain_jpeg_size(self._examples.paths[index]) or 0
        sizes = self._sizes[indices]
        plain = sizes[:, 0] > 0
        heights, widths = np.where(plain[:, None], sizes, self._size).T
        geometry = crop_geometry(
            self._augmentation, plan.draws.take(positions), heights, widths, self._size
        )
        paths = [os.fsencode(self._examples.paths[index]) for index in indices]
        return [positions, np.array(paths, object), geometry, plain]

    def _by_pillow(self, plan: Plan, position: int) -> tuple[np.ndarray, np.bool_]:
        """Return an image and True, or nothing of use and False."""
        try:
            return self._crop(plan, position), np.True_
        except (ImageFileError, DataError) as error:
            index = plan.order[position]
            self._reasons[index] = str(error).removeprefix(f"{self._examples.paths[index]}: ")
            return np.zeros(self._image_shape, np.uint8), np.False_

    def _crop(self, plan: Plan, position: int) -> np.ndarray:
        """Return the image at a position, uint8 (h, w, C).

        Raises:
            ImageFileError: The file cannot be read.
            DataError: The image is smaller than a random crop of it.
        """
        image = open_image(self._examples.paths[plan.order[position]], self._channels)
        geometry = crop_geometry(
            self._augmentation,
            plan.draws.take(slice(position, position + 1)),
            image.height,
            image.width,
            self._size,
        )
        whole = resized_size(self._augmentation, image.height, image.width)
        return crop_with_pillow(image, geometry[0], self._size, whole)

    def _settle(self, plan: Plan, ends: list[int], positions: np.ndarray, *, is_last: bool) -> None:
        """Note where a batch ends, and who is missing from it."""
        begin, end = ends[-1] if ends else plan.start, int(positions[-1]) + 1
        missing = np.setdiff1d(np.arange(begin, end), positions)
        if is_last:
            if not self._drop_remainder:  # else readable ones are dropped too
                missing = np.concatenate([missing, np.arange(end, len(plan))])
            end = len(plan)
        for index in plan.order[missing]:
            path = self._examples.paths[index]
            if path not in self.skipped:
                self.skipped[path] = self._reasons.get(index) or _why_not(path)
        ends.append(end)

    def _check_files(self, plan: Plan) -> None:
        """Check that there is something to train on, once."""
        if self._checked:
            return
        wanted = self._batch_size if self._drop_remainder else 1
        found = 0
        for position in range(len(plan)):
            found += bool(self._by_pillow(plan, position)[1])
            if found == wanted:
                self._checked = True
                return
        index, why = next(iter(self._reasons.items()))
        some = f"only {found}, fewer than the batch_size {wanted}," if found else "none"
        raise DataError(
            f"{some} of {len(plan)} image files can be used; the first that cannot: "
            f"{self._examples.paths[index]}: {why}"
        )


def _why_not(path: Path) -> str:
    try:
        open_image(path)
    except ImageFileError as error:
        return str(error).removeprefix(f"{path}: ")
    return "damaged image (TensorFlow's decoder refuses it)"
