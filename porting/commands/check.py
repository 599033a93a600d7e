"""The commands that compare frameworks: check, check-training."""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from keras_alexnet.commands.sizes import parse_size
from keras_alexnet.core.files import atomic_output, check_output
from keras_alexnet.specs.schema import DATA_FORMATS
from porting.checks.check import check
from porting.checks.report import write_report
from porting.checks.results import to_json
from porting.commands.common import AllowPickle, Name, TransformInput, console, progress
from porting.commands.console import print_parity, print_photos, print_training
from porting.training_checks.check import check_training
from porting.training_checks.results import training_to_json


def check_command(
    model: Name,
    source: Annotated[
        str | None,
        typer.Option(
            help="A weights file or torchvision weights' name; by default seeded weights.",
            show_default=False,
        ),
    ] = None,
    candidate: Annotated[
        Path | None,
        typer.Option(
            help="The .keras file; by default the source is converted.", show_default=False
        ),
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            help="Photo file or folder, repeatable; by default scikit-learn's sample photos.",
            show_default=False,
        ),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(
            help="N or HEIGHTxWIDTH, comma-separated, in pixels; by default the model's own and "
            "up to three others that its weights serve.",
            show_default=False,
        ),
    ] = None,
    noise: Annotated[int, typer.Option(min=0, help="Noise images of each size.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise and of seeded weights.")] = 0,
    backends: Annotated[
        str | None,
        typer.Option(help="Comma-separated; by default all installed.", show_default=False),
    ] = None,
    data_formats: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(DATA_FORMATS),
    transform_input: TransformInput = None,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:FUNCTION",
            help="Your own torch network: FUNCTION(model, classes=, aux_heads=, size=) is run and "
            "returns it. By default torchvision's, or one of torch's layers after our table.",
            show_default=False,
        ),
    ] = None,
    allow_pickle: AllowPickle = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for each child process.")] = 900,
    report: Annotated[
        Path | None, typer.Option(help="HTML page to write.", show_default=False)
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="JSON file to write.", show_default=False)
    ] = None,
) -> None:
    """Compare torch and Keras layer by layer on every backend; exit 0 only if all agree."""
    for output in filter(None, (report, json_file)):
        check_output(output)
    with tempfile.TemporaryDirectory(prefix="porting-") as folder, progress() as say:
        result = check(
            model,
            source,
            Path(folder),
            candidate=candidate,
            images=images,
            sizes=[parse_size(each) for each in sizes.split(",")] if sizes else None,
            noise=noise,
            seed=seed,
            backends=backends.split(",") if backends else None,
            data_formats=data_formats.split(","),
            transform_input=transform_input,
            reference=reference,
            allow_pickle=allow_pickle,
            timeout=timeout,
            say=say,
        )
    print_parity(console, result)
    print_photos(console, result)
    if json_file:
        with atomic_output(json_file) as temporary:
            temporary.write_text(json.dumps(to_json(result), indent=1, allow_nan=False))
    if report:
        console.print(f"report: {write_report(report, [result])}", markup=False, soft_wrap=True)
    raise typer.Exit(0 if result.passed else 1)


def check_training_command(
    model: Name,
    source: Annotated[
        str | None,
        typer.Option(
            help="A weights file or torchvision weights' name; by default seeded weights.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="SGD steps.")] = 10,
    batch_size: Annotated[int, typer.Option(min=2, help="Images of a step.")] = 8,
    learning_rate: Annotated[float, typer.Option()] = 1e-3,
    momentum: Annotated[float, typer.Option()] = 0.9,
    weight_decay: Annotated[
        float, typer.Option(help="Factor of the weights in the gradient, as in torch.")
    ] = 5e-4,
    aux_heads: Annotated[
        bool | None,
        typer.Option(
            "--aux-heads/--no-aux-heads",
            help="Train auxiliary classifiers too; by default where there are some.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="N or HEIGHTxWIDTH, in pixels; by default 96 where the weights serve it, else "
            "the model's.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of images, classes, seeded weights.")] = 0,
    backends: Annotated[
        str | None,
        typer.Option(help="Comma-separated; by default all installed.", show_default=False),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for each training.")] = 900,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="JSON file to write.", show_default=False)
    ] = None,
) -> None:
    """Take the same SGD steps in torch and Keras; exit 0 only if the weights agree."""
    if json_file:
        check_output(json_file)
    with tempfile.TemporaryDirectory(prefix="porting-") as folder, progress() as say:
        result = check_training(
            model,
            source,
            Path(folder),
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            momentum=momentum,
            weight_decay=weight_decay,
            aux_heads=aux_heads,
            size=parse_size(size) if size else None,
            seed=seed,
            backends=backends.split(",") if backends else None,
            timeout=timeout,
            say=say,
        )
    print_training(console, result)
    if json_file:
        with atomic_output(json_file) as temporary:
            temporary.write_text(json.dumps(training_to_json(result), indent=1, allow_nan=False))
    raise typer.Exit(0 if result.passed else 1)
