"""Try torchvision's networks, or one of each of timm's families: a table of docs/coverage.md.

What both tables say together is a line of the README.

    python benchmarks/coverage_table.py --json coverage.json [--library timm]
        [--backends tensorflow,torch,jax] [--data-formats channels_last,channels_first]

Hours on two cores; what the JSON file holds already is kept, so an interrupted run goes on.
"""

import argparse
import json
import subprocess
import sys
import textwrap
from pathlib import Path

from readme import DOCS, replace_between

from keras_alexnet.core.backend import BACKENDS
from keras_alexnet.core.machine import processor_name
from keras_alexnet.core.tables import markdown
from keras_alexnet.specs.schema import DATA_FORMATS
from porting.checks.coverage import from_json
from porting.commands.coverage import notes, sheet

DOCUMENT = DOCS / "coverage.md"
LIBRARIES = ("torchvision", "timm")
BEGIN, END = "<!-- coverage line: make coverage -->", "<!-- end of coverage line -->"


def markers(library: str) -> tuple[str, str]:
    """Return the lines before and behind the table of a library."""
    return f"<!-- {library} -->", f"<!-- end of {library} -->"


def summary(document: str) -> str:
    """Return what the tables of the document's text say, in one sentence of Markdown."""
    counts, worst, common = [], 0.0, set(BACKENDS)
    for library in LIBRARIES:
        begin, end = markers(library)
        table = document.partition(begin)[2].partition(end)[0]
        rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line[:2] == "| "]
        head, _, *networks = rows
        passed = [dict(zip(head, row, strict=True)) for row in networks if row[-1] == "passed"]
        common &= set(head)
        worst = max(
            worst, *(float(row[name]) for row in passed for name in BACKENDS if name in row)
        )
        counts.append(f"{len(passed)} of {len(networks)}")
    backends = ", ".join(name for name in BACKENDS if name in common)
    text = (
        f"Of torchvision's classifiers and segmentation networks {counts[0]}, and of timm's "
        f"families, a network each, {counts[1]} become Keras models that agree with torch: no "
        f"number of an output is off by more than {worst:.1e} of the largest ({backends}), and the "
        f"state_dict comes back byte by byte ([tables](docs/{DOCUMENT.name}))."
    )
    return textwrap.fill(text, 100, break_on_hyphens=False)


def main() -> None:
    """Run the command where the file lacks networks, and write the document and its summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--library", choices=LIBRARIES, default=LIBRARIES[0])
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
    said = [f"* {line}" for line in notes(found)]
    replace_between(*markers(arguments.library), "\n".join([*lines, *said]), DOCUMENT)
    replace_between(BEGIN, END, summary(DOCUMENT.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
