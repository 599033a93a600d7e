"""Check a network of each of torchvision's families whole, and write the table of docs/coverage.md.

    python benchmarks/families_table.py --json families.json [--backends torch] [--write-only]

`porting check` compares every module's output, every logit, and every gradient in float64;
`porting check-training`, for some, the weights behind ten steps of SGD in float64.
An hour on two cores; what the JSON file holds already is kept.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from coverage_table import DOCUMENT
from readme import replace_between

from keras_alexnet.core.files import write_json
from keras_alexnet.core.tables import Column, Sheet, markdown

TRAINED = ("resnet18", "mobilenet_v3_small", "densenet121", "convnext_tiny", "vit_b_32", "swin_t")
CHECKED = (
    *TRAINED,
    *("alexnet", "efficientnet_b0", "googlenet", "inception_v3", "mnasnet0_5", "mobilenet_v2"),
    *("regnet_y_400mf", "shufflenet_v2_x0_5", "squeezenet1_1", "vgg11", "swin_v2_t", "maxvit_t"),
)


def run(command: str, network: str, backends: str) -> dict[str, Any]:
    """Run a command of `porting`; return its JSON, or its last line as the `error`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "found.json")
        words = [command, f"torchvision:{network}", "--backends", backends, "--json", str(path)]
        done = subprocess.run(
            [sys.executable, "-m", "porting", *words], capture_output=True, text=True, check=False
        )
        if path.is_file():
            return json.loads(path.read_text())
        return {"error": (done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}


def checked(network: str, backends: str) -> dict[str, Any]:
    """Return what there is to say of one network."""
    content = run("check", network, backends)
    if "error" in content:
        return {"error": content["error"]}
    cells = content["cells"]
    compared = [inputs["layers"] for cell in cells for inputs in cell["inputs"]]
    if not compared:
        return {"error": cells[0]["error"]}
    return {
        "passed": content["passed"],
        "cells": len(cells),
        "layers": len(compared[0]),
        **{kind: _worst(cells, kind) for kind in ("layers_worst", "logits", "gradients")},
        "divergence": next((c["first_divergence"] for c in cells if c["first_divergence"]), None),
        "errors": [c["error"] or c["gradients_error"] for c in cells],
    }


def _worst(cells: list[dict[str, Any]], kind: str) -> float | None:
    if kind == "gradients":
        compared = [each for cell in cells for each in cell["gradients"]]
    else:
        what = kind.partition("_")[0]
        compared = [each for cell in cells for s in cell["inputs"] for each in s[what]]
    return max((each["relative"] for each in compared if each.get("relative")), default=None)


def trained(network: str, backends: str) -> dict[str, Any]:
    """Return how far the weights are behind ten steps, in float64."""
    content = run("check-training", network, backends)
    if "error" in content:
        return {"error": content["error"]}
    cells = [cell for cell in content["cells"] if cell["precision"] == "float64"]
    worst = [t["relative"] for cell in cells for t in cell["tensors"] if t.get("relative")]
    errors = [cell["error"] for cell in cells if cell["error"]]
    return {"passed": content["passed"], "worst": max(worst, default=None), "errors": errors}


def sheet(found: dict[str, dict[str, Any]]) -> Sheet:
    """Return the table."""
    names = ("network", "modules", "outputs", "logits", "gradients", "ten steps", "verdict")
    columns = tuple(Column(n, n, text=n in ("network", "verdict")) for n in names)
    lines = []
    for network, entry in found.items():
        check, steps = entry["check"], entry.get("training")
        passed = check.get("passed") and (steps is None or steps.get("passed"))
        figures = (check.get(kind) for kind in ("layers_worst", "logits", "gradients"))
        lines.append(
            (
                f"torchvision:{network}",
                check.get("layers", "-"),
                *map(_figure, figures),
                "" if steps is None else _figure(steps.get("worst")),
                "passed" if passed else "FAILED",
            )
        )
    return Sheet("A network of each family, whole", columns, lines)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def main() -> None:
    """Check what the file lacks, and write the document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--networks", nargs="*", choices=CHECKED, default=CHECKED)
    parser.add_argument("--backends", default="torch")
    parser.add_argument("--write-only", action="store_true", help="only what the file holds")
    arguments = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    if arguments.json.is_file():
        found = json.loads(arguments.json.read_text())
    for network in [] if arguments.write_only else arguments.networks:
        entry = found.setdefault(network, {})
        if "error" in entry.get("check", {"error": "not run"}):
            entry["check"] = checked(network, arguments.backends)
            print(network, entry["check"], flush=True)
            write_json(arguments.json, found)  # what is there survives an interruption
        if network in TRAINED and "error" in entry.get("training", {"error": "not run"}):
            entry["training"] = trained(network, arguments.backends)
            print(network, entry["training"], flush=True)
            write_json(arguments.json, found)
    print(text := markdown(sheet(found)))
    replace_between("<!-- families -->", "<!-- end of families -->", text, DOCUMENT)


if __name__ == "__main__":
    main()
