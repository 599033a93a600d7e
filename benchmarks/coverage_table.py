"""Try torchvision's classifiers and write the table of docs/coverage.md.

    python benchmarks/coverage_table.py --json coverage.json [--backends tensorflow,torch,jax]

Hours on two cores; what the JSON file holds already is kept, so an interrupted run goes on.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from readme import README, replace_between

from keras_alexnet.core.backend import BACKENDS
from keras_alexnet.core.machine import processor_name
from keras_alexnet.core.tables import markdown
from porting.checks.coverage import from_json
from porting.commands.coverage import notes, sheet

DOCUMENT = README.parent / "docs" / "coverage.md"
BEGIN, END = "<!-- coverage -->", "<!-- end of coverage -->"


def main() -> None:
    """Run the command where the file lacks networks, and write the document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--write-only", action="store_true", help="only what the file holds")
    arguments = parser.parse_args()
    if not arguments.write_only:
        command = ["-m", "porting", "coverage", "torchvision:*", "--resume"]
        options = ["--json", str(arguments.json), "--backends", arguments.backends]
        subprocess.run([sys.executable, *command, *options], check=False)
    content = json.loads(arguments.json.read_text())
    found = sorted(from_json(content), key=lambda each: each.target)
    backends = [b for b in BACKENDS if any(name.startswith(b) for c in found for name in c.gaps)]
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    lines = [f"{processor_name()}; {versions}.", "", markdown(sheet(found, backends)), ""]
    replace_between(BEGIN, END, "\n".join([*lines, *notes(found)]), DOCUMENT)


if __name__ == "__main__":
    main()
