"""Begins a run, or goes on with one."""

from pathlib import Path
from typing import Any

from rich.console import Console

from keras_alexnet.core.backend import choose_backend, keras_home
from keras_alexnet.core.files import write_json
from keras_alexnet.core.machine import check_device, describe
from keras_alexnet.data.examples import left_out_note
from keras_alexnet.errors import KerasAlexNetError, TrainingError
from keras_alexnet.training.devices.group import Group
from keras_alexnet.training.devices.placement import Placement
from keras_alexnet.training.devices.processes import (
    is_restarted,
    join,
    log_of,
    resume_hint,
    run_in_processes,
    takes_processes,
)
from keras_alexnet.training.experiment import Experiment
from keras_alexnet.training.precision import check_precision, precision_warning, seed_everything
from keras_alexnet.training.runs.folder import Log, RunFolder


def run_experiment(
    experiment: Experiment,
    *,
    output: Path | None = None,
    preset: str | None = None,
    placement: Placement | None = None,
    console: Console | None = None,
) -> dict[str, Any] | None:
    """Run an experiment in a new folder.

    Where torchrun has started the processes again, they go on with that folder.

    Args:
        experiment: What to run.
        output: Folder to make; by default one below `runs/`, named after preset and time.
        preset: Name of the preset that the experiment began with.
        placement: Which devices compute it; by default one.
        console: Where to say what happens; standard output by default.

    Returns:
        The content of the run's `summary.json`, or None if it was stopped, and saved, before.

    Raises:
        KerasAlexNetError: The experiment cannot be run; nothing is left behind. Or a run cannot go
            on; it is saved.
    """
    experiment.check_weights()
    placement = placement or Placement()
    name = preset or f"{experiment.model}-{Path(experiment.data).stem}"
    choose_backend(experiment.backend)
    if takes_processes(placement):
        folder = RunFolder.create(output, name)
        return run_in_processes(
            folder, placement, {"experiment": experiment.to_json(), "preset": preset}
        )
    if output is not None and is_restarted() and RunFolder(output).checkpoint.exists():
        return resume_experiment(output, placement=placement, console=console)
    group = join(experiment, placement)
    with group.first_process_first():
        made = str(RunFolder.create(output, name).path) if group.is_first else None
    folder = RunFolder(Path(group.gather(made)[0]))
    log = log_of(folder, group, console)
    with log.hearing():
        try:
            engine = _engine(experiment, folder, group, log, resume=False)
            if group.is_first:
                write_json(folder.config, {"preset": preset, "experiment": experiment.to_json()})
                devices = {"devices": group.devices, "processes": group.processes}
                write_json(folder.environment, describe() | devices)
        except BaseException:
            if group.is_first:
                folder.discard()
            raise
        return _go(engine, name=folder.path.name, preset=preset)


def resume_experiment(
    path: Path, *, placement: Placement | None = None, console: Console | None = None
) -> dict[str, Any] | None:
    """Go on with a run from its last checkpoint, as if it had never been stopped.

    Args:
        path: Folder of the run. Where processes on several hosts compute, each reads it.
        placement: Which devices compute; not necessarily as many as before.
        console: Where to say what happens; standard output by default.

    Returns:
        As `run_experiment`.

    Raises:
        KerasAlexNetError: The folder holds no run, or its files are damaged.
    """
    placement = placement or Placement()
    folder = RunFolder.existing(path)
    preset, fields = folder.read_config()
    experiment = Experiment.from_json(fields)
    choose_backend(experiment.backend)
    if takes_processes(placement):
        return run_in_processes(folder, placement, {"experiment": None})
    group = join(experiment, placement)
    log = log_of(folder, group, console)
    with log.hearing():
        engine = _engine(experiment, folder, group, log, resume=True)
        progress = engine.progress
        log(
            f"resumed behind epoch {progress.epoch}"
            + f", batch {progress.batches}" * bool(progress.batches)
        )
        return _go(engine, name=folder.path.name, preset=preset)


def _engine(
    experiment: Experiment, folder: RunFolder, group: Group, log: Log, *, resume: bool
) -> Any:
    """Check the device, prepare the data, build everything."""
    check_device(experiment.device)
    check_precision(experiment.precision)
    if warning := precision_warning(experiment.precision):
        log(f"warning: {warning}")
    seed_everything(experiment.seed)
    from keras_alexnet.training.loop.engine import Engine
    from keras_alexnet.training.preparation import prepare

    with group.first_process_first():
        prepared = prepare(experiment, keras_home() / "keras_alexnet")
    identities = group.gather(prepared.identity)
    if other := next((n for n, i in enumerate(identities) if i != identities[0]), None):
        raise TrainingError(
            f"process {other} has found other data than process 0 (fingerprint "
            f"{identities[other][:12]}, not {identities[0][:12]}); give all the same files"
        )
    engine = Engine(experiment, prepared, folder, log, resume=resume, group=group)
    parts = ", ".join(f"{len(part):,} {name}" for name, part in prepared.data.parts().items())
    log(
        f"{experiment.model}, {engine.parameters:,} parameters, on {engine.backend}; "
        f"{prepared.data.name}: {parts} (split {prepared.identity[:12]})"
    )
    if prepared.data.left_out:
        log(left_out_note(prepared.data))
    if group.devices > 1:
        log(
            f"{group.devices} devices in {group.processes} process(es), "
            f"{experiment.batch_size // group.devices} images of a batch each; batch norm sees "
            f"{group.batch_norm}"
        )
    return engine


def _go(engine: Any, *, name: str, preset: str | None) -> dict[str, Any] | None:
    """Train to the end and write the results."""
    from keras_alexnet.training.loop.hooks import StopSignal
    from keras_alexnet.training.loop.results import write_results
    from keras_alexnet.training.loop.tensorboard import Scalars

    folder, log, group = engine.folder, engine.log, engine.group
    hint = resume_hint(folder)
    try:
        with (
            group.watching(),
            StopSignal() as stop,
            Scalars(folder.path if group.is_first else None, engine.steps) as scalars,
        ):
            done = engine.train(stop, scalars)
    except KerasAlexNetError as error:
        log(f"stopped: {error}")
        if folder.checkpoint.exists():
            log(f"the last checkpoint is kept; once the cause is gone, go on with: {hint}")
        raise
    if not done:
        log(f"stopped and saved; go on with: {hint}")
        group.leave()
        return None
    if not group.is_first:
        group.leave()
        return {}
    try:
        summary = write_results(engine, name=name, preset=preset)
        group.leave()
    except KeyboardInterrupt:
        log(f"trained, but its results are not written; do that with: {hint}")
        return None
    final = summary["test"] or summary["val"]
    if final is not None:
        log(
            f"{'test' if summary['test'] else 'validation'}: loss {final['loss']:.4f}, "
            f"top-1 {final['top1']:.4f}, macro F1 {final['macro_f1']:.4f} "
            f"(epoch {summary['best_epoch']})"
        )
    if summary["skipped"]:
        log(f"{len(summary['skipped'])} unreadable images were skipped; summary.json names them")
    log(f"report: {folder.path / 'report.html'}")
    return summary
