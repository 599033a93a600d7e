"""The `.keras` files of torchvision's and timm's networks that benchmarks measure."""

import os
import subprocess
import sys
from pathlib import Path

from keras_alexnet.errors import BenchmarkError
from porting.torch_side.targets import Target


def file_of(
    network: str, folder: Path, *, backend: str = "torch", size: tuple[int, int] = (224, 224)
) -> Path:
    """Return a network's file of seeded weights; what lies in the folder is not converted again.

    Raises:
        BenchmarkError: The conversion failed.
    """
    height, width = size
    path = folder / f"{Target(network).name}-{height}x{width}.keras"
    if not path.is_file():
        command = [sys.executable, "-m", "porting", "convert", network, "--output", str(path)]
        command += ["--input-size", f"{height}x{width}"]
        done = subprocess.run(
            command,
            env=os.environ | {"KERAS_BACKEND": backend},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BenchmarkError(f"{network} cannot be converted: {done.stderr.strip()}")
    return path
