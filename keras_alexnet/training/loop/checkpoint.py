"""The state of a run between two steps, in one file: complete, or the one before it."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from keras_alexnet.core.files import atomic_output
from keras_alexnet.errors import TrainingError
from keras_alexnet.training.loop.progress import Progress

FORMAT = 2


def save_checkpoint(path: Path | None, trainer: Any, progress: Progress, *, identity: str) -> None:
    """Write all variables of a compiled model and the progress of its run.

    There is no path in a process that writes no file, but must read the variables when the others
    do, as TensorFlow adds metrics up then. `identity` is what a resumed run must have in common, as
    the split's fingerprint.

    Raises:
        ConfigurationError: The file cannot be written; the one before is untouched.
    """
    arrays = {name: np.asarray(_value(variable)) for name, variable in _variables(trainer)}
    if path is None:
        return
    state = {"format": FORMAT, "identity": identity, "progress": asdict(progress)}
    with atomic_output(path) as temporary:
        try:
            save_file(arrays, temporary, metadata={"state": json.dumps(state)})
        except SafetensorError as error:  # which hides an OSError, as of a full disk
            raise OSError(0, str(error), str(temporary)) from error


def load_progress(path: Path, *, identity: str | None = None) -> Progress:
    """Return the progress that a checkpoint holds.

    Raises:
        TrainingError: The file is missing or damaged, or belongs to other data.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            state = json.loads((file.metadata() or {}).get("state", "{}"))
    except FileNotFoundError as error:
        raise TrainingError(
            f"{path}: there is no checkpoint; the run was stopped before its first one. Start anew."
        ) from error
    except (SafetensorError, OSError, ValueError) as error:
        raise TrainingError(f"{path}: damaged checkpoint ({error})") from error
    if state.get("format") != FORMAT:
        raise TrainingError(f"{path}: not a checkpoint of this version of keras-alexnet")
    if identity is not None and state["identity"] != identity:
        raise TrainingError(
            f"{path}: the data are not those that the run began with (fingerprint "
            f"{state['identity'][:12]} then, {identity[:12]} now). Restore them, or start anew."
        )
    return Progress(**state["progress"])


def load_variables(path: Path, trainer: Any, *, metrics: bool) -> None:
    """Fill the variables of a compiled model, its random state and optimiser among them.

    Those of its metrics only where `metrics` says so, within an epoch: behind one they hold what
    the next one must not begin with.

    Raises:
        TrainingError: The checkpoint is damaged or holds other variables.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            wanted = dict(_variables(trainer))
            if differ := sorted(set(file.keys()) ^ set(wanted)):
                raise TrainingError(
                    f"{path}: its variables are not this run's ({len(differ)} differ, such as "
                    f"{differ[0]}); the backend or the version of Keras may have changed"
                )
            for name, variable in wanted.items():
                if metrics or not name.startswith("metrics/"):
                    variable.assign(file.get_tensor(name))
    except (SafetensorError, OSError, ValueError) as error:
        raise TrainingError(f"{path}: damaged checkpoint ({error})") from error


def _variables(trainer: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and variable: weights, random state, metrics, optimiser."""
    for group, variables in {
        "model": trainer.variables,
        "metrics": trainer.metrics_variables,
        "optimizer": trainer.optimizer.variables,
    }.items():
        for number, variable in enumerate(variables):
            # Not the path: Keras numbers the layers of a process in it.
            yield f"{group}/{number:04}/{variable.name}", variable


def _value(variable: Any) -> Any:
    return variable.numpy() if hasattr(variable, "numpy") else variable
