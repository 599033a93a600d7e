"""Child processes: one framework each, JSON in, JSON and arrays out, stopped when they hang."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Self

from keras_alexnet.core.backend import leave_wrappers_out
from keras_alexnet.core.files import out_of_room
from keras_alexnet.errors import ChildError, ConfigurationError, KerasAlexNetError, one_line

ROOT = Path(__file__).resolve().parents[2]
_TAIL = 40  # lines of output in an error
_POLL = 0.02  # seconds
_DONE = ".done"


def search_path() -> str:
    """Return the `PYTHONPATH` with which a process finds this package."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def call_child(
    module: str,
    job: dict[str, Any],
    *,
    backend: str | None = None,
    accelerator: bool = True,
    timeout: float,
) -> Any:
    """Run `python -m module`, which calls `enter_child`, on one job, and return its result.

    The job is JSON-serialisable; large results are written where it says. The child uses no Keras
    where `backend` is None, and sees a GPU only with `accelerator`. It is stopped after `timeout`
    seconds of silence: whatever it prints counts as a sign of progress.

    Raises:
        ChildError: It failed, died or was stopped; the message holds the end of its output.
        KerasAlexNetError: It found a mistake: the same error as there.
    """
    with Workers() as workers:
        return workers.call(module, job, backend=backend, accelerator=accelerator, timeout=timeout)


class Workers:
    """Children that stay for further jobs, one for each module and backend.

    Importing a framework takes longer than many a job. A context manager: the children end with it.
    """

    def __init__(self) -> None:
        self._workers: dict[tuple[str, str | None, bool], _Worker] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers.values():
            worker.stop()

    def start(self, module: str, *, backend: str | None = None, accelerator: bool = True) -> None:
        """Have the child of later jobs import what it needs, where there is none yet."""
        self._worker((module, backend, accelerator))

    def _worker(self, key: tuple[str, str | None, bool]) -> "_Worker":
        if key not in self._workers:
            self._workers[key] = _Worker(*key)
        return self._workers[key]

    def call(
        self,
        module: str,
        job: dict[str, Any],
        *,
        backend: str | None = None,
        accelerator: bool = True,
        timeout: float,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> Any:
        """Do a job as `call_child` does; after a failure the next one gets a new child.

        This process does `meanwhile` what it has to do anyway.
        """
        key = module, backend, accelerator
        worker = self._worker(key)
        try:
            done = worker.begin(job)
            meanwhile()
            return worker.finish(done, timeout)
        except BaseException:
            self._workers.pop(key).stop()
            raise


class _Worker:
    """A child process that takes the names of job files on its standard input."""

    def __init__(self, module: str, backend: str | None, accelerator: bool) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="keras-alexnet-")
        environment = os.environ | {
            "PYTHONPATH": search_path(),
            "PYTHONUNBUFFERED": "1",
            "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"),
            # What it leaves when it is killed goes with it.
            "TMPDIR": self._folder.name,
        }
        if not accelerator:
            environment["CUDA_VISIBLE_DEVICES"] = "-1"
        if backend is not None:
            environment["KERAS_BACKEND"] = backend
        self._what = module if backend is None else f"{module} on {backend}"
        self._jobs = 0
        self._log = Path(self._folder.name, "output.txt")
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                # -P: a file called like a framework in the user's folder is not imported.
                [sys.executable, "-P", "-m", module],
                stdin=subprocess.PIPE,
                bufsize=0,  # what could not be written would be written again where it is closed
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # so that its own children end with it
            )

    def begin(self, job: dict[str, Any]) -> Path:
        """Hand a job over, and return the file that is there when it is done."""
        self._jobs += 1
        path = Path(self._folder.name, f"job{self._jobs}.json")
        path.write_text(json.dumps(job))
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, which `finish` finds
            self._process.stdin.write(f"{path}\n".encode())
        return path.with_suffix(_DONE)

    def finish(self, done: Path, timeout: float) -> Any:
        """Wait until a job is done, and return its result."""
        printed, heard = -1, time.monotonic()
        while not done.exists():
            code = self._process.poll()
            if code is not None and not done.exists():
                cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
                raise ChildError(f"{self._what} failed with {cause}.\n{self._tail()}")
            if (size := self._log.stat().st_size) != printed:
                printed, heard = size, time.monotonic()
            elif time.monotonic() - heard > timeout:
                raise ChildError(
                    f"{self._what} was silent for {timeout:g} s and was stopped.\n{self._tail()}"
                )
            time.sleep(_POLL)
        reply = json.loads(done.read_text())
        if "mistake" in reply:
            raise _error_class(reply["kind"])(reply["mistake"])
        if "error" in reply:
            raise ChildError(f"{self._what} failed.\n{self._tail()}", reason=reply["error"])
        return reply["result"]

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
    What `main` returns is handed to the parent as JSON; an error that we raise on purpose is raised
    there too, any other one is told in one line.
    """
    leave_wrappers_out()
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
        reply: dict[str, Any]
        try:
            reply = {"result": main(json.loads(path.read_text()))}
        except KerasAlexNetError as error:
            reply = {"mistake": str(error), "kind": type(error).__name__}
        except Exception as error:
            # Frameworks and converters raise whatever they happen to raise on what they cannot do.
            traceback.print_exc()
            reply = {"error": one_line(error, named=True)}
            if (full := out_of_room(error)) is not None:
                folder = Path(tempfile.gettempdir()).parent  # that of this process lies in it
                words = (
                    f"no room for temporary files in {folder} ({full.strerror}); free some there"
                )
                reply = {"mistake": words, "kind": ConfigurationError.__name__}
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(reply))
        unfinished.rename(path.with_suffix(_DONE))


def report_progress(what: str) -> None:
    """Say in a child what it is about to do, so that its parent knows that it is at work."""
    print(what, flush=True)


def _error_class(name: str) -> type[KerasAlexNetError]:
    """Return our exception of this name, as far as this process knows it."""

    def kinds(kind: type[KerasAlexNetError]) -> Iterator[type[KerasAlexNetError]]:
        yield kind
        for below in kind.__subclasses__():
            yield from kinds(below)

    return next((k for k in kinds(KerasAlexNetError) if k.__name__ == name), KerasAlexNetError)
