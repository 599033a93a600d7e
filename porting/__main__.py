"""`python -m porting`: convert, inspect, check, diff, export, seed."""

import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from keras_alexnet.errors import KerasAlexNetError
from keras_alexnet.files import atomic_output, check_output
from keras_alexnet.schema import DATA_FORMATS
from keras_alexnet.specs import SPECS, find_spec
from porting import conversion, inspection
from porting.checking import check
from porting.checkpoints import write_checkpoint
from porting.console import print_diff, print_inspection, print_parity, print_photos
from porting.errors import PortingError, UsageError
from porting.inputs import parse_size, parse_sizes
from porting.report import write_report
from porting.results import to_json
from porting.seeded import seeded_state_dict

app = typer.Typer(
    help="Move AlexNets and GoogLeNets between PyTorch and Keras, and prove that both agree.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
# In a file or a pipe, rows are worth more than a width of 80.
console = Console(width=None if sys.stdout.isatty() else 160)

Name = Annotated[str, typer.Argument(metavar="MODEL", help=f"One of: {', '.join(SPECS)}.")]
TransformInput = Annotated[
    bool | None,
    typer.Option(
        "--transform-input/--no-transform-input",
        help="Whether the source network applies torchvision's transform_input. By default as "
        "torchvision does: yes for its pretrained GoogLeNet, otherwise no.",
        show_default=False,
    ),
]


@app.command("convert")
def convert_command(
    model: Name,
    source: Annotated[
        str,
        typer.Option(help="A .pth, .pt, .safetensors or .npz file, or torchvision weights' name."),
    ],
    output: Annotated[Path, typer.Option(help="The .keras file to write.")],
    classes: Annotated[
        int | None, typer.Option(help="Class count that the file must have.", show_default=False)
    ] = None,
    preprocessing: Annotated[
        bool, typer.Option("--preprocessing", help="Put the input normalisation into the model.")
    ] = False,
    data_format: Annotated[
        str | None, typer.Option(help=f"{' or '.join(DATA_FORMATS)}.", show_default=False)
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="Keras dtype policy, such as mixed_bfloat16.", show_default=False),
    ] = None,
    aux_heads: Annotated[
        bool, typer.Option("--aux-heads", help="Keep a GoogLeNet's auxiliary classifiers.")
    ] = False,
    transform_input: TransformInput = None,
    input_size: Annotated[
        str | None,
        typer.Option(
            help="N, HEIGHTxWIDTH or any, in pixels; by default the model's.", show_default=False
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Text file with a class name per line.", show_default=False),
    ] = None,
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
        labels=_labels(labels),
    )
    for note in record["source"]["notes"]:
        console.print(note, markup=False)
    if find_spec(model).transform_input:
        state = "on" if record["model"]["transform_input"] else "off"
        console.print(f"transform_input is {state} (--[no-]transform-input)", markup=False)
    console.print(f"wrote {output}: {model}, {record['model']['classes']} classes", markup=False)


@app.command("inspect")
def inspect_command(file: Annotated[Path, typer.Argument(help="Weights file or model.")]) -> None:
    """Show the tensors of a file and which known model it fits."""
    print_inspection(console, inspection.inspect(file))


@app.command("check")
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
    with tempfile.TemporaryDirectory(prefix="porting-") as folder, _progress() as say:
        result = check(
            model,
            source,
            Path(folder),
            candidate=candidate,
            images=images,
            sizes=parse_sizes(sizes) if sizes else None,
            noise=noise,
            seed=seed,
            backends=backends.split(",") if backends else None,
            data_formats=data_formats.split(","),
            transform_input=transform_input,
            reference=reference,
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


@app.command("diff")
def diff_command(
    a: Annotated[Path, typer.Argument(help="Weights file or .keras model.")],
    b: Annotated[Path, typer.Argument(help="Weights file or .keras model.")],
) -> None:
    """Compare two files tensor by tensor; exit 0 only if they are identical."""
    rows = inspection.diff(a, b)
    print_diff(console, rows)
    raise typer.Exit(0 if all(row.status == "identical" for row in rows) else 1)


@app.command("export")
def export_command(
    file: Annotated[Path, typer.Argument(help="The .keras file.")],
    output: Annotated[Path, typer.Option(help="A .pth, .pt, .safetensors or .npz file to write.")],
    dtype: Annotated[str, typer.Option(help="float32 or float16.")] = "float32",
) -> None:
    """Write a .keras model's weights as a torch state_dict."""
    count = conversion.export(file, output, dtype=dtype)
    console.print(f"wrote {output}: {count} tensors", markup=False)


@app.command("seed")
def seed_command(
    model: Name,
    output: Annotated[Path, typer.Option(help="A .pth, .pt, .safetensors or .npz file to write.")],
    seed: Annotated[int, typer.Option(min=0)] = 0,
    classes: Annotated[
        int | None, typer.Option(min=1, help="By default the model's.", show_default=False)
    ] = None,
    aux_heads: Annotated[bool, typer.Option("--aux-heads")] = False,
    input_size: Annotated[
        str | None,
        typer.Option(help="N or HEIGHTxWIDTH, in pixels; by default the model's."),
    ] = None,
    statistics: Annotated[
        Path | None,
        typer.Option(
            help="JSON file: model -> key -> mean and std to draw every tensor from.",
            show_default=False,
        ),
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


@contextlib.contextmanager
def _progress() -> Iterator[Any]:
    """Show the current step on a terminal, and nothing elsewhere."""
    with console.status("") as status:
        yield lambda step: status.update(f"{step} …")


def _input_size(text: str | None) -> tuple[int | None, int | None] | None:
    if text is None:
        return None
    return (None, None) if text == "any" else parse_size(text)


def _labels(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as text ({error})") from error


def _stop(_signal: int, _frame: Any) -> NoReturn:
    # As an exception, so that temporary files are removed and children end.
    sys.exit(128 + signal.SIGTERM)


def main() -> None:
    """Run the command line; a user's mistake ends with one message and exit code 2."""
    signal.signal(signal.SIGTERM, _stop)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its start-up notes are not our output
    try:
        app(standalone_mode=True)
    except (PortingError, KerasAlexNetError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
