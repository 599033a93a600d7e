"""Ctrl-C while a step keeps Python from running: words at the first, the end at the second."""

import signal
import subprocess
import sys
import time

import pytest
from helpers.project import ROOT

# A step in C that lasts longer than the test: no handler of Python's runs in it.
CHILD = """
import hashlib
from keras_alexnet.training.loop.hooks import StopSignal

with StopSignal(lambda text: print(text, flush=True)):
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**30)
"""


def ready(code: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    return process


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_the_first_answers_and_the_second_ends(number: signal.Signals) -> None:
    process = ready(CHILD)
    assert process.stdout is not None
    began = time.monotonic()
    process.send_signal(number)
    assert process.stdout.readline().startswith("stopping behind this step, and saving; once more")
    assert time.monotonic() - began < 2
    process.send_signal(number)
    assert process.wait(10) == 128 + number
    assert time.monotonic() - began < 10
