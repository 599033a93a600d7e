"""Whether an exported file computes what its model does."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_alexnet.errors import ExportError, VerificationError
from keras_alexnet.exporting.children import run_job
from keras_alexnet.exporting.formats import ExportFormat
from keras_alexnet.exporting.samples import COUNT

# Largest |difference| / largest |reference| of an output. The same as between backends and
# frameworks: float32 sums of up to 9216 products in another order, through up to 22 layers.
LIMIT = 1e-5
# Largest spread of an output over the images / its largest value, below which agreement says
# little: an error of a hundredth in what the images change would stay below the limit. Untrained
# networks are like that; GoogLeNet's logits are then its last bias, whatever the image.
LEAST_RESPONSE = 100 * LIMIT


@dataclass(frozen=True)
class Check:
    """The worst disagreement of one output."""

    output: str
    difference: float  # largest |difference| over the largest |reference|
    where: str  # on which images, in which batch
    # Largest spread of the reference over the images, over its largest value: what the comparison
    # could see of an error in what the images change.
    response: float

    @property
    def is_weak(self) -> bool:
        """Whether the output hardly depends on the image, so that agreement proves little."""
        return self.response < LEAST_RESPONSE


@dataclass(frozen=True)
class Verified:
    """What ran an exported file, and how well it agreed, output by output."""

    runtime: str
    version: str
    batches: tuple[int, ...]
    sets: tuple[str, ...]
    checks: tuple[Check, ...]


def verify(
    format_: ExportFormat, file: Path, samples: Path, scratch: Path, *, batch_size: int | None
) -> Verified:
    """Run an exported file with its own runtime and compare all outputs with the Keras model's.

    `samples` is the `.npz` of inputs and the Keras model's outputs that `export_child` writes,
    `scratch` a folder for temporary files. Where the batch size is dynamic (None), 1 and 3 are run.

    Raises:
        ExportError: The runtime cannot run it.
        VerificationError: An output is missing, or differs by more than `LIMIT`.
    """
    batches = (1, COUNT) if batch_size is None else (batch_size,)
    results = scratch / "results.npz"
    job = {
        "work": "verify",
        "format": format_.name,
        "file": str(file),
        "samples": str(samples),
        "batches": batches,
        "results": str(results),
    }
    try:
        found = run_job("runtimes", job, backend=format_.backend)
    except ExportError as error:
        raise VerificationError(
            f"{format_.runtime()} cannot run what was exported ({error}). The file was removed"
        ) from error
    with np.load(samples) as expected, np.load(results) as computed:
        checks, sets = compare(dict(expected), dict(computed), batches)
    worst = max(checks, key=lambda check: check.difference)
    if not worst.difference <= LIMIT:
        raise VerificationError(
            f"the {format_.name} file was removed, as it does not compute what the model does: "
            f"output {worst.output!r} differs by {worst.difference:.2e} of the largest value on "
            f"{worst.where}, the limit is {LIMIT:g}"
        )
    return Verified(found["runtime"], found["version"], batches, sets, tuple(checks))


def compare(
    expected: dict[str, np.ndarray], computed: dict[str, np.ndarray], batches: Sequence[int]
) -> tuple[list[Check], tuple[str, ...]]:
    """Compare outputs, `SET/BATCH/NAME`, with the reference, `SET/output/NAME` of `SET/input/...`.

    Returns:
        The worst of each output, and the names of the sets.

    Raises:
        VerificationError: An output is missing, too much, or of another shape.
    """
    sets = tuple(dict.fromkeys(key.split("/")[0] for key in expected))
    prefix = f"{sets[0]}/output/"
    names = [key.removeprefix(prefix) for key in expected if key.startswith(prefix)]
    responses = {
        name: _response(np.concatenate([expected[f"{key}/output/{name}"] for key in sets]))
        for name in names
    }
    worst: dict[str, Check] = {}
    for key in sets:
        for batch in batches:
            start = f"{key}/{batch}/"
            got = {k.removeprefix(start): v for k, v in computed.items() if k.startswith(start)}
            if len(names) == len(got) == 1:  # a single output may have another name
                got = {names[0]: next(iter(got.values()))}
            if set(got) != set(names):
                raise VerificationError(
                    f"the exported file has the outputs {', '.join(sorted(got))}; the model has "
                    f"{', '.join(sorted(names))}"
                )
            for name in names:
                reference = expected[f"{key}/output/{name}"]
                reference = reference[np.arange(batch) % len(reference)]
                where = f"{key} in a batch of {batch}"
                if got[name].shape != reference.shape:
                    raise VerificationError(
                        f"the exported file's output {name!r} is {got[name].shape} on {where}; the "
                        f"model's is {reference.shape}"
                    )
                difference = relative_difference(got[name], reference)
                check = Check(name, difference, where, responses[name])
                if name not in worst or not check.difference <= worst[name].difference:
                    worst[name] = check
    return list(worst.values()), sets


def _response(reference: np.ndarray) -> float:
    """Return the largest spread over the images, the first axis, over the largest |value|."""
    scale = float(np.abs(reference).max())
    return float(np.ptp(reference, axis=0).max()) / scale if scale > 0 else 0.0


def relative_difference(values: np.ndarray, reference: np.ndarray) -> float:
    """Return the largest |difference| over the largest |reference|; inf where it is no number."""
    difference = float(np.abs(values.astype(np.float64) - reference).max())
    if difference == 0:
        return 0.0
    scale = float(np.abs(reference).max())
    return difference / scale if np.isfinite(difference) and scale > 0 else float("inf")
