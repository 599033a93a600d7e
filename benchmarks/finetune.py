"""Fine-tune a network that was converted by its graph, against the same one from scratch.

    python benchmarks/finetune.py --weights bvlc_googlenet.npz --cifar FOLDER [--backend torch]
        [--train-limit 1200] [--eval-limit 500] [--work FOLDER]

BVLC's GoogLeNet becomes a torch network (`porting export`), which knows nothing of Keras and sees
R, G, B of 0..1; `porting convert FILE.py:build` makes a `.keras` file of it by its graph, and
`keras-alexnet train` gives it CIFAR-10's classes: one epoch of the classifier alone, then of all
layers. The same network begins from fresh weights with the same budget. What was trained goes back
to torch, whose logits are compared. Quarter of an hour on one core; the table goes into
`benchmarks/RESULTS.md`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from results import publish

from keras_alexnet.core.backend import BACKENDS
from porting.checkpoints.files import read_checkpoint, write_checkpoint

SIZE, EPOCHS = 224, 3
_TWIN = """
import torch
from porting.torch_side.torch_model import build_torch

class Twin(torch.nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.net = build_torch("googlenet_caffe", classes=classes, aux_heads=False)
        mean = torch.tensor([104.0, 117.0, 123.0]).view(1, 3, 1, 1)  # BVLC's, of B, G, R
        self.register_buffer("mean", mean, persistent=False)

    def forward(self, x):
        return self.net(x.flip(1) * 255 - self.mean)

def build(classes=1000):
    return Twin(classes)
"""
_COMPARE = """
import importlib.util, sys
import numpy as np, torch
import keras_alexnet
spec = importlib.util.spec_from_file_location("twin", sys.argv[1])
twin = importlib.util.module_from_spec(spec)
spec.loader.exec_module(twin)
net = twin.build(10).eval()
net.load_state_dict(torch.load(sys.argv[2]), strict=True)
pixels = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3)).astype(np.float32)
found = keras_alexnet.load_model(sys.argv[3]).predict(pixels, verbose=0)
with torch.no_grad():
    wanted = net(torch.from_numpy(pixels / 255).permute(0, 3, 1, 2)).numpy()
print(float(np.abs(found - wanted).max() / np.abs(wanted).max()))
"""


def run(backend: str, *words: object) -> str:
    """Run Python with these words on a backend; return what it says."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        env=os.environ | {"KERAS_BACKEND": backend},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def converted(weights: Path, folder: Path, backend: str) -> Path:
    """Return the file of the network that went through torch."""
    twin, own = folder / "twin.py", folder / "own.keras"
    twin.write_text(_TWIN)
    porting = ("-m", "porting")
    name = "googlenet_caffe"
    run(backend, *porting, "convert", name, "--source", weights, "--output", own)
    run(backend, *porting, "export", own, "--output", folder / "own.safetensors")
    state = read_checkpoint(folder / "own.safetensors").arrays
    write_checkpoint(
        folder / "twin.safetensors", {f"net.{key}": array for key, array in state.items()}
    )
    files = ("--source", folder / "twin.safetensors", "--output", folder / "twin.keras")
    run(backend, *porting, "convert", f"{twin}:build", *files)
    return folder / "twin.keras"


def train(
    file: Path, cifar: Path, output: Path, arguments: argparse.Namespace, *weights: object
) -> dict[str, float]:
    """Train the network of a file on a part of CIFAR-10; return its summary."""
    options = {
        "model": file,
        "data": "cifar10",
        "data-dir": cifar,
        "train-limit": arguments.train_limit,
        "eval-limit": arguments.eval_limit,
        "epochs": EPOCHS,
        "resize": SIZE,
        "flip": 0.5,
        "batch-size": 32,
        "learning-rate": 0.01,
        "output": output,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    words += ["--mean", 0, 0, 0, "--std", 1, 1, 1]
    print(run(arguments.backend, "-m", "keras_alexnet.train", *words, *weights), flush=True)
    return json.loads((output / "summary.json").read_text())


def main() -> None:
    """Convert, train twice, go back, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--cifar", type=Path, required=True)
    parser.add_argument("--backend", choices=BACKENDS, default="torch")
    parser.add_argument("--train-limit", type=int, default=1200)
    parser.add_argument("--eval-limit", type=int, default=500)
    parser.add_argument("--work", type=Path, help="folder for the files, kept")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="finetune-") as temporary:
        folder = arguments.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        file = converted(arguments.weights, folder, arguments.backend)
        tuned = ("--weights", file, "--freeze-epochs", 1, "--unfrozen-learning-rate", 0.003)
        lines = [
            "| begins with | epoch 1 | 2 | 3: validation | test accuracy | minutes |",
            "|---|--:|--:|--:|--:|--:|",
        ]
        for who, weights in (("BVLC's weights", tuned), ("fresh weights", ())):
            output = folder / who.replace("'", "").replace(" ", "-")
            summary = train(file, arguments.cifar, output, arguments, *weights)
            rows = (output / "metrics.csv").read_text().splitlines()
            column = rows[0].split(",").index("val_accuracy")
            curve = " | ".join(f"{float(row.split(',')[column]):.1%}" for row in rows[1:])
            lines.append(
                f"| {who} | {curve} | {summary['test']['top1']:.1%} "
                f"| {summary['seconds'] / 60:.1f} |"
            )
        best = folder / "BVLCs-weights" / "best.keras"
        run(arguments.backend, "-m", "porting", "export", best, "--output", folder / "back.pth")
        gap = float(run("torch", "-c", _COMPARE, folder / "twin.py", folder / "back.pth", best))
    assert np.isfinite(gap)
    lines += ["", f"Back in torch, its logits differ from Keras' by {gap:.1e} of the largest."]
    print(*lines, sep="\n")
    method = (
        f"{arguments.train_limit} training images (a tenth of them validates), "
        f"{arguments.eval_limit} of the test, at {SIZE} pixels, on {arguments.backend}."
    )
    publish("finetune", lines, method, packages=("torch",))


if __name__ == "__main__":
    main()
