"""Train LeNet-5 on scikit-learn's digits: no download, under a minute on a CPU.

Leaves a run in `runs/`, and predicts one of its own test images with the file that it wrote.
"""

import sys
import time
from pathlib import Path

from PIL import Image

from keras_alexnet import run_experiment
from keras_alexnet.data.sources.registry import open_data
from keras_alexnet.errors import KerasAlexNetError
from keras_alexnet.training.presets import PRESETS

ROOT = Path(__file__).resolve().parents[1]
GOAL = 0.97


def main() -> int:
    """Train, test and predict; the exit code is 0 if the accuracy is above the goal."""
    folder = ROOT / "runs" / f"train-demo-{time.strftime('%Y%m%d-%H%M%S')}"
    name = "digits-lenet5"
    summary = run_experiment(PRESETS[name].experiment, output=folder, preset=name)
    if summary is None:
        return 130
    accuracy = summary["test"]["top1"]
    digit = open_data("digits").parts()["test"].images[0, ..., 0]
    Image.fromarray(digit).save(folder / "digit.png")
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    print(
        f"\n{accuracy:.2%} of the test images are right. Now try:\n"
        f"  .venv/bin/keras-alexnet predict {shown}/best.keras {shown}/digit.png\n"
        f"  .venv/bin/keras-alexnet evaluate {shown}/best.keras --data digits\n"
        "  .venv/bin/keras-alexnet train --preset cifar10-cpu\n"
        "  .venv/bin/keras-alexnet train --list-presets"
    )
    return 0 if accuracy > GOAL else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KerasAlexNetError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
