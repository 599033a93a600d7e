"""What a run keeps on disk of its model, written by the first of its processes."""

from pathlib import Path
from typing import Any

from keras_alexnet.training.devices.group import Group
from keras_alexnet.training.experiment import Experiment
from keras_alexnet.training.loop.checkpoint import load_variables, save_checkpoint
from keras_alexnet.training.loop.progress import Progress
from keras_alexnet.training.network import save_trained
from keras_alexnet.training.preparation import Prepared
from keras_alexnet.training.runs.folder import RunFolder


class Keeper:
    """Writes model files and the checkpoint of a run, and reads the latter.

    Every process calls its methods, as some variables can be read by all together alone.
    """

    def __init__(
        self, folder: RunFolder, experiment: Experiment, prepared: Prepared, group: Group
    ) -> None:
        self._folder, self._experiment = folder, experiment
        self._prepared, self._group = prepared, group

    def save_model(self, model: Any, path: Path, *, epoch: int) -> None:
        """Write a model as it is now as a `.keras` file.

        Raises:
            ConfigurationError: The file cannot be written.
        """
        if self._group.is_first:
            save_trained(
                model,
                path,
                self._experiment,
                self._prepared.data.classes,
                self._prepared.preprocessing,
                {"run": self._folder.path.name, "epoch": epoch},
            )

    def save(self, trainer: Any, progress: Progress) -> None:
        """Write a checkpoint.

        Raises:
            ConfigurationError: The file cannot be written; the last checkpoint is untouched.
        """
        self._group.settle(trainer)
        save_checkpoint(
            self._folder.checkpoint if self._group.is_first else None,
            trainer,
            progress,
            identity=self._prepared.identity,
        )

    def restore(self, trainer: Any, progress: Progress) -> None:
        """Fill a compiled model from the checkpoint that this progress was read from.

        Raises:
            TrainingError: The checkpoint is damaged or holds other variables.
        """
        load_variables(self._folder.checkpoint, trainer, metrics=progress.batches > 0)
        self._group.part_randomness(trainer)
