"""Training batches of images in memory, augmented on the host or prepared for the device."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_alexnet.data.array_ops import tensorflow_ops
from keras_alexnet.data.augmentation import Augmentation
from keras_alexnet.data.colour import recolour
from keras_alexnet.data.draws import colour_columns, crop_geometry, draw, resized_size
from keras_alexnet.data.examples import Arrays
from keras_alexnet.data.plan import InputSpecs, Plan
from keras_alexnet.data.resample import resample
from keras_alexnet.data.tensorflow_host import PREFETCH
from keras_alexnet.errors import DataError

Batch = tuple[dict[str, np.ndarray], np.ndarray]


class ArrayBatches:
    """See `TrainingBatches` for the arguments.

    Attributes:
        inputs: What the batches hold.

    Raises:
        DataError: Images are smaller than their random crops, or grey ones are for a network that
            sees colours.
    """

    def __init__(
        self,
        examples: Arrays,
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
        self._on_device, self._channels, self._pca = on_device, channels, pca
        *stored, have = examples.images.shape[1:]
        if have < channels:
            raise DataError(
                f"the images are grey, but the network reads {channels} channels; use one for grey "
                "images, such as lenet5"
            )
        self._stored = (stored[0], stored[1])
        # Raises here what it would raise within a pipeline.
        crop_geometry(
            augmentation, draw(augmentation, 1, np.random.default_rng()), *self._stored, size
        )
        self._whole = resized_size(augmentation, *self._stored)
        # Boxes at whole pixels keep the images' values.
        self._is_exact = self._whole == self._stored
        self._moves = not (
            self._is_exact
            and self._stored == size
            and augmentation.crop == "center"
            and not augmentation.flip
        )
        self.inputs = self._input_specs()

    def _input_specs(self) -> InputSpecs:
        if not self._on_device:
            is_float = self._augmentation.recolours or (self._moves and not self._is_exact)
            return {"image": ((*self._size, self._channels), "float32" if is_float else "uint8")}
        specs: InputSpecs = {"image": ((*self._stored, self._channels), "uint8")}
        return specs | self._random_specs()

    def _random_specs(self) -> InputSpecs:
        """Return what goes with the images as they are stored."""
        specs: InputSpecs = {}
        if self._moves:
            specs["geometry"] = ((5,), "float32")
        if self._augmentation.recolours:
            specs["colours"] = ((len(colour_columns(self._augmentation)),), "float32")
        return specs

    def _positions(self, plan: Plan) -> range:
        """Return where the batches of a plan begin."""
        end = len(plan)
        if self._drop_remainder:
            end -= (end - plan.start) % self._batch_size
        return range(plan.start, end, self._batch_size)

    def stored_batches(self, plan: Plan) -> Iterator[Batch]:
        """Iterate over the batches of a plan, for the device to augment."""
        return (self._stored_batch(plan, position) for position in self._positions(plan))

    def _stored_batch(self, plan: Plan, position: int) -> Batch:
        part = slice(position, position + self._batch_size)
        indices, draws = plan.order[part], plan.draws.take(part)
        images = self._examples.images[indices]
        inputs = {"image": _gray(images) if images.shape[3] > self._channels else images}
        if self._moves:
            inputs["geometry"] = crop_geometry(self._augmentation, draws, *self._stored, self._size)
        if self._augmentation.recolours:
            inputs["colours"] = draws.colours
        return inputs, self._examples.labels[indices].astype(np.int32)

    def dataset(self, plan: Plan, tf: Any) -> Any:
        """Return the batches of a plan as a `tf.data.Dataset`, augmented unless the device does."""
        begins = self._positions(plan)
        image = ((*self._stored, self._channels), "uint8")
        specs: InputSpecs = {"image": image} | self._random_specs()

        def stored(position: np.ndarray) -> list[np.ndarray]:
            inputs, labels = self._stored_batch(plan, int(position))
            return [*inputs.values(), labels]

        def batch(position: Any) -> tuple[dict[str, Any], Any]:
            dtypes = [dtype for _, dtype in specs.values()]
            *values, labels = tf.numpy_function(stored, [position], [*dtypes, "int32"])
            inputs = {
                name: tf.ensure_shape(value, (None, *shape))
                for (name, (shape, _)), value in zip(specs.items(), values, strict=True)
            }
            labels = tf.ensure_shape(labels, (None,))
            return inputs if self._on_device else {"image": self._augment(inputs)}, labels

        dataset = tf.data.Dataset.range(begins.start, begins.stop, begins.step)
        return dataset.map(batch, num_parallel_calls=os.cpu_count()).prefetch(PREFETCH)

    def _augment(self, inputs: dict[str, Any]) -> Any:
        ops = tensorflow_ops()
        x = inputs["image"]
        if not self._moves and not self._augmentation.recolours:
            return x
        if self._moves:
            x = resample(x, inputs["geometry"], self._size, whole=self._whole, ops=ops)
        if self._augmentation.recolours:
            x = ops.cast(x, "float32")
            x = recolour(x, inputs["colours"], self._augmentation, ops=ops, pca=self._pca)
        dtype = self.inputs["image"][1]
        return ops.cast(ops.round(x) if dtype == "uint8" else x, dtype)


def _gray(images: np.ndarray) -> np.ndarray:
    """Return uint8 (N, H, W, 1) of (N, H, W, 3): Pillow's `convert("L")`, to the bit."""
    # ITU-R BT.601 in 16 bits, rounded: Pillow's libImaging/Convert.c.
    luma = images.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
    return ((luma + 0x8000) >> 16).astype(np.uint8)[..., None]
