"""Training batches: shuffled, augmented, the same for a seed wherever they are made."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from keras_alexnet.data.batches.arrays import ArrayBatches, ArrayEpoch
from keras_alexnet.data.batches.plan import BatchSettings, InputSpecs
from keras_alexnet.data.batches.stored import StoredBatches, StoredEpoch
from keras_alexnet.data.batches.tensorflow_host import load_tensorflow, numpy_batches
from keras_alexnet.data.examples import Arrays, Examples
from keras_alexnet.errors import ConfigurationError, DataError


class TrainingBatches:
    """Yields the batches of any epoch, from its begin or from within.

    The order and the random numbers of an epoch depend on the seed and its number alone, not on
    the place, the framework, or the epochs before. The framework, Keras' backend, decides what an
    epoch is.

    Attributes:
        steps: Batches of an epoch of which no image is left out.
        inputs: Name -> shape without the batch, and dtype, of what a batch holds: `"image"`, and
            `"geometry"` and `"colours"` where the device needs them. Images are uint8 until
            something makes them float32, always 0..255.

    Raises:
        ConfigurationError: The batch size does not fit the data, or another setting is invalid.
        DataError: The images are smaller than a random crop, or lack the network's colours.
        MissingDependencyError: TensorFlow is needed and not installed.
    """

    def __init__(
        self,
        examples: Examples,
        settings: BatchSettings,
        *,
        framework: Literal["tensorflow", "torch", "jax"],
    ) -> None:
        settings.check(len(examples))
        self._examples, self._settings, self._framework = examples, settings, framework
        self._epoch: ArrayEpoch | StoredEpoch | None = None
        self._source: ArrayBatches | StoredBatches
        if isinstance(examples, Arrays):
            self._source = ArrayBatches(examples, settings)
            needs_tensorflow = not settings.on_device
        else:
            self._source = StoredBatches(examples, settings)
            needs_tensorflow = self._source.recolours
        self._tf: Any = None
        if needs_tensorflow or framework == "tensorflow":
            self._tf = load_tensorflow(framework)
        self.inputs: InputSpecs = self._source.inputs
        self.steps = settings.steps(len(examples))

    @property
    def skipped(self) -> Mapping[Path, str]:
        """Images left out so far because they cannot be used, and why.

        Batches that are made in advance count.
        """
        return dict(self._source.skipped) if isinstance(self._source, StoredBatches) else {}

    @property
    def waited(self) -> float | None:
        """Seconds that the epoch's batches were waited for so far; None where nobody knows."""
        return self._epoch.waited if isinstance(self._epoch, StoredEpoch) else None

    @property
    def failure(self) -> DataError | None:
        """Why the epoch has no further batches, where the data cannot be read any more."""
        return self._epoch.failure if isinstance(self._epoch, StoredEpoch) else None

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
            DataError: No image can be read, or too few for a batch where the rest is dropped.
        """
        count = len(self._examples)
        if not 0 <= start <= count:
            raise ConfigurationError(
                f"an epoch of {count} examples cannot begin at position {start}"
            )
        plan = self._settings.plan(self._examples, epoch=number, start=start)
        self._epoch = self._source.epoch(plan)
        in_python = self._tf is None or isinstance(self._epoch, StoredEpoch)
        if in_python and self._framework != "tensorflow":
            return iter(self._epoch)
        dataset = self._epoch.dataset(self._tf)
        return dataset if self._framework == "tensorflow" else numpy_batches(dataset)

    def position(self, batches: int) -> int:
        """Return the position behind so many batches of the epoch that was asked for last.

        Examples that were left out count. Behind the last batch it is the number of examples.
        """
        return self._epoch.position(batches) if self._epoch is not None else 0
