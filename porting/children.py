"""Child processes: one framework each, JSON in, arrays out, with a time limit."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_alexnet.errors import KerasAlexNetError
from porting.errors import ChildError, PortingError

_ROOT = Path(__file__).resolve().parents[1]
_TAIL = 40  # lines of output in an error


def run_child(
    module: str,
    job: dict[str, Any],
    *,
    backend: str | None = None,
    timeout: float,
) -> None:
    """Run `python -m module JOB.json` to its end.

    Args:
        module: Module that calls `enter_child`.
        job: JSON-serialisable task; the child writes its results where the task says.
        backend: Keras backend of the child, or None for one that uses no Keras.
        timeout: Seconds after which the child is killed.

    Raises:
        ChildError: It exited with an error or was killed; the message holds the end of its output.
    """
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONUNBUFFERED": "1",
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"),
    }
    if backend is not None:
        environment["KERAS_BACKEND"] = backend
    what = module if backend is None else f"{module} on {backend}"
    with tempfile.TemporaryDirectory(prefix="porting-") as folder:
        path = Path(folder, "job.json")
        path.write_text(json.dumps(job))
        log = Path(folder, "output.txt")
        with log.open("wb") as output:
            process = subprocess.Popen(
                # -P: a file called like a framework in the user's folder is not imported.
                [sys.executable, "-P", "-m", module, str(path)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # so that its own children end with it
            )
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired as error:
                raise ChildError(
                    f"{what} did not end within {timeout:g} s and was stopped.\n{_tail(log)}"
                ) from error
            finally:
                _kill_group(process)
        if code:
            cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise ChildError(f"{what} failed with {cause}.\n{_tail(log)}")


def enter_child(main: Callable[[dict[str, Any]], object]) -> None:
    """Run a child's `main` on the job named on its command line.

    An error that we raise on purpose ends the child with its message instead of a traceback.
    """
    try:
        main(json.loads(Path(sys.argv[1]).read_text()))
    except (PortingError, KerasAlexNetError) as error:
        sys.exit(str(error))


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return "Its output ended with:\n" + "\n".join(
        f"  {line}" for line in lines[-_TAIL:] or ["(none)"]
    )
