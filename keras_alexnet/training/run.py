"""Begins a run, or goes on with one."""

import os
from pathlib import Path
from typing import Any

from rich.console import Console

from keras_alexnet.backend import choose_backend
from keras_alexnet.errors import KerasAlexNetError
from keras_alexnet.training import environment
from keras_alexnet.training.experiment import Experiment
from keras_alexnet.training.run_folder import Log, RunFolder, write_json


def start(
    experiment: Experiment,
    *,
    output: Path | None = None,
    preset: str | None = None,
    console: Console | None = None,
) -> dict[str, Any] | None:
    """Run an experiment in a new folder.

    Args:
        experiment: What to run.
        output: Folder to make; by default one below `runs/`, named after preset and time.
        preset: Name of the preset that the experiment began with.
        console: Where to say what happens; standard output by default.

    Returns:
        The content of the run's `summary.json`, or None if it was stopped, and saved, before.

    Raises:
        KerasAlexNetError: The experiment cannot be run; nothing is left behind. Or a run cannot go
            on; it is saved.
    """
    experiment.check_weights()
    name = preset or f"{experiment.model}-{Path(experiment.data).stem}"
    folder = RunFolder.create(output, name)
    log = Log(folder.log, console or Console())
    try:
        engine = _engine(experiment, folder, log, resume=False)
        write_json(folder.config, {"preset": preset, "experiment": experiment.to_json()})
        write_json(folder.environment, environment.describe())
    except BaseException:
        folder.discard()
        raise
    return _go(engine, name=folder.path.name, preset=preset)


def resume(path: Path, *, console: Console | None = None) -> dict[str, Any] | None:
    """Go on with a run from its last checkpoint, as if it had never been stopped.

    Args:
        path: Folder of the run.
        console: Where to say what happens; standard output by default.

    Returns:
        As `start`.

    Raises:
        KerasAlexNetError: The folder holds no run, or its files are damaged.
    """
    folder = RunFolder.existing(path)
    preset, fields = folder.read_config()
    log = Log(folder.log, console or Console())
    engine = _engine(Experiment.from_json(fields), folder, log, resume=True)
    progress = engine.progress
    log(
        f"resumed behind epoch {progress.epoch}"
        + f", batch {progress.batches}" * bool(progress.batches)
    )
    return _go(engine, name=folder.path.name, preset=preset)


def _engine(experiment: Experiment, folder: RunFolder, log: Log, *, resume: bool) -> Any:
    """Choose backend and device, prepare the data, build everything."""
    choose_backend(experiment.backend)
    if experiment.device == "cpu":
        environment.hide_gpus()
    environment.check_device(experiment.device)
    environment.check_precision(experiment.precision)
    if warning := environment.precision_warning(experiment.precision):
        log(f"warning: {warning}")
    environment.seed_everything(experiment.seed)
    from keras_alexnet.training.engine import Engine
    from keras_alexnet.training.preparation import prepare

    prepared = prepare(experiment, cache_folder())
    engine = Engine(experiment, prepared, folder, log, resume=resume)
    parts = ", ".join(f"{len(part):,} {name}" for name, part in prepared.data.parts().items())
    log(
        f"{experiment.model}, {engine.parameters:,} parameters, on {engine.backend}; "
        f"{prepared.data.name}: {parts} (split {prepared.identity[:12]})"
    )
    return engine


def _go(engine: Any, *, name: str, preset: str | None) -> dict[str, Any] | None:
    """Train to the end and write the results."""
    from keras_alexnet.training.hooks import StopSignal
    from keras_alexnet.training.results import write_results
    from keras_alexnet.training.tracking import Scalars

    folder, log = engine.folder, engine.log
    hint = f"keras-alexnet train --resume {folder.path}"
    try:
        with StopSignal() as stop, Scalars(folder.path, engine.steps) as scalars:
            done = engine.train(stop, scalars)
    except KerasAlexNetError as error:
        log(f"stopped: {error}")
        if folder.checkpoint.exists():
            log(f"the last checkpoint is kept; once the cause is gone, go on with: {hint}")
        raise
    if not done:
        log(f"stopped and saved; go on with: {hint}")
        return None
    try:
        summary = write_results(engine, name=name, preset=preset)
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


def cache_folder() -> Path:
    """Return where statistics of data sets are kept between runs: below Keras' own folder."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "keras_alexnet"
