"""What training batches are like, and what an epoch does with each example."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from keras_alexnet.data.augmentation.draws import Draws, draw
from keras_alexnet.data.augmentation.record import Augmentation
from keras_alexnet.data.batches.shards import WHOLE, Shard
from keras_alexnet.data.examples import Examples
from keras_alexnet.errors import ConfigurationError

# Name -> shape without the batch, and dtype.
InputSpecs = dict[str, tuple[tuple[int, ...], str]]
# Inputs, labels, and weights where several devices share a batch.
Batch = (
    tuple[dict[str, np.ndarray], np.ndarray] | tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]
)


@dataclass(frozen=True, eq=False)
class Plan:
    """The order of an epoch, int64 (n,), an example at each position, and their random numbers.

    It begins at the position `start`: what lies before was trained on already.
    """

    order: np.ndarray
    draws: Draws
    start: int

    def __len__(self) -> int:
        return len(self.order)


@dataclass(frozen=True, eq=False)
class BatchSettings:
    """What training batches are like, whatever the images are.

    Attributes:
        augmentation: What may happen to the images.
        size: (height, width) of the network's input in pixels.
        batch_size: Images of a batch, of all devices together.
        seed: At least 0.
        shuffle: Whether each epoch has an order of its own.
        drop_remainder: Whether a last batch that is not full is left out.
        place: Who augments: `"host"`, which needs TensorFlow, or `"device"`, where the model
            begins with `augmentation.layer.Augment`. Images that are not in memory are decoded,
            cropped and mirrored on the host either way; the device then recolours them.
        cuts_only: With `"device"`: of images that are packed as pixels the host only cuts out the
            box of a random resized crop, and the device resizes and mirrors it. A GPU does that
            in no time; a processor is faster by its own ways.
        channels: Of the network's input: 3, or 1 for grey.
        pca: Principal components of the colours, see `statistics.colour_components`.
        shard: The part of each batch that this process sees, where several devices train together.
    """

    augmentation: Augmentation
    size: tuple[int, int]
    batch_size: int
    seed: int = 0
    shuffle: bool = True
    drop_remainder: bool = False
    place: Literal["host", "device"] = "host"
    channels: int = 3
    pca: tuple[np.ndarray, np.ndarray] | None = None
    shard: Shard = WHOLE
    cuts_only: bool = False

    @property
    def on_device(self) -> bool:
        """Whether the device augments."""
        return self.place == "device"

    def check(self, count: int) -> None:
        """Check the settings for so many examples.

        Raises:
            ConfigurationError: One is invalid, or the batch size does not fit the examples.
        """
        if self.batch_size < 1:
            raise ConfigurationError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.batch_size > count:
            raise ConfigurationError(
                f"batch_size {self.batch_size} is larger than the {count} training examples; "
                f"make it {count} or less"
            )
        if self.seed < 0:
            raise ConfigurationError(f"seed must be at least 0, got {self.seed}")
        if self.place not in ("host", "device"):
            raise ConfigurationError(f"place must be 'host' or 'device', got {self.place!r}")
        if self.batch_size % self.shard.devices:
            raise ConfigurationError(
                f"batch_size {self.batch_size} is that of all devices together and cannot be "
                f"divided among {self.shard.devices}; make it a multiple of that number"
            )
        self.augmentation.check(channels=self.channels, pca=self.pca)

    def steps(self, count: int) -> int:
        """Return the number of batches of so many examples."""
        full, rest = divmod(count, self.batch_size)
        return full + (rest > 0 and not self.drop_remainder)

    def begins(self, plan: Plan) -> range:
        """Return the positions at which the batches of a plan begin."""
        end = len(plan)
        if self.drop_remainder:
            end -= (end - plan.start) % self.batch_size
        return range(plan.start, end, self.batch_size)

    def position(self, plan: Plan, batches: int) -> int:
        """Return the position behind so many batches of a plan."""
        begins = self.begins(plan)
        return begins[batches] if batches < len(begins) else len(plan)

    def plan(self, examples: Examples, *, epoch: int, start: int = 0) -> Plan:
        """Return the plan of an epoch of the examples: a function of the seed and `epoch`."""
        rng = np.random.default_rng([self.seed, epoch])
        order = examples.order(rng) if self.shuffle else np.arange(len(examples))
        return Plan(order, draw(self.augmentation, len(examples), rng), start)
