"""How a run gets its devices: in this process, among others, or in processes that it starts."""

import os
from typing import Any

from rich.console import Console

from keras_alexnet.core.backend import chosen_backend
from keras_alexnet.core.machine import hide_gpus
from keras_alexnet.core.tables import terminal
from keras_alexnet.errors import ConfigurationError, TrainingError
from keras_alexnet.training.devices.group import Group
from keras_alexnet.training.devices.launch import run_processes
from keras_alexnet.training.devices.placement import Placement
from keras_alexnet.training.experiment import Experiment
from keras_alexnet.training.runs.folder import Log, RunFolder


def takes_processes(placement: Placement) -> bool:
    """Return whether further processes must be started: torch takes one for each device."""
    return placement.devices > 1 and chosen_backend() == "torch"


def is_restarted() -> bool:
    """Return whether torchrun has started this process again, as another one failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def run_in_processes(folder: RunFolder, placement: Placement, job: dict[str, Any]) -> Any:
    """Run, or resume, in a process for each device, and return what the first one returns.

    The job is what `worker.main` takes besides the folder and the placement.

    Raises:
        TrainingError: A process failed or was killed.
    """
    where = {"path": str(folder.path), "join_timeout": placement.join_timeout}
    try:
        return run_processes("keras_alexnet.training.worker", job | where, placement.devices)
    except TrainingError as error:
        if not folder.checkpoint.exists():
            raise
        raise TrainingError(
            f"{error}. The last checkpoint is kept; once the cause is gone, go on with: "
            f"{resume_hint(folder)} --devices {placement.devices}"
        ) from error
    finally:
        if not folder.config.exists():  # it never began
            folder.discard()


def join(experiment: Experiment, placement: Placement) -> Group:
    """Settle which devices compute, before the backend is in use.

    Raises:
        ConfigurationError: There are not so many, or they cannot do this experiment together.
    """
    if experiment.device == "cpu":
        hide_gpus()
    backend = chosen_backend()
    group = placement.group(backend)
    if experiment.gradients == "bfloat16":
        group.send_bfloat16()
    if group.devices > 1 and backend == "tensorflow":
        if experiment.precision == "mixed_float16":
            raise ConfigurationError(
                "TensorFlow's devices would each scale the loss by what they see alone; train on "
                "several with --precision mixed_bfloat16 or float32"
            )
        if experiment.accumulate > 1:
            raise ConfigurationError(
                "TensorFlow's strategies cannot wait for an update (accumulate "
                f"{experiment.accumulate}); leave --accumulate out, or train on torch or JAX"
            )
    return group


def log_of(folder: RunFolder, group: Group, console: Console | None) -> Log:
    """Return what the first process says things with; the others are silent."""
    if group.is_first:
        return Log(folder.log, console or terminal())
    return Log(None, Console(quiet=True))


def resume_hint(folder: RunFolder) -> str:
    """Return the command that goes on with a run."""
    return f"keras-alexnet train --resume {folder.path}"
