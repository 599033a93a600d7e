"""torchrun's agent in this process: it starts a process for each device and watches them."""

import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from keras_alexnet.core.backend import leave_wrappers_out, require
from keras_alexnet.core.children import search_path
from keras_alexnet.errors import KerasAlexNetError, TrainingError

_ANSWER, _REASON = "answer.json", "reason-{}.txt"


def run_processes(module: str, job: dict[str, Any], processes: int) -> Any:
    """Run `python -m module` several times at once, as torchrun does on one host.

    The module calls `enter_process`; the job, which JSON can hold, is the same for all. Returns
    what the first process answered, or None if all were interrupted.

    Raises:
        TrainingError: A process failed or was killed; the others have been ended.
    """
    api = require("torch.distributed.launcher.api")
    errors = require("torch.distributed.elastic.multiprocessing.errors")
    signals = require("torch.distributed.elastic.multiprocessing.api")
    # What it writes of ended processes is said by our own messages. Each module has its level.
    for name in logging.root.manager.loggerDict:
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="keras-alexnet-") as name:
        folder = Path(name)
        path = folder / "job.json"
        path.write_text(json.dumps(job))
        config = api.LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=signals.DefaultLogsSpecs(log_dir=str(folder / "logs")),
        )
        with _environment(processes), contextlib.suppress(signals.SignalException):
            try:
                api.elastic_launch(config, sys.executable)("-P", "-m", module, str(path))
            except errors.ChildFailedError as error:
                raise TrainingError(_cause(error.failures, folder)) from error
        answer = folder / _ANSWER
        return json.loads(answer.read_text()) if answer.exists() else None


def enter_process(main: Any) -> None:
    """Run `main` on the job of `run_processes`, and hand back what it returns or why it failed."""
    leave_wrappers_out()
    path, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    try:
        answer = main(json.loads(path.read_text()))
    except KerasAlexNetError as error:
        path.with_name(_REASON.format(rank)).write_text(str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    if rank == 0:
        path.with_name(_ANSWER).write_text(json.dumps(answer))


@contextlib.contextmanager
def _environment(processes: int) -> Iterator[None]:
    """Within this block processes find this package, and share the cores."""
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = search_path()
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // processes, 1)))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _cause(failures: Mapping[int, Any], folder: Path) -> str:
    """Return why the processes failed: whoever was killed is the cause of the others' errors."""
    for rank, failure in sorted(failures.items()):
        if failure.exitcode < 0 and -failure.exitcode != signal.SIGTERM:
            return f"process {rank} (pid {failure.pid}) was ended by {failure.signal_name()}"
    for rank in sorted(failures):
        reason = folder / _REASON.format(rank)
        if reason.exists():
            return f"process {rank}: {reason.read_text()}"
    rank, failure = min(failures.items())
    return f"process {rank} (pid {failure.pid}) failed with exit code {failure.exitcode}"
