"""The command that tries whole libraries of networks: coverage."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from keras_alexnet.core.fields import comma_separated
from keras_alexnet.core.files import check_output, write_json
from keras_alexnet.core.tables import Column, Format, Sheet, write_sheet
from keras_alexnet.specs.schema import DATA_FORMATS
from porting.checks.coverage import Covered, coverage, from_json, targets_of, to_json
from porting.checks.request import checked_backends
from porting.commands.common import progress
from porting.errors import UsageError
from porting.tolerances import TOLERANCES


def coverage_command(
    networks: Annotated[
        str,
        typer.Argument(
            help="'torchvision:*' or another pattern, 'timm:*' for one network of each family, or "
            "FILE.py:FUNCTION."
        ),
    ],
    json_file: Annotated[Path | None, typer.Option("--json", help="JSON file to write.")] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table in Markdown.")
    ] = False,
    backends: Annotated[
        str | None, typer.Option(help="Comma-separated; by default all installed.")
    ] = None,
    data_formats: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(DATA_FORMATS),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the networks that the JSON file lacks.")
    ] = False,
) -> None:
    """Convert networks with seeded weights, compare every logit; exit 0 only if all agree."""
    texts = comma_separated(str)
    chosen = checked_backends(texts(backends) if backends else None)
    found: list[Covered] = []
    if resume and json_file is None:
        raise UsageError("--resume goes on with what a JSON file holds: name it with --json")
    if json_file:
        check_output(json_file)
        if resume and json_file.is_file():
            found = _known(json_file)
    known = {covered.target for covered in found}
    targets = [target for target in targets_of(networks) if target.text not in known]
    with progress() as say:
        for covered in coverage(targets, chosen, texts(data_formats), say):
            found.append(covered)
            if json_file:
                write_json(json_file, to_json(found))  # what is there survives an interruption
    write_sheet(sheet(found, chosen), Format.MARKDOWN if markdown else Format.TABLE, notes(found))
    raise typer.Exit(0 if all(covered.passed for covered in found) else 1)


def _known(file: Path) -> list[Covered]:
    try:
        return from_json(json.loads(file.read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file}: no coverage to go on with ({error})") from error


def sheet(found: list[Covered], backends: Sequence[str]) -> Sheet:
    """Return the table of a coverage."""
    numbers = ("parameters", "operations", "transposes")
    columns = (
        Column("network", "network", text=True),
        *(Column(name, name) for name in (*numbers, *backends)),
        *(Column(name, name, text=True) for name in ("round trip", "verdict")),
    )
    rows = [
        (
            each.target,
            each.parameters,
            sum(each.operations.values()),
            each.transposes,
            *(_worst(each, backend) for backend in backends),
            "identical" if each.round_trip else "differs",
            "passed" if each.passed else "FAILED",
        )
        for each in found
    ]
    return Sheet("Logits of Keras' models against torch's, relative to the largest", columns, rows)


def _worst(covered: Covered, backend: str) -> str:
    gaps = [gap for name, gap in covered.gaps.items() if name.startswith(f"{backend}/")]
    return f"{max(gaps):.1e}" if gaps else "-"


def notes(found: list[Covered]) -> list[str]:
    """Return how many networks agree, and what could not be converted or computed."""
    lines = [f"{sum(each.passed for each in found)} of {len(found)} networks"]
    lines += [f"{each.target}: {each.error}" for each in found if each.error]
    lines += [
        f"{each.target}: logits of different images differ by only {each.spread:.1e} of their scale"
        for each in found
        if each.dull
    ]
    lines += [
        f"{each.target} on {max(each.gaps, key=each.gaps.__getitem__)}: logits are off by "
        f"{each.worst:.1e} of their scale"
        for each in found
        if each.gaps and each.worst > TOLERANCES["logits"].limit
    ]
    lines += [
        f"{each.target} on {where} could not be computed: {text.splitlines()[0]}"
        for each in found
        for where, text in each.failures.items()
    ]
    return lines
