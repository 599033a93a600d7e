"""Input pipelines of training: bytes of 32 x 32 in memory to normalised batches of the input size.

Resized, mirrored at random, normalised: `keras_alexnet.data`, and torchvision's DataLoader. Images
are noise: no file is read or decoded. `benchmarks/input_pipeline.py` of the repository measures
files too.
"""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import numpy as np

from keras_alexnet.benchmarking import torchvision_side
from keras_alexnet.benchmarking.keras_side import compiled, wait_for_device
from keras_alexnet.benchmarking.plan import Competitor, Plan
from keras_alexnet.benchmarking.timing import EpochWatch
from keras_alexnet.core.backend import load_keras, require

_STORED = 32  # pixels, as in CIFAR
_IMAGES = 1500  # of an epoch, for every second that a measurement should take


# What returns the batches of the next epoch, and what ends the work on one: normalised float32
# images in the side's own layout.
Pipeline = tuple[Callable[[], Iterator[Any]], Callable[[Any], Any]]


def open_epochs(plan: Plan, competitor: Competitor) -> Callable[[int], EpochWatch]:
    """Return what makes a stopwatch for a batch size."""

    def open_batch(batch: int) -> EpochWatch:
        batches = 8 + int(plan.seconds * _IMAGES / batch)
        shape = (batches * batch, _STORED, _STORED, plan.spec.channels)
        images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        if competitor.kind == "keras":
            wait = wait_for_device(plan)
            epochs, finish = keras_pipeline(plan, images, batch)
        else:
            wait = torchvision_side.wait_for_device(plan)
            epochs, finish = torchvision_pipeline(plan, images, batch, competitor.workers or 0)
        return EpochWatch(epochs, lambda found: wait(finish(found)), batches=batches)

    return open_batch


def keras_pipeline(plan: Plan, images: np.ndarray, batch: int) -> Pipeline:
    """Return ours on this process' backend, which augments on the device.

    `images` are uint8 (N, h, w, C), R, G, B or grey.
    """
    from keras_alexnet.data.augmentation.layer import Augment
    from keras_alexnet.data.augmentation.record import Augmentation
    from keras_alexnet.data.batches.plan import BatchSettings
    from keras_alexnet.data.batches.training import TrainingBatches
    from keras_alexnet.data.examples import Arrays

    keras, record = load_keras(), plan.spec.preprocessing
    augmentation = Augmentation(resize=max(plan.image_size), flip=0.5)
    settings = BatchSettings(
        augmentation, plan.image_size, batch, place="device", channels=plan.spec.channels
    )
    examples = Arrays(images, np.zeros(len(images), np.int64))
    batches = TrainingBatches(examples, settings, framework=keras.backend.backend())
    augment = Augment(augmentation, plan.image_size, data_format="channels_last")
    mean, std = (np.asarray(values, np.float32) for values in (record.mean, record.std))

    def finish(inputs: Any) -> Any:
        x = augment(inputs)  # (N, H, W, C), 0..255
        if record.channels == "BGR":
            x = keras.ops.flip(x, -1)
        mean_, std_ = map(keras.ops.convert_to_tensor, (mean, std))
        return (x / record.scale - mean_) / std_

    numbers, step = count(), compiled(finish)
    return lambda: iter(batches.epoch(next(numbers))), lambda found: step(found[0])


def torchvision_pipeline(plan: Plan, images: np.ndarray, batch: int, workers: int) -> Pipeline:
    """Return torchvision's: a DataLoader of so many worker processes; arguments as for ours."""
    torch = require("torch")
    transforms = require("torchvision").transforms
    from PIL import Image

    record = plan.spec.preprocessing
    # More threads make the small operations of a worker slower.
    torch.set_num_threads(1)
    steps = [
        transforms.Resize(max(plan.image_size)),
        transforms.CenterCrop(plan.image_size),
        transforms.RandomHorizontalFlip(),
        transforms.PILToTensor(),
        transforms.ConvertImageDtype(torch.float32),  # 0..1
        transforms.Normalize(
            [mean * record.scale / 255 for mean in record.mean],
            [std * record.scale / 255 for std in record.std],
        ),
    ]
    if record.channels == "BGR":
        steps.insert(-1, transforms.Lambda(lambda planes: planes.flip(0)))
    transform = transforms.Compose(steps)
    mode = "L" if plan.spec.channels == 1 else "RGB"

    class Images(torch.utils.data.Dataset):  # type: ignore[name-defined]
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> Any:
            array = images[index] if mode == "RGB" else images[index, ..., 0]
            return transform(Image.fromarray(array)), 0

    loader = torch.utils.data.DataLoader(Images(), batch, shuffle=True, num_workers=workers)
    device = torchvision_side.device_name(plan)
    return lambda: iter(loader), lambda found: found[0].to(device)
