"""The sections of RESULTS.md that benchmarks write, each between two marker lines of its own."""

import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from readme import replace_between

from keras_alexnet.benchmarking.environment import cores
from keras_alexnet.core.machine import installed_versions, processor_name

RESULTS = Path(__file__).with_name("RESULTS.md")
FRAMEWORKS = ("tensorflow", "torch", "jax")


def write_section(name: str, text: str) -> None:
    """Replace the section between `<!-- NAME -->` and `<!-- end of NAME -->`.

    Raises:
        SystemExit: A marker is missing; the file is as it was.
    """
    replace_between(f"<!-- {name} -->", f"<!-- end of {name} -->", text, RESULTS)


def own_command() -> str:
    """Return the command that runs this program again; places are called after their options."""
    words = ["python", f"benchmarks/{Path(sys.argv[0]).name}"]
    for before, word in zip(sys.argv, sys.argv[1:], strict=False):
        is_place = Path(word).is_dir() or Path(word).is_absolute()
        words.append(before.lstrip("-").upper() if is_place else word)
    return shlex.join(words)


def publish(
    name: str, table: Sequence[str], method: str, *, packages: Iterable[str] = FRAMEWORKS
) -> None:
    """Write a measured table with what it was measured on and by which command.

    Args:
        name: Of the section.
        table: Lines of Markdown.
        method: A sentence on how often and in which order it was measured.
        packages: Distributions whose versions matter, beside keras and numpy.

    Raises:
        SystemExit: RESULTS.md has no such section.
    """
    versions = installed_versions(["keras", "numpy", *packages])
    listed = ", ".join(f"{package} {version}" for package, version in versions.items())
    where = f"{processor_name()}, {cores()} threads; {listed}."
    parts = [f"```\n{own_command()}\n```", f"{where} {method}", "\n".join(table)]
    write_section(name, "\n\n".join(parts))
