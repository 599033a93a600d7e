"""The command that trains: one experiment, one command."""

from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from keras_alexnet.commands.options import with_options
from keras_alexnet.core.tables import Column, Format, Sheet, terminal, write_sheet
from keras_alexnet.data.augmentation.record import Augmentation
from keras_alexnet.errors import ConfigurationError, TrainingError
from keras_alexnet.training.devices.placement import Placement
from keras_alexnet.training.experiment import Experiment, network_of, option_fields
from keras_alexnet.training.presets import PRESETS, check_weights, find_preset, list_presets
from keras_alexnet.training.run import RESUMABLE, resume_experiment, run_experiment
from keras_alexnet.training.runs.comparison import compare_runs, read_runs
from keras_alexnet.training.runs.comparison_page import write_comparison
from keras_alexnet.training.series import STOPPED, run_series

_PRESET_COLUMNS = (
    Column("name", "preset", text=True),
    Column("about", "what it is", text=True, wraps=True),
    Column("model", "model", text=True),
    Column("epochs", "epochs"),
    Column("reported", "reported", text=True, wraps=True),
)
# Every option of `train`, its own and the experiment's, below its heading in `--help`.
PANELS = {
    "Experiment": ("preset", "presets", "list_presets", "resume", "seed"),
    "Network": (
        "model",
        "weights",
        "input_size",
        "dropout_rate",
        "classifier_activation",
        "aux_heads",
        "aux_weight",
        "freeze_epochs",
        "freeze",
        "unfrozen_learning_rate",
    ),
    "Data": (
        "data",
        "data_dir",
        "batch_size",
        "shuffle",
        "drop_remainder",
        "val_fraction",
        "train_limit",
        "eval_limit",
        "normalize",
        "mean",
        "std",
        "eval_resize",
        "views",
        "val_views",
        "survey",
    ),
    "Augmentation": (*(entry.name for entry in fields(Augmentation)), "augment_on"),
    "Optimisation": (
        "epochs",
        "optimizer",
        "learning_rate",
        "momentum",
        "nesterov",
        "weight_decay",
        "decoupled",
        "schedule",
        "warmup_epochs",
        "step_epochs",
        "gamma",
        "patience",
        "clip_norm",
        "accumulate",
        "ema",
        "label_smoothing",
    ),
    "Devices": (
        "backend",
        "device",
        "devices",
        "distribute",
        "join_timeout",
        "precision",
        "gradients",
        "data_format",
    ),
    "Output": ("output", "checkpoint_steps", "keep_every", "log_every", "clean_metrics"),
}


def train(
    preset: Annotated[
        str | None, typer.Option(help="Experiment to begin with; see --list-presets.")
    ] = None,
    presets: Annotated[
        str | None,
        typer.Option(
            help="Experiments to run one after the other, by a pattern such as 'cifar100-study-*' "
            "or by their names with commas. The same command goes on where it was stopped."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run, a new one; with --presets the folder of their runs.",
            show_default="runs/NAME-DATE-TIME; with --presets runs",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on with the run in this folder, as it was configured; --epochs makes it "
            "longer, --data or --data-dir says where its data have moved to, --output leaves the "
            "folder as it is and goes on in a copy."
        ),
    ] = None,
    devices: Annotated[
        int, typer.Option(help="Devices of this host that share each batch.", min=1)
    ] = 1,
    distribute: Annotated[
        bool,
        typer.Option(
            "--distribute",
            help="Train with the other processes that a launcher has started, on one host or more.",
        ),
    ] = False,
    join_timeout: Annotated[
        float, typer.Option(help="How long to wait for the other processes, in seconds.")
    ] = 300.0,
    list_presets: Annotated[
        bool, typer.Option("--list-presets", help="Show the presets and end.")
    ] = False,
    *,
    overrides: dict[str, Any],
) -> None:
    """Train a model: an experiment of the reports, or your own.

    Options change the preset; the defaults shown are those without one. Ctrl-C saves the run and
    says how to go on with it.
    """
    if list_presets:
        write_sheet(preset_sheet(), Format.TABLE)
        return
    placement = Placement(devices, distribute, join_timeout)
    if presets is not None:
        if preset is not None or resume is not None or placement != Placement():
            raise ConfigurationError(
                "--presets runs each experiment on one device: leave --preset, --resume, --devices "
                "and --distribute out"
            )
        _train_series(presets, output or Path("runs"), overrides)
        return
    if resume is not None:
        named = {"preset": preset, **overrides}
        changes = {name: value for name, value in named.items() if value is not None}
        if other := next((name for name in changes if name not in RESUMABLE), None):
            raise ConfigurationError(
                "--resume goes on with a run as it was configured, but for --epochs, a new place "
                f"of its data (--data, --data-dir) and --output; leave out "
                f"--{other.replace('_', '-')}"
            )
        summary = resume_experiment(
            resume, output=output, placement=placement, console=terminal(), **changes
        )
    else:
        if preset is None and not overrides:
            raise ConfigurationError(
                "nothing to train: name a --preset (see --list-presets), or options such as "
                "--model and --data (see --help)"
            )
        experiment = find_preset(preset).experiment if preset is not None else Experiment()
        if preset is None and "model" not in overrides and (file := overrides.get("weights")):
            overrides = {"model": network_of(file), **overrides}
        experiment = experiment.override(**overrides)
        if preset is not None:
            check_weights(preset, experiment)
        summary = run_experiment(
            experiment, output=output, preset=preset, placement=placement, console=terminal()
        )
    if summary is None:
        raise typer.Exit(STOPPED)


def _train_series(pattern: str, folder: Path, overrides: dict[str, Any]) -> None:
    names = [
        name for part in pattern.split(",") for name in list_presets(part.strip()) or [part.strip()]
    ]
    experiments = {}
    for name in names:
        experiments[name] = find_preset(name).experiment.override(**overrides)
        check_weights(name, experiments[name])
    # At once, before what the runs themselves print.
    found = run_series(experiments, folder, partial(print, flush=True))
    if found is None:
        raise typer.Exit(STOPPED)
    done, failed = found
    if done:
        runs = read_runs(done)
        write_sheet(compare_runs(runs, sort="test_accuracy"), Format.TABLE)
        print(f"page: {write_comparison(runs, folder / 'comparison.html', sort='test_accuracy')}")
    if failed:
        raise TrainingError(f"{len(failed)} of {len(names)} runs failed: {', '.join(failed)}")


def preset_sheet() -> Sheet:
    """Return a row for each preset."""
    return Sheet(
        "presets; --preset NAME runs one, further options change it",
        _PRESET_COLUMNS,
        [
            (
                name,
                p.about,
                p.experiment.model,
                p.experiment.epochs,
                None if p.reported is None else str(p.reported),
            )
            for name, p in PRESETS.items()
        ],
    )


train_command = with_options(
    train,
    option_fields(),
    {**get_type_hints(Augmentation), **get_type_hints(Experiment)},
    PANELS,
)
