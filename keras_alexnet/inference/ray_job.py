"""Predictions for any number of images, by Ray Data: on the cores of one host, or on a cluster."""

import contextlib
import hashlib
import logging
import math
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from keras_alexnet.core.backend import choose_backend, require
from keras_alexnet.core.places import path_of
from keras_alexnet.data.examples import Stored, unlabelled
from keras_alexnet.data.packed.examples import Packed, all_packed
from keras_alexnet.errors import ConfigurationError, KerasAlexNetError, counted, one_line
from keras_alexnet.inference.ray_parts import PredictionParts

# Images of a part at most: what each worker loses at an interruption.
_PART = 512
_TURNS = 4  # parts of each worker at least, so that all end at about the same time
_FAILURES = 3  # of each worker
_LONGEST_PAUSE = 30.0  # seconds, of a worker whose parts fail
_CORES = 4  # of a worker, where it has no GPU


@dataclass(frozen=True)
class PredictionJob:
    """What to predict, and how.

    Attributes:
        model: File of the model.
        output: Folder of the parts.
        top: Number of classes to name.
        views: Views of an image whose probabilities are averaged.
        resize_size: Short side before the crop, in pixels; None for the model's own.
        batch_size: Images that the model computes at a time.
        backend: Keras backend; None for the configured one.
        workers: Processes that compute; None for one on each GPU, or on each four cores.
        packed: Folder or URL of packed data, whose images are predicted; None for files.
    """

    model: Path
    output: Path
    top: int
    views: str
    resize_size: int | None
    batch_size: int
    backend: str | None
    workers: int | None
    packed: str | None = None

    def parts(self) -> PredictionParts:
        """Return the folder of the results."""
        with self.model.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        recipe = {"model_sha256": digest, "top": self.top, "views": str(self.views)}
        return PredictionParts(self.output, recipe | {"resize_size": self.resize_size})


@dataclass(frozen=True)
class Outcome:
    """How many images have predictions now and had none before, and how many cannot be read."""

    predicted: int
    failed: int

    @property
    def images(self) -> int:
        """How many images that is."""
        return self.predicted + self.failed

    def __add__(self, other: Self) -> Self:
        return type(self)(self.predicted + other.predicted, self.failed + other.failed)


def run_job(
    job: PredictionJob,
    images: Sequence[str | int],
    *,
    on_part: Callable[[int], None],
    say: Callable[[str], None],
) -> Outcome:
    """Predict images and write the parts, in any order.

    They are files, whose paths or URLs each worker can open, or the numbers of packed images. A
    worker that dies is replaced. The parts that fail on one host are tried again until none is left
    or all of them fail. What is written stays, whatever ends the job. `on_part` is called with the
    number of images done, `say` with a line on each host where parts have failed.

    Raises:
        KerasAlexNetError: The model cannot be used, or a part cannot be written, anywhere.
        ConfigurationError: Ray cannot be started, or reached.
        MissingDependencyError: Ray is not installed.
    """
    with _ray() as ray:
        resources = ray.cluster_resources()
        gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
        workers = job.workers or gpus or max(cores // _CORES, 1)
        each = 1 if gpus else max(cores // workers, 1)
        share = min(gpus / workers, 1) if gpus else 0
        size = min(max(math.ceil(len(images) / workers / _TURNS), job.batch_size), _PART)
        left = [list(images[begin : begin + size]) for begin in range(0, len(images), size)]
        outcome = Outcome(0, 0)
        # Failures of parts, where none has succeeded, until it is no single host's fault.
        hosts = sum(node["Alive"] for node in ray.nodes())
        bearable = _FAILURES * workers if hosts > 1 else 1
        while left:
            done = outcome.images
            failures: dict[int, tuple[str, str]] = {}
            for row in _rows(job, left, min(workers, len(left)), num_cpus=each, num_gpus=share):
                if not row["error"]:
                    outcome += Outcome(row["predicted"], row["failed"])
                    on_part(outcome.images)
                    continue
                failures[row["number"]] = row["error"], row["host"]
                if len(failures) == min(bearable, len(left)) and outcome.images == done:
                    raise KerasAlexNetError(row["error"])
            for host, count in Counter(host for _, host in failures.values()).items():
                error = next(error for error, where in failures.values() if where == host)
                say(f"{counted(count, 'part')} failed on {host} and go to whoever is free: {error}")
            left = [left[number] for number in failures]
        return outcome


def _rows(
    job: PredictionJob, parts: Sequence[Sequence[str | int]], workers: int, **resources: float
) -> Iterator[dict[str, Any]]:
    """Yield what `Worker` says of each part, in any order; `resources` are those of a worker."""
    data, arrow = require("ray.data"), require("pyarrow")
    context = data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    # Names of files are bytes.
    plain = [[n if isinstance(n, int) else os.fsencode(n) for n in part] for part in parts]
    tables = [arrow.table({"number": [i], "images": [part]}) for i, part in enumerate(plain)]
    results = data.from_arrow(tables).map_batches(
        Worker,
        fn_constructor_args=(asdict(job), int(resources["num_cpus"])),
        batch_size=None,
        batch_format="pyarrow",
        compute=data.ActorPoolStrategy(size=workers),
        **resources,
    )
    return results.iter_rows()


@contextlib.contextmanager
def _ray() -> Iterator[Any]:
    """Yield Ray, connected to the cluster of RAY_ADDRESS, or to one on this host that ends again.

    Raises:
        ConfigurationError: There is no such cluster.
    """
    # Neither its notes on standard error nor its reports to its makers are this command's.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray = require("ray")
    require("ray.data")
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if ray.is_initialized():
        yield ray
        return
    address = os.environ.get("RAY_ADDRESS")
    try:
        # Files are named as this process sees them, and so is the package.
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"the cluster at {address}" if address else "a cluster on this host"
        raise ConfigurationError(
            f"Ray cannot use {where}: {str(error).splitlines()[0]}; see RAY_ADDRESS"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


class Worker:
    """A process with the model, which Ray hands parts to.

    `job` holds the fields of a `PredictionJob`; `cores` is how many it may keep busy.
    """

    def __init__(self, job: dict[str, Any], cores: int) -> None:
        self._job = PredictionJob(**job)
        self._parts: PredictionParts | None = None
        for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
            os.environ[name] = str(cores)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        self._predictor: Any = None
        self._packed: Packed | None = None
        self._failures = 0  # parts in a row

    def __call__(self, table: Any) -> Any:
        """Predict the images of a part, write it, and return a row with what became of them."""
        row: dict[str, Any] = {"number": table["number"][0].as_py(), "predicted": 0, "failed": 0}
        row |= {"error": "", "host": socket.gethostname()}
        try:
            self._parts = self._parts or self._job.parts()
            answers = self._answers(table["images"][0].as_py())
            self._parts.write(answers)
            row["failed"] = sum(answer.error is not None for answer in answers)
            row["predicted"] = len(answers) - row["failed"]
            self._failures = 0
        except Exception as error:
            # Whatever a host lacks: a package, a driver, room. An exception would end the job.
            row["error"] = one_line(error, named=not isinstance(error, KerasAlexNetError))
            # Who fails at once would otherwise be handed all parts.
            self._failures += 1
            time.sleep(min(2**self._failures, _LONGEST_PAUSE))
        return require("pyarrow").table({name: [value] for name, value in row.items()})

    def _answers(self, images: list[Any]) -> list[Any]:
        choose_backend(self._job.backend)
        from keras_alexnet.inference.guesses import predictions
        from keras_alexnet.inference.predictor import Predictor

        if self._predictor is None:
            self._predictor = Predictor.from_file(
                self._job.model,
                batch_size=self._job.batch_size,
                views=self._job.views,
                resize_size=self._job.resize_size,
            )
        return list(predictions(self._predictor, self._examples(images), top=self._job.top))

    def _examples(self, images: list[Any]) -> Stored:
        if self._job.packed is None:
            return unlabelled([path_of(os.fsdecode(name)) for name in images])
        if self._packed is None:
            self._packed = all_packed(self._job.packed)
        return self._packed.subset(np.array(images))
