"""`benchmark`: how fast a model is here, and against torchvision or timm."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from keras_alexnet.benchmarking.environment import cores
from keras_alexnet.benchmarking.epochs import EPOCH, epoch_rates
from keras_alexnet.benchmarking.plan import (
    BASELINES,
    DEVICES,
    DTYPES,
    ENGINE_NAMES,
    MODES,
    Plan,
    baselines,
    check_choice,
    keras_side,
    subject_of,
)
from keras_alexnet.benchmarking.report import notes, sheet, to_json
from keras_alexnet.benchmarking.runner import run, steps
from keras_alexnet.commands.common import FormatOption, SizeOption, show
from keras_alexnet.core.backend import BACKENDS, installed_backends
from keras_alexnet.core.fields import parse_size
from keras_alexnet.core.files import check_output, write_json
from keras_alexnet.core.progress import progress
from keras_alexnet.core.tables import Format
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.specs import SPECS
from keras_alexnet.training.experiment import Experiment
from keras_alexnet.training.presets import find_preset

_ROUNDS, _SECONDS = 10, 0.5
_QUICK_ROUNDS, _QUICK_SECONDS = 3, 0.1
_EPOCH_SECONDS = 5.0  # of a measurement whose batches are not all alike
_DTYPE, _DEVICE, _ENGINE = "float32", "cpu", "keras"
_FREE = 224  # pixels, for a file that takes images of any size


def benchmark_command(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help=f"A .keras file, or one of: {', '.join(SPECS)}.",
            show_default=False,
        ),
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            help="inference; train, a step of SGD with momentum; pipeline, making training "
            "batches out of noise of 32x32 bytes in memory; or epoch, what bounds a run of "
            "--preset, with MODEL in place of its network: its input alone, its step alone, both."
        ),
    ] = "inference",
    preset: Annotated[
        str | None,
        typer.Option(
            help="Experiment of --mode epoch; see `train --list-presets`.", show_default=False
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Its data instead: a kind, a folder, a CSV file, or packed data.",
            show_default=False,
        ),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where data of a kind lie.", show_default=False)
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            help=f"Keras backends, with commas: {', '.join(BACKENDS)}; or all that are installed.",
            show_default="the configured one",
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="What runs the model, with commas: keras, the model as it is; or what "
            f"keras_alexnet.optimize makes of it: {', '.join(ENGINE_NAMES[1:])}."
        ),
    ] = _ENGINE,
    against: Annotated[
        str | None,
        typer.Option(help=f"Baseline: {', '.join(BASELINES)}.", show_default=False),
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Let the library take part by torch.compile too.")
    ] = False,
    batch_sizes: Annotated[
        str | None,
        typer.Option(
            help="Images of a batch, with commas.",
            show_default="1,32; train: 32; pipeline: 64; epoch: the preset's",
        ),
    ] = None,
    image_size: SizeOption = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help=f"Dtype policy: {', '.join(DTYPES)}; torchvision gets autocast.",
            show_default=f"{_DTYPE}; epoch: the preset's",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help=f"{' or '.join(DEVICES)}.", show_default=f"{_DEVICE}; epoch: the preset's"
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Processor cores for each.", show_default="all"),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=1, help="Measurements of each.", show_default=f"{_ROUNDS}; quick: {_QUICK_ROUNDS}"
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few and short measurements.")] = False,
    format_: FormatOption = Format.TABLE,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write everything into this file too.", show_default=False),
    ] = None,
) -> None:
    """Measure how fast a model is: each backend in a process of its own, in turns.

    A model by name gets random weights: speed does not depend on them.
    """
    if json_file is not None:
        check_output(json_file)
    rounds = rounds or (_QUICK_ROUNDS if quick else _ROUNDS)
    if mode == EPOCH:
        given = {
            "--engine": engine != _ENGINE,
            "--against": against is not None,
            "--compile": compiled,
            "--image-size": image_size is not None,
            "--threads": threads is not None,
        }
        if senseless := [option for option, is_given in given.items() if is_given]:
            raise ConfigurationError(f"--mode epoch has no use for {', '.join(senseless)}")
        named = {
            "model": name,
            "data": data,
            "data_dir": data_dir,
            "backend": backend,
            "batch_size": None if batch_sizes is None else _one(_batch_sizes(batch_sizes)),
            "precision": dtype,
            "device": device,
        }
        changes = {field: value for field, value in named.items() if value is not None}
        seconds = _QUICK_SECONDS if quick else _EPOCH_SECONDS
        with progress("benchmark", 3 * rounds) as advance_to:
            rates = epoch_rates(
                _experiment(preset).override(**changes),
                seconds=seconds,
                rounds=rounds,
                advance=advance_to,
            )
        if json_file is not None:
            write_json(json_file, asdict(rates))
        show(rates.sheet(), format_, rates.notes(), content=asdict(rates))
        return
    if name is None:
        raise ConfigurationError("nothing to measure: name a MODEL, see `keras-alexnet models`")
    if preset is not None or data is not None or data_dir is not None:
        raise ConfigurationError("--preset, --data and --data-dir are for --mode epoch")
    height, width = (n or _FREE for n in subject_of(name).size)
    check_choice("mode", mode, (*MODES, EPOCH))
    if threads is not None and threads > cores():
        raise ConfigurationError(f"--threads {threads}: there are {cores()} processor cores here")
    plan = Plan(
        model=name,
        mode=mode,
        batch_sizes=MODES[mode] if batch_sizes is None else _batch_sizes(batch_sizes),
        image_size=(height, width) if image_size is None else parse_size(image_size),
        rounds=rounds,
        seconds=_QUICK_SECONDS if quick else _SECONDS,
        threads=threads or cores(),
        dtype=dtype or _DTYPE,
        device=device or _DEVICE,
    )
    if against is None and compiled:
        raise ConfigurationError(
            "--compile is for torchvision's networks: add --against torchvision"
        )
    competitors = keras_side(plan, _backends(backend), _names(engine))
    if against is not None:
        competitors += baselines(plan, against, compiled=compiled)
    with progress("benchmark", steps(plan, competitors)) as advance_to:
        found = run(plan, competitors, advance_to)
    content = to_json(found)
    if json_file is not None:
        write_json(json_file, content)
    show(sheet(found), format_, notes(found), content=content)


def _experiment(preset: str | None) -> Experiment:
    if preset is None:
        raise ConfigurationError(
            "--mode epoch measures an experiment: give its --preset; MODEL and --data replace the "
            "preset's"
        )
    return find_preset(preset).experiment


def _one(batch_sizes: tuple[int, ...]) -> int:
    if len(batch_sizes) > 1:
        raise ConfigurationError("--mode epoch takes one batch size")
    return batch_sizes[0]


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",")))


def _backends(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    return installed_backends() if text == "all" else _names(text)


def _batch_sizes(text: str) -> tuple[int, ...]:
    """Read positive numbers with commas; anything else is a ConfigurationError."""
    parts = _names(text)
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigurationError(
            f"--batch-sizes {text!r} are not positive numbers with commas, such as 1,32"
        )
    return tuple(map(int, parts))
