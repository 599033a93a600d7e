"""Time `import keras_alexnet` above `import keras`, in fresh processes that take turns.

    python benchmarks/import_time.py [--rounds 15] [--quick]

`import keras_alexnet` alone loads almost nothing, as names are imported on first use; so it is also
timed with the names that build and load models, which bring Keras: as a whole, whose difference is
that of two long times, and behind Keras in one process, which is what comes on top.
The table goes into `benchmarks/RESULTS.md` too.
"""

import argparse
import json
import subprocess
import sys
from statistics import median

import numpy as np
from results import publish
from timing import child_environment

from keras_alexnet.benchmarking.report import Quartiles
from keras_alexnet.core.backend import installed_backends

_MODELS = "import keras_alexnet; keras_alexnet.create_model; keras_alexnet.load_model"
# Name -> what comes before the timing, and what is timed.
STATEMENTS = {
    "keras": ("pass", "import keras"),
    "keras_alexnet": ("pass", "import keras_alexnet"),
    "keras_alexnet's models, and keras by them": ("pass", _MODELS),
    "keras_alexnet's models, behind keras": ("import keras", _MODELS),
}
BASE = "keras"
_CODE = """
import time
{}
start = time.perf_counter()
{}
print(1e3 * (time.perf_counter() - start))
"""


def milliseconds(statement: tuple[str, str], backend: str) -> float:
    """Return how long a statement takes in a new process."""
    environment = child_environment(backend)
    # With it, all but what pip has compiled would be compiled anew in every process.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, "-c", _CODE.format(*statement)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure every backend and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="three rounds")
    arguments = parser.parse_args()
    rounds = 3 if arguments.quick else arguments.rounds
    table = [
        "| backend | import | ms | above keras, ms | quartiles |",
        "|---|---|--:|--:|--:|",
    ]
    for backend in installed_backends():
        # The first process of each finds neither files in the page cache nor compiled modules.
        for statement in STATEMENTS.values():
            milliseconds(statement, backend)
        times: dict[str, list[float]] = {name: [] for name in STATEMENTS}
        for _ in range(rounds):
            for name, statement in STATEMENTS.items():
                times[name].append(milliseconds(statement, backend))
        for name, found in times.items():
            cells = "|"
            if name != BASE:
                whole = STATEMENTS[name][0] == "pass"
                above = Quartiles.of(np.subtract(found, times[BASE]) if whole else found)
                cells = f"{above.median:.0f} | {above.low:.0f} - {above.high:.0f}"
            table.append(f"| {backend} | {name} | {median(found):.0f} | {cells} |")
    print(*table, sep="\n")
    publish("imports", table, f"Medians of {rounds} rounds in turns, each in a new process.")


if __name__ == "__main__":
    main()
