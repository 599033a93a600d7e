"""Time `Predictor` on small networks, whose calls cost as much as their layers, against torch.

    python benchmarks/predictor.py [--files FOLDER] [--batch-sizes 1 16] [--rounds 5] [--quick]

Both sides turn the same uint8 images into probabilities, normalisation and softmax included: a
`Predictor` of the converted file, or `optimize`, by Keras on each backend; and torch by hand,
channels_last in inference mode with torchvision's network. Each lives in a process of its own; they
take turns. The table goes into `benchmarks/RESULTS.md`.
"""

import argparse
import tempfile
from pathlib import Path

from results import publish

from keras_alexnet.benchmarking.environment import cores
from keras_alexnet.benchmarking.report import Quartiles
from keras_alexnet.core.children import Workers
from porting.conversion.convert import convert

NETWORKS = ("mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5")
BACKENDS = ("torch", "tensorflow")
COLUMNS = [f"{by}, {backend}" for backend in BACKENDS for by in ("Predictor", "optimize")]
GOAL = 0.9
_TIMEOUT = 600.0


def measure(name: str, batch: int, file: Path, rounds: int) -> dict[str, Quartiles]:
    """Return "by, backend" -> how many times as fast as torch."""
    ratios: dict[str, list[float]] = {name: [] for name in COLUMNS}
    shared = {"batch": batch, "threads": cores()}
    with Workers() as workers:

        def seconds(by: str, what: str, backend: str | None = None) -> float:
            job = shared | {"what": what, "by": by}
            return float(
                workers.call("benchmarks.predictor_child", job, backend=backend, timeout=_TIMEOUT)
            )

        for _ in range(rounds):
            theirs = seconds("torch", name)
            for column in COLUMNS:
                by, backend = column.split(", ")
                ratios[column].append(theirs / seconds(by, str(file), backend))
    return {column: Quartiles.of(found) for column, found in ratios.items()}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=Path, help="folder for the files, kept")
    parser.add_argument("--batch-sizes", type=int, nargs="*", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round")
    arguments = parser.parse_args()
    lines = [f"| network | batch | {' | '.join(COLUMNS)} |", f"|---|--:|{'--:|' * len(COLUMNS)}"]
    with tempfile.TemporaryDirectory(prefix="predictor-") as temporary:
        folder = arguments.files or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in NETWORKS:
            file = folder / f"{name}.keras"
            if not file.is_file():
                convert(f"torchvision:{name}", None, file)
            for batch in arguments.batch_sizes:
                found = measure(name, batch, file, 1 if arguments.quick else arguments.rounds)
                cells = []
                for ratio in found.values():
                    missed = ratio.median < GOAL
                    cells.append(f"{ratio.median:.2f}{' (missed)' * missed}")
                lines.append(f"| {name} | {batch} | {' | '.join(cells)} |")
                print(lines[-1], flush=True)
    print(*lines, sep="\n")
    method = f"Medians of {arguments.rounds} rounds in turns; to reach: {GOAL:g}."
    publish("predictor", lines, method, packages=(*BACKENDS, "torchvision"))


if __name__ == "__main__":
    main()
