"""Who of several devices sees which examples of a batch."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shard:
    """The part of every global batch that one process feeds to its devices.

    All devices get equally many examples. Where a batch, as the last one of an epoch, cannot be
    divided so, some examples are repeated with weight 0, and the weights of the others make up for
    it: the mean over all devices of the weighted mean of each is the mean over the batch.

    Attributes:
        index: Number of this process, from 0.
        processes: Number of processes.
        devices: Devices of all processes together, each of which has the same number of them.
    """

    index: int = 0
    processes: int = 1
    devices: int = 1

    def share(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what this process takes of a global batch of `count` examples.

        Returns:
            int64 (n,), positions in the global batch, and float32 (n,), their weights; n is the
            same for each process, a multiple of the number of its devices.
        """
        each = -(-count // self.devices)
        own = each * (self.devices // self.processes)
        slots = np.arange(self.index * own, (self.index + 1) * own)
        weights = np.where(slots < count, each * self.devices / count, 0.0)
        return slots % count, weights.astype(np.float32)


WHOLE = Shard()
