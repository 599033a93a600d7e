"""TensorBoard events of a run; they need neither TensorFlow nor PyTorch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from keras_alexnet.core.backend import require


class Scalars:
    """Writes numbers of a run as TensorBoard events, over the batches that it has done.

    Args:
        folder: Where the event files go; None for a process that writes none.
        step: Batches that the run has done; what TensorBoard knows of later ones, from a part of
            the run that is repeated, is dropped.

    Raises:
        MissingDependencyError: tensorboardX is not installed.
    """

    def __init__(self, folder: Path | None, step: int) -> None:
        writer = require("tensorboardX").SummaryWriter
        # Without a folder it calls itself so and writes to none.
        self._writer = writer(
            str(folder or ""), purge_step=step + 1, write_to_disk=folder is not None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def add_loss(self, step: int, loss: float) -> None:
        """Write the mean loss of an epoch so far, behind so many batches of the run."""
        self._writer.add_scalar("run/loss_so_far", loss, step)

    def add_epoch(self, step: int, row: Mapping[str, Any]) -> None:
        """Write the numbers of an epoch that ends behind so many batches of the run."""
        for name, value in row.items():
            if name != "epoch" and value is not None:
                part, _, rest = name.partition("_")
                tag = f"{rest}/{part}" if part in ("train", "val") else f"run/{name}"
                self._writer.add_scalar(tag, value, step)
        self._writer.flush()
