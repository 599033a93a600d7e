"""Child process of a benchmark: one competitor, which is measured when the parent says so."""

import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_alexnet.benchmarking import keras_side, torchvision_side
from keras_alexnet.benchmarking.environment import settle
from keras_alexnet.benchmarking.pipelines import open_epochs
from keras_alexnet.benchmarking.plan import Competitor, Plan
from keras_alexnet.benchmarking.timing import Stopwatch
from keras_alexnet.core.children import enter_child
from keras_alexnet.errors import KerasAlexNetError


class Session:
    """What the process keeps from job to job.

    The jobs are `open` (with `plan` and `competitor`), `warm` and `measure` (with `batch`); each
    names the file for its reply.
    """

    def __init__(self) -> None:
        self._open: Callable[[int], Stopwatch]
        self._watches: dict[int, Stopwatch] = {}

    def __call__(self, job: dict[str, Any]) -> None:
        """Do a job and write a result, or an error in one line."""
        reply: dict[str, Any]
        try:
            reply = {"result": getattr(self, f"_do_{job['work']}")(job)}
        except KerasAlexNetError as error:
            reply = {"mistake": str(error)}
        except Exception as error:
            # Frameworks raise what they like where memory or a kernel is missing.
            traceback.print_exc()
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reply = {"error": ": ".join([type(error).__name__, *lines[:1]])}
        Path(job["reply"]).write_text(json.dumps(reply))

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
