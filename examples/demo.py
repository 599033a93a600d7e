"""Convert torchvision's AlexNet and GoogLeNet to Keras and prove that both compute the same.

    python examples/demo.py [--thorough]

Writes `demo/alexnet.keras`, `demo/googlenet.keras` and `demo/report.html`. Uses torchvision's
pretrained weights where torch has downloaded them before or the network gives them, seeded ones
elsewhere.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from keras_alexnet.core.backend import installed_backends, keras_home
from keras_alexnet.core.children import Workers
from keras_alexnet.core.tables import terminal
from porting.checks.check import check
from porting.checks.report import write_report
from porting.checks.request import CheckRequest
from porting.checks.results import Cell
from porting.commands.console import print_cells, print_parity, print_photos
from porting.errors import DownloadError, PortingError

FOLDER = Path(__file__).resolve().parents[1] / "demo"
NETWORKS = ("alexnet", "googlenet")
# What shows at a glance that both agree, and what a proof would have. There are as many noise
# images as photos, as frameworks compile each size of a batch.
QUICK: dict[str, Any] = {"sizes": ((224, 224),), "noise": 2, "gradients": False}
THOROUGH: dict[str, Any] = {"sizes": ((224, 224), (193, 251))}

console = terminal()


def main() -> int:
    """Run the demonstration; the exit code is 0 if every backend agrees with torchvision."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--thorough", action="store_true", help="two sizes, and all gradients")
    thorough = parser.parse_args().thorough
    FOLDER.mkdir(exist_ok=True)
    # A second run need not compile again.
    compiled = keras_home() / "keras_alexnet" / "compiled"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(compiled))
    source: str | None = "IMAGENET1K_V1"
    results = []
    # The first one converts, which torch begins soonest with.
    backends = sorted(installed_backends(), key=lambda backend: backend != "torch")
    options = (THOROUGH if thorough else QUICK) | {"backends": backends}
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Workers() as workers, Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=len(NETWORKS) * len(backends))

        def found(name: str, cells: Sequence[Cell]) -> None:
            print_cells(name, cells)
            bar.advance(task)

        def compare(name: str, source: str | None) -> Any:
            return check(
                CheckRequest(name, source, **options),
                FOLDER,
                lambda step: bar.update(task, description=f"{name}: {step}"),
                workers,
                partial(found, name),
            )

        for name in NETWORKS:
            try:
                result = compare(name, source)
            except DownloadError as error:
                console.print(
                    f"{error}. Seeded weights stand in for the pretrained ones, so photos are "
                    "given no names; the comparison is as strict.",
                    soft_wrap=True,
                    markup=False,
                )
                source = None
                result = compare(name, source)
            print_parity(result)
            if source is not None:
                print_photos(result)
            console.print(f"{name}: {result.check.candidate}", soft_wrap=True)
            results.append(result)
    print(write_report(FOLDER / "report.html", results))
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PortingError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
