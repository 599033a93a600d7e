"""The input pipelines that `input_pipeline.py` times, and their data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

PHOTOS = 300
SMALL, LARGE = (227, 227), (500, 375)
# What enlarged photos lack of detail; 90 KB a file on average, against ImageNet's 110.
NOISE, QUALITY = 10, 92

# Images per second, and milliseconds that cores were busy for an image.
Timing = tuple[float, float]


@dataclass(frozen=True)
class Case:
    """A pipeline: which data, which transforms, how many images an epoch takes, and the aim.

    Attributes:
        title: What people read.
        data: `"cifar"`, or a folder that `write_data` makes.
        transform: Name of the transforms on both sides.
        images: Of an epoch.
        goal: Least ratio to torchvision.
        packed: Our side reads a folder that `write_data` has packed instead; torchvision the files.
    """

    title: str
    data: str
    transform: str
    images: int
    goal: float
    packed: str = ""


CASES = {
    "cifar": Case("CIFAR-10: Resize(224), flip", "cifar", "resize", 6_016, 6.0),
    "lab": Case("CIFAR-10: Resize(256), RandomCrop(224), flip", "cifar", "resize-crop", 6_016, 6.0),
    "small": Case(
        "JPEG 227 x 227: RandomResizedCrop(224), flip", "small", "random-resized", 3_008, 2.5
    ),
    "large": Case(
        "JPEG 500 x 375: RandomResizedCrop(224), flip", "large", "random-resized", 1_536, 2.5
    ),
    "large-crop": Case(
        "JPEG 500 x 375: Resize(256), RandomCrop(224), flip", "large", "resize-crop", 1_536, 2.5
    ),
    "packed-jpeg": Case(
        "JPEG 500 x 375, ours packed as JPEG 256: RandomResizedCrop(224), flip",
        "large",
        "random-resized",
        3_008,
        3.5,
        packed="jpeg",
    ),
    "packed-raw": Case(
        "JPEG 500 x 375, ours packed as pixels 256: RandomResizedCrop(224), flip",
        "large",
        "random-resized",
        3_008,
        8.0,
        packed="raw",
    ),
    "small-evaluation": Case(
        "JPEG 227 x 227: Resize(256), CenterCrop(224), bit-exact",
        "small",
        "evaluation",
        3_008,
        1.5,
    ),
    "large-evaluation": Case(
        "JPEG 500 x 375: Resize(256), CenterCrop(224), bit-exact",
        "large",
        "evaluation",
        1_536,
        1.5,
    ),
}


def repeated(folder: Path, count: int) -> list[Path]:
    """Return `count` paths, the same ones over and over."""
    paths = sorted(folder.glob("*.jpg"))
    return (paths * (count // len(paths) + 1))[:count]


def packed_folder(folder: Path, encoding: str) -> Path:
    """Return where the large photos are packed as `"jpeg"` or `"raw"`."""
    return folder / f"large-{encoding}"


def _pack(folder: Path, images: int) -> None:
    """Pack the large photos with a short side of 256, over and over, as many as an epoch takes."""
    from keras_alexnet.data.examples import DataSet, Files
    from keras_alexnet.data.packed.index import Encoding
    from keras_alexnet.data.packed.packer import Packing, pack_data

    paths = tuple(repeated(folder / "large", images))
    data = DataSet("photos", ("photo",), train=Files(paths, np.zeros(images, np.int64)))
    for encoding in Encoding:
        pack_data(data, packed_folder(folder, encoding), Packing(encoding, 256, shards=8))


def write_data(folder: Path, images: Path | None, cifar: Path | None) -> None:
    """Write CIFAR's images, and photos of both sizes; synthetic ones where there are none."""
    rng = np.random.default_rng(0)
    if cifar is None:
        stored = rng.integers(0, 256, (10_000, 32, 32, 3), np.uint8)
    else:
        from keras_alexnet.data.sources.registry import open_data

        stored = open_data("cifar10", cifar, download=False).test.images  # type: ignore[union-attr]
    np.save(folder / "cifar.npy", stored)
    found: Sequence[Path] = []
    if images is not None:
        found = sorted(p for p in images.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
        if not found:
            raise SystemExit(f"error: {images}: no JPEG files in this folder")
    for kind in ("small", "large"):
        (folder / kind).mkdir()
    for index in range(PHOTOS):
        if found:
            path = found[index % len(found)]
            content = path.read_bytes()
            with Image.open(path) as image:
                small = image.convert("RGB")
        else:
            coarse = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8))
            small = coarse.resize(SMALL, Image.Resampling.BICUBIC)
        target = folder / "small" / f"{index:04}.jpg"
        if found and small.size == SMALL:
            target.write_bytes(content)
        else:
            small.resize(SMALL, Image.Resampling.LANCZOS).save(target, quality=QUALITY)
        size = LARGE if index % 4 else LARGE[::-1]
        pixels = np.asarray(small.resize(size, Image.Resampling.LANCZOS)).astype(np.float32)
        pixels += NOISE * rng.standard_normal((*pixels.shape[:2], 1), np.float32)
        large = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        large.save(folder / "large" / f"{index:04}.jpg", quality=QUALITY)
    _pack(folder, max(case.images for case in CASES.values() if case.packed))
