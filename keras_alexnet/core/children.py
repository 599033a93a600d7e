"""Child processes: one framework each, JSON in, arrays out, with a time limit."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, Self

from keras_alexnet.errors import ChildError, KerasAlexNetError

ROOT = Path(__file__).resolve().parents[2]
_TAIL = 40  # lines of output in an error
_POLL = 0.02  # seconds
_DONE = ".done"


def run_child(
    module: str, job: dict[str, Any], *, backend: str | None = None, timeout: float
) -> None:
    """Run `python -m module` on one job, to its end.

    Args:
        module: Module that calls `enter_child`.
        job: JSON-serialisable task; the child writes its results where the task says.
        backend: Keras backend of the child, or None for one that uses no Keras.
        timeout: Seconds after which the child is killed.

    Raises:
        ChildError: It exited with an error or was killed; the message holds the end of its output.
    """
    with Workers() as workers:
        workers.run(module, job, backend=backend, timeout=timeout)


class Workers:
    """Children that stay for further jobs, one for each module and backend.

    Importing a framework takes longer than many a job. A context manager: the children end with it.
    """

    def __init__(self) -> None:
        self._workers: dict[tuple[str, str | None], _Worker] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for worker in self._workers.values():
            worker.stop()

    def run(
        self, module: str, job: dict[str, Any], *, backend: str | None = None, timeout: float
    ) -> None:
        """Do a job as `run_child` does; after a failure the next one gets a new child."""
        key = module, backend
        if key not in self._workers:
            self._workers[key] = _Worker(module, backend)
        try:
            self._workers[key].do(job, timeout)
        except BaseException:
            self._workers.pop(key).stop()
            raise


class _Worker:
    """A child process that takes the names of job files on its standard input."""

    def __init__(self, module: str, backend: str | None) -> None:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONUNBUFFERED": "1",
            "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"),
        }
        if backend is not None:
            environment["KERAS_BACKEND"] = backend
        self._what = module if backend is None else f"{module} on {backend}"
        self._jobs = 0
        self._folder = tempfile.TemporaryDirectory(prefix="porting-")
        self._log = Path(self._folder.name, "output.txt")
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                # -P: a file called like a framework in the user's folder is not imported.
                [sys.executable, "-P", "-m", module],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # so that its own children end with it
            )

    def do(self, job: dict[str, Any], timeout: float) -> None:
        """Hand a job over and wait until it is done."""
        self._jobs += 1
        path = Path(self._folder.name, f"job{self._jobs}.json")
        path.write_text(json.dumps(job))
        done = path.with_suffix(_DONE)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{path}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, which the loop below finds
        end = time.monotonic() + timeout
        while not done.exists():
            code = self._process.poll()
            if code is not None and not done.exists():
                cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
                raise ChildError(f"{self._what} failed with {cause}.\n{self._tail()}")
            if time.monotonic() > end:
                raise ChildError(
                    f"{self._what} did not end within {timeout:g} s and was stopped.\n"
                    f"{self._tail()}"
                )
            time.sleep(_POLL)

    def stop(self) -> None:
        """End the child and whatever it has started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._folder.cleanup()

    def _tail(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return "Its output ended with:\n" + "\n".join(
            f"  {line}" for line in lines[-_TAIL:] or ["(none)"]
        )


def enter_child(main: Callable[[dict[str, Any]], object]) -> None:
    """Run a child's `main` on one job after the other, until its standard input ends.

    That ends a job under way as well: nobody is left to wait for it, however the parent has died.
    An error that we raise on purpose ends the child with its message instead of a traceback.
    """
    jobs: SimpleQueue[Path] = SimpleQueue()

    def receive() -> None:
        # A stream of its own: the interpreter locks `sys.stdin` when it ends.
        with open(0, closefd=False) as lines:
            for line in lines:
                jobs.put(Path(line.strip()))
        os._exit(0)

    Thread(target=receive, daemon=True).start()
    while True:
        path = jobs.get()
        try:
            main(json.loads(path.read_text()))
        except KerasAlexNetError as error:
            sys.exit(str(error))
        path.with_suffix(_DONE).touch()
