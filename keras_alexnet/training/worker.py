"""A process of a run that torchrun's agent has started, see `devices.launch`."""

from pathlib import Path
from typing import Any

from keras_alexnet.core.tables import terminal
from keras_alexnet.training.devices.launch import enter_process
from keras_alexnet.training.devices.placement import Placement
from keras_alexnet.training.experiment import Experiment
from keras_alexnet.training.run import resume_experiment, run_experiment


def main(job: dict[str, Any]) -> dict[str, Any] | None:
    """Train, and return the run's summary, or None if it was stopped.

    A job has `"experiment"` and `"preset"` of a new run, or `"changes"` of one that goes on, as
    arguments of `resume_experiment`; `"path"` of its folder; and `"join_timeout"`.
    """
    placement = Placement(distribute=True, join_timeout=job["join_timeout"])
    console = terminal()
    path = Path(job["path"])
    if job["experiment"] is None:
        changes = job["changes"]
        if "data_dir" in changes:
            changes["data_dir"] = Path(changes["data_dir"])
        return resume_experiment(path, placement=placement, console=console, **changes)
    return run_experiment(
        Experiment.from_json(job["experiment"]),
        output=path,
        preset=job["preset"],
        placement=placement,
        console=console,
    )


if __name__ == "__main__":
    enter_process(main)
