"""TensorBoard events of a run; they need neither TensorFlow nor PyTorch."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from keras_alexnet.backend import require


class Scalars:
    """Writes the numbers of each epoch as TensorBoard events.

    Args:
        folder: Where the event files go.
        first_epoch: Epoch of the next numbers; what TensorBoard knows of it and later ones, from a
            part of the run that is repeated, is dropped.

    Raises:
        MissingDependencyError: tensorboardX is not installed.
    """

    def __init__(self, folder: Path, first_epoch: int) -> None:
        self._writer = require("tensorboardX").SummaryWriter(str(folder), purge_step=first_epoch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._writer.close()

    def add(self, row: Mapping[str, Any]) -> None:
        """Write the numbers of an epoch."""
        for name, value in row.items():
            if name != "epoch" and value is not None:
                part, _, rest = name.partition("_")
                tag = f"{rest}/{part}" if part in ("train", "val") else f"run/{name}"
                self._writer.add_scalar(tag, value, row["epoch"])
        self._writer.flush()
