"""`summary` and `models`: what the networks cost, layer by layer, and which there are.

Everything comes from the specs by arithmetic, so no framework is needed or imported; but for the
summary of a `.keras` file, which asks the model in it.
"""

import fnmatch
from dataclasses import asdict, fields
from operator import attrgetter
from pathlib import Path
from typing import Annotated

import typer

from keras_alexnet.commands.common import FormatOption, SizeOption, show
from keras_alexnet.core.fields import parse_size
from keras_alexnet.core.figures import check_picture
from keras_alexnet.core.tables import Column, Format, Sheet
from keras_alexnet.errors import ConfigurationError, UnknownModelError
from keras_alexnet.models.record import read_record
from keras_alexnet.specs import SPECS, find_spec
from keras_alexnet.summary.costs import DEFINITIONS, Cost
from keras_alexnet.summary.picture import draw_profile
from keras_alexnet.summary.profile import Profile, profile


def _giga(value: int) -> str:
    """Return billions with 3 decimals, or with 3 digits where that would be too few."""
    return f"{value / 1e9:.3f}" if value >= 1e7 else f"{value / 1e9:.3g}"


_LAYER_COLUMNS = (
    Column("name", "layer", text=True),
    Column("kind", "kind", text=True),
    Column("input", "input"),
    Column("output", "output"),
    Column("kernel", "kernel"),
    Column("stride", "stride"),
    Column("padding", "padding"),
    Column("receptive_field", "field", missing="all"),
    Column("jump", "jump"),
    Column("parameters", "parameters"),
    Column("memory", "memory"),
    Column("macs", "MACs"),
    Column("madd", "MAdd"),
    Column("flops", "FLOPs"),
    Column("bytes_read", "read"),
    Column("bytes_written", "written"),
)
_MODEL_COLUMNS = (
    Column("name", "model", text=True),
    Column("origin", "origin", text=True),
    Column("reference", "reference", text=True, wraps=True),
    Column("input", "input"),
    Column("parameters", "parameters"),
    Column("parameters_with_aux", "with aux heads"),
    Column("macs", "GMACs", show=_giga),
    Column("weights", "weights", text=True),
)
_COSTS = tuple(field.name for field in fields(Cost))
_OPERATION_COLUMNS = (
    Column("name", "operation", text=True),
    Column("kind", "kind", text=True),
    Column("input", "input", wraps=True),
    Column("output", "output", wraps=True),
    Column("receptive_field", "field"),
    Column("jump", "jump"),
    Column("parameters", "parameters"),
    Column("macs", "MACs"),
)
_OF_FILES = (
    "Shapes are Keras', for one image. MACs are those of convolutions, dense layers and products "
    "of matrices, attention's among them. A receptive field of - has no meaning where positions in "
    "the image are not kept apart."
)


def summary_command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|FILE.keras", help=f"One of: {', '.join(SPECS)}; or any model's file."
        ),
    ],
    input_size: SizeOption = None,
    classes: Annotated[
        int | None, typer.Option(help="Number of classes.", show_default="the model's")
    ] = None,
    aux_heads: Annotated[
        bool, typer.Option("--aux-heads", help="Include the auxiliary classifiers.")
    ] = False,
    format_: FormatOption = Format.TABLE,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw the network too, into a .svg, .png or .pdf file.", show_default=False
        ),
    ] = None,
) -> None:
    """Show shapes, parameters, operations, memory and receptive field of every layer."""
    size = None if input_size is None else parse_size(input_size)
    if name.endswith(".keras"):
        if classes is not None or aux_heads or plot is not None:
            raise ConfigurationError(
                f"{name} is what it is: --classes, --aux-heads and --plot are for models by name"
            )
        _summarise_file(Path(name), size, format_)
        return
    spec = find_spec(name)
    if plot is not None:
        check_picture(plot)
    network = profile(spec, size=size, classes=classes, aux_heads=aux_heads)
    if plot is not None:
        draw_profile(network, plot)
    sheet = layer_sheet(network)
    content = {
        "model": spec.name,
        "input_size": network.size,
        "classes": network.classes,
        "aux_heads": network.aux_heads,
        "layers": sheet.records,
        "totals": asdict(network.totals),
        "definitions": dict(DEFINITIONS),
        "notes": network.notes,
    }
    headings = {column.key: column.heading for column in _LAYER_COLUMNS}
    definitions = [f"{headings[key]}: {text}" for key, text in DEFINITIONS.items()]
    show(sheet, format_, [*definitions, *network.notes], content=content)


def _summarise_file(path: Path, size: tuple[int, int] | None, format_: Format) -> None:
    """Show the operations of the model in a file, whatever it was made by."""
    record = read_record(path) or {}

    from keras_alexnet.models.profile import profile_model
    from keras_alexnet.models.weights import load_model

    model = load_model(path)
    rows = profile_model(model, size)
    totals = {name: sum(getattr(row, name) for row in rows) for name in ("parameters", "macs")}
    keys = [column.key for column in _OPERATION_COLUMNS]
    cells = [tuple(getattr(row, key) for key in keys) for row in rows]
    total = tuple(({"name": "total"} | totals).get(key, "") for key in keys)
    sheet = Sheet(f"{path.name}, {model.name}", _OPERATION_COLUMNS, [*cells, total], has_total=True)
    target = record.get("model", {}).get("target")
    notes = [_OF_FILES, *([f"Converted from {target}."] if target else [])]
    content = {
        "model": model.name,
        "target": target,
        "operations": sheet.records,
        "totals": totals,
        "notes": notes,
    }
    show(sheet, format_, notes, content=content)


def models_command(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, such as 'google*'.")] = "*",
    format_: FormatOption = Format.TABLE,
) -> None:
    """List the models with their origin, input, parameters, operations and weights."""
    show(model_sheet(pattern), format_)


def layer_sheet(network: Profile) -> Sheet:
    """Return a row for each layer, and the totals."""
    get = attrgetter(*(f"cost.{c.key}" if c.key in _COSTS else c.key for c in _LAYER_COLUMNS))
    totals = {"name": "total", **asdict(network.totals)}
    height, width = network.size
    return Sheet(
        f"{network.spec.name}, {height} x {width} pixels, {network.classes} classes",
        _LAYER_COLUMNS,
        [
            *(get(row) for row in network.rows),
            tuple(totals.get(column.key, "") for column in _LAYER_COLUMNS),
        ],
        has_total=True,
    )


def model_sheet(pattern: str = "*") -> Sheet:
    """Return a row for each model whose name matches a shell pattern.

    Raises:
        UnknownModelError: No name does.
    """
    specs = [SPECS[name] for name in fnmatch.filter(SPECS, pattern)]
    if not specs:
        raise UnknownModelError(f"no model matches {pattern!r}. Known: {', '.join(SPECS)}")
    rows = []
    for spec in specs:
        totals = profile(spec).totals
        with_aux = profile(spec, aux_heads=True).totals.parameters if spec.aux else None
        size = (*spec.default_size, spec.channels)
        numbers = (size, totals.parameters, with_aux, totals.macs)
        weights = " ".join(spec.weights) or None
        rows.append((spec.name, spec.origin, spec.reference, *numbers, weights))
    return Sheet("models, input as height x width x channels", _MODEL_COLUMNS, rows)
