"""Where the project's files are."""

import subprocess
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TWINS = f"{ROOT / 'tests' / 'helpers' / 'twins.py'}:build"
RunPython = Callable[..., subprocess.CompletedProcess[str]]
