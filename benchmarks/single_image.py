"""Time networks on one image at a time, on torch, against those of torchvision.

    python benchmarks/single_image.py [--networks alexnet ...] [--json FILE] [--files FOLDER]
        [--rounds 10] [--quick]

AlexNet and GoogLeNet, and two networks that `python -m porting convert` makes files of: as they are
and by `keras_alexnet.optimize`, in turns with torchvision's channels_last, each in a process of its
own. The table of all networks goes into `benchmarks/RESULTS.md`. What the JSON file holds is not
measured again.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from networks import file_of
from results import publish

from keras_alexnet.benchmarking.environment import cores
from keras_alexnet.benchmarking.plan import COUNTERPARTS, Plan, baselines, keras_side
from keras_alexnet.benchmarking.report import rows
from keras_alexnet.benchmarking.runner import run
from keras_alexnet.core.files import write_json

CONVERTED = ("resnet50", "mobilenet_v3_small")
NETWORKS = (*COUNTERPARTS, *CONVERTED)
ENGINES = ("keras", "auto")
SIZE = (224, 224)
GOAL = 1.0


def measure(network: str, folder: Path, rounds: int, seconds: float) -> list[str]:
    """Return the network's lines of the table."""
    is_ours = network in COUNTERPARTS
    model = network if is_ours else str(file_of(f"torchvision:{network}", folder, size=SIZE))
    plan = Plan(model, "inference", (1,), SIZE, rounds, seconds, cores())
    found = run(plan, [*baselines(plan, "torchvision"), *keras_side(plan, ("torch",), ENGINES)])
    lines = []
    for row in rows(found):
        ratio, verdict, label = row.ratio, "", row.measured.competitor.label
        assert ratio is not None
        if row.measured.competitor.kind == "keras":
            verdict = f"{GOAL:g} {'reached' if ratio.median >= GOAL else 'missed'}"
        lines.append(
            f"| {network} | {label} | {1e3 / row.rate:.1f} | {ratio.median:.2f} "
            f"| {ratio.low:.2f} - {ratio.high:.2f} | {verdict} |"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the section."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--json", type=Path, help="what was measured, to go on with")
    parser.add_argument("--files", type=Path, help="folder for the files, kept")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="three rounds of short measurements")
    options = parser.parse_args(arguments)
    rounds, seconds = (3, 0.1) if options.quick else (options.rounds, 0.5)
    known: dict[str, list[str]] = {}
    if options.json and options.json.is_file():
        known = json.loads(options.json.read_text())
    with tempfile.TemporaryDirectory(prefix="single-image-") as temporary:
        folder = options.files or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for network in options.networks:
            if network not in known:
                known[network] = measure(network, folder, rounds, seconds)
            print(*known[network], sep="\n", flush=True)
            if options.json:
                write_json(options.json, known)
    lines = ["| network | by | ms | ratio | quartiles | to reach |", "|---|---|--:|--:|--:|--:|"]
    for network in options.networks:
        lines += known[network]
    if options.networks == list(NETWORKS) and not options.quick:
        method = (
            f"Medians of {rounds} rounds in turns, a process for each; ratios are to torchvision "
            "channels_last in the same round."
        )
        publish("single images", lines, method, packages=("torch", "torchvision"))


if __name__ == "__main__":
    main()
