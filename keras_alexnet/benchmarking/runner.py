"""Lets competitors take turns, each in a process of its own, one of them busy at a time."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from keras_alexnet.benchmarking.environment import pinned
from keras_alexnet.benchmarking.plan import Competitor, Plan
from keras_alexnet.core.children import Workers
from keras_alexnet.errors import BenchmarkError, ChildError

_CHILD = "keras_alexnet.benchmarking.child"
_TIMEOUT = 3600.0  # seconds of a job, which prints nothing; compiling takes the longest


@dataclass(frozen=True)
class Measured:
    """One competitor at one batch size."""

    competitor: Competitor
    batch_size: int
    calls: int  # steps of a measurement
    seconds: tuple[float, ...]  # of a step, one for each round


@dataclass(frozen=True)
class Benchmark:
    """What was found, and on what processor and GPUs."""

    plan: Plan
    results: tuple[Measured, ...]  # by batch size, then in the order of the competitors
    cpu: str
    gpus: tuple[str, ...]  # those that were used


def run(
    plan: Plan,
    competitors: Sequence[Competitor],
    advance: Callable[[int], None] = lambda done: None,
) -> Benchmark:
    """Measure competitors in turns: A B C, A B C, ..., so that a slow minute strikes all of them.

    At least one of them runs Keras; `advance` is told how many of the `steps` are done.

    Raises:
        ConfigurationError: A competitor found a mistake of the user's.
        BenchmarkError: A competitor failed; the message names the cause in one line.
        ChildError: A process died.
    """
    results: list[Measured] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(pinned(plan.threads))
        booths = [_Booth(c, stack.enter_context(Workers())) for c in competitors]
        _open(booths, plan, advance)
        done = len(booths)
        for batch in plan.batch_sizes:
            calls = []
            for booth in booths:
                calls.append(booth.do("warm", batch=batch))
                advance(done := done + 1)
            seconds: list[list[float]] = [[] for _ in booths]
            for _ in range(plan.rounds):
                for booth, found in zip(booths, seconds, strict=True):
                    found.append(booth.do("measure", batch=batch))
                    advance(done := done + 1)
            results += [
                Measured(booth.competitor, batch, count, tuple(found))
                for booth, count, found in zip(booths, calls, seconds, strict=True)
            ]
        hardware = next(b.hardware for b in booths if b.competitor.kind == "keras")
    gpus = hardware["gpus"] if plan.device == "gpu" else ()
    return Benchmark(plan, tuple(results), hardware["cpu"], tuple(gpus))


def steps(plan: Plan, competitors: Sequence[Competitor]) -> int:
    """Return how many steps `run` will have."""
    return len(competitors) * (1 + len(plan.batch_sizes) * (1 + plan.rounds))


def _open(booths: Sequence["_Booth"], plan: Plan, advance: Callable[[int], None]) -> None:
    """Open all at once: importing frameworks takes long, and nobody is timed yet."""
    if booths:
        booths[0].open(plan, lambda: _open(booths[1:], plan, advance))
        advance(len(booths))


class _Booth:
    """A competitor in its process."""

    def __init__(self, competitor: Competitor, workers: Workers) -> None:
        self.competitor, self.hardware = competitor, dict[str, Any]()
        self._workers, self._backend = workers, competitor.backend

    def open(self, plan: Plan, meanwhile: Callable[[], object]) -> None:
        """Start the process and have it build what it measures, and do something else meanwhile."""
        job = {"plan": asdict(plan), "competitor": asdict(self.competitor)}
        self.hardware = self.do("open", meanwhile, **job)
        # Which is only known now if it is the configured one.
        self.competitor = replace(self.competitor, backend=self.hardware["backend"])

    def do(self, work: str, meanwhile: Callable[[], object] = lambda: None, **job: Any) -> Any:
        """Have a job done and return its result."""
        try:
            return self._workers.call(
                _CHILD,
                {"work": work, **job},
                backend=self._backend,
                timeout=_TIMEOUT,
                meanwhile=meanwhile,
            )
        except ChildError as error:
            if error.reason is None:
                raise
            batch = f", batch {job['batch']}" if "batch" in job else ""
            raise BenchmarkError(f"{self.competitor.label}{batch}: {error.reason}") from error
