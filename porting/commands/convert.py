"""The commands about files: convert, inspect, diff, export, seed."""

import json
from pathlib import Path
from typing import Annotated

import typer

from keras_alexnet.core.fields import comma_separated, parse_shape, parse_size
from keras_alexnet.core.files import check_output, read_text
from keras_alexnet.models.interface import MAIN_OUTPUT
from keras_alexnet.specs import find_spec
from keras_alexnet.specs.schema import DATA_FORMATS
from porting.checkpoints.files import write_checkpoint
from porting.commands.common import (
    AllowPickle,
    Name,
    NetworkName,
    TransformInput,
    Which,
    console,
)
from porting.commands.console import print_diff, print_inspection
from porting.conversion import convert as conversion, inspection
from porting.conversion.sources import INPUT_SHAPE
from porting.errors import UsageError
from porting.torch_side.seeded import seeded_state_dict


def convert_command(
    model: NetworkName,
    output: Annotated[Path, typer.Option(help="The .keras file to write.")],
    source: Annotated[
        str | None,
        typer.Option(
            help="A .pth, .pt, .safetensors, .npz, .caffemodel or .npy file, or the name of "
            "torchvision's or timm's weights. A FILE.py:FUNCTION and timm:local-dir:FOLDER have "
            "their own."
        ),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(help="Class count that the file must have; 0 for timm's pooled features."),
    ] = None,
    preprocessing: Annotated[
        bool, typer.Option("--preprocessing", help="Put the input normalisation into the model.")
    ] = False,
    data_format: Annotated[str | None, typer.Option(help=f"{' or '.join(DATA_FORMATS)}.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Keras dtype policy, such as mixed_bfloat16.")
    ] = None,
    aux_heads: Annotated[
        bool, typer.Option("--aux-heads", help="Keep a GoogLeNet's auxiliary classifiers.")
    ] = False,
    transform_input: TransformInput = None,
    input_size: Annotated[
        str | None, typer.Option(help="N, HEIGHTxWIDTH or any, in pixels; by default the model's.")
    ] = None,
    input_shape: Annotated[
        str | None,
        typer.Option(help=INPUT_SHAPE),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Text file with a class name per line.")
    ] = None,
    allow_pickle: AllowPickle = False,
    which: Which = None,
) -> None:
    """Convert a checkpoint into a .keras file."""
    record = conversion.convert(
        model,
        source,
        output,
        classes=classes,
        include_preprocessing=preprocessing,
        data_format=data_format,
        dtype=dtype,
        aux_heads=aux_heads,
        transform_input=transform_input,
        input_size=_input_size(input_size),
        input_shapes=comma_separated(parse_shape)(input_shape) if input_shape else None,
        labels=_labels(labels),
        allow_pickle=allow_pickle,
        which=which,
    )
    for note in record["source"]["notes"]:
        console.print(note, markup=False)
    if record["model"].get("transform_input") is not None and find_spec(model).transform_input:
        state = "on" if record["model"]["transform_input"] else "off"
        console.print(f"transform_input is {state} (--[no-]transform-input)", markup=False)
    said = [model]
    if (classes := record["model"]["classes"]) is not None:
        said.append(f"{classes} classes")
    if len(outputs := record["model"].get("outputs", [])) > 1:
        said.append(f"outputs {', '.join(outputs)}")
    proof = ""
    if gap := record.get("proof", {}).get("logits"):
        what = "logits are" if outputs == [MAIN_OUTPUT] else "outputs are"
        proof = f"; its {what} torch's to {gap:.1e} of their scale"
    console.print(f"wrote {output}: {', '.join(said)}{proof}", markup=False)


def inspect_command(
    file: Annotated[Path, typer.Argument(help="Weights file or model.")],
    allow_pickle: AllowPickle = False,
    which: Which = None,
) -> None:
    """Show the tensors of a file and which known model it fits."""
    print_inspection(inspection.inspect(file, allow_pickle=allow_pickle, which=which))


def diff_command(
    a: Annotated[Path, typer.Argument(help="Weights file or .keras model.")],
    b: Annotated[Path, typer.Argument(help="Weights file or .keras model.")],
    allow_pickle: AllowPickle = False,
) -> None:
    """Compare two files tensor by tensor; exit 0 only if they are identical."""
    rows = inspection.diff(a, b, allow_pickle=allow_pickle)
    print_diff(rows)
    raise typer.Exit(0 if all(row.status == "identical" for row in rows) else 1)


def export_command(
    file: Annotated[Path, typer.Argument(help="The .keras file.")],
    output: Annotated[Path, typer.Option(help="A .pth, .pt, .safetensors or .npz file to write.")],
    dtype: Annotated[str, typer.Option(help="float32 or float16.")] = "float32",
) -> None:
    """Write a .keras model's weights as a torch state_dict."""
    count = conversion.export(file, output, dtype=dtype)
    console.print(f"wrote {output}: {count} tensors", markup=False)


def seed_command(
    model: Name,
    output: Annotated[Path, typer.Option(help="A .pth, .pt, .safetensors or .npz file to write.")],
    seed: Annotated[int, typer.Option(min=0)] = 0,
    classes: Annotated[int | None, typer.Option(min=1, help="By default the model's.")] = None,
    aux_heads: Annotated[bool, typer.Option("--aux-heads")] = False,
    input_size: Annotated[
        str | None, typer.Option(help="N or HEIGHTxWIDTH, in pixels; by default the model's.")
    ] = None,
    statistics: Annotated[
        Path | None,
        typer.Option(help="JSON file: model -> key -> mean and std to draw every tensor from."),
    ] = None,
) -> None:
    """Write seeded weights whose logits differ between photos, to try the checks with."""
    find_spec(model)
    check_output(output)
    moments = None
    if statistics is not None:
        try:
            moments = json.loads(statistics.read_text())[model]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{statistics}: no statistics of {model} in it ({error})") from error
    arrays = seeded_state_dict(
        model,
        seed=seed,
        classes=classes,
        aux_heads=aux_heads,
        size=parse_size(input_size) if input_size else None,
        statistics=moments,
    )
    write_checkpoint(output, arrays)
    console.print(f"wrote {output}: {len(arrays)} tensors", markup=False)


def _input_size(text: str | None) -> tuple[int | None, int | None] | None:
    if text is None:
        return None
    return (None, None) if text == "any" else parse_size(text)


def _labels(path: Path | None) -> list[str] | None:
    return None if path is None else read_text(path, error=UsageError).splitlines()
