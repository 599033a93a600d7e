"""Training batches of images that are read one by one: decoded, cropped and mirrored on the host.

Threads do that, and no framework: OpenCV, libjpeg-turbo and Pillow leave Python's lock alone. All
frameworks see the same pixels.
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_alexnet.core.ahead import ahead, in_background
from keras_alexnet.data.augmentation.array_ops import tensorflow_ops
from keras_alexnet.data.augmentation.colour import recolour
from keras_alexnet.data.augmentation.cropping import crop
from keras_alexnet.data.augmentation.draws import (
    colour_columns,
    crop_geometry,
    largest_boxes,
    resized_size,
)
from keras_alexnet.data.batches.plan import Batch, BatchSettings, InputSpecs, Plan
from keras_alexnet.data.batches.shards import WHOLE
from keras_alexnet.data.batches.tensorflow_host import PREFETCH, from_batches
from keras_alexnet.data.decoding import Channels
from keras_alexnet.data.examples import Stored
from keras_alexnet.errors import DataError, ImageFileError


class Seen(NamedTuple):
    """What is to be seen of an image.

    Attributes:
        pixels: uint8 (h, w, C), of the network's size, or a box that the device resizes to it.
        mirrored: Whether the device mirrors it.
    """

    pixels: np.ndarray
    mirrored: bool = False


# Of the network's input, in pixels: to send larger boxes would cost more than to resize them.
_LARGEST_CANVAS = 4


def _canvas(examples: Stored, settings: BatchSettings) -> tuple[int, int] | None:
    """Return the size that holds any box for the device to resize; None where the host resizes."""
    augmentation = settings.augmentation
    if not (settings.on_device and settings.cuts_only and augmentation.crop == "random-resized"):
        return None
    if (sizes := examples.sizes()) is None:
        return None
    height, width = largest_boxes(augmentation, sizes).tolist()
    most = _LARGEST_CANVAS * settings.size[0] * settings.size[1]
    return (height, width) if height * width <= most else None


class StoredBatches:
    """See `TrainingBatches`.

    Unreadable images are left out: what follows moves up, so that all batches but the last are
    full, and the same each time. Where devices share a batch nothing moves up, as no process knows
    of the others' images: black ones of weight 0 stand in for them.

    Attributes:
        inputs: What batches hold, as in `TrainingBatches`.
        skipped: The images left out so far, and why.
    """

    def __init__(self, examples: Stored, settings: BatchSettings) -> None:
        self.examples, self.settings = examples, settings
        augmentation, channels = settings.augmentation, settings.channels
        self._channels: Channels = "L" if channels == 1 else "RGB"
        self.skipped: dict[Path, str] = {}
        canvas = _canvas(examples, settings)
        self.only_cuts = canvas is not None
        self._image_shape = (*(canvas or settings.size), channels)
        self.inputs: InputSpecs = {
            "image": (self._image_shape, "float32" if self.recolours else "uint8")
        }
        if self.only_cuts:
            self.inputs["geometry"] = ((5,), "float32")
        if augmentation.recolours and settings.on_device:
            self.inputs["colours"] = ((len(colour_columns(augmentation)),), "float32")
        self._is_checked = False

    @property
    def recolours(self) -> bool:
        """Whether colours change on the host, which TensorFlow does."""
        return self.settings.augmentation.recolours and not self.settings.on_device

    def epoch(self, plan: Plan) -> "StoredEpoch":
        """Return the batches of a plan.

        Raises:
            DataError: No image can be used, or too few for a batch where the rest is dropped.
        """
        if not self._is_checked:
            self._check(plan)
            self._is_checked = True
        kind = StoredEpoch if self.settings.shard == WHOLE else StoredShares
        return kind(self, plan)

    def load(self, plan: Plan, positions: Sequence[int]) -> list["Seen | str"]:
        """Return what is to be seen at some positions, or why images cannot be used.

        Besides unreadable ones, images that are smaller than a random crop cannot be used.
        """
        found: list[Any] = [self._pixels(plan.order[position]) for position in positions]
        readable = [i for i, image in enumerate(found) if not isinstance(image, str)]
        if not readable:
            return found
        try:
            self._crop(plan, positions, found, readable)
        except DataError:  # of one of them
            for i in readable:
                try:
                    self._crop(plan, positions, found, [i])
                except DataError as error:
                    found[i] = str(error)
        return found

    def _pixels(self, index: int) -> np.ndarray | str:
        try:
            return self.examples.pixels(index, self._channels)
        except ImageFileError as error:
            return error.reason

    def _crop(
        self, plan: Plan, positions: Sequence[int], images: list[Any], chosen: list[int]
    ) -> None:
        """Replace the chosen ones of some images by what is to be seen of them."""
        augmentation, size = self.settings.augmentation, self.settings.size
        draws = plan.draws.take(np.array([positions[i] for i in chosen]))
        heights, widths, _ = np.array([images[i].shape for i in chosen]).T
        geometry = crop_geometry(augmentation, draws, heights, widths, size)
        for i, box in zip(chosen, geometry, strict=True):
            if self.only_cuts:
                top, left, height, width = box[:4].round().astype(int)
                images[i] = Seen(images[i][top : top + height, left : left + width], box[4] > 0)
                continue
            whole = resized_size(augmentation, *images[i].shape[:2])
            images[i] = Seen(crop(images[i], box, size, whole))

    def skip(self, index: int, reason: str) -> None:
        """Note that an image is left out."""
        self.skipped.setdefault(self.examples.place(index), reason)

    def inputs_of(self, seen: Sequence["Seen"], colours: np.ndarray) -> dict[str, Any]:
        """Return what batches hold of some images and their new colours."""
        inputs: dict[str, Any] = {}
        if self.only_cuts:
            # What lies beside a box weighs nothing.
            images = np.zeros((len(seen), *self._image_shape), np.uint8)
            inputs["geometry"] = np.zeros((len(seen), 5), np.float32)
            for image, geometry, (pixels, mirrored) in zip(
                images, inputs["geometry"], seen, strict=True
            ):
                height, width = pixels.shape[:2]
                image[:height, :width] = pixels
                geometry[2:] = height, width, mirrored
        else:
            images = np.stack([pixels for pixels, _ in seen])
        if self.recolours:
            ops = tensorflow_ops()
            settings = self.settings
            changed = recolour(
                ops.cast(images, "float32"),
                colours,
                settings.augmentation,
                ops=ops,
                pca=settings.pca,
            )
            images = changed.numpy()
        if "colours" in self.inputs:
            inputs["colours"] = colours
        return {"image": images} | inputs

    def black(self) -> "Seen":
        """Return what stands in for an image that cannot be used."""
        return Seen(np.zeros(self._image_shape, np.uint8))

    def _check(self, plan: Plan) -> None:
        wanted = self.settings.batch_size if self.settings.drop_remainder else 1
        found, first = 0, ""
        for position in range(len(plan)):
            (image,) = self.load(plan, [position])
            if not isinstance(image, str):
                found += 1
            elif not first:
                first = f"{self.examples.place(plan.order[position])}: {image}"
            if found == wanted:
                return
        some = f"only {found}, fewer than the batch_size {wanted}," if found else "none"
        raise DataError(f"{some} of {len(plan)} images can be used; the first that cannot: {first}")


class StoredEpoch:
    """The batches of one plan; to be iterated over once.

    Attributes:
        waited: Seconds for which a batch was waited for so far.
        failure: Why there are no further ones; TensorFlow tells it with the trace of a thread.
    """

    def __init__(self, source: StoredBatches, plan: Plan) -> None:
        self._source, self._plan = source, plan
        # Positions in the order in which they are loaded.
        self._slots = np.arange(plan.start, len(plan))
        self._ends: list[int] = []
        self.waited = 0.0
        self.failure: DataError | None = None

    def position(self, batches: int) -> int:
        """Return the position behind so many batches, which were made already."""
        return self._ends[batches - 1] if batches else self._plan.start

    def dataset(self, tf: Any) -> Any:
        """Return the batches as a `tf.data.Dataset`."""
        specs = {
            name: tf.TensorSpec((None, *shape), dtype)
            for name, (shape, dtype) in self._source.inputs.items()
        }
        others = [tf.TensorSpec((None,), tf.int32)]
        if self._source.settings.shard != WHOLE:
            others.append(tf.TensorSpec((None,), tf.float32))
        return from_batches(tf, self, (specs, *others))

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches, as `TrainingBatches.epoch` describes them."""
        batches = in_background(self._batches(), PREFETCH)
        while True:
            began = time.perf_counter()
            try:
                batch = next(batches, None)
            except DataError as error:
                self.failure = error
                raise
            self.waited += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def _batches(self) -> Iterator[Batch]:
        size, settings = self._source.settings.batch_size, self._source.settings
        found: list[tuple[int, Seen]] = []
        # A batch is held back until the next image is known: what follows the last one, and cannot
        # be used, counts as done.
        for position, image in self._loaded():
            if isinstance(image, str):
                self._source.skip(self._plan.order[position], image)
                continue
            if len(found) == size:
                yield self._batch(found, found[-1][0] + 1)
                found = []
            found.append((position, image))
        if len(found) == size or (found and not settings.drop_remainder):
            yield self._batch(found, len(self._plan))
        elif self._ends:
            self._ends[-1] = len(self._plan)

    def _loaded(self) -> Iterator[tuple[int, Seen | str]]:
        """Yield positions with their images, or with why they cannot be used."""
        source, plan, slots = self._source, self._plan, self._slots.tolist()
        source.examples.expect(plan.order[self._slots])
        count = 2 * source.settings.batch_size  # one batch is made while another is trained on
        images = ahead(partial(source.load, plan), slots, count=count)
        return zip(slots, images, strict=True)

    def _batch(self, found: list[tuple[int, Seen]], end: int) -> Batch:
        self._ends.append(end)
        return self._made([position for position, _ in found], [image for _, image in found])

    def _made(self, slots: list[int], images: list[Seen]) -> Any:
        source, plan, positions = self._source, self._plan, np.array(slots)
        inputs = source.inputs_of(images, plan.draws.colours[positions])
        return inputs, source.examples.labels[plan.order[positions]].astype(np.int32)


class StoredShares(StoredEpoch):
    """The shares that a process has of the batches of one plan."""

    def __init__(self, source: StoredBatches, plan: Plan) -> None:
        super().__init__(source, plan)
        settings = source.settings
        begins = settings.begins(plan)
        shares = [
            settings.shard.share(min(settings.batch_size, len(plan) - begin)) for begin in begins
        ]
        nothing = np.zeros(0, np.int64)
        self._slots = np.concatenate(
            [nothing, *(b + where for b, (where, _) in zip(begins, shares, strict=True))]
        )
        self._weights = [weights for _, weights in shares]

    def position(self, batches: int) -> int:
        """Return the position behind so many batches."""
        return self._source.settings.position(self._plan, batches)

    def _batches(self) -> Iterator[Batch]:
        loaded = self._loaded()
        black = self._source.black()
        for planned in self._weights:
            weights, slots, images = planned.copy(), [], []
            for number in range(len(planned)):
                position, image = next(loaded)
                if isinstance(image, str):
                    self._source.skip(self._plan.order[position], image)
                    weights[number], image = 0, black
                slots.append(position)
                images.append(image)
            yield *self._made(slots, images), weights
