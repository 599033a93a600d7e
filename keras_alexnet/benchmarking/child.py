"""Child process of a benchmark: one competitor, which is measured when the parent says so."""

from collections.abc import Callable
from typing import Any

from keras_alexnet.benchmarking import keras_side, torchvision_side
from keras_alexnet.benchmarking.environment import settle
from keras_alexnet.benchmarking.pipelines import open_epochs
from keras_alexnet.benchmarking.plan import Competitor, Plan
from keras_alexnet.benchmarking.timing import Stopwatch
from keras_alexnet.core.children import enter_child


class Session:
    """What the process keeps from job to job.

    The jobs are `open` (with `plan` and `competitor`), `warm` and `measure` (with `batch`).
    """

    def __init__(self) -> None:
        self._open: Callable[[int], Stopwatch]
        self._watches: dict[int, Stopwatch] = {}

    def __call__(self, job: dict[str, Any]) -> Any:
        """Do a job and return its result."""
        return getattr(self, f"_do_{job['work']}")(job)

    def _do_open(self, job: dict[str, Any]) -> dict[str, Any]:
        plan, competitor = Plan.from_json(job["plan"]), Competitor(**job["competitor"])
        settle(plan.threads, plan.device)
        is_keras = competitor.kind == "keras"
        found: dict[str, Any] = {"backend": keras_side.prepare(plan) if is_keras else None}
        if plan.mode == "pipeline":
            self._open = open_epochs(plan, competitor)
        else:
            side = keras_side if is_keras else torchvision_side
            self._open = side.open_steps(plan, competitor)
        if is_keras:
            from keras_alexnet.core.machine import describe

            description = describe()
            found |= {name: description[name] for name in ("cpu", "gpus")}
        return found

    def _do_warm(self, job: dict[str, Any]) -> int:
        watch = self._watches[job["batch"]] = self._open(job["batch"])
        watch.warm()
        return watch.calls

    def _do_measure(self, job: dict[str, Any]) -> float:
        return self._watches[job["batch"]].measure()


if __name__ == "__main__":
    enter_child(Session())
