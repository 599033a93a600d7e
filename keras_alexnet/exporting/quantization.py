"""int8 post-training quantisation: what it takes, and what it gains and costs."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.errors import ConfigurationError, listed
from keras_alexnet.exporting.children import run_job
from keras_alexnet.exporting.formats import ExportFormat
from keras_alexnet.exporting.samples import COUNT

# Share of images with the same class below which the command warns.
LEAST_AGREEMENT = 0.9
_ROUNDS = 31  # timings of each file, the median of which counts


@dataclass(frozen=True)
class Quantized:
    """An int8 file (after) beside the float file (before) that it was made from."""

    calibration: int  # images that set the ranges
    evaluation: int  # images that were compared
    agreement: float  # share of those for which both files name the same class
    bytes_before: int
    bytes_after: int
    rate_before: float  # images per second, by the median of interleaved batches
    rate_after: float
    batch: int  # images of a batch that was timed


def check_calibration(int8: bool, calibration: Sequence[Path], evaluation: Path | None) -> None:
    """Check that images for int8 are there if, and only if, int8 is asked for.

    Raises:
        ConfigurationError: They are not.
    """
    if int8 and not calibration:
        raise ConfigurationError(
            "--quantize int8 needs --calibration FOLDER: photos like those the model will see, "
            "which set the ranges of its activations; a hundred do"
        )
    if not int8 and (calibration or evaluation):
        raise ConfigurationError(
            "--calibration and --evaluation are for --quantize int8; add that or leave them out"
        )


def check_inputs(model: Path, inputs: Collection[str]) -> None:
    """Refuse int8 of a model of several inputs.

    Raises:
        ConfigurationError: There are several; photos set the ranges of one alone.
    """
    if len(inputs) > 1:
        raise ConfigurationError(
            f"int8 takes its ranges from photos, and {model} has {len(inputs)} inputs "
            f"({', '.join(inputs)}); leave --quantize out"
        )


def check_sensitive(format_: ExportFormat, layers: Sequence[str]) -> None:
    """Refuse int8 where it would destroy the model.

    With the real weights of BVLC's GoogLeNet and LRN in int8 as well, TFLite named the float file's
    class for 2.5 % of 200 photos; OpenVINO did for 92 % with LRN spared in part.

    Raises:
        ConfigurationError: There are such layers, and the format can spare nothing.
    """
    if layers and not format_.selective:
        raise ConfigurationError(
            f"int8 {format_.name} would quantise {listed(layers)} (local response normalisation) "
            "too, with which it named other classes than float32 where that was measured; use "
            "--format openvino, or leave --quantize out"
        )


def compare_files(
    format_: ExportFormat,
    before: Path,
    after: Path,
    export: Mapping[str, Any],
    images: Sequence[Path],
    *,
    batch_size: int | None,
    calibration: int,
) -> Quantized:
    """Measure a float and an int8 file in one process, in turns.

    `export` is what `export_child` answered, `calibration` how many images set the int8 file's
    ranges. The most probable classes of `images` are compared. Where the batch size is dynamic
    (None), batches of 3 are compared and batches of 1 timed.

    Raises:
        ExportError: The runtime cannot run a file.
    """
    batch = batch_size or 1
    names = export["outputs"]
    job = {
        "work": "compare",
        "format": format_.name,
        "files": {"before": str(before), "after": str(after)},
        "inputs": export["inputs"],
        "output": "logits" if "logits" in names else names[0],
        "images": list(map(str, images)),
        "batch": batch_size or COUNT,
        "timed": batch,
        "rounds": _ROUNDS,
    }
    found = run_job("runtimes", job, backend=format_.backend)
    agree = np.equal(found["classes"]["before"], found["classes"]["after"])
    return Quantized(
        calibration=calibration,
        evaluation=len(images),
        agreement=float(agree.mean()),
        bytes_before=size_of(format_, before),
        bytes_after=size_of(format_, after),
        rate_before=batch / found["seconds"]["before"],
        rate_after=batch / found["seconds"]["after"],
        batch=batch,
    )


def size_of(format_: ExportFormat, path: Path) -> int:
    """Return the bytes of an export, of all its files together."""
    return sum(
        file.stat().st_size
        for member in format_.members(path)
        for file in ([member] if member.is_file() else member.rglob("*"))
        if file.is_file()
    )
