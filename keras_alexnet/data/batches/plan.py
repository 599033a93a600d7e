"""What an epoch does with each example: a pure function of the seed and the epoch's number."""

from dataclasses import dataclass

import numpy as np

from keras_alexnet.data.augmentation.draws import Draws, draw
from keras_alexnet.data.augmentation.record import Augmentation

# Name -> shape without the batch, and dtype.
InputSpecs = dict[str, tuple[tuple[int, ...], str]]


@dataclass(frozen=True, eq=False)
class Plan:
    """The order of an epoch, and the random numbers of its images.

    Attributes:
        order: int64 (n,), an example at each position.
        draws: Those of each position.
        start: Position to begin at: what lies before was trained on already.
    """

    order: np.ndarray
    draws: Draws
    start: int

    def __len__(self) -> int:
        return len(self.order)


def make_plan(
    augmentation: Augmentation, count: int, *, seed: int, epoch: int, shuffle: bool, start: int = 0
) -> Plan:
    """Return the plan of an epoch of `count` examples."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(count) if shuffle else np.arange(count)
    return Plan(order, draw(augmentation, count, rng), start)
