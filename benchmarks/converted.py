"""Time networks that were converted against those of torchvision and timm, and their conversion.

    python benchmarks/converted.py [--networks torchvision:resnet50 ...] [--contests training ...]
        [--json FILE] [--files FOLDER] [--rounds 5] [--quick]

Seeded weights are converted by `python -m porting convert`, on each of two backends in turns with a
network of one layer. What a conversion takes beyond that one's is "behind the imports"; memory is
the largest process' peak beyond that one's, relative to the weights. Then the files are timed on
batches of 32, each competitor in a process of its own, in turns with the library's network
channels_last: as `keras_alexnet.load_model` opens them, optimized, and a training step; and what
OpenVINO makes of them, in turns with what it makes of the library's network. What was measured of
all networks goes into `benchmarks/RESULTS.md`. What the JSON file holds is not measured again, what
`--files` holds not converted.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from networks import file_of
from results import publish

from keras_alexnet.benchmarking.environment import cores
from keras_alexnet.benchmarking.plan import Competitor, Plan, keras_side
from keras_alexnet.benchmarking.report import rows
from keras_alexnet.benchmarking.runner import run
from keras_alexnet.core.files import write_json
from porting.conversion.network import prepare
from porting.torch_side.targets import Target

CONVERTED = "torchvision:resnet50"  # whose conversion is measured
NETWORKS = [
    *(CONVERTED, "torchvision:mobilenet_v3_large", "torchvision:densenet121"),
    *("torchvision:efficientnet_b0", "torchvision:convnext_tiny", "torchvision:vit_b_16"),
    *("timm:convnext_nano", "timm:mobilenetv4_conv_small", "timm:hgnetv2_b0"),
    "timm:vit_tiny_patch16_224",
]
BACKENDS = ("torch", "tensorflow")
BATCH, SIZE = 32, (224, 224)


class Contest(NamedTuple):
    """What is measured, and which ratio is to be reached in the median over the networks."""

    mode: str
    engine: str
    goal: float
    backends: tuple[str, ...] = BACKENDS
    against: str = ""  # before the name of the network's library


CONTESTS = {
    "as it is": Contest("inference", "keras", 0.9),
    "optimized": Contest("inference", "auto", 1.0),
    "training": Contest("train", "keras", 0.95),
    "OpenVINO": Contest("inference", "openvino", 0.97, BACKENDS[:1], "openvino-"),
}
_ONE_LAYER = """
import torch

def build():
    layers = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 10)
    return torch.nn.Sequential(*layers)
"""


def convert(target: str, output: Path, source: Path | None, backend: str) -> tuple[float, int]:
    """Convert by the command; return the seconds, and the largest process' bytes at its peak."""
    command = [sys.executable, "-m", "porting", "convert", target, "--output", str(output)]
    command += ["--input-size", f"{SIZE[0]}x{SIZE[1]}"]
    command += [] if source is None else ["--source", str(source)]
    start = time.perf_counter()
    process = subprocess.Popen(
        command, env=os.environ | {"KERAS_BACKEND": backend}, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - start, 1024 * usage.ru_maxrss


def weights_of(network: str, folder: Path) -> Path:
    """Return a file of lively seeded weights."""
    target = Target(network)
    path = folder / f"{target.name}.safetensors"
    if not path.is_file():
        with tempfile.TemporaryDirectory(dir=folder) as inside:
            prepare(target, None, Path(inside), size=SIZE).weights.rename(path)
    return path


def measure_conversion(folder: Path, rounds: int) -> list[str]:
    """Return the table of conversions."""
    source, small = weights_of(CONVERTED, folder), folder / "one_layer.py"
    small.write_text(_ONE_LAYER)
    size = source.stat().st_size
    lines = [
        "| network | backend | weights MB | one layer s | behind it s | memory x weights |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for backend in BACKENDS:
        base, own = [], []
        for _ in range(rounds):
            base.append(convert(f"{small}:build", folder / "one_layer.keras", None, backend))
            own.append(convert(CONVERTED, folder / "again.keras", source, backend))
        (start, ground), (seconds, peak) = (
            tuple(map(median, zip(*found, strict=True))) for found in (base, own)
        )
        lines.append(
            f"| {CONVERTED} | {backend} | {size / 1e6:.0f} | {start:.1f} | {seconds - start:.1f} "
            f"| {(peak - ground) / size:.1f} |"
        )
    return lines


def measure(network: str, name: str, file: Path, rounds: int, seconds: float) -> dict[str, float]:
    """Return "contest, backend" -> ratio to the library's images a second."""
    contest = CONTESTS[name]
    plan = Plan(str(file), contest.mode, (BATCH,), SIZE, rounds, seconds, cores())
    baseline = Competitor(f"{contest.against}{Target(network).library}")
    found = run(plan, [baseline, *keras_side(plan, contest.backends, (contest.engine,))])
    ratios = {
        column(name, row.measured.competitor.backend): row.ratio.median
        for row in rows(found)
        if row.measured.competitor.kind == "keras" and row.ratio is not None
    }
    print(network, {column: round(ratio, 2) for column, ratio in ratios.items()}, flush=True)
    return ratios


def column(contest: str, backend: str | None) -> str:
    """Return the heading of what is measured on a backend."""
    return contest if len(CONTESTS[contest].backends) == 1 else f"{contest}, {backend}"


def table(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the table of network -> "contest, backend" -> ratio, and its medians."""
    goals = {
        column(name, backend): contest.goal
        for name, contest in CONTESTS.items()
        for backend in contest.backends
    }
    lines = [f"| network | {' | '.join(goals)} |", f"|---|{'--:|' * len(goals)}"]
    for network, ratios in found.items():
        figures = (f"{ratios[name]:.2f}" if name in ratios else "" for name in goals)
        lines.append(f"| {network} | {' | '.join(figures)} |")
    medians = []
    for name, goal in goals.items():
        known = [ratios[name] for ratios in found.values() if name in ratios]
        verdict = "reached" if known and median(known) >= goal else "missed"
        medians.append(f"{median(known):.2f} ({verdict}: {goal:g})" if known else "")
    return [*lines, f"| median | {' | '.join(medians)} |"]


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--contests", nargs="*", choices=CONTESTS, default=list(CONTESTS))
    parser.add_argument("--json", type=Path, help="what was measured, to go on with")
    parser.add_argument("--files", type=Path, help="folder for the files, kept")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round of each")
    arguments = parser.parse_args()
    rounds, seconds = (1, 0.1) if arguments.quick else (arguments.rounds, 0.5)
    with tempfile.TemporaryDirectory(prefix="converted-") as temporary:
        folder = arguments.files or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        known: dict[str, Any] = {"networks": {}}
        if arguments.json and arguments.json.is_file():
            known = json.loads(arguments.json.read_text())
        if "conversion" not in known:
            known["conversion"] = measure_conversion(folder, rounds)
        print(*known["conversion"], sep="\n", flush=True)
        for network, name in itertools.product(arguments.networks, arguments.contests):
            ratios = known["networks"].setdefault(network, {})
            if not all(column(name, backend) in ratios for backend in CONTESTS[name].backends):
                ratios |= measure(
                    network, name, file_of(network, folder, size=SIZE), rounds, seconds
                )
            if arguments.json:
                write_json(arguments.json, known)
    speeds = table(known["networks"])
    print(*speeds, sep="\n")
    if arguments.networks == NETWORKS:
        method = (
            f"Medians of {rounds} rounds in turns. Batches of {BATCH}, as many times as fast as "
            "the library's network, eager and channels_last, or in OpenVINO."
        )
        packages = ("torchvision", "timm", "openvino", *BACKENDS)
        publish("converted", [*known["conversion"], "", *speeds], method, packages=packages)


if __name__ == "__main__":
    main()
