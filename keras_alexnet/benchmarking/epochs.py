"""What bounds a run: images a second of its input alone, of its step alone, and of both."""

import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from keras_alexnet.core.backend import choose_backend
from keras_alexnet.core.tables import Column, Sheet
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.training.devices.placement import Placement
from keras_alexnet.training.devices.processes import join
from keras_alexnet.training.experiment import Experiment
from keras_alexnet.training.runs.folder import Log, RunFolder

EPOCH = "epoch"  # the mode of a benchmark

# Batches before the timing: the first one traces and compiles, others fill the buffers.
_WARM = 4


@dataclass(frozen=True)
class EpochRates:
    """Images a second of an experiment on this machine.

    Attributes:
        model: Name of the network.
        data: Name of the data.
        backend: Keras backend.
        input: Of the batches alone, which nobody uses.
        step: Of training alone, on one batch over and over.
        both: Of training on the batches, as a run does.
    """

    model: str
    data: str
    backend: str
    input: float
    step: float
    both: float

    def sheet(self) -> Sheet:
        """Return a row for each."""
        columns = (
            Column("what", "what", text=True),
            Column("images_per_second", "images/s", show="{:,.0f}".format),
            Column("share", "of the step alone", show="{:.2f}".format),
        )
        named = (("input alone", self.input), ("step alone", self.step), ("both", self.both))
        rows = [(name, rate, rate / self.step) for name, rate in named]
        return Sheet(f"{self.model}, {self.data}, {self.backend}", columns, rows)

    def notes(self) -> list[str]:
        """Return what bounds a run, and what would help."""
        if self.input < self.step:
            return [
                f"the input bounds the run: it makes {100 * self.input / self.step:.0f} % of what "
                "the step could take; packed data (`keras-alexnet pack`), smaller images or more "
                "processor cores help"
            ]
        lost = 1 - self.both / self.step
        return [
            f"the step bounds the run: the input could feed {self.input / self.step:.3g} of them"
            + (f"; together they lose {100 * lost:.0f} %" if lost >= 0.05 else "")
        ]


def epoch_rates(
    experiment: Experiment,
    *,
    seconds: float,
    rounds: int,
    advance: Callable[[int], None] = lambda done: None,
) -> EpochRates:
    """Measure an experiment in turns: its input, its step, both, and again.

    Args:
        experiment: Which is not trained: its weights are thrown away.
        seconds: Of a measurement.
        rounds: How often each is measured; medians count.
        advance: Is told how many of the three times `rounds` measurements are done.

    Raises:
        ConfigurationError: The experiment cannot be run, or its epochs are too short.
        DataError: Its data are missing or damaged.
    """
    choose_backend(experiment.backend)
    group = join(experiment, Placement())
    from keras_alexnet.core.backend import keras_home
    from keras_alexnet.training.loop.engine import Engine
    from keras_alexnet.training.preparation import prepare

    prepared = prepare(experiment, keras_home() / "keras_alexnet")
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(
            # A step that wears the weights out would change its own speed.
            replace(experiment, learning_rate=experiment.learning_rate * 1e-6),
            prepared,
            RunFolder(Path(folder)),
            Log(None, Console(quiet=True)),
            resume=False,
            group=group,
        )
        if engine.batches.steps <= 2 * _WARM:
            raise ConfigurationError(
                f"an epoch of {engine.batches.steps} batches is too short to be measured; it must "
                f"have more than {2 * _WARM}: take a smaller --batch-size, or more images"
            )
        engine.enter_phase()
        watch = _Rate(engine, seconds)
        measures = (watch.input, watch.step, watch.both)
        found: list[list[float]] = [[] for _ in measures]
        for number in range(rounds):
            for place, (measure, rates) in enumerate(zip(measures, found, strict=True), 1):
                rates.append(measure(number))
                advance(len(measures) * number + place)
        return EpochRates(engine.body.name, prepared.data.name, engine.backend, *map(median, found))


class _Rate:
    """Measures images a second of an engine's input and steps."""

    def __init__(self, engine: Any, seconds: float) -> None:
        self._engine, self._seconds = engine, seconds
        self._batch = engine.experiment.batch_size

    def input(self, epoch: int) -> float:
        """Return the rate of the batches alone."""
        batches = self._engine.batches.epoch(epoch)
        if hasattr(batches, "as_numpy_iterator"):
            batches = batches.as_numpy_iterator()
        started, count = 0.0, 0
        for count, _ in enumerate(batches, 1):
            if count == _WARM:
                started = time.perf_counter()
            elif count > _WARM and time.perf_counter() - started > self._seconds:
                break
        return (count - _WARM) * self._batch / (time.perf_counter() - started)

    def step(self, epoch: int) -> float:
        """Return the rate of training on one batch."""
        batches = self._engine.batches.epoch(epoch)
        if hasattr(batches, "take"):
            return self._trained(batches.take(1).cache().repeat())
        return self._trained(itertools.repeat(next(batches)))

    def both(self, epoch: int) -> float:
        """Return the rate of training on the batches."""
        return self._trained(self._engine.batches.epoch(epoch))

    def _trained(self, batches: Any) -> float:
        from keras_alexnet.training.loop.hooks import fit_epoch
        from keras_alexnet.training.network import for_heads

        trainer, group = self._engine.trainer, self._engine.group
        hook = _hook(self._seconds)
        with group.scope():
            heads = for_heads(batches, list(trainer.output))
            fit_epoch(trainer, group.batches(heads), 0, hook)
        return hook.batches * self._batch / hook.elapsed


def _hook(seconds: float) -> Any:
    """Return a callback that ends an epoch behind so many seconds and knows its `batches`."""
    from keras_alexnet.training.loop.hooks import as_numbers, keras

    class Hook(keras.callbacks.Callback):
        batches, elapsed = 0, 0.0

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch + 1 == _WARM:
                as_numbers(logs)  # waits for the device
                self.started = time.perf_counter()
            elif batch + 1 > _WARM and time.perf_counter() - self.started > seconds:
                self.model.stop_training = True
            self.last = batch, logs

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            batch, numbers = self.last
            as_numbers(numbers)
            self.batches = batch + 1 - _WARM
            self.elapsed = time.perf_counter() - self.started

    return Hook()
