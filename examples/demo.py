"""Convert torchvision's AlexNet and GoogLeNet to Keras and prove that both compute the same.

Writes `demo/alexnet.keras`, `demo/googlenet.keras` and `demo/report.html`. Uses the pretrained
weights where they can be downloaded, seeded ones elsewhere.
"""

import sys
from pathlib import Path

from keras_alexnet.core.children import Workers
from keras_alexnet.core.tables import terminal
from porting.checks.check import check
from porting.checks.report import write_report
from porting.checks.request import CheckRequest
from porting.checks.results import ParityResult
from porting.commands.console import print_parity, print_photos
from porting.errors import DownloadError, PortingError

FOLDER = Path(__file__).resolve().parents[1] / "demo"
SIZES = ((224, 224), (193, 251))

console = terminal()


def compare(name: str, source: str | None, workers: Workers) -> ParityResult:
    """Convert and check one network, showing what is being done."""
    with console.status("") as status:
        return check(
            CheckRequest(name, source, sizes=SIZES),
            FOLDER,
            lambda step: status.update(f"{name}: {step} …"),
            workers,
        )


def main() -> int:
    """Run the demonstration; the exit code is 0 if every backend agrees with torchvision."""
    FOLDER.mkdir(exist_ok=True)
    source: str | None = "IMAGENET1K_V1"
    results = []
    with Workers() as workers:
        for name in ("alexnet", "googlenet"):
            try:
                result = compare(name, source, workers)
            except DownloadError:
                console.print(
                    "No network: seeded weights stand in for the pretrained ones, so the names "
                    "below mean nothing; the comparison is as strict."
                )
                source = None
                result = compare(name, source, workers)
            print_parity(result)
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
