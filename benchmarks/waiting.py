"""Time what people wait for: commands from their start to their end, the demo, the tests.

    python benchmarks/waiting.py [--rounds 5] [--quick] [--make]

Each command runs in a new process, in turns, behind one run that nobody counts. Predictions are
those of a small network for one photo, so that they take as long as their imports do; beside them
stands what `import keras` alone takes on that backend. `--make` times `make demo` and `make test`
too, once, which have their installation behind them. The table goes into `benchmarks/RESULTS.md`.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from PIL import Image
from results import publish
from timing import child_environment

from keras_alexnet.benchmarking.report import Quartiles
from keras_alexnet.core.backend import installed_backends

ROOT = Path(__file__).parents[1]
TARGETS = ("demo", "test")


def seconds(command: Sequence[str], backend: str) -> float:
    """Return how long a command takes.

    Raises:
        SystemExit: It failed; the message has the end of its output.
    """
    environment = child_environment(backend)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # people's modules stay compiled
    began = time.perf_counter()
    done = subprocess.run(
        command, env=environment, cwd=ROOT, check=False, capture_output=True, text=True
    )
    if done.returncode:
        end = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise SystemExit(f"error: {shlex.join(command)} failed:\n{end}")
    return time.perf_counter() - began


def commands(folder: Path) -> dict[str, tuple[list[str], str]]:
    """Return name -> words and backend of each command; their files are made in `folder`."""
    model, photo = folder / "model.keras", folder / "photo.png"
    Image.new("L", (32, 32), 128).save(photo)
    make = (
        "import sys, keras_alexnet as k; "
        "k.create_model('lenet5', include_preprocessing=True).save(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", make, model], check=True, cwd=ROOT, capture_output=True)
    python = [sys.executable, "-m"]
    found = {
        "keras-alexnet --help": ([*python, "keras_alexnet", "--help"], "torch"),
        "keras-alexnet models": ([*python, "keras_alexnet", "models"], "torch"),
        "python -m porting --help": ([*python, "porting", "--help"], "torch"),
    }
    for backend in installed_backends():
        found[f"import keras, {backend}"] = ([sys.executable, "-c", "import keras"], backend)
        predict = [*python, "keras_alexnet", "predict", str(model), str(photo)]
        found[f"keras-alexnet predict, one photo, {backend}"] = (predict, backend)
    return found


def main() -> None:
    """Measure everything and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument("--make", action="store_true", help="time make demo and make test too")
    arguments = parser.parse_args()
    rounds = 2 if arguments.quick else arguments.rounds
    lines = ["| what | s | quartiles |", "|---|--:|--:|"]
    with tempfile.TemporaryDirectory() as folder:
        known = commands(Path(folder))
        for command in known.values():
            seconds(*command)
        times: dict[str, list[float]] = {name: [] for name in known}
        for _ in range(rounds):
            for name, command in known.items():
                times[name].append(seconds(*command))
    for name, found in times.items():
        quartiles = Quartiles.of(found)
        lines.append(
            f"| `{name}` | {median(found):.2f} | {quartiles.low:.2f} - {quartiles.high:.2f} |"
        )
    for target in TARGETS if arguments.make else ():
        lines.append(f"| `make {target}` | {seconds(['make', target], 'tensorflow'):.0f} | once |")
    print(*lines, sep="\n")
    publish("waiting", lines, f"Medians of {rounds} rounds in turns.")


if __name__ == "__main__":
    main()
