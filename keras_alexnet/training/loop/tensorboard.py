"""TensorBoard events of a run; they need neither TensorFlow nor PyTorch."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from keras_alexnet.core.backend import require

# Beginnings of a metric's name, which TensorBoard shows in one chart.
_PARTS = ("train", "val", "clean", "test")


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
            str(folder or ""),
            purge_step=step + 1,
            write_to_disk=folder is not None,
            filename_suffix=f".{time.time_ns()}",  # files are called by their second
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
                tag = f"{rest}/{part}" if part in _PARTS else f"run/{name}"
                self._writer.add_scalar(tag, value, step)
        self._writer.flush()

    def add_results(
        self,
        step: int,
        settings: Mapping[str, Any],
        results: Mapping[str, float],
        pictures: Mapping[str, Path],
    ) -> None:
        """Write what a run has come to, so that runs can be compared by their settings.

        Args:
            step: Batches that the run has done.
            settings: Fields of the experiment, those of its augmentation among them.
            results: Final numbers by name.
            pictures: PNG files by name.
        """
        plain = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in settings.items()
            if value is not None
        }
        # `SummaryWriter.add_hparams` would make a run of its own beside this one.
        for summary in require("tensorboardX.summary").hparams(plain, dict(results)):
            self._writer.file_writer.add_summary(summary)
        for name, value in results.items():
            self._writer.add_scalar(name, value, step)
        image = require("PIL.Image")
        for name, path in pictures.items():
            with image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))  # (h, w, 3)
            self._writer.add_image(name, pixels, step, dataformats="HWC")
        self._writer.flush()
