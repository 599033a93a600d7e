"""Count the file operations of an epoch of photos: files against packed data.

    python benchmarks/file_operations.py [--images FOLDER]

strace counts the system calls that open, look up, read and close files, while a process reads and
crops 3,008 photos of 500 x 375 in random order, opening the data anew: those of two epochs less
those of one. The table goes into `benchmarks/RESULTS.md`.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from pipeline_cases import CASES, packed_folder, repeated, write_data
from results import publish
from timing import child_environment

from keras_alexnet.data.augmentation.record import Augmentation
from keras_alexnet.data.batches.plan import BatchSettings
from keras_alexnet.data.batches.training import TrainingBatches
from keras_alexnet.data.examples import Examples, Files
from keras_alexnet.data.packed.examples import read_packed

KINDS = {"files": "files", "jpeg": "packed as JPEG 256", "raw": "packed as pixels 256"}
CALLS = {
    *("open", "openat", "close", "read", "pread64", "readv", "preadv", "lseek", "mmap"),
    *("stat", "fstat", "lstat", "newfstatat", "statx", "access", "getdents64", "ioctl"),
}
GOAL = 0.1  # of the operations of files
IMAGES = CASES["packed-jpeg"].images


def read_epochs(folder: Path, kind: str, epochs: int) -> None:
    """Make the batches of some epochs, for each of which the data are opened."""
    settings = BatchSettings(Augmentation(crop="random-resized", flip=0.5), (224, 224), 64)
    for number in range(epochs):
        if kind == "files":
            paths = tuple(repeated(folder / "large", IMAGES))
            examples: Examples | None = Files(paths, np.zeros(IMAGES, np.int64))
        else:
            examples = read_packed(packed_folder(folder, kind)).train
        assert examples is not None
        for _ in TrainingBatches(examples, settings, framework="torch").epoch(number):
            pass


def operations(folder: Path, kind: str, epochs: int) -> int:
    """Return how many of `CALLS` a process makes."""
    counts = folder / "counts.txt"
    child = [sys.executable, __file__, "--child", str(folder), kind, str(epochs)]
    command = ["strace", "--follow-forks", "--summary-only", "--output", str(counts), *child]
    subprocess.run(command, env=child_environment("torch"), check=True)
    rows = (line.split() for line in counts.read_text().splitlines())
    return sum(int(row[3]) for row in rows if len(row) > 4 and row[-1] in CALLS)


def main() -> None:
    """Count and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder of JPEG photos")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        folder, kind, epochs = arguments.child
        read_epochs(Path(folder), kind, int(epochs))
        return
    if shutil.which("strace") is None:
        raise SystemExit("error: strace is not installed; it counts the operations on Linux")
    lines = ["| photos | operations an image | share | to reach |", "|---|--:|--:|--:|"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, arguments.images, None)
        found = {
            kind: (operations(folder, kind, 2) - operations(folder, kind, 1)) / IMAGES
            for kind in KINDS
        }
    for kind, count in found.items():
        share = count / found["files"]
        verdict = f"{GOAL:g} {'reached' if share <= GOAL else 'missed'}"
        lines.append(
            f"| {KINDS[kind]} | {count:.2f} | {share:.3f} | {'' if kind == 'files' else verdict} |"
        )
    print(*lines, sep="\n")
    publish("file operations", lines, "Counted by strace.", packages=("fsspec",))


if __name__ == "__main__":
    main()
