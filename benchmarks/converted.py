"""Time networks that were converted from torchvision against torchvision, and their conversion.

    python benchmarks/converted.py [--networks resnet50 ...] [--json FILE] [--files FOLDER]
        [--rounds 5] [--quick]

Seeded weights are converted by `python -m porting convert`, on each of two backends in turns with a
network of one layer. What a conversion takes beyond that one's is "behind the imports"; memory is
the largest process' peak beyond that one's, relative to the weights. Then inference of batches of
32: the files as `keras_alexnet.load_model` opens them, and optimized, each in a process of its own,
in turns with torchvision's network channels_last. Of all networks the tables go into
`benchmarks/RESULTS.md`. What the JSON file holds is not measured again, what `--files` holds not
converted.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from results import publish

from keras_alexnet.benchmarking.environment import cores
from keras_alexnet.benchmarking.plan import Competitor, Plan, keras_side
from keras_alexnet.benchmarking.report import rows
from keras_alexnet.benchmarking.runner import run
from keras_alexnet.core.files import write_json
from porting.conversion.network import prepare
from porting.torch_side.targets import Target

NETWORKS = [
    *("resnet50", "mobilenet_v3_large", "densenet121"),
    *("efficientnet_b0", "convnext_tiny", "vit_b_16"),
]
CONVERTED = "resnet50"  # whose conversion is measured
BACKENDS = ("torch", "tensorflow")
BATCH, SIZE = 32, (224, 224)
GOALS = {"keras": 0.9, "auto": 1.0}  # in the median over the networks, on each backend
_ONE_LAYER = """
import torch

def build():
    layers = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 10)
    return torch.nn.Sequential(*layers)
"""


def convert(target: str, output: Path, source: Path | None, backend: str) -> tuple[float, int]:
    """Convert by the command; return the seconds, and the largest process' bytes at its peak."""
    command = [sys.executable, "-m", "porting", "convert", target, "--output", str(output)]
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
    path = folder / f"{network}.safetensors"
    if not path.is_file():
        with tempfile.TemporaryDirectory(dir=folder) as inside:
            prepare(Target(f"torchvision:{network}"), None, Path(inside)).weights.rename(path)
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
            target = f"torchvision:{CONVERTED}"
            own.append(convert(target, folder / "again.keras", source, backend))
        (start, ground), (seconds, peak) = (
            tuple(map(median, zip(*found, strict=True))) for found in (base, own)
        )
        lines.append(
            f"| {CONVERTED} | {backend} | {size / 1e6:.0f} | {start:.1f} | {seconds - start:.1f} "
            f"| {(peak - ground) / size:.1f} |"
        )
    return lines


def measure_inference(network: str, file: Path, rounds: int, seconds: float) -> dict[str, float]:
    """Return "backend, engine" -> ratio to torchvision's images a second."""
    plan = Plan(str(file), "inference", (BATCH,), SIZE, rounds, seconds, cores())
    found = run(plan, [Competitor("torchvision"), *keras_side(plan, BACKENDS, tuple(GOALS))])
    ratios = {}
    for row in rows(found):
        who = row.measured.competitor
        if who.kind == "keras" and row.ratio is not None:
            ratios[f"{who.backend}, {who.engine}"] = row.ratio.median
    print(network, {name: round(ratio, 2) for name, ratio in ratios.items()}, flush=True)
    return ratios


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=NETWORKS)
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
        for network in arguments.networks:
            if network not in known["networks"]:
                file = folder / f"{network}.keras"
                if not file.is_file():
                    source = weights_of(network, folder)
                    convert(f"torchvision:{network}", file, source, BACKENDS[0])
                ratios = measure_inference(network, file, rounds, seconds)
                known["networks"][network] = ratios
            if arguments.json:
                write_json(arguments.json, known)
    conversion = known["conversion"]
    found = {network: known["networks"][network] for network in arguments.networks}
    columns = list(next(iter(found.values())))
    titles = [name.replace(", keras", "").replace("auto", "optimized") for name in columns]
    inference = [f"| network | {' | '.join(titles)} |", f"|---|{'--:|' * len(columns)}"]
    for network, ratios in found.items():
        figures = " | ".join(f"{ratios[name]:.2f}" for name in columns)
        inference.append(f"| {network} | {figures} |")
    middle = {name: median(ratios[name] for ratios in found.values()) for name in columns}
    goals = {name: GOALS[name.rpartition(" ")[2]] for name in columns}
    figures = " | ".join(
        f"{middle[name]:.2f} ({'reached' if middle[name] >= goals[name] else 'missed'}: "
        f"{goals[name]:g})"
        for name in columns
    )
    inference.append(f"| median | {figures} |")
    print(*inference, sep="\n")
    if arguments.networks == NETWORKS:
        method = (
            f"Medians of {rounds} rounds in turns. Inference: batches of {BATCH}, as many times as "
            "fast as torchvision's network, eager and channels_last."
        )
        publish(
            "converted", [*conversion, "", *inference], method, packages=("torchvision", *BACKENDS)
        )


if __name__ == "__main__":
    main()
