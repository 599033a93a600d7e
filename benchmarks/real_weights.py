"""Prove a port of real Caffe weights on real photos: BVLC GoogLeNet in Keras and in torch.

    python benchmarks/real_weights.py --weights bvlc_googlenet.caffemodel --names synset_words.txt
        --photos FOLDER --truth labels.tsv [--resize-size 256] [--show PHOTO ...]

The weights are converted by `porting`; each backend's process loads the file and computes the
logits of all photos, RGB 0..255. A hand-written torch network with the same weights does it too.
`labels.tsv` has the columns file and class_index. Top-1, top-5 and the largest difference go into
docs/porting.md, and the predictions for the photos of --show into `benchmarks/real_weights.png`.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from readme import DOCS, replace_between
from timing import child_environment

from keras_alexnet.core.backend import BACKENDS
from keras_alexnet.data.preprocessing import load_images, normalize
from keras_alexnet.models.record import read_record
from keras_alexnet.specs import SPECS
from keras_alexnet.specs.preprocessing import Preprocessing
from porting.checks.compare import difference, softmax, top_classes
from porting.tolerances import TOLERANCES

MODEL = "googlenet_caffe"
TWIN = f"{Path(__file__).resolve().parents[1] / 'tests' / 'helpers' / 'twins.py'}:build"
PICTURE = Path(__file__).with_suffix(".png")
BEGIN, END = "<!-- real weights -->", "<!-- end of real weights -->"
_BATCH = 50


def caffe_crops(paths: list[Path], side: int) -> np.ndarray:
    """Return the centres of photos, uint8 (N, 224, 224, 3).

    Where the margin is odd, Caffe cuts a pixel further up and left than torchvision.
    """
    squares = load_images(paths, Preprocessing(side, (side, side)))
    height, width = SPECS[MODEL].default_size
    top, left = (side - height) // 2, (side - width) // 2
    return squares[:, top : top + height, left : left + width]


def keras_logits(model: Path, images: Path, output: Path) -> None:
    """Compute the logits of stored images on this process' backend; a child's work."""
    from keras_alexnet import load_model

    logits = load_model(model).predict(np.load(images), batch_size=_BATCH, verbose=0)
    np.save(output, logits)


def torch_logits(weights: Path, images: np.ndarray) -> np.ndarray:
    """Compute the logits by the hand-written torch network."""
    import torch

    from porting.checkpoints.files import as_tensors
    from porting.conversion.sources import open_source
    from porting.torch_side.reference_nets import Reference

    arrays = open_source(MODEL, weights, aux_heads=False).checkpoint.arrays
    heads = tuple(f"{aux.name}." for aux in SPECS[MODEL].aux)
    network = Reference(MODEL, 1000, function=TWIN).build()
    network.load_state_dict(
        as_tensors({key: value for key, value in arrays.items() if not key.startswith(heads)})
    )
    results = []
    with torch.no_grad():
        for start in range(0, len(images), _BATCH):
            planes = normalize(images[start : start + _BATCH], SPECS[MODEL].preprocessing)
            batch = torch.from_numpy(planes.transpose(0, 3, 1, 2).copy())  # (N, 3, 224, 224)
            results.append(network(batch).numpy())
    return np.concatenate(results)


def table(logits: dict[str, np.ndarray], labels: np.ndarray) -> str:
    """Return the Markdown table; the last row is the reference."""
    reference = logits["torch, hand-written"]
    lines = [
        "| computed by | top-1 | top-5 | same best class | largest difference of logits |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, values in logits.items():
        best = top_classes(values, 5)
        found = difference(reference, values)
        cells = (
            name,
            f"{100 * np.mean(best[:, 0] == labels):.1f} %",
            f"{100 * np.mean((best == labels[:, None]).any(axis=1)):.1f} %",
            f"{100 * np.mean(best[:, 0] == reference.argmax(axis=1)):.0f} %",
            "" if values is reference else f"{found.relative:.1e}",
        )
        lines.append(f"| {' | '.join(cells)} |")
        limit = TOLERANCES["logits"].limit
        if found.relative > limit:
            sys.exit(f"{name}: the logits differ by {found.relative:.1e}, more than {limit:g}")
    return "\n".join(lines)


def draw(photos: list[Path], logits: np.ndarray, names: list[str]) -> Any:
    """Draw photos with their three best classes; return matplotlib's `Figure`."""
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(2.4 * len(photos), 3.1), layout="constrained")
    for axes, photo, values in zip(
        np.atleast_1d(figure.subplots(1, len(photos))), photos, softmax(logits), strict=True
    ):
        with Image.open(photo) as image:
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            axes.imshow(image.convert("RGB").crop((left, top, left + side, top + side)))
        axes.axis("off")
        lines = [
            # synset_words.txt: an id, then synonyms.
            f"{100 * values[index]:.0f} % {names[index].partition(' ')[2].partition(',')[0]}"
            for index in top_classes(values[None], 3)[0]
        ]
        axes.set_title("\n".join(lines), fontsize=9, loc="left")
    figure.savefig(PICTURE, dpi=100, metadata={"Software": None})
    return figure


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Convert, compute everywhere, and write the table and the picture."""
    with arguments.truth.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    labels = np.array([int(row["class_index"]) for row in rows])
    own = SPECS[MODEL].preprocessing
    photos = caffe_crops([arguments.photos / row["file"] for row in rows], arguments.resize_size)
    shown = load_images(arguments.show, own) if arguments.show else photos[:0]
    images = np.concatenate([photos, shown])
    np.save(folder / "images.npy", images)
    model = folder / "model.keras"
    options = ["--source", arguments.weights, "--output", model, "--labels", arguments.names]
    subprocess.run(
        [sys.executable, "-m", "porting", "convert", MODEL, *options, "--preprocessing"], check=True
    )
    logits = {}
    for backend in BACKENDS:
        output = folder / f"{backend}.npy"
        paths = [model, folder / "images.npy", output]
        subprocess.run(
            [sys.executable, __file__, "--child", *paths],
            env=child_environment(backend),
            check=True,
        )
        logits[f"Keras, {backend}"] = np.load(output)
    logits["torch, hand-written"] = torch_logits(arguments.weights, images)
    result = table({name: v[: len(labels)] for name, v in logits.items()}, labels)
    replace_between(BEGIN, END, result, DOCS / "porting.md")
    print(result)
    if arguments.show:
        names = (read_record(model) or {})["labels"]
        draw(arguments.show, logits[f"Keras, {BACKENDS[0]}"][len(labels) :], names)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, help=".caffemodel, .npz or .npy file")
    parser.add_argument("--names", type=Path, help="file with a class name per line")
    parser.add_argument("--photos", type=Path, help="folder of photos")
    parser.add_argument("--truth", type=Path, help="labels.tsv: file and class_index")
    parser.add_argument("--resize-size", type=int, default=256, help="short side before the crop")
    parser.add_argument("--show", nargs="*", type=Path, default=[], help="photos of the picture")
    parser.add_argument("--child", nargs=3, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        os.environ.setdefault("KERAS_BACKEND", "torch")
        keras_logits(*arguments.child)
        return
    for name in ("weights", "names", "photos", "truth"):
        if getattr(arguments, name) is None:
            parser.error(f"--{name} is needed")
    with tempfile.TemporaryDirectory(prefix="real-weights-") as folder:
        measure(arguments, Path(folder))


if __name__ == "__main__":
    main()
