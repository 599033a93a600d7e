"""TensorFlow's notes obey its own variable, and nothing else is lost with them."""

import pytest
from helpers.project import RunPython

from keras_alexnet.core.backend import installed

IMPORT = "from keras_alexnet.core.backend import load_keras; load_keras()"
FILTERED = """
import os, sys
from keras_alexnet.core.start_up_notes import _filtered
with _filtered(int(sys.argv[1])):
    for severity in "IWEF":
        line = f"{severity}0000 00:00:1795971164.114713  14799 port.cc:153] {severity}\\n"
        os.write(2, line.encode())
    os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called\\n")
    os.write(2, b"To enable the following instructions: AVX2 FMA\\n")
    print("Python's own", file=sys.stderr)
    raise SystemExit("and an error")
"""


@pytest.mark.skipif(not installed("tensorflow"), reason="TensorFlow is not installed")
def test_nothing_reaches_standard_error(run_python: RunPython) -> None:
    done = run_python(IMPORT, KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3")
    assert done.stderr == ""


@pytest.mark.parametrize(("level", "left"), [(1, "WEF"), (2, "EF"), (3, "F")])
def test_what_is_as_severe_and_what_is_no_note_is_left(
    level: int, left: str, run_python: RunPython
) -> None:
    lines = run_python(FILTERED, level, check=False).stderr.splitlines()
    assert [line[0] for line in lines[: len(left)]] == list(left)
    assert lines[len(left) :] == ["Python's own", "and an error"]
