"""Train on packed photos, and compare with the model's own step: does the input hold it up?

    python benchmarks/whole_run.py [--images FOLDER] [--backends torch jax tensorflow] [--rounds 5]

Photos of 500 x 375, as many as ImageNet's thousand classes need for ten each, are packed as JPEG
with a short side of 256. `keras-alexnet benchmark --mode epoch` then trains torchvision's AlexNet
on them as `ilsvrc2010-paper` does: random resized crops, flips, PCA colours, on all cores, in
batches of 64 in float32. torch and JAX see no TensorFlow. The table goes into
`benchmarks/RESULTS.md`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pipeline_cases import repeated, write_data
from results import FRAMEWORKS, publish
from timing import child_environment

from keras_alexnet.data.examples import DataSet, Files
from keras_alexnet.data.packed.packer import Packing, pack_data

CLASSES, PER_CLASS, BATCH, GOAL = 1000, 10, 64, 0.95
# The program where a package cannot be found.
WITHOUT = """
import importlib.machinery, sys

find, hidden = importlib.machinery.PathFinder.find_spec, sys.argv.pop(1)

def without(name, *others):
    return None if name.partition(".")[0] == hidden else find(name, *others)

importlib.machinery.PathFinder.find_spec = without
from keras_alexnet.commands.app import main
main()
"""


def pack(folder: Path, images: Path | None) -> Path:
    """Return a folder of packed photos of a thousand classes."""
    write_data(folder, images, None)
    labels = np.arange(CLASSES).repeat(PER_CLASS)
    names = tuple(f"class {number}" for number in range(CLASSES))
    train = Files(tuple(repeated(folder / "large", len(labels))), labels)
    pack_data(DataSet("photos", names, train=train), folder / "packed", Packing(short_side=256))
    return folder / "packed"


def measure(packed: Path, backend: str, rounds: int) -> Mapping[str, float]:
    """Return images a second: "input" and "step" alone, and "both"."""
    hidden = "nothing" if backend == "tensorflow" else "tensorflow"
    found = packed.with_name(f"{backend}.json")
    command = [sys.executable, "-c", WITHOUT, hidden, "benchmark", "alexnet", "--mode", "epoch"]
    command += ["--preset", "ilsvrc2010-paper", "--data", str(packed), "--dtype", "float32"]
    command += ["--batch-sizes", str(BATCH), "--backend", backend, "--rounds", str(rounds)]
    done = subprocess.run(
        [*command, "--json", str(found)],
        env=child_environment(backend),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"training on {backend} failed: {done.stderr.strip()}")
    return json.loads(found.read_text())


def table(rates: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the Markdown table of backend -> images a second."""
    lines = [
        "| Keras on | TensorFlow | input alone | step alone | both | share | to reach |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for backend, rate in rates.items():
        share = rate["both"] / rate["step"]
        lines.append(
            f"| {backend} | {'there' if backend == 'tensorflow' else 'hidden'} "
            f"| {rate['input']:,.0f} | {rate['step']:,.1f} | {rate['both']:,.1f} | {share:.2f} "
            f"| {GOAL:g} {'reached' if share >= GOAL else 'missed'} |"
        )
    return lines


def main() -> None:
    """Measure every backend and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder of JPEG photos")
    parser.add_argument("--backends", nargs="*", choices=FRAMEWORKS, default=FRAMEWORKS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round")
    arguments = parser.parse_args()
    rounds = 1 if arguments.quick else arguments.rounds
    rates = {}
    with tempfile.TemporaryDirectory() as name:
        packed = pack(Path(name), arguments.images)
        for backend in arguments.backends:
            rates[backend] = measure(packed, backend, rounds)
            print(backend, rates[backend], flush=True)
    lines = table(rates)
    print(*lines, sep="\n")
    if set(arguments.backends) == set(FRAMEWORKS):
        method = f"Images a second, medians of {rounds} rounds in turns, batches of {BATCH}."
        publish("whole runs", lines, method)


if __name__ == "__main__":
    main()
