"""Several runs, one after the other, each in a process of its own; a stopped series goes on."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Thread
from typing import Any

from keras_alexnet.core.children import search_path
from keras_alexnet.core.interruption import end_by_signals
from keras_alexnet.core.tables import terminal
from keras_alexnet.errors import ConfigurationError, KerasAlexNetError, listed
from keras_alexnet.training.experiment import Experiment
from keras_alexnet.training.run import anchored, resume_experiment, run_experiment
from keras_alexnet.training.runs.folder import RunFolder

STOPPED = 128 + signal.SIGINT  # exit code of a run that was stopped, and saved
_MISTAKE = 2


def run_series(
    experiments: Mapping[str, Experiment], folder: Path, say: Callable[[str], None]
) -> tuple[list[Path], list[str]] | None:
    """Run experiments in turn; those that are done already are not run again.

    A run that was stopped goes on from its checkpoint. One that fails says why, and the next one
    follows.

    Args:
        experiments: By the names of their presets.
        folder: Each run's folder, of its preset's name, is made in it.
        say: Says a line.

    Returns:
        The folders of the runs that are done, and the names of those that failed; None if the
        series was stopped.

    Raises:
        ConfigurationError: A folder holds a run with other settings.
        TrainingError: A folder's settings are damaged.
    """
    for name, experiment in experiments.items():
        _check(RunFolder(folder / name), experiment)
    done, failed = [], []
    for number, (name, experiment) in enumerate(experiments.items(), 1):
        run = RunFolder(folder / name)
        place = f"{name} ({number} of {len(experiments)})"
        if run.summary.exists():
            say(f"{place}: done before")
        else:
            begun = run.checkpoint.exists()
            if run.config.exists() and not begun:
                run.discard()  # it was ended before anything was saved
            say(f"{place}: {'goes on' if begun else 'begins'}")
            given = None if begun else experiment.to_json()
            code = _run({"path": str(run.path), "preset": name, "experiment": given})
            if code == STOPPED:
                return None
            if code:
                failed.append(name)
                continue
        done.append(run.path)
    return done, failed


def _check(run: RunFolder, experiment: Experiment) -> None:
    """Refuse a run that has begun with other settings."""
    if not run.config.exists():
        return
    _, fields = run.read_config()
    known = Experiment.from_json(fields).to_json()  # with the fields of later versions
    wanted = anchored(experiment).to_json()
    if known != wanted:
        names = [name for name in wanted if known.get(name) != wanted[name]]
        raise ConfigurationError(
            f"{run.path} holds a run with other settings ({listed(names)}); name another --output, "
            "or move it away"
        )


def _run(job: dict[str, Any]) -> int:
    """Train in a process that has this one's output; return its exit code.

    It stops, and saves the run, where its input ends: however this process does.
    """
    with tempfile.TemporaryDirectory(prefix="keras-alexnet-") as name:
        path = Path(name, "job.json")
        path.write_text(json.dumps(job))
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(path)],
            stdin=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": search_path()},
            start_new_session=True,  # Ctrl-C is this process' matter
        )
        assert process.stdin is not None
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.stdin.close()
            return process.wait()
        except BaseException:  # SIGTERM
            process.stdin.close()
            process.wait()
            raise
        finally:
            if process.poll() is None:  # Ctrl-C once more
                process.kill()
                process.wait()
            process.stdin.close()


def _main(job: dict[str, Any]) -> int:
    """Train, and return the exit code."""

    def stop_at_the_end_of_input() -> None:
        while os.read(0, 1024):  # `sys.stdin` would be locked when the interpreter ends
            pass
        os.kill(os.getpid(), signal.SIGINT)

    end_by_signals()
    Thread(target=stop_at_the_end_of_input, daemon=True).start()
    path, console = Path(job["path"]), terminal()
    try:
        if job["experiment"] is None:
            summary = resume_experiment(path, console=console)
        else:
            experiment = Experiment.from_json(job["experiment"])
            summary = run_experiment(experiment, output=path, preset=job["preset"], console=console)
    except KerasAlexNetError as error:
        print(f"error: {job['preset']}: {error}", file=sys.stderr)
        return _MISTAKE
    except KeyboardInterrupt:
        return STOPPED
    return STOPPED if summary is None else 0


if __name__ == "__main__":
    sys.exit(_main(json.loads(Path(sys.argv[1]).read_text())))
