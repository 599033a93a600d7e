"""Exports a model file, verifies the result with its own runtime, and only then puts it in place.

Nothing here imports a framework.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keras_alexnet.errors import ExportError
from keras_alexnet.exporting.children import run_job
from keras_alexnet.exporting.formats import ExportFormat
from keras_alexnet.exporting.quantization import (
    Quantized,
    check_inputs,
    check_sensitive,
    compare_files,
    size_of,
)
from keras_alexnet.exporting.staging import publish, staging
from keras_alexnet.exporting.verification import LIMIT, Verified, verify


@dataclass(frozen=True)
class ExportRequest:
    """What to export, and how.

    Attributes:
        model: The `.keras` file.
        format: The format.
        output: The file or folder to write.
        batch_size: The only batch size of the result, or None for any.
        calibration: Image files for int8; none for float32.
        evaluation: Image files on which int8 is compared; the calibration's where there are none.
    """

    model: Path
    format: ExportFormat
    output: Path
    batch_size: int | None = None
    calibration: Sequence[Path] = ()
    evaluation: Sequence[Path] = ()


@dataclass(frozen=True)
class Exported:
    """What an export has become.

    Attributes:
        request: What was asked for.
        bytes: Size of the result, of all its files together.
        verified: The comparison of the float32 export with the Keras model.
        versions: Version by package, of Keras and of the backend that exported.
        shapes: One of each input as the result takes it, by name; an image, but of several.
        pixels: Whether the result takes 0..255 and normalises itself.
        quantized: What int8 gained and cost, or None for float32.
    """

    request: ExportRequest
    bytes: int
    verified: Verified
    versions: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    pixels: bool
    quantized: Quantized | None

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        request = self.request
        return {
            "model": str(request.model),
            "format": request.format.name,
            "output": str(request.output),
            "precision": "int8" if self.quantized else "float32",
            "bytes": self.bytes,
            "batch_size": request.batch_size or "dynamic",
            "input_shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "takes_pixels": self.pixels,
            "backend": request.format.backend,
            "versions": self.versions,
            "limit": LIMIT,
            "verified": asdict(self.verified),
            "quantized": asdict(self.quantized) if self.quantized else None,
        }


def export_model(request: ExportRequest) -> Exported:
    """Export a model, verify the export, quantise it where that is asked for, put it in place.

    Whatever fails, `request.output` is left as it was, and nothing stays beside it.

    Raises:
        VerificationError: The exported file computes something else than the model.
        ExportError: Keras or a converter cannot do it.
        ConfigurationError: The output cannot be written.
        ModelFileError: The model file cannot be exported (from the child as ConfigurationError).
    """
    format_, output = request.format, request.output
    with staging(output) as staged:
        scratch = staged / "scratch"
        scratch.mkdir()
        place = scratch if request.calibration else staged
        float_file, samples = place / output.name, scratch / "samples.npz"
        export = _export(request, float_file, samples)
        if request.calibration:
            check_inputs(request.model, export["inputs"])
            check_sensitive(format_, export["sensitive"])
        verified = verify(format_, float_file, samples, scratch, batch_size=request.batch_size)
        quantized = None
        if request.calibration:
            quantized = _quantize(request, float_file, staged / output.name, export, scratch)
        new = format_.members(staged / output.name)
        size = size_of(format_, new[0])
        publish(new, format_.members(output), staged)
    return Exported(
        request,
        size,
        verified,
        export["versions"],
        {name: tuple(takes["shape"]) for name, takes in export["inputs"].items()},
        any(takes["pixels"] for takes in export["inputs"].values()),
        quantized,
    )


def _export(
    request: ExportRequest, file: Path, samples: Path, calibration: Sequence[Path] = ()
) -> Any:
    """Let a child export, in int8 where calibration images are given."""
    format_ = request.format
    job = {
        "model": str(request.model.resolve()),
        "format": format_.name,
        "output": str(file),
        "batch_size": request.batch_size,
        "samples": str(samples),
        "calibration": list(map(str, calibration)),
    }
    try:
        return run_job("export_child", job, backend=format_.backend)
    except ExportError as error:
        kind = "int8 " if calibration else ""
        raise ExportError(
            f"{request.model} cannot be exported to {kind}{format_.name} on {format_.backend}; "
            f"{format_.instead}. The cause: {error}"
        ) from error


def _quantize(
    request: ExportRequest, before: Path, after: Path, export: Any, scratch: Path
) -> Quantized:
    """Write the int8 file beside the verified float file, and compare the two."""
    format_ = request.format
    if format_.name == "tflite":
        _export(request, after, scratch / "again.npz", request.calibration)
    else:
        job = {
            "file": str(before),
            "output": str(after),
            "inputs": export["inputs"],
            "sensitive": export["sensitive"],
            "batch_size": request.batch_size,
            "calibration": list(map(str, request.calibration)),
        }
        run_job("nncf_child", job)
    return compare_files(
        format_,
        before,
        after,
        export,
        request.evaluation or request.calibration,
        batch_size=request.batch_size,
        calibration=len(request.calibration),
    )
