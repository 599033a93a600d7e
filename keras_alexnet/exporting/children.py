"""Jobs for children that answer with JSON: a result, or an error in one line."""

import json
import os
import re
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_alexnet.core.children import run_child
from keras_alexnet.errors import ConfigurationError, KerasAlexNetError

_TIMEOUT = 3600.0  # seconds; the largest network takes one minute
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # of Keras' messages
_LONGEST = 300  # characters of a foreign error


class ExportError(KerasAlexNetError, RuntimeError):
    """A model cannot be exported to a format, or the exported file cannot be run."""


def run_job(module: str, job: dict[str, Any], scratch: Path, *, backend: str | None = None) -> Any:
    """Run a child's `answer` on a job and return what it answers.

    Args:
        module: Module that calls `enter_child(partial(answer, ...))`.
        job: JSON-serialisable task.
        scratch: Folder for temporary files, the parent's to remove.
        backend: Keras backend of the child: TensorFlow's runtime imports Keras by itself, and would
            bring another backend with it. None for a child that has neither.

    Raises:
        ExportError: The work failed; the message names the cause in one line.
        ConfigurationError: The child found a mistake of the user's.
        ChildError: The child died or ran out of time.
    """
    reply = scratch / "reply.json"
    reply.unlink(missing_ok=True)
    run_child(
        module,
        job | {"reply": str(reply), "scratch": str(scratch)},
        backend=backend,
        timeout=_TIMEOUT,
    )
    content = json.loads(reply.read_text())
    if "mistake" in content:
        raise ConfigurationError(content["mistake"])
    if "error" in content:
        raise ExportError(content["error"])
    return content["result"]


def answer(work: Callable[[dict[str, Any]], Any], job: dict[str, Any]) -> None:
    """Do a job in a child and write its answer.

    The child sees no accelerator: TF32 and the like would break the comparison, and exported files
    hold the device of their tensors.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    # What this leaves when it is killed lies in a folder that the parent removes.
    tempfile.tempdir = os.environ["TMPDIR"] = job["scratch"]
    content: dict[str, Any]
    try:
        content = {"result": work(job)}
    except KerasAlexNetError as error:
        content = {"mistake": str(error)}
    except Exception as error:
        # Converters and runtimes raise whatever they happen to raise on what they cannot do.
        traceback.print_exc()
        content = {"error": _one_line(error)}
    Path(job["reply"]).write_text(json.dumps(content))


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
