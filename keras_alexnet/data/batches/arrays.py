"""Training batches of images in memory, augmented on the host or prepared for the device."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_alexnet.data.augmentation.array_ops import tensorflow_ops
from keras_alexnet.data.augmentation.colour import recolour
from keras_alexnet.data.augmentation.draws import colour_columns, crop_geometry, draw, resized_size
from keras_alexnet.data.augmentation.resample import resample
from keras_alexnet.data.batches.plan import Batch, BatchSettings, InputSpecs, Plan
from keras_alexnet.data.batches.shards import WHOLE
from keras_alexnet.data.batches.tensorflow_host import finished, python_step
from keras_alexnet.data.examples import Arrays
from keras_alexnet.errors import DataError


class ArrayBatches:
    """See `TrainingBatches`; `stored_specs` are its `inputs` before their augmentation.

    Raises:
        DataError: Images are smaller than their random crops, or grey ones are for a network that
            sees colours.
    """

    def __init__(self, examples: Arrays, settings: BatchSettings) -> None:
        self._examples, self.settings = examples, settings
        augmentation, size, channels = settings.augmentation, settings.size, settings.channels
        height, width, stored_channels = examples.images.shape[1:]
        if stored_channels < channels:
            raise DataError(
                f"the images are grey, but the network reads {channels} channels; use one for grey "
                "images, such as lenet5"
            )
        self._have = (height, width)
        # Raises here what it would raise within a pipeline.
        crop_geometry(
            augmentation, draw(augmentation, 1, np.random.default_rng()), *self._have, size
        )
        self._whole = resized_size(augmentation, *self._have)
        # Boxes at whole pixels keep the images' values.
        self._is_exact = self._whole == self._have
        self._moves = not (
            self._is_exact
            and self._have == size
            and augmentation.crop == "center"
            and not augmentation.flip
        )
        self.stored_specs: InputSpecs = {"image": ((*self._have, channels), "uint8")}
        if self._moves:
            self.stored_specs["geometry"] = ((5,), "float32")
        if augmentation.recolours:
            self.stored_specs["colours"] = ((len(colour_columns(augmentation)),), "float32")
        is_float = augmentation.recolours or (self._moves and not self._is_exact)
        self.inputs = self.stored_specs
        if not settings.on_device:
            self.inputs = {"image": ((*size, channels), "float32" if is_float else "uint8")}

    def epoch(self, plan: Plan) -> "ArrayEpoch":
        """Return the batches of a plan."""
        return ArrayEpoch(self, plan)

    def stored(self, plan: Plan, position: int) -> Batch:
        """Return the batch at a position, or this process's share of it, before augmentation."""
        settings = self.settings
        left = min(settings.batch_size, len(plan) - position)
        shared, weights = settings.shard.share(left)
        part = position + shared
        indices, draws = plan.order[part], plan.draws.take(part)
        images = self._examples.images[indices]
        inputs = {"image": _gray(images) if images.shape[3] > settings.channels else images}
        if self._moves:
            inputs["geometry"] = crop_geometry(
                settings.augmentation, draws, *self._have, settings.size
            )
        if settings.augmentation.recolours:
            inputs["colours"] = draws.colours
        labels = self._examples.labels[indices].astype(np.int32)
        return (inputs, labels) if settings.shard == WHOLE else (inputs, labels, weights)

    def augment(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return tensors of a stored batch as the batches hold them."""
        augmentation = self.settings.augmentation
        if self.settings.on_device:
            return inputs
        ops = tensorflow_ops()
        x = inputs["image"]
        if not self._moves and not augmentation.recolours:
            return {"image": x}
        if self._moves:
            x = resample(x, inputs["geometry"], self.settings.size, whole=self._whole, ops=ops)
        if augmentation.recolours:
            x = ops.cast(x, "float32")
            x = recolour(x, inputs["colours"], augmentation, ops=ops, pca=self.settings.pca)
        dtype = self.inputs["image"][1]
        x = ops.cast(ops.round(x) if dtype == "uint8" else x, dtype)
        return {"image": x}


class ArrayEpoch:
    """The batches of one plan."""

    def __init__(self, source: ArrayBatches, plan: Plan) -> None:
        self._source, self._plan = source, plan
        self._begins = source.settings.begins(plan)

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches, for the device to augment."""
        return (self._source.stored(self._plan, position) for position in self._begins)

    def dataset(self, tf: Any) -> Any:
        """Return the batches as a `tf.data.Dataset`."""
        specs = self._source.stored_specs
        results = [((None, *shape), dtype) for shape, dtype in specs.values()]
        results.append(((None,), "int32"))
        if self._source.settings.shard != WHOLE:
            results.append(((None,), "float32"))

        def batch(position: Any) -> tuple[Any, ...]:
            values = python_step(tf, self._values, [position], *results)
            inputs = dict(zip(specs, values[: len(specs)], strict=True))
            return self._source.augment(inputs), *values[len(specs) :]

        begins = tf.data.Dataset.range(self._begins.start, self._begins.stop, self._begins.step)
        batches = begins.map(batch, num_parallel_calls=os.cpu_count())
        return finished(tf, batches, self)

    def _values(self, position: np.ndarray) -> list[np.ndarray]:
        inputs, *others = self._source.stored(self._plan, int(position))
        return [*inputs.values(), *others]

    def position(self, batches: int) -> int:
        """Return the position behind so many batches."""
        return self._source.settings.position(self._plan, batches)


def _gray(images: np.ndarray) -> np.ndarray:
    """Return uint8 (N, H, W, 1) of (N, H, W, 3): Pillow's `convert("L")`, to the bit."""
    # ITU-R BT.601 in 16 bits, rounded: Pillow's libImaging/Convert.c.
    luma = images.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
    return ((luma + 0x8000) >> 16).astype(np.uint8)[..., None]
