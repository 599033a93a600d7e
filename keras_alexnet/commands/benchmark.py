"""`benchmark`: how fast a model is here, and against torchvision or timm."""

from pathlib import Path
from typing import Annotated

import typer

from keras_alexnet.benchmarking.environment import cores
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
from keras_alexnet.commands.common import FormatOption, SizeOption, progress, show
from keras_alexnet.core.backend import BACKENDS, installed_backends
from keras_alexnet.core.fields import parse_size
from keras_alexnet.core.files import check_output, write_json
from keras_alexnet.core.tables import Format
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.specs import SPECS

_ROUNDS, _SECONDS = 10, 0.5
_QUICK_ROUNDS, _QUICK_SECONDS = 3, 0.1
_FREE = 224  # pixels, for a file that takes images of any size


def benchmark_command(
    name: Annotated[
        str,
        typer.Argument(metavar="MODEL", help=f"A .keras file, or one of: {', '.join(SPECS)}."),
    ],
    mode: Annotated[
        str,
        typer.Option(
            help="inference; train, a step of SGD with momentum; or pipeline, making training "
            "batches out of noise of 32x32 bytes in memory."
        ),
    ] = "inference",
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
    ] = "keras",
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
            show_default="1,32; train: 32; pipeline: 64",
        ),
    ] = None,
    image_size: SizeOption = None,
    dtype: Annotated[
        str,
        typer.Option(help=f"Dtype policy: {', '.join(DTYPES)}; torchvision gets autocast."),
    ] = "float32",
    device: Annotated[str, typer.Option(help=f"{' or '.join(DEVICES)}.")] = "cpu",
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
    height, width = (n or _FREE for n in subject_of(name).size)
    check_choice("mode", mode, MODES)
    if threads is not None and threads > cores():
        raise ConfigurationError(f"--threads {threads}: there are {cores()} processor cores here")
    plan = Plan(
        model=name,
        mode=mode,
        batch_sizes=MODES[mode] if batch_sizes is None else _batch_sizes(batch_sizes),
        image_size=(height, width) if image_size is None else parse_size(image_size),
        rounds=rounds or (_QUICK_ROUNDS if quick else _ROUNDS),
        seconds=_QUICK_SECONDS if quick else _SECONDS,
        threads=threads or cores(),
        dtype=dtype,
        device=device,
    )
    if against is None and compiled:
        raise ConfigurationError(
            "--compile is for torchvision's networks: add --against torchvision"
        )
    competitors = keras_side(plan, _backends(backend), _names(engine))
    if against is not None:
        competitors += baselines(plan, against, compiled=compiled)
    if json_file is not None:
        check_output(json_file)
    with progress("benchmark", steps(plan, competitors)) as advance_to:
        found = run(plan, competitors, advance_to)
    content = to_json(found)
    if json_file is not None:
        write_json(json_file, content)
    show(sheet(found), format_, notes(found), content=content)


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
