"""Some SGD steps in torch and in Keras from the same weights on the same batches. NumPy only.

Tensors are compared relative to the way that torch's went: of weights that ten steps have moved by
a thousandth, a difference of a thousandth is all.
"""

import contextlib
import dataclasses
import itertools
import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.core.children import Workers
from keras_alexnet.errors import KerasAlexNetError
from porting.checkpoints.files import read_checkpoint
from porting.checks.compare import Compared, Difference, difference
from porting.checks.parity import Arrays, Say
from porting.errors import UsageError
from porting.tolerances import TOLERANCES
from porting.torch_side.seeded import live_inputs
from porting.training_checks.history import write_batches
from porting.training_checks.results import (
    JUDGED,
    REFERENCE,
    Step,
    TrainingCell,
    TrainingCheck,
    TrainingResult,
)
from porting.weights.table import Put

# A tensor that moves less than this part of the farthest one is compared at that part: where the
# gradient is zero, as that of a bias before batch norm, any rounding is a multiple of it.
_STILL = 1e-3
_LABELS = 1000


def run_training_check(
    check: TrainingCheck, folder: Path, say: Say = lambda _: None, workers: Workers | None = None
) -> TrainingResult:
    """Train in torch and on every backend, each in a process of its own, and compare.

    The other arguments are those of `checks.parity.run_check`.

    Raises:
        ChildError: Torch's training failed. A backend's failure is a failed cell instead.
        UsageError: Torch's own loss is not finite to the end, or its weights do not move.
    """
    with tempfile.TemporaryDirectory(prefix="training-", dir=folder) as scratch, Workers() as own:
        return _train_and_compare(check, Path(scratch), say, workers or own)


def _train_and_compare(
    check: TrainingCheck, folder: Path, say: Say, workers: Workers
) -> TrainingResult:
    batches = folder / "batches.npz"
    write_batches(batches, *draw_batches(check))

    @contextlib.contextmanager
    def train(backend: str | None, precision: str) -> Iterator[Any]:
        module = f"porting.training_checks.{'candidate' if backend else 'reference'}"
        output = folder / f"{backend}-{precision}.npz"
        job = training_job(check, batches, precision, output)
        workers.call(module, job, backend=backend, timeout=check.timeout)
        with np.load(output) as history:
            yield history
        output.unlink()  # half a gigabyte of AlexNet

    say(f"{check.reference.title}, {JUDGED}")
    with train(None, JUDGED) as reference:
        _check_finite(check, reference["losses"])
        measure = Measure(check, reference)
        cells = []
        for backend, precision in itertools.product((None, *check.backends), check.precisions):
            if (backend, precision) == (None, JUDGED):
                continue
            say(f"{backend or check.reference.title}, {precision}")
            name = backend or REFERENCE
            try:
                with train(backend, precision) as candidate:
                    cells.append(measure.cell(name, precision, candidate))
            except KerasAlexNetError as error:
                if backend is None:
                    raise
                cells.append(TrainingCell(name, precision, error=str(error)))
        return TrainingResult(
            check,
            tuple(reference["losses"].tolist()),
            measure.moved,
            measure.variance_gap,
            tuple(cells),
            json.loads(str(reference["versions"])),
        )


def draw_batches(check: TrainingCheck) -> tuple[list[np.ndarray], np.ndarray]:
    """Return seeded inputs, images (steps, N, C, H, W) and others, and classes (steps, N)."""
    rng = np.random.default_rng([check.seed, 2])
    batches = check.steps, check.batch_size
    inputs = live_inputs(rng, check.shapes, check.steps * check.batch_size)
    # Outputs that are no classes have no use for them.
    labels = rng.integers(0, check.reference.classes or _LABELS, batches)
    return [x.reshape(*batches, *x.shape[1:]) for x in inputs], labels


def training_job(
    check: TrainingCheck, batches: Path, precision: str, output: Path
) -> dict[str, Any]:
    """Return the job of the children `reference` and `candidate`."""
    fields = dataclasses.asdict(check)
    shared = ("reference", "learning_rate", "momentum", "weight_decay")
    return {name: fields[name] for name in shared} | {
        "counterpart": check.counterpart.to_json(),
        "weights": str(check.weights),
        "plan": None if check.plan is None else str(check.plan),
        "batches": str(batches),
        "precision": precision,
        "output": str(output),
    }


def _check_finite(check: TrainingCheck, losses: np.ndarray) -> None:
    wrong = np.flatnonzero(~np.isfinite(losses))
    if wrong.size:
        raise UsageError(
            f"{check.reference.title}'s own loss is {losses[wrong[0]]} at step {wrong[0] + 1}, so "
            "there is nothing to compare with. Lower the learning rate, which is "
            f"{check.learning_rate:g}."
        )


class Measure:
    """Compares trainings with torch's in float64, given as its `history.History`.

    Raises:
        UsageError: Torch's training moves no weight.
    """

    def __init__(self, check: TrainingCheck, reference: Arrays) -> None:
        self._reference = reference
        self._start = read_checkpoint(check.weights).arrays
        self._puts = check.counterpart.puts
        self._square = self.moved = self.variance_gap = 0.0
        self._scales: dict[str, float] = {}
        for put in self._puts:
            way = self._way_of(put)
            self._scales[put.key] = _largest(way)
            if _is_parameter(put):
                self._square += float(way @ way)
                values = _largest(self._start[put.key])
                self.moved = max(self.moved, self._scales[put.key] / values if values else 0.0)
            if (own := reference.get(f"torch/{put.key}")) is not None:
                gap = difference(own, reference[f"final/{put.key}"]).relative
                self.variance_gap = max(self.variance_gap, gap)
        farthest = max(self._scales[put.key] for put in self._puts if _is_parameter(put))
        if not farthest:
            raise UsageError(
                f"{check.reference.title}'s training moves no weight, so there is nothing to "
                f"compare with. Raise the learning rate, which is {check.learning_rate:g}."
            )
        self._scales = {k: max(v, _STILL * farthest) for k, v in self._scales.items()}

    def _way_of(self, put: Put) -> np.ndarray:
        """Return what torch's training changed in a tensor, flat."""
        return (self._reference[f"final/{put.key}"] - self._start[put.key]).ravel()

    def cell(self, backend: str, precision: str, candidate: Arrays) -> TrainingCell:
        """Compare a training, given as its `history.History`."""
        limit = TOLERANCES["training"].limit
        tensors, apart = [], 0.0
        for put in self._puts:
            way = self._way_of(put)
            gap = (candidate[f"final/{put.key}"] - self._reference[f"final/{put.key}"]).ravel()
            if _is_parameter(put):
                apart += float(gap @ gap)
            kind = "Parameter" if _is_parameter(put) else "Statistic"
            gap_of_way = self._difference(put, way, gap)
            tensors.append(Compared(put.key, kind, gap_of_way, limit, shape=put.shape))
        return TrainingCell(
            backend,
            precision,
            tuple(self._steps(candidate)),
            tuple(tensors),
            _or_infinite((apart / self._square) ** 0.5),
            json.loads(str(candidate["versions"])),
        )

    def _difference(self, put: Put, way: np.ndarray, gap: np.ndarray) -> Difference:
        """Return the difference between two ways from their first and the gap, which it uses up."""
        largest = _or_infinite(_largest(gap))
        if largest == math.inf:
            return Difference(math.inf, math.inf, math.inf, 0.0)
        # Products of the two, without the second one: AlexNet's arrays are large.
        square = float(way @ way)
        product = square + float(way @ gap)
        norms = (square * (square + 2 * float(way @ gap) + float(gap @ gap))) ** 0.5
        cosine = product / norms if norms else float(largest == 0)
        mean = float(np.abs(gap, out=gap).mean())
        return Difference(largest, mean, largest / self._scales[put.key], cosine)

    def _steps(self, candidate: Arrays) -> list[Step]:
        apart = {
            key: np.abs(self._reference[f"steps/{key}"] - candidate[f"steps/{key}"]).max(axis=1)
            / scale
            for key, scale in self._scales.items()
        }
        steps = []
        for index, loss in enumerate(candidate["losses"]):
            relative = {key: _or_infinite(float(values[index])) for key, values in apart.items()}
            farthest = max(relative, key=relative.__getitem__)
            steps.append(Step(index + 1, float(loss), farthest, relative[farthest]))
        return steps


def _is_parameter(put: Put) -> bool:
    return not put.variable.endswith(("moving_mean", "moving_variance"))


def _or_infinite(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _largest(array: np.ndarray) -> float:
    return float(max(array.max(), -array.min()))
