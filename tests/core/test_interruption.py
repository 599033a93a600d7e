"""Signals that arrive where an exception is lost end the process all the same."""

import signal
import subprocess
import sys
import time

import pytest
from helpers.project import ROOT

# A signal in a callback of the garbage collector, such as JAX has.
SCRIPT = """
import gc, os, signal, time
from keras_alexnet.core.interruption import end_by_signals

def callback(phase, info):
    gc.callbacks.clear()
    signal.raise_signal({number})

end_by_signals()
gc.callbacks.append(callback)
try:
    gc.collect()
    print("lost at first", flush=True)
    time.sleep(20)
    print("lost altogether")
finally:
    print("tidied")
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)]
)
def test_a_signal_in_a_callback_is_not_lost(number: signal.Signals, code: int) -> None:
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(number=int(number))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "lost at first\ntidied\n"
    assert done.returncode == code
    assert time.monotonic() - start < 15, "it ended when the wait was over"


def test_other_lost_errors_are_shown() -> None:
    script = SCRIPT.replace("signal.raise_signal({number})", "1 / 0").replace("20", "0.2")
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "ZeroDivisionError" in done.stderr
    assert "tidied" in done.stdout
