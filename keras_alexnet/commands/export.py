"""`export`: a model file in another runtime's format, verified."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_alexnet.core.files import check_output, write_json
from keras_alexnet.core.tables import Column, Format, Sheet, write_sheet
from keras_alexnet.data.sources.folders import expand
from keras_alexnet.errors import ConfigurationError, ModelFileError, VerificationError
from keras_alexnet.exporting.formats import FORMATS, find_format, output_path
from keras_alexnet.exporting.quantization import LEAST_AGREEMENT, check_calibration
from keras_alexnet.exporting.staging import check_target
from keras_alexnet.exporting.verification import LEAST_RESPONSE, LIMIT
from keras_alexnet.models.record import read_record

if TYPE_CHECKING:
    from keras_alexnet.exporting.exporter import Exported
    from keras_alexnet.exporting.quantization import Quantized


class Quantization(StrEnum):
    """Post-training quantisations."""

    INT8 = "int8"


def export_command(
    model: Annotated[Path, typer.Argument(metavar="MODEL.keras", help="File of the model.")],
    format_: Annotated[
        str, typer.Option("--format", help=f"Format to export to: {', '.join(FORMATS)}.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="File to write; a folder for saved_model. Replaced by a verified one alone.",
            show_default="MODEL with the format's suffix",
        ),
    ] = None,
    batch_size: Annotated[
        str, typer.Option(help="Batch size that the result takes: a number, or dynamic for any.")
    ] = "dynamic",
    quantize: Annotated[
        Quantization | None,
        typer.Option(
            help="Post-training quantisation, for tflite and openvino.", show_default=False
        ),
    ] = None,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(
            help="Photos, or folders of them, that set int8's ranges; may be repeated.",
            show_default=False,
        ),
    ] = None,
    calibration_images: Annotated[
        int, typer.Option(min=1, help="Use no more of them, evenly spread.")
    ] = 100,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            help="Folder of photos on which int8 and float are compared.",
            show_default="the calibration's",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a saved_model folder that exists.")
    ] = False,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write the report into this file too.", show_default=False),
    ] = None,
) -> None:
    """Export a model for another runtime, run it there, and keep it if its outputs agree.

    Where they differ, no file is written, and the exit code is 1.
    """
    # Whatever can be wrong is found before a framework is imported, which takes seconds.
    chosen = find_format(format_)
    if model.suffix != ".keras":
        raise ModelFileError(f"{model}: not a .keras file")
    read_record(model)
    target = output_path(chosen, model, output)
    batch = _batch_size(batch_size)
    int8 = quantize is not None
    chosen.require(int8=int8)
    check_calibration(int8, calibration or (), evaluation)
    check_target(chosen, target, overwrite=overwrite)
    if json_file is not None:
        check_output(json_file)
    images = expand(calibration or (), limit=calibration_images, purpose="--calibration")
    compared = expand([evaluation], purpose="--evaluation") if evaluation else []

    from keras_alexnet.exporting.exporter import ExportRequest, export_model

    request = ExportRequest(model, chosen, target, batch, images, compared)
    try:
        result = export_model(request)
    except VerificationError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    if json_file is not None:
        write_json(json_file, result.to_json())
    _report(result)
    for check in result.verified.checks:
        if check.is_weak:
            print(
                f"warning: the model's output {check.output!r} hardly depends on the image (it "
                f"moves by {check.response:.1e} of its largest value, under {LEAST_RESPONSE:g}): "
                "agreement then proves little; is the model trained?",
                file=sys.stderr,
            )
    found = result.quantized
    if found is not None and found.agreement < LEAST_AGREEMENT:
        print(
            f"warning: int8 and float32 name the same class for {100 * found.agreement:.1f} % of "
            f"the {found.evaluation} images only; check that the calibration's are like those the "
            "model was trained on",
            file=sys.stderr,
        )


def _batch_size(text: str) -> int | None:
    """Read `dynamic` as None, or a number of images; anything else is a ConfigurationError."""
    if text == "dynamic":
        return None
    if not (text.isdecimal() and int(text) > 0):
        raise ConfigurationError(
            f"--batch-size {text!r} is neither 'dynamic' nor a positive number of images"
        )
    return int(text)


def _bytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"


def _report(result: "Exported") -> None:
    request, verified = result.request, result.verified
    columns = (
        Column("output", "output", text=True),
        Column("difference", "difference", show=lambda value: f"{value:.1e}"),
        Column("limit", "limit", show=lambda value: f"{value:.0e}"),
        Column("where", "worst on", text=True),
        Column("response", "response", show=lambda value: f"{value:.1e}"),
    )
    rows = [(c.output, c.difference, LIMIT, c.where, c.response) for c in verified.checks]
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    batch = request.batch_size or "any number of"
    kind = "pixels 0..255" if result.pixels else "normalised values"
    shapes = ["x".join(map(str, shape)) for shape in result.shapes.values()]
    if len(shapes) == 1:
        takes = f"images {shapes[0]} of {kind}"
    else:
        takes = ", ".join(map(" ".join, zip(result.shapes, shapes, strict=True)))
    batches = " and ".join(map(str, verified.batches))
    compared = f"{' and '.join(verified.sets)} in batches of {batches}"
    notes = [
        "difference: largest from the Keras model, over its largest |output|; response: how far "
        f"that moves from image to image, over the same; on {compared}",
        f"takes {batch} {takes}; exported by {versions}; "
        f"run by {verified.runtime} {verified.version}",
    ]
    if "photos" not in verified.sets:
        notes.append("no photos were compared: they need scikit-learn and the model's record")
    if request.format.note:
        notes.append(request.format.note)
    name = request.format.name
    what = f"float32 {name}" if result.quantized else f"{name}, {_bytes(result.bytes)}"
    write_sheet(Sheet(f"{request.output}: {what}", columns, rows), Format.TABLE, notes)
    if result.quantized:
        _report_int8(f"{request.output}: int8 {name}", result.quantized)


def _report_int8(title: str, found: "Quantized") -> None:
    columns = (
        Column("precision", "precision", text=True),
        Column("bytes", "size", show=_bytes),
        Column("rate", "images/s", show=lambda value: f"{value:.1f}"),
        Column("agreement", "top-1 agreement %", show=lambda value: f"{100 * value:.1f}"),
    )
    rows = [
        ("float32", found.bytes_before, found.rate_before, None),
        ("int8", found.bytes_after, found.rate_after, found.agreement),
    ]
    notes = [
        f"calibrated with {found.calibration} images, compared on {found.evaluation}; medians of "
        f"batches of {found.batch}, the two in turns"
    ]
    write_sheet(Sheet(title, columns, rows), Format.TABLE, notes)
