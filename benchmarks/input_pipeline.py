"""Time the input pipelines against torchvision's DataLoader with the same transforms and cores.

    python benchmarks/input_pipeline.py [--images FOLDER] [--cifar FOLDER] [--backend tensorflow]
        [--rounds 5] [--quick]

Both sides end with normalised float32 batches. Each lives in a process of its own; they take turns.
torchvision runs with 0 workers and with one for each core; ratios are to the faster one. An epoch
is timed from its fourth batch on, so that starting it does not count. The cores' time is that of
the whole epoch and of all processes: unlike images/s it hardly depends on what else is running.
The photos of 500 x 375 are the others, enlarged, with noise that makes their files about as large
as those of ImageNet.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image
from timing import child_environment, compiled

SIZE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WARM_UP = 4  # batches
PHOTOS = 300
SMALL, LARGE = (227, 227), (500, 375)
# What enlarged photos lack of detail; 90 KB a file on average, against ImageNet's 110.
NOISE, QUALITY = 10, 92


@dataclass(frozen=True)
class Case:
    """A pipeline: which data, which transforms, and how many images an epoch takes."""

    title: str
    data: str
    transform: str
    images: int


CASES = {
    "cifar": Case("CIFAR-10: Resize(224), flip", "cifar", "resize", 6_016),
    "lab": Case("CIFAR-10: Resize(256), RandomCrop(224), flip", "cifar", "resize-crop", 6_016),
    "small": Case("JPEG 227 x 227: RandomResizedCrop(224), flip", "small", "random-resized", 3_008),
    "large": Case("JPEG 500 x 375: RandomResizedCrop(224), flip", "large", "random-resized", 1_536),
    "large-crop": Case(
        "JPEG 500 x 375: Resize(256), RandomCrop(224), flip", "large", "resize-crop", 1_536
    ),
    "small-evaluation": Case(
        "JPEG 227 x 227: Resize(256), CenterCrop(224), bit-exact", "small", "evaluation", 3_008
    ),
    "large-evaluation": Case(
        "JPEG 500 x 375: Resize(256), CenterCrop(224), bit-exact", "large", "evaluation", 1_536
    ),
}


# Images per second, and milliseconds that cores were busy for an image.
Timing = tuple[float, float]


def timed(batches: Iterable[Any], use: Callable[[Any], int]) -> Timing:
    """Return images per second from the fourth batch on, and the cores' time for all of them."""
    late, images, start, busy = 0, 0, 0.0, sum(os.times()[:4])
    for number, batch in enumerate(batches, 1):
        count = use(batch)
        images += count
        if number == WARM_UP:
            start = time.perf_counter()
        elif number > WARM_UP:
            late += count
    seconds = time.perf_counter() - start
    return late / seconds, 1e3 * (sum(os.times()[:4]) - busy) / images


def fused(backend: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of arrays, fused by XLA where the backend has it."""
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    return compiled(backend, function)


def repeated(folder: Path, count: int) -> list[Path]:
    """Return `count` paths, the same ones over and over."""
    paths = sorted(folder.glob("*.jpg"))
    return (paths * (count // len(paths) + 1))[:count]


def ours(folder: Path, batch: int) -> dict[str, Callable[[], Timing]]:
    """Return a function for each case, `case/where augmentation happens`."""
    backend = os.environ["KERAS_BACKEND"]
    from keras_alexnet import AlexNet, feature_extractor
    from keras_alexnet.data.augmentation import Augmentation
    from keras_alexnet.data.batches import TrainingBatches
    from keras_alexnet.data.device import Augment
    from keras_alexnet.data.evaluation_batches import EvaluationBatches
    from keras_alexnet.data.examples import Arrays, Files
    from keras_alexnet.preprocessing import IMAGENET

    augmentations = {
        "resize": Augmentation(resize=SIZE, flip=0.5),
        "resize-crop": Augmentation(resize=256, crop="random", flip=0.5),
        "random-resized": Augmentation(crop="random-resized", flip=0.5),
    }
    network = AlexNet(include_top=False, include_preprocessing=True, input_shape=(SIZE, SIZE, 3))
    layer = "preprocessing_normalize"
    extractor = feature_extractor(network, [layer])

    def normalized(images: Any) -> Any:
        return extractor(images)[layer]

    def training(case: Case, place: Any) -> Callable[[], Timing]:
        labels = np.zeros(case.images, np.int64)
        if case.data == "cifar":
            stored = np.load(folder / "cifar.npy")
            examples: Any = Arrays(stored[np.arange(case.images) % len(stored)], labels)
        else:
            examples = Files(tuple(repeated(folder / case.data, case.images)), labels)
        augmentation = augmentations[case.transform]
        batches = TrainingBatches(
            examples,
            augmentation,
            (SIZE, SIZE),
            batch_size=batch,
            seed=0,
            place=place,
            framework=backend,  # type: ignore[arg-type]
        )
        augment = Augment(augmentation, (SIZE, SIZE), data_format="channels_last")
        step = fused(backend, lambda inputs: normalized(augment(inputs)))
        epochs = iter(range(10**6))

        def use(found: Any) -> int:
            return len(step(found[0]))

        return lambda: timed(batches.epoch(next(epochs)), use)

    def evaluation(case: Case) -> Callable[[], Timing]:
        paths = tuple(repeated(folder / case.data, case.images))
        batches = EvaluationBatches(
            Files(paths, np.zeros(len(paths), np.int64)), IMAGENET, batch_size=batch
        )
        step = fused(backend, normalized)
        return lambda: timed(batches, lambda found: len(step(found[0])))

    functions = {}
    for name, case in CASES.items():
        if case.transform == "evaluation":
            functions[f"{name}/threads"] = evaluation(case)
        else:
            functions[f"{name}/host"] = training(case, "host")
        if case.data == "cifar":
            functions[f"{name}/device"] = training(case, "device")
    return functions


def torchvisions(folder: Path, batch: int) -> dict[str, Callable[[], Timing]]:
    """Return a function for each case, `case/number of workers`."""
    import torch
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    # More threads make the small operations of a worker slower.
    torch.set_num_threads(1)
    tail = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    flip = transforms.RandomHorizontalFlip()
    pipelines = {
        "resize": [transforms.Resize(SIZE), flip],
        "resize-crop": [transforms.Resize(256), transforms.RandomCrop(SIZE), flip],
        "random-resized": [transforms.RandomResizedCrop(SIZE), flip],
        "evaluation": [transforms.Resize(256), transforms.CenterCrop(SIZE)],
    }

    class Images(Dataset[Any]):
        def __init__(self, case: Case) -> None:
            self.count = case.images
            self.transform = transforms.Compose(pipelines[case.transform] + tail)
            self.stored = np.load(folder / "cifar.npy") if case.data == "cifar" else None
            self.paths = None if case.data == "cifar" else repeated(folder / case.data, self.count)

        def __len__(self) -> int:
            return self.count

        def __getitem__(self, index: int) -> Any:
            if self.paths is None:
                return self.transform(Image.fromarray(self.stored[index % len(self.stored)])), 0
            with Image.open(self.paths[index]) as image:
                return self.transform(image.convert("RGB")), 0

    functions = {}
    for name, case in CASES.items():
        for workers in dict.fromkeys((0, os.cpu_count() or 1)):
            loader = DataLoader(
                Images(case),
                batch,
                shuffle=case.transform != "evaluation",
                num_workers=workers,
            )
            functions[f"{name}/{workers} workers"] = lambda loader=loader: timed(
                loader, lambda found: len(found[0])
            )
    return functions


class Side:
    """A process that times what it is asked for."""

    def __init__(self, side: str, folder: Path, batch: int, backend: str) -> None:
        arguments = ["--child", side, "--folder", str(folder), "--batch", str(batch)]
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments],
            env=child_environment(backend),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.names: list[str] = self._read()

    def measure(self, name: str) -> Timing:
        """Time a function of the process."""
        assert self._process.stdin is not None
        print(name, file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit("a process of the benchmark has failed; run it with --child to see why")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def serve(functions: dict[str, Callable[[], Timing]]) -> None:
    """Time what the parent asks for; the child's side."""
    print(json.dumps(list(functions)), flush=True)
    for line in sys.stdin:
        print(json.dumps(functions[line.strip()]()), flush=True)


def write_data(folder: Path, images: Path | None, cifar: Path | None) -> None:
    """Write CIFAR's images, and photos of both sizes; synthetic ones where there are none."""
    rng = np.random.default_rng(0)
    if cifar is None:
        stored = rng.integers(0, 256, (10_000, 32, 32, 3), np.uint8)
    else:
        from keras_alexnet.data.sources import open_data

        stored = open_data("cifar10", cifar, download=False).test.images  # type: ignore[union-attr]
    np.save(folder / "cifar.npy", stored)
    found: Sequence[Path] = []
    if images is not None:
        found = sorted(p for p in images.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
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


def main() -> None:
    """Measure both sides in turn and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder of JPEG photos")
    parser.add_argument("--cifar", type=Path, help="folder with cifar-10-batches-py, or that one")
    parser.add_argument("--backend", default="tensorflow", help="of Keras, for our side")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        make = ours if arguments.child == "ours" else torchvisions
        serve(make(arguments.folder, arguments.batch))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, arguments.images, arguments.cifar)
        sides = [
            Side(side, folder, arguments.batch, arguments.backend)
            for side in ("ours", "torchvision")
        ]
        runs: dict[str, list[Timing]] = {}
        for _ in range(1 if arguments.quick else arguments.rounds):
            for case in arguments.cases:
                for side in sides:
                    for function in side.names:
                        if function.partition("/")[0] == case:
                            runs.setdefault(function, []).append(side.measure(function))
        for side in sides:
            side.close()
    print("| pipeline | by | images/s | from - to | ratio | core ms/image | ratio |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for case in arguments.cases:
        rates = {n: [r for r, _ in t] for n, t in runs.items() if n.partition("/")[0] == case}
        busy = {n: median(b for _, b in runs[n]) for n in rates}
        peer = max((n for n in rates if n.endswith("workers")), key=lambda n: median(rates[n]))
        for name in sorted(rates, key=lambda n: -median(rates[n])):
            rate, by = median(rates[name]), name.partition("/")[2]
            print(
                f"| {CASES[case].title} | {'torchvision, ' if 'workers' in by else ''}{by} "
                f"| {rate:,.0f} | {min(rates[name]):,.0f} - {max(rates[name]):,.0f} "
                f"| {rate / median(rates[peer]):.2f} "
                f"| {busy[name]:.2f} | {busy[peer] / busy[name]:.2f} |"
            )


if __name__ == "__main__":
    main()
