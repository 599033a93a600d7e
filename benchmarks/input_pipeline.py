"""Time the input pipelines against torchvision's DataLoader with the same transforms and cores.

    python benchmarks/input_pipeline.py [--images FOLDER] [--cifar FOLDER] [--backend tensorflow]
        [--rounds 5] [--quick]

Both sides end with normalised float32 batches. Each lives in a process of its own; they take turns.
torchvision runs with 0 workers and with one for each core; ratios are to the faster one. Packed
data are measured against the original files, and beside WebDataset (pip install webdataset), which
reads the same reduced JPEG files from archives. An epoch
is timed from its fourth batch on, so that starting it does not count. The cores' time is that of
the whole epoch and of all processes: unlike images/s it hardly depends on what else is running.
The photos of 500 x 375 are the others, enlarged, with noise that makes their files about as large
as those of ImageNet. With all cases the table goes into `benchmarks/RESULTS.md` too.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from pipeline_cases import CASES, Timing, write_data
from results import publish
from timing import child_environment

OURS = ("host", "device", "threads")  # the other functions are peers'
CHILD = str(Path(__file__).with_name("pipeline_child.py"))


class Side:
    """A process that times what it is asked for."""

    def __init__(self, side: str, folder: Path, batch: int, backend: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, CHILD, side, str(folder), str(batch)],
            env=child_environment(backend),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.names: list[str] = self._read()

    def measure(self, name: str) -> Timing:
        """Time a function of the process."""
        assert self._process.stdin is not None
        print(name, file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit("a process of the benchmark has failed")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def main() -> None:
    """Measure both sides in turn and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder of JPEG photos")
    parser.add_argument("--cifar", type=Path, help="folder with cifar-10-batches-py, or that one")
    parser.add_argument("--backend", default="tensorflow", help="of Keras, for our side")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--quick", action="store_true", help="one round")
    arguments = parser.parse_args()
    rounds = 1 if arguments.quick else arguments.rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, arguments.images, arguments.cifar)
        sides = [
            Side(side, folder, arguments.batch, arguments.backend)
            for side in ("ours", "torchvision")
        ]
        runs: dict[str, list[Timing]] = {}
        for _ in range(rounds):
            for case in arguments.cases:
                for side in sides:
                    for function in side.names:
                        if function.partition("/")[0] == case:
                            runs.setdefault(function, []).append(side.measure(function))
        for side in sides:
            side.close()
    lines = table(runs)
    print(*lines, sep="\n")
    if set(arguments.cases) == set(CASES):
        publish(
            "input pipelines",
            lines,
            f"Medians of {rounds} rounds in turns, batches of {arguments.batch}, ours on "
            f"{arguments.backend}.",
            packages=(arguments.backend, "torchvision", "pillow"),
        )


def table(runs: Mapping[str, Sequence[Timing]]) -> list[str]:
    """Return the Markdown table of `case/function` -> timings, the fastest of a case first."""
    lines = [
        "| pipeline | by | images/s | from - to | ratio | core ms/image | ratio | to reach |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, case in CASES.items():
        rates = {n: [r for r, _ in t] for n, t in runs.items() if n.partition("/")[0] == name}
        if not rates:
            continue
        busy = {n: median(b for _, b in runs[n]) for n in rates}
        peers = [n for n in rates if n.endswith("workers")]
        ranked = sorted(rates, key=lambda n: -median(rates[n]))
        peer = next(n for n in ranked if n in peers)
        best = next(n for n in ranked if n.partition("/")[2] in OURS)
        for function in ranked:
            rate, by = median(rates[function]), function.partition("/")[2]
            ratio, goal = rate / median(rates[peer]), ""
            if function == best:
                goal = f"{case.goal:g} {'reached' if ratio >= case.goal else 'missed'}"
            lines.append(
                f"| {case.title} | {'torchvision, ' if function in peers else ''}{by} "
                f"| {rate:,.0f} | {min(rates[function]):,.0f} - {max(rates[function]):,.0f} "
                f"| {ratio:.2f} | {busy[function]:.2f} | {busy[peer] / busy[function]:.2f} "
                f"| {goal} |"
            )
    return lines


if __name__ == "__main__":
    main()
