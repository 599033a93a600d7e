"""Time `predict` of many photos: one process that writes CSV, and Ray's workers with Parquet parts.

    python benchmarks/prediction_job.py --images FOLDER [--workers 1 2] [--copies 10] [--quick]

Each is a whole command, as a user gives it. As starting takes long, and Ray's start longer, each is
also given a tenth of the photos: the difference is the rate once everything runs. Photos are those
of the folder, several times over by links. The table goes into `benchmarks/RESULTS.md` too.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from results import publish

from keras_alexnet.data.sources.folders import find_images

_MAKE = """
import sys
import keras_alexnet
model = keras_alexnet.create_model(sys.argv[1], include_preprocessing=True)
model.save(sys.argv[2])
"""
_PREDICT = "from keras_alexnet.commands.app import main; main()"
ONE = "one process, CSV"


def run(code: str, *arguments: object) -> float:
    """Run Python code in a process; return its seconds."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - began


def link(photos: Sequence[Path], folder: Path, count: int) -> Path:
    """Fill a folder with so many links to the photos."""
    folder.mkdir()
    for number in range(count):
        photo = photos[number % len(photos)]
        (folder / f"{number:06}{photo.suffix}").symlink_to(photo.resolve())
    return folder


def ways(workers: Sequence[int], output: Path) -> Iterator[tuple[str, list[object]]]:
    """Yield the name of each way to predict, and its options."""
    yield ONE, ["--format", "csv"]
    for number in workers:
        yield f"Ray, {number} worker(s), Parquet", ["--output", output, "--workers", number]


def main() -> None:
    """Measure and write a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of photos")
    parser.add_argument("--models", nargs="+", default=["alexnet", "googlenet"])
    parser.add_argument("--backend", default="tensorflow")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--copies", type=int, default=10, help="times that each photo is predicted")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round of a few copies")
    arguments = parser.parse_args()
    rounds, copies = (1, 3) if arguments.quick else (arguments.rounds, arguments.copies)
    photos = find_images(arguments.images)
    table = [
        "| model | way | all, s | a tenth, s | images/s | ratio |",
        "|---|---|--:|--:|--:|--:|",
    ]
    with tempfile.TemporaryDirectory(prefix="prediction-") as name:
        folder = Path(name)
        number = len(photos) * copies
        sizes = [
            (link(photos, folder / "all", number), number),
            (link(photos, folder / "tenth", number // 10), number // 10),
        ]
        for model in arguments.models:
            file = folder / f"{model}.keras"
            run(_MAKE, model, file)
            seconds: dict[tuple[str, int], list[float]] = {}
            for turn in range(rounds):
                for way, options in ways(arguments.workers, folder / f"{model}-{turn}"):
                    for images, size in sizes:
                        chosen = [
                            f"{o}-{way[5]}-{size}" if isinstance(o, Path) else o for o in options
                        ]
                        words = ["predict", file, images, "--backend", arguments.backend, *chosen]
                        seconds.setdefault((way, size), []).append(run(_PREDICT, *words))
            rates = {}
            for way, _ in ways(arguments.workers, folder):
                whole, tenth = (median(seconds[way, size]) for _, size in sizes)
                rates[way] = (number - number // 10) / (whole - tenth)
                table.append(
                    f"| {model} | {way} | {whole:.1f} | {tenth:.1f} | {rates[way]:,.0f} | "
                    f"{rates[way] / rates[ONE]:.2f} |"
                )
    print("\n".join(table))
    publish(
        "prediction jobs",
        table,
        f"{number:,} photos, {rounds} rounds in turn, medians; images/s are of those beyond the "
        f"first tenth, ratio to {ONE}, on {arguments.backend}.",
        packages=("tensorflow", "torch", "jax", "ray", "pyarrow"),
    )


if __name__ == "__main__":
    main()
