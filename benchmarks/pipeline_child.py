"""What `input_pipeline.py` has timed in a process of its own: one side's pipelines.

    python benchmarks/pipeline_child.py ours|torchvision FOLDER BATCH

The names of its functions are JSON in the first line; each name on standard input is answered by a
timing. KERAS_BACKEND says which framework our side uses.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pipeline_cases import CASES, Case, Timing, packed_folder, repeated
from timing import compiled

SIZE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WARM_UP = 4  # batches


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


def ours(folder: Path, batch: int) -> dict[str, Callable[[], Timing]]:
    """Return a function for each case, `case/where augmentation happens`."""
    backend = os.environ["KERAS_BACKEND"]
    from keras_alexnet import AlexNet, feature_extractor
    from keras_alexnet.data.augmentation.layer import Augment
    from keras_alexnet.data.augmentation.record import Augmentation
    from keras_alexnet.data.batches.evaluation import EvaluationBatches
    from keras_alexnet.data.batches.plan import BatchSettings
    from keras_alexnet.data.batches.training import TrainingBatches
    from keras_alexnet.data.examples import Arrays, Files
    from keras_alexnet.data.packed.examples import read_packed
    from keras_alexnet.data.preprocessing import IMAGENET

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
        elif case.packed:
            examples = read_packed(packed_folder(folder, case.packed)).train
        else:
            examples = Files(tuple(repeated(folder / case.data, case.images)), labels)
        augmentation = augmentations[case.transform]
        settings = BatchSettings(augmentation, (SIZE, SIZE), batch, place=place)
        batches = TrainingBatches(
            examples,
            settings,
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
        if case.packed == "jpeg":
            transform = transforms.Compose(pipelines[case.transform] + tail)
            functions[f"{name}/WebDataset"] = webdataset(folder, batch, transform)
    return functions


def webdataset(folder: Path, batch: int, transform: Any) -> Callable[[], Timing]:
    """Return a function for the same JPEG files of 256 in archives that WebDataset reads.

    Each core's worker shuffles a buffer of 1,000 samples, as WebDataset's documentation does.
    """
    import webdataset as wds
    from torch.utils.data import DataLoader

    from keras_alexnet.data.packed.examples import read_packed

    archives = folder / "large-archives"
    archives.mkdir(exist_ok=True)
    train: Any = read_packed(packed_folder(folder, "jpeg")).train
    with wds.ShardWriter(str(archives / "%05d.tar"), maxcount=len(train) // 8, verbose=0) as write:
        for index in range(len(train)):
            write.write({"__key__": f"{index:06}", "jpg": train.content(index), "cls": 0})
    dataset = (
        wds.WebDataset(sorted(map(str, archives.glob("*.tar"))), shardshuffle=8)
        .shuffle(1000)
        .decode("pil")
        .to_tuple("jpg", "cls")
        .map_tuple(transform, lambda label: label)
    )
    loader = DataLoader(dataset, batch, num_workers=os.cpu_count() or 1)
    return lambda: timed(loader, lambda found: len(found[0]))


def serve(functions: dict[str, Callable[[], Timing]]) -> None:
    """Time what the parent asks for."""
    print(json.dumps(list(functions)), flush=True)
    for line in sys.stdin:
        print(json.dumps(functions[line.strip()]()), flush=True)


def main() -> None:
    """Make a side's functions and time them on demand."""
    side, folder, batch = sys.argv[1:]
    make = {"ours": ours, "torchvision": torchvisions}[side]
    serve(make(Path(folder), int(batch)))


if __name__ == "__main__":
    main()
