"""The commands that compare frameworks: check, check-training."""

import tempfile
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from keras_alexnet.commands.options import with_options
from keras_alexnet.core.files import check_output, write_json
from porting.checks.check import check
from porting.checks.report import write_report
from porting.checks.request import CheckRequest
from porting.checks.results import to_json
from porting.commands.common import Name, NetworkName, console, progress
from porting.commands.console import print_cells, print_parity, print_photos, print_training
from porting.training_checks.check import TrainingRequest, check_training
from porting.training_checks.results import training_to_json

JsonOption = Annotated[Path | None, typer.Option("--json", help="JSON file to write.")]


def _check(
    model: NetworkName,
    report: Annotated[Path | None, typer.Option(help="HTML page to write.")] = None,
    json_file: JsonOption = None,
    *,
    overrides: dict[str, Any],
) -> None:
    """Compare torch and Keras layer by layer on every backend; exit 0 only if all agree."""
    for output in filter(None, (report, json_file)):
        check_output(output)
    with tempfile.TemporaryDirectory(prefix="porting-") as folder, progress() as say:
        result = check(
            CheckRequest(model, **overrides), Path(folder), say, found=partial(print_cells, model)
        )
    print_parity(result)
    print_photos(result)
    if json_file:
        write_json(json_file, to_json(result))
    if report:
        console.print(f"report: {write_report(report, [result])}", markup=False, soft_wrap=True)
    raise typer.Exit(0 if result.passed else 1)


def _check_training(
    model: Name, json_file: JsonOption = None, *, overrides: dict[str, Any]
) -> None:
    """Take the same SGD steps in torch and Keras; exit 0 only if the weights agree."""
    if json_file:
        check_output(json_file)
    with tempfile.TemporaryDirectory(prefix="porting-") as folder, progress() as say:
        result = check_training(TrainingRequest(model, **overrides), Path(folder), say)
    print_training(result)
    if json_file:
        write_json(json_file, training_to_json(result))
    raise typer.Exit(0 if result.passed else 1)


def _with_fields(command: Any, request: type) -> Any:
    """Return a command with an option for each field of a request that has one."""
    shown = [field for field in fields(request) if field.metadata]
    return with_options(command, shown, get_type_hints(request))


check_command = _with_fields(_check, CheckRequest)
check_training_command = _with_fields(_check_training, TrainingRequest)
