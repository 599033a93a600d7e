"""Turn the scripts beside this one into executed notebooks.

    python examples/notebooks/run.py [NAME...]

Each of them, or each named one, becomes NAME.ipynb beside its script. A notebook that fails is
written up to the cell that failed.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

from keras_alexnet.core.backend import require
from keras_alexnet.core.files import atomic_output
from keras_alexnet.errors import ConfigurationError, KerasAlexNetError, TrainingError

FOLDER = Path(__file__).resolve().parent
SCRIPTS = {path.stem: path for path in sorted(FOLDER.glob("*.py")) if path != Path(__file__)}
_SECONDS = 600  # of a cell


def main(names: list[str]) -> None:
    """Execute the notebooks of these names, all of them where there is none."""
    if unknown := [name for name in names if name not in SCRIPTS]:
        raise ConfigurationError(f"no notebook {unknown[0]!r}; there are {', '.join(SCRIPTS)}")
    for name in names or SCRIPTS:
        began = time.monotonic()
        print(f"{name} ... ", end="", flush=True)
        execute(SCRIPTS[name], FOLDER / f"{name}.ipynb")
        print(f"{time.monotonic() - began:.0f} s", flush=True)


def execute(script: Path, output: Path) -> Any:
    """Run a script's cells in the folder of `output`, write the notebook, and return it.

    Raises:
        TrainingError: A cell failed, took too long, or ended the kernel; the notebook is written.
        MissingDependencyError: jupytext or nbclient is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow tells of GPUs it lacks
    nbclient, notebook = require("nbclient"), require("jupytext").read(script)
    client = nbclient.NotebookClient(
        notebook,
        timeout=_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(output.parent)}},
        extra_arguments=["--log-level=ERROR"],  # else it warns of its own port on this host
    )
    begun: list[int] = []  # code cells
    client.on_cell_execute = lambda cell, cell_index: begun.append(cell_index)
    try:
        client.execute()
    except nbclient.exceptions.CellExecutionError as error:
        raise TrainingError(_failure(script, begun, f"{error.ename}: {error.evalue}")) from error
    except (nbclient.exceptions.CellTimeoutError, nbclient.exceptions.DeadKernelError) as error:
        raise TrainingError(_failure(script, begun, str(error).splitlines()[0])) from error
    finally:
        with atomic_output(output) as temporary:
            require("nbformat").write(notebook, temporary)
    return notebook


def _failure(script: Path, begun: list[int], reason: str) -> str:
    return f"{script.stem}: its cell [{len(begun)}] failed: {reason}"


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KerasAlexNetError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
