"""Fixtures of all tests. Keras runs on torch in this process, where torch is installed."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.project import ROOT, RunPython
from hypothesis import HealthCheck, settings

_INSTALLED = [name for name in ("torch", "jax", "tensorflow") if importlib.util.find_spec(name)]
os.environ["KERAS_BACKEND"] = _INSTALLED[0]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

if "torch" in _INSTALLED:  # before anything that may import TensorFlow
    import torch
    import torchvision  # noqa: F401

    # Maps are small here: a second thread costs more than it gives, tenfold on a busy machine.
    torch.set_num_threads(1)

# Background jobs of a shell ignore it, and so would the children that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Reproducible and without a deadline, as the time of a first call says nothing about the code.
settings.register_profile(
    "tests",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tests")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data, or a skip where there is none."""
    configured = os.environ.get("KERAS_ALEXNET_DATA")
    folder = Path(configured) if configured else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} does not exist (set KERAS_ALEXNET_DATA to its place)")
    return folder


@pytest.fixture(scope="session")
def run_python() -> RunPython:
    """Run Python code in a child process: `run_python(code, *arguments, **environment)`.

    An environment variable set to None is removed. `on_path=False` leaves this project out of the
    import path; `check=False` accepts a failing child.
    """

    def run(
        code: str,
        *arguments: object,
        cwd: Path | None = None,
        on_path: bool = True,
        check: bool = True,
        **environment: str | None,
    ) -> subprocess.CompletedProcess[str]:
        variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        variables |= {"PYTHONPATH": str(ROOT)} if on_path else {}
        for key, value in environment.items():
            if value is None:
                variables.pop(key, None)
            elif key == "PYTHONPATH" and on_path:
                variables[key] = os.pathsep.join([value, str(ROOT)])
            else:
                variables[key] = value
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=cwd,
            env=variables,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def run_cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run `keras-alexnet` in this process, in an empty folder: (exit code, stdout, stderr)."""
    from keras_alexnet.commands import app as cli

    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["keras-alexnet", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        captured = capsys.readouterr()
        return int(exit_.value.code or 0), captured.out, captured.err

    return call
