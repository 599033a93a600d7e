"""Run both frameworks on the same inputs and compare every layer. NumPy only."""

import dataclasses
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.core.children import Workers
from keras_alexnet.errors import KerasAlexNetError
from porting.checks.compare import Compared, agreement, compare, softmax, top_classes
from porting.checks.inputs import InputSet
from porting.checks.results import Cell, Check, ParityResult, Photo, SetResult
from porting.tolerances import spread

Arrays = Mapping[str, np.ndarray]
Top = Sequence[tuple[tuple[str, float], ...]]  # the best classes of each photo
Say = Callable[[str], None]
Found = Callable[[Sequence[Cell]], None]
# The children, one for torch and one for each backend of Keras.
REFERENCE, CANDIDATE = "porting.checks.reference", "porting.checks.candidate"


def run_check(
    check: Check,
    folder: Path,
    say: Say = lambda _: None,
    workers: Workers | None = None,
    found: Found = lambda _: None,
) -> ParityResult:
    """Run the reference and every candidate, each backend in a process of its own.

    Args:
        check: What to compare.
        folder: Existing folder for the children's results, which are large and do not stay.
        say: Called with a line of progress before each step.
        workers: Children of other checks to go on with; by default new ones, which end with this.
        found: Called with the cells of each backend as soon as they are compared.

    Raises:
        ChildError: The reference failed. A candidate's failure is a failed cell instead.
    """
    with tempfile.TemporaryDirectory(prefix="results-", dir=folder) as scratch, Workers() as own:
        return _run_and_compare(check, Path(scratch), say, workers or own, found)


def _run_and_compare(
    check: Check, folder: Path, say: Say, workers: Workers, found: Found
) -> ParityResult:
    of_gradients = next((i for i in check.inputs if not i.paths), check.inputs[0]).name
    shared = {
        "counterpart": check.counterpart.to_json(),
        "inputs": [dataclasses.asdict(each) for each in check.inputs],
        "layer_images": check.layer_images,
        "gradients": of_gradients if check.gradients else None,
    }
    title = check.reference.title
    say(title)
    output = folder / "reference.npz"
    job = shared | {
        "reference": dataclasses.asdict(check.reference),
        "weights": str(check.weights),
        "output": str(output),
    }
    for backend in check.backends[:1]:  # which imports its framework while torch computes
        workers.start(CANDIDATE, backend=backend)
    workers.call(REFERENCE, job, timeout=check.timeout)
    reference = _take(output)
    cells: dict[str, list[Cell]] = {}
    tops = {title: _top(reference, check)}

    def compute(backend: str, meanwhile: Callable[[], object] = lambda: None) -> None:
        say(f"Keras on {backend}")
        failure = ""
        job = shared | _candidate_job(check, folder, backend)
        try:
            workers.call(
                CANDIDATE, job, backend=backend, timeout=check.timeout, meanwhile=meanwhile
            )
        except KerasAlexNetError as error:
            failure = str(error)
        cells[backend] = []
        for data_format in check.data_formats:
            cell, top = _compared(check, job, data_format, reference, failure)
            cells[backend].append(cell)
            if top is not None:
                tops[f"Keras, {backend}, {data_format}"] = top
        found(cells[backend])

    def compute_all(backends: Sequence[str]) -> None:
        for backend in backends:
            compute(backend)

    # The first result comes soon. Then the last backend computes beside the others: building and
    # compiling models takes a core each.
    for backend in check.backends[-1:]:
        workers.start(CANDIDATE, backend=backend)
    compute_all(check.backends[:1])
    for backend in check.backends[1:][-1:]:
        compute(backend, lambda: compute_all(check.backends[1:-1]))
    return ParityResult(
        check,
        tuple(cell for backend in check.backends for cell in cells[backend]),
        _photos(check, tops),
        json.loads(str(reference["versions"])),
        spread(reference[f"logits/{check.inputs[0].name}/{check.main_output}"]),
    )


def _candidate_job(check: Check, folder: Path, backend: str) -> dict[str, Any]:
    """Return what a child of Keras needs to know beside what torch's does."""
    outputs = {name: str(folder / f"{backend}-{name}.npz") for name in check.data_formats}
    gradients = {
        name: f"{path.removesuffix('.npz')}.gradients.npz" for name, path in outputs.items()
    }
    return {
        "candidate": str(check.candidate),
        "plan": None if check.plan is None else str(check.plan),
        "backend": backend,
        "outputs": outputs,
        "gradient_outputs": gradients if check.gradients else {},
    }


def _compared(
    check: Check, job: Mapping[str, Any], data_format: str, reference: Arrays, failure: str
) -> tuple[Cell, Top | None]:
    """Compare what a child has written, and return its best classes too, where it could run."""
    backend, path = job["backend"], job["outputs"][data_format]
    last = job["gradient_outputs"].get(data_format, path)
    if not Path(last).is_file():
        return Cell(backend, data_format, error=failure), None
    candidate = _take(Path(path))
    cell = _compare_cell(check, backend, data_format, reference, candidate)
    if cell.error:
        return cell, None
    top = _top(candidate, check)
    if check.gradients:
        cell = _with_gradients(check, cell, reference, _take(Path(last)))
    return cell, top


def _compare_cell(
    check: Check, backend: str, data_format: str, reference: Arrays, candidate: Arrays
) -> Cell:
    versions = json.loads(str(candidate["versions"]))
    if "error" in candidate:
        return Cell(backend, data_format, versions=versions, error=str(candidate["error"]))
    sets = tuple(_compare_set(check, inputs, reference, candidate) for inputs in check.inputs)
    return Cell(backend, data_format, sets, versions=versions)


def _with_gradients(check: Check, cell: Cell, reference: Arrays, candidate: Arrays) -> Cell:
    if "error" in candidate:
        return dataclasses.replace(cell, gradients_error=str(candidate["error"]))
    gradients = tuple(
        compare(
            put.key,
            "Gradient",
            reference[f"gradient/{put.key}"],
            candidate.get(f"gradient/{put.key}"),
            "gradient",
        )
        for put in check.counterpart.puts
        if f"gradient/{put.key}" in reference
    )
    return dataclasses.replace(cell, gradients=gradients)


def _take(path: Path) -> dict[str, np.ndarray]:
    """Read a child's results and remove the file, as hundreds of megabytes may follow."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    path.unlink()
    return arrays


def _compare_set(check: Check, inputs: InputSet, reference: Arrays, candidate: Arrays) -> SetResult:
    name = inputs.name

    def compared(what: str, kind: str, key: str, tolerance: str) -> Compared:
        return compare(what, kind, reference[key], candidate.get(key), tolerance)

    pixels = [arrays[f"pixels/{name}"].astype(np.int16) for arrays in (reference, candidate)]
    logits = [
        compared(output.name, "Output", f"logits/{name}/{output.name}", "logits")
        for output in check.counterpart.outputs
    ]
    layers = [compared("input", "Input", f"input/{name}", "input")]
    layers += [
        compared(pair.layer, pair.kind, f"layer/{name}/{pair.module}", "layer")
        for pair in check.counterpart.pairs
    ]
    main = f"logits/{name}/{check.main_output}"
    return SetResult(
        name,
        int(np.abs(pixels[0] - pixels[1]).max()),
        agreement(reference[main], candidate[main]),
        tuple(logits),
        tuple(layers),
    )


def _top(arrays: Arrays, check: Check) -> Top:
    """Return the five best classes of every photo, if the network says one of each."""
    photos = check.photos
    if photos is None:
        return ()
    logits = arrays[f"logits/{photos.name}/{check.main_output}"]
    if logits.ndim != 2:
        return ()
    probabilities = softmax(logits)
    labels = check.labels or [f"class {index}" for index in range(logits.shape[1])]
    return [
        tuple((labels[i], float(probabilities[row, i])) for i in best)
        for row, best in enumerate(top_classes(logits, min(5, logits.shape[1])))
    ]


def _photos(check: Check, tops: Mapping[str, Top]) -> tuple[Photo, ...]:
    photos = check.photos
    if photos is None or not all(tops.values()):
        return ()
    return tuple(
        Photo(path, {name: top[row] for name, top in tops.items()})
        for row, path in enumerate(photos.paths)
    )
