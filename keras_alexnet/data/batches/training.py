"""Training batches: shuffled, augmented, the same for a seed wherever they are made."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keras_alexnet.data.augmentation.record import Augmentation
from keras_alexnet.data.batches.arrays import ArrayBatches, ArrayEpoch
from keras_alexnet.data.batches.file_epoch import FileEpoch
from keras_alexnet.data.batches.files import FileBatches
from keras_alexnet.data.batches.plan import InputSpecs, make_plan
from keras_alexnet.data.batches.shards import WHOLE, Shard
from keras_alexnet.data.batches.tensorflow_host import load_tensorflow, numpy_batches
from keras_alexnet.data.examples import Arrays, Examples
from keras_alexnet.errors import ConfigurationError


class TrainingBatches:
    """Yields the batches of any epoch, from its begin or from within.

    The order and the random numbers of an epoch depend on the seed and its number alone, not on
    the place, the framework, or the epochs before.

    Args:
        examples: The training images.
        augmentation: What may happen to them.
        size: (height, width) of the network's input.
        batch_size: Images of a batch.
        seed: At least 0.
        shuffle: Whether each epoch has an order of its own.
        drop_remainder: Whether a last batch that is not full is left out.
        place: Who augments: `"host"`, which needs TensorFlow, or `"device"`, where the model
            begins with `device.Augment`. Files are decoded, cropped and mirrored on the host
            either way; the device then recolours them.
        framework: Keras' backend, which decides what an epoch is.
        channels: Of the network's input: 3, or 1 for grey.
        pca: Principal components of the colours, see `statistics.colour_components`.
        shard: The part of each batch that this process sees, where several devices train together.

    Attributes:
        steps: Batches of an epoch of which no image is left out.
        inputs: Name -> shape without the batch, and dtype, of what a batch holds: `"image"`, and
            `"geometry"` and `"colours"` where the device needs them. Images are uint8 until
            something makes them float32, always 0..255.

    Raises:
        ConfigurationError: The batch size does not fit the data, or another argument is invalid.
        DataError: The images are smaller than a random crop, or lack the network's colours.
        MissingDependencyError: TensorFlow is needed and not installed.
    """

    def __init__(
        self,
        examples: Examples,
        augmentation: Augmentation,
        size: tuple[int, int],
        *,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        drop_remainder: bool = False,
        place: Literal["host", "device"] = "host",
        framework: Literal["tensorflow", "torch", "jax"],
        channels: int = 3,
        pca: tuple[np.ndarray, np.ndarray] | None = None,
        shard: Shard = WHOLE,
    ) -> None:
        if batch_size < 1:
            raise ConfigurationError(f"batch_size must be at least 1, got {batch_size}")
        if batch_size > len(examples):
            raise ConfigurationError(
                f"batch_size {batch_size} is larger than the {len(examples)} training examples; "
                f"make it {len(examples)} or less"
            )
        if seed < 0:
            raise ConfigurationError(f"seed must be at least 0, got {seed}")
        if place not in ("host", "device"):
            raise ConfigurationError(f"place must be 'host' or 'device', got {place!r}")
        if batch_size % shard.devices:
            raise ConfigurationError(
                f"batch_size {batch_size} is that of all devices together and cannot be divided "
                f"among {shard.devices}; make it a multiple of that number"
            )
        augmentation.check(channels=channels, pca=pca)
        self._count, self._augmentation = len(examples), augmentation
        self._seed, self._shuffle, self._framework = seed, shuffle, framework
        self._epoch: ArrayEpoch | FileEpoch | None = None
        options: dict[str, Any] = {
            "batch_size": batch_size,
            "drop_remainder": drop_remainder,
            "on_device": place == "device",
            "channels": channels,
            "pca": pca,
            "shard": shard,
        }
        self._source: ArrayBatches | FileBatches
        if isinstance(examples, Arrays):
            self._source = ArrayBatches(examples, augmentation, size, **options)
        else:
            self._source = FileBatches(examples, augmentation, size, **options)
        self._tf: Any = None
        if isinstance(self._source, FileBatches) or place == "host" or framework == "tensorflow":
            self._tf = load_tensorflow(framework)
        self.inputs: InputSpecs = self._source.inputs
        full, rest = divmod(self._count, batch_size)
        self.steps = full + (rest > 0 and not drop_remainder)

    @property
    def skipped(self) -> Mapping[Path, str]:
        """Files left out so far because they cannot be used, and why.

        Batches that are made in advance count.
        """
        return dict(self._source.skipped) if isinstance(self._source, FileBatches) else {}

    def epoch(self, number: int, start: int = 0) -> Any:
        """Return the batches of an epoch, for `fit`.

        Args:
            number: Of the epoch, from 0.
            start: Where to begin, what `position` returned: the batches from there on are those
                of the whole epoch.

        Returns:
            (inputs, labels): a dict as `inputs` describes it, and int32 (B,); where devices share
            a batch (inputs, labels, weights), with float32 (B,) of `Shard.share`. A
            `tf.data.Dataset` on TensorFlow, else an iterator of NumPy arrays; to be used once.

        Raises:
            ConfigurationError: `start` lies outside the epoch.
            DataError: No file can be read, or too few for a batch where the rest is dropped.
        """
        if not 0 <= start <= self._count:
            raise ConfigurationError(
                f"an epoch of {self._count} examples cannot begin at position {start}"
            )
        plan = make_plan(
            self._augmentation,
            self._count,
            seed=self._seed,
            epoch=number,
            shuffle=self._shuffle,
            start=start,
        )
        self._epoch = self._source.epoch(plan)
        if self._tf is None:
            assert isinstance(self._epoch, ArrayEpoch)
            return self._epoch.stored()
        dataset = self._epoch.dataset(self._tf)
        return dataset if self._framework == "tensorflow" else numpy_batches(dataset)

    def position(self, batches: int) -> int:
        """Return the position behind so many batches of the epoch that was asked for last.

        Examples that were left out count. Behind the last batch it is the number of examples.
        """
        return self._epoch.position(batches) if self._epoch is not None else 0
