"""Measure a conversion's time and memory against a plain copy of the file.

    python benchmarks/convert.py [--models alexnet googlenet] [--rounds 5] [--quick]

Seeded weights are written as a torch checkpoint and converted to `.keras` on each backend, each
time in a process of its own. Times: of importing what a conversion needs, of the conversion behind
it, and of copying the checkpoint, all with the file in the page cache and the results written to
the disk. Memory is the process' peak above what it had after the imports, relative to the weights;
pages of the checkpoint, which is mapped, count. Of both models the table goes into
`benchmarks/RESULTS.md` too.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from results import FRAMEWORKS, publish

from keras_alexnet.core.backend import BACKENDS
from porting.checkpoints.files import write_checkpoint
from porting.torch_side.seeded import seeded_state_dict

MODELS = ["alexnet", "googlenet"]


def memory(field: str) -> int:
    """Return the bytes that this process has now (`VmRSS`) or had at most (`VmHWM`).

    Not `getrusage`, whose maximum begins with that of the process which started this one.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def convert_once(model: str, source: str, output: str) -> dict[str, float]:
    """Import, convert, and return what it took; a child's work."""
    start = time.perf_counter()
    # What `convert` would import in its course.
    import keras_alexnet.models.constructors  # noqa: F401
    import porting.conversion.convert
    from keras_alexnet.core.backend import require

    require("torch")
    imported, before = time.perf_counter(), memory("VmRSS")
    porting.conversion.convert.convert(model, source, output)
    ended = time.perf_counter()
    return {
        "import": imported - start,
        "convert": ended - imported,
        "memory": memory("VmHWM") - before,
    }


def copy_once(source: Path, output: Path) -> float:
    """Return the seconds that a copy takes."""
    start = time.perf_counter()
    with source.open("rb") as old, output.open("wb") as new:
        shutil.copyfileobj(old, new, 1 << 20)
    return time.perf_counter() - start


def measure(model: str, rounds: int, folder: Path) -> list[str]:
    """Return the table's lines of one model."""
    source, output = folder / f"{model}.pth", folder / "model.keras"
    arrays = seeded_state_dict(model, seed=0)
    weights = sum(array.nbytes for array in arrays.values())
    write_checkpoint(source, arrays)
    del arrays
    copies: list[float] = []
    runs: dict[str, list[dict[str, float]]] = {backend: [] for backend in BACKENDS}
    for _ in range(rounds):
        copies.append(copy_once(source, folder / "copy.pth"))
        for backend in BACKENDS:
            done = subprocess.run(
                [sys.executable, __file__, "--child", model, str(source), str(output)],
                env=os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            runs[backend].append(json.loads(done.stdout.splitlines()[-1]))
    copy = median(copies)
    lines = []
    for backend, results in runs.items():
        found = {key: median(result[key] for result in results) for key in results[0]}
        lines.append(
            f"| {model} | {backend} | {weights / 1e6:.0f} | {copy:.2f} | {found['import']:.1f} "
            f"| {found['convert']:.2f} | {found['convert'] / copy:.1f} "
            f"| {found['memory'] / weights:.2f} |"
        )
    return lines


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="*", choices=MODELS, default=MODELS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(convert_once(*arguments.child)))
        return
    rounds = 1 if arguments.quick else arguments.rounds
    table = [
        "| model | backend | weights MB | copy s | import s | convert s | x copy | memory x |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    with tempfile.TemporaryDirectory(prefix="convert-") as folder:
        for model in arguments.models:
            table += measure(model, rounds, Path(folder))
    print(*table, sep="\n")
    if arguments.models == MODELS:
        method = f"Medians of {rounds} rounds in turns, each in a new process."
        publish("convert", table, method, packages=(*FRAMEWORKS, "h5py"))


if __name__ == "__main__":
    main()
