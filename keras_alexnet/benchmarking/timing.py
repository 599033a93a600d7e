"""Stopwatches: what is called, how often, and when it is done."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

_WARM = 2  # calls: the first one traces and compiles
_MOST = 500  # calls of a measurement
_FILL = 4  # batches of an epoch before the timing, until its buffers are full


class Stopwatch(Protocol):
    """Measures one competitor at one batch size."""

    calls: int  # steps of a measurement; 0 before `warm`

    def warm(self) -> None:
        """Do whatever happens only once."""

    def measure(self) -> float:
        """Return the seconds of a step."""


class StepWatch:
    """Times a step that computes the same thing each time.

    Args:
        step: Begins to compute and returns what it will be.
        wait: Returns when that is computed.
        seconds: Least duration of a measurement.
        queued: Whether further steps may begin before one has ended, as on a GPU, which would idle
            otherwise. On a CPU they would share its cores.
    """

    def __init__(
        self, step: Callable[[], Any], wait: Callable[[Any], Any], *, seconds: float, queued: bool
    ) -> None:
        self._step, self._wait, self._seconds, self._queued = step, wait, seconds, queued
        self.calls = 0

    def warm(self) -> None:
        """Trace and compile, and find out how many calls fill the time."""
        for _ in range(_WARM):
            self._wait(self._step())
        self.calls = 1
        self.calls = max(1, min(_MOST, math.ceil(self._seconds / self.measure())))

    def measure(self) -> float:
        """Return the seconds of a step, measured behind one that brings its data into the caches.

        Other competitors have been measured in the meantime.
        """
        self._wait(self._step())
        start = time.perf_counter()
        for _ in range(self.calls):
            result = self._step()
            if not self._queued:
                self._wait(result)
        self._wait(result)
        return (time.perf_counter() - start) / self.calls


class EpochWatch:
    """Times an epoch of batches from its fifth on, so that beginning it does not count.

    Args:
        epochs: Returns the batches of the next epoch.
        use: Does the rest of the work on a batch, to its end.
        batches: Batches of an epoch, more than four.
    """

    def __init__(
        self, epochs: Callable[[], Iterator[Any]], use: Callable[[Any], Any], *, batches: int
    ) -> None:
        self._epochs, self._use, self._batches = epochs, use, batches
        self.calls = 0

    def warm(self) -> None:
        """Run an epoch."""
        self.measure()

    def measure(self) -> float:
        """Return the seconds of a batch."""
        self.calls = self._batches - _FILL
        start = 0.0
        for number, batch in enumerate(self._epochs(), 1):
            self._use(batch)
            if number == _FILL:
                start = time.perf_counter()
        return (time.perf_counter() - start) / self.calls
