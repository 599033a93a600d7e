"""Measure the README's parity table and write it there.

With photos and the statistics of the pretrained weights:
    python benchmarks/parity_table.py --images FOLDER --statistics weight_stats.json
Without them it uses scikit-learn's two sample photos and calibrated seeded weights.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from readme import replace_between

from keras_alexnet.specs import SPECS
from porting.checkpoints.files import write_checkpoint
from porting.checks.check import check, default_sizes
from porting.checks.inputs import sample_photos
from porting.checks.request import CheckRequest
from porting.checks.results import ParityResult, parity_columns
from porting.errors import PortingError
from porting.tolerances import TOLERANCES
from porting.torch_side.seeded import seeded_state_dict

BEGIN, END = "<!-- parity table: make parity -->", "<!-- end of parity table -->"
HEADER = "| network | backend | data format | pixels | layers | logits | top-1 | gradients |"
NETWORKS = ("alexnet", "googlenet")


def measure(name: str, images: list[Path], statistics: Path | None, folder: Path) -> ParityResult:
    """Check one network with seeded weights on photos and noise at every size."""
    moments = None
    # AlexNet's statistics alone give dead logits; its kernels are He-scaled instead.
    if statistics is not None and name == "googlenet":
        moments = json.loads(statistics.read_text())[name]
    weights = folder / f"{name}.safetensors"
    write_checkpoint(weights, seeded_state_dict(name, seed=0, statistics=moments))
    print(f"{name} ...", flush=True)
    return check(CheckRequest(name, weights, images=images), folder)


def table(results: list[ParityResult]) -> str:
    """Return the Markdown table of several checks."""
    lines = [HEADER, "|---|---|---|--:|--:|--:|--:|--:|"]
    for result in results:
        for cell in result.cells:
            if not cell.passed:
                raise SystemExit(f"{result.check.model} on {cell.backend} failed: {cell}")
            columns = parity_columns(cell)[:-1]
            cells = (result.check.model, cell.backend, cell.data_format, *columns)
            lines.append(f"| {' | '.join(cells)} |")
    limits = [f"<= {TOLERANCES[name].limit:g}" for name in ("pixels", "layer", "logits")]
    lines.append(
        f"| tolerance | | | {' | '.join(limits)} | 100 % | <= {TOLERANCES['gradient'].limit:g} |"
    )
    return "\n".join(lines)


def main() -> None:
    """Measure, and replace the table between the README's markers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder of photos")
    parser.add_argument("--statistics", type=Path, help="JSON of per-tensor statistics")
    arguments = parser.parse_args()
    images = [*([arguments.images] if arguments.images else []), *sample_photos()]
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        results = [measure(name, images, arguments.statistics, Path(folder)) for name in NETWORKS]
    count = len(results[0].photos)
    sizes = ", ".join(f"{h} x {w}" for h, w in default_sizes(SPECS[NETWORKS[0]]))
    weights = (
        "AlexNet He-scaled, GoogLeNet with the statistics of the pretrained tensors"
        if arguments.statistics
        else "He-scaled, batch norm calibrated"
    )
    text = (
        f"{table(results)}\n\n"
        f"Seeded weights ({weights}); {count} photos and 2 noise images at each of {sizes}; "
        f"{', '.join(f'{name} {version}' for name, version in results[0].versions.items())}."
    )
    replace_between(BEGIN, END, text)
    print(BEGIN, text, END, sep="\n")


if __name__ == "__main__":
    try:
        main()
    except PortingError as error:
        sys.exit(f"error: {error}")
