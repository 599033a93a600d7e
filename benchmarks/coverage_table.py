"""Try torchvision's classifiers, or one of each of timm's families: a table of docs/coverage.md.

    python benchmarks/coverage_table.py --json coverage.json [--library timm]
        [--backends tensorflow,torch,jax] [--data-formats channels_last,channels_first]

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
from keras_alexnet.specs.schema import DATA_FORMATS
from porting.checks.coverage import from_json
from porting.commands.coverage import notes, sheet

DOCUMENT = README.parent / "docs" / "coverage.md"


def main() -> None:
    """Run the command where the file lacks networks, and write the document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--library", choices=("torchvision", "timm"), default="torchvision")
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--data-formats", default=",".join(DATA_FORMATS))
    parser.add_argument("--write-only", action="store_true", help="only what the file holds")
    arguments = parser.parse_args()
    if not arguments.write_only:
        command = ["-m", "porting", "coverage", f"{arguments.library}:*", "--resume"]
        options = ["--json", str(arguments.json), "--backends", arguments.backends]
        options += ["--data-formats", arguments.data_formats]
        subprocess.run([sys.executable, *command, *options], check=False)
    content = json.loads(arguments.json.read_text())
    found = sorted(from_json(content), key=lambda each: each.target)
    backends = [b for b in BACKENDS if any(name.startswith(b) for c in found for name in c.gaps)]
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    lines = [f"{processor_name()}; {versions}.", "", markdown(sheet(found, backends)), ""]
    begin, end = (f"<!-- {text}{arguments.library} -->" for text in ("", "end of "))
    said = [f"* {line}" for line in notes(found)]
    replace_between(begin, end, "\n".join([*lines, *said]), DOCUMENT)


if __name__ == "__main__":
    main()
