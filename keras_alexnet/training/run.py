"""Begins a run, or goes on with one."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from keras_alexnet.core.backend import choose_backend, installed, keras_home
from keras_alexnet.core.files import write_json
from keras_alexnet.core.machine import check_device, describe
from keras_alexnet.core.places import is_url
from keras_alexnet.core.progress import progress
from keras_alexnet.data.examples import left_out_note
from keras_alexnet.data.sources.registry import SOURCES
from keras_alexnet.data.survey.results import DataSurvey, notes, to_json
from keras_alexnet.data.survey.survey import count_data, is_quick, survey_data
from keras_alexnet.errors import ConfigurationError, KerasAlexNetError, TrainingError, counted
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
from keras_alexnet.training.experiment import Experiment, is_file
from keras_alexnet.training.precision import check_precision, precision_warning, seed_everything
from keras_alexnet.training.runs.folder import EXAMPLES, Log, RunFolder
from keras_alexnet.training.runs.plots import example_grid

# What may change when a run goes on: the place of its data, and how long it is.
RESUMABLE = ("data", "data_dir", "epochs")
# Schedules whose course does not depend on the number of epochs.
_OPEN_ENDED = ("constant", "step", "plateau")


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
    experiment = anchored(experiment)
    placement = placement or Placement()
    name = preset or f"{Path(experiment.model).stem}-{Path(experiment.data).stem}"
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
        made = RunFolder.create(output, name) if group.is_first else None
    path = group.gather(None if made is None else str(made.path))[0]
    folder = made or RunFolder(Path(path))
    log = log_of(folder, group, console)
    with log.hearing():
        try:
            engine = _engine(experiment, folder, group, log, resume=False)
            if group.is_first:
                write_json(folder.config, {"preset": preset, "experiment": experiment.to_json()})
                devices = {"devices": group.devices, "processes": group.processes}
                write_json(folder.environment, describe() | devices)
                write_json(folder.data, to_json(_survey(engine)))
                _draw_examples(engine)
        except BaseException:
            if group.is_first:
                folder.discard()
            raise
        return _go(engine, name=folder.path.name, preset=preset)


def resume_experiment(
    path: Path,
    *,
    output: Path | None = None,
    data: str | None = None,
    data_dir: Path | None = None,
    epochs: int | None = None,
    placement: Placement | None = None,
    console: Console | None = None,
) -> dict[str, Any] | None:
    """Go on with a run from its last checkpoint, as if it had never been stopped.

    Args:
        path: Folder of the run. Where processes on several hosts compute, each reads it.
        output: Folder to make and to go on in, with a copy of all files; that of the run by
            default.
        data: Where its folder or CSV file has moved to; it must hold the very same data.
        data_dir: Where data of its kind have moved to.
        epochs: How many the run shall have, where its schedule has no end of its own.
        placement: Which devices compute; not necessarily as many as before.
        console: Where to say what happens; standard output by default.

    Returns:
        As `run_experiment`.

    Raises:
        KerasAlexNetError: The folder holds no run, or its files are damaged; or the run cannot be
            changed like this.
    """
    placement = placement or Placement()
    folder = RunFolder.existing(path)
    preset, fields = folder.read_config()
    changes = {"data": data, "data_dir": data_dir, "epochs": epochs}
    changes = {name: value for name, value in changes.items() if value is not None}
    experiment = _changed(Experiment.from_json(fields), changes)
    choose_backend(experiment.backend)
    if output is not None:
        if placement.distribute:
            raise ConfigurationError("--distribute goes on in the run's own folder: no --output")
        folder = folder.copy(output)
    if takes_processes(placement):
        told = {name: str(value) if name != "epochs" else value for name, value in changes.items()}
        return run_in_processes(folder, placement, {"experiment": None, "changes": told})
    group = join(experiment, placement)
    log = log_of(folder, group, console)
    with log.hearing():
        try:
            engine = _engine(experiment, folder, group, log, resume=True)
            if experiment.epochs < engine.progress.epoch:
                raise ConfigurationError(
                    f"--epochs {experiment.epochs}: the run has done {engine.progress.epoch} "
                    "already"
                )
        except BaseException:
            if output is not None:
                folder.discard()
            raise
        if changes and group.is_first:
            write_json(folder.config, {"preset": preset, "experiment": experiment.to_json()})
        progress = engine.progress
        log(
            f"resumed behind epoch {progress.epoch}"
            + f", batch {progress.batches}" * bool(progress.batches)
        )
        return _go(engine, name=folder.path.name, preset=preset)


def anchored(experiment: Experiment) -> Experiment:
    """Return the experiment with absolute paths, so that it can go on from another folder."""
    data = experiment.data
    if data not in SOURCES and not is_url(data):
        data = str(Path(data).expanduser().absolute())
    places = {name: getattr(experiment, name) for name in ("data_dir", "weights")}
    model = experiment.model
    if is_file(model):
        model = str(Path(model).expanduser().absolute())
    return replace(
        experiment,
        model=model,
        data=data,
        **{name: path.expanduser().absolute() for name, path in places.items() if path is not None},
    )


def _changed(experiment: Experiment, changes: Mapping[str, Any]) -> Experiment:
    """Return the experiment of a run that goes on otherwise.

    Raises:
        ConfigurationError: It cannot have so many epochs, or other data.
    """
    epochs = changes.get("epochs", experiment.epochs)
    if epochs != experiment.epochs and experiment.schedule not in _OPEN_ENDED:
        raise ConfigurationError(
            f"the schedule {experiment.schedule!r} of this run ends with epoch "
            f"{experiment.epochs}, which decides its learning rate. A run can have more epochs "
            f"with the schedules {', '.join(_OPEN_ENDED)}; else begin a new one, from "
            "--weights .../best.keras"
        )
    data = changes.get("data", experiment.data)
    if (data in SOURCES) != (experiment.data in SOURCES):
        raise ConfigurationError(
            f"--data {data}: the run's data are {experiment.data}; give the new place of the same "
            f"({'--data-dir' if experiment.data in SOURCES else '--data'})"
        )
    return anchored(replace(experiment, **changes)) if changes else experiment


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
        f"{engine.body.name}, {engine.parameters:,} parameters, on {engine.backend}; "
        f"{prepared.data.name}: {parts} (split {prepared.identity[:12]})"
    )
    if prepared.data.left_out:
        log(left_out_note(prepared.data.left_out))
    if group.devices > 1:
        log(
            f"{group.devices} devices in {group.processes} process(es), "
            f"{experiment.batch_size // group.devices} images of a batch each; batch norm sees "
            f"{group.batch_norm}"
        )
    return engine


def _survey(engine: Any) -> DataSurvey:
    """Look at the data, or count them where that would take long and nobody asked for it."""
    data, wanted = engine.prepared.data, engine.experiment.survey
    if wanted is None:
        wanted = installed("imagehash") and is_quick(data)
    if not wanted:
        return count_data(data)
    with progress("survey", sum(map(len, data.parts().values()))) as advance:
        survey = survey_data(data, advance)
    for note in notes(replace(survey, left_out=())):  # of which the log has told
        engine.log(note)
    return survey


def _draw_examples(engine: Any) -> None:
    """Draw some training images, and what the network sees of them."""
    from keras_alexnet.training.preview import preview

    shown = preview(engine.experiment, engine.prepared)
    example_grid(shown.originals, shown.names, engine.folder.path / EXAMPLES, seen=shown.seen)


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
            StopSignal(log) as stop,
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
        images = counted(len(summary["skipped"]), "unreadable image")
        log(f"{images} skipped; summary.json names them")
    log(f"report: {folder.path / 'report.html'}")
    return summary
