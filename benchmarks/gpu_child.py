"""What `gpu.py` has done in processes of their own: peak rates, training, counting operations.

    python benchmarks/gpu_child.py peaks '{"device": "cpu", "quick": true}'
    python benchmarks/gpu_child.py epoch '{"device": "cpu", "quick": true, "model": "alexnet", ...}'
    python benchmarks/gpu_child.py macs '{"device": "cpu", "file": "a.keras", "image_size": [9, 9]}'

The result is JSON in the last line. KERAS_BACKEND says which framework trains.
"""

import json
import sys
import time
from typing import Any

import numpy as np

from keras_alexnet.benchmarking.environment import cores, settle, settle_torch
from keras_alexnet.benchmarking.plan import Competitor, Plan

_STORED = 32  # pixels, as in CIFAR
_FILL = 4  # batches before the timing
_REPEATS = 10
_TORCH_DTYPES = {"float32": "float32", "mixed_bfloat16": "bfloat16"}


def peaks(job: dict[str, Any]) -> dict[str, float]:
    """Measure what the device reaches at best, by torch.

    Returns:
        For each dtype the FLOP/s of a large square matrix product, in float32 with TF32 where the
        card has it, as everybody in the benchmark; and `"copy"`, the bytes a second that a copy of
        a large tensor reads and writes.
    """
    torch = settle_torch(job["device"])
    gpu = job["device"] == "gpu"
    device, side, megabytes = ("cuda", 8192, 2048) if gpu else ("cpu", 1024, 64)

    def seconds(work: Any) -> float:
        taken = []
        for _ in range(1 + _REPEATS):  # the first one warms up
            _synchronize(torch, gpu)
            start = time.perf_counter()
            work()
            _synchronize(torch, gpu)
            taken.append(time.perf_counter() - start)
        return min(taken[1:])

    found = {}
    with torch.inference_mode():
        for name, dtype in _TORCH_DTYPES.items():
            a, b = (
                torch.randn(side, side, device=device, dtype=getattr(torch, dtype))
                for _ in range(2)
            )
            found[name] = 2 * side**3 / seconds(lambda a=a, b=b: torch.mm(a, b))
        source = torch.randn(megabytes * 2**18, device=device)
        target = torch.empty_like(source)
        found["copy"] = 2 * source.nbytes / seconds(lambda: target.copy_(source))
    return found


def _synchronize(torch: Any, gpu: bool) -> None:
    if gpu:
        torch.cuda.synchronize()


def epoch(job: dict[str, Any]) -> dict[str, float]:
    """Train from bytes of 32 x 32 in memory, and measure the model's own step beside it.

    Returns:
        `"images"`: images per second of an epoch of `fit` from its fifth batch on, with resizing
        and mirroring in the step; `"own"`: of training steps on one normalised batch that lies on
        the device.
    """
    from keras_alexnet.benchmarking import keras_side
    from keras_alexnet.specs import find_spec
    from keras_alexnet.training.loop.hooks import fit_epoch
    from keras_alexnet.training.network import for_heads

    model, batch = job["model"], job["batch"]
    size = tuple(job["image_size"]) if job.get("image_size") else find_spec(model).default_size
    plan = Plan(
        model,
        "train",
        (batch,),
        size,
        rounds=1,
        seconds=0.1 if job["quick"] else 1.0,
        threads=cores(),
        dtype=job["dtype"],
        device=job["device"],
    )
    backend = keras_side.prepare(plan)
    watch = keras_side.open_steps(plan, Competitor("keras", backend))(batch)
    watch.warm()
    trainer, batches, timer = _training(plan, batch, job.get("cifar"), backend)
    own, end_to_end = [], []
    for number in range(1 + job["rounds"]):  # the first one compiles
        own.append(batch / watch.measure())
        fit_epoch(trainer, for_heads(batches.epoch(number), list(trainer.output)), number, timer)
        end_to_end.append(timer.rate)
    return {
        "own": float(np.median(own[1:])),
        "images": float(np.median(end_to_end[1:])),
        "ratio": float(np.median(np.divide(end_to_end[1:], own[1:]))),
    }


def macs(job: dict[str, Any]) -> int:
    """Return the multiply-accumulates of a `.keras` file for one image."""
    from keras_alexnet.core.backend import load_keras
    from keras_alexnet.models.profile import profile_model
    from keras_alexnet.models.weights import load_model

    load_keras()
    return sum(row.macs for row in profile_model(load_model(job["file"]), tuple(job["image_size"])))


def _training(plan: Plan, batch: int, cifar: str | None, backend: str) -> tuple[Any, Any, Any]:
    """Return the model that `keras_alexnet.train` trains, its batches, and a timer of epochs."""
    import keras

    from keras_alexnet.benchmarking.keras_side import wait_for_device
    from keras_alexnet.benchmarking.plan import LEARNING_RATE, MOMENTUM
    from keras_alexnet.data.augmentation.record import Augmentation
    from keras_alexnet.data.batches.plan import BatchSettings
    from keras_alexnet.data.batches.training import TrainingBatches
    from keras_alexnet.training.experiment import Experiment
    from keras_alexnet.training.network import (
        build_network,
        compile_training,
        input_preprocessing,
        training_model,
    )
    from keras_alexnet.training.optim.optimizers import create_optimizer

    augmentation = Augmentation(resize=max(plan.image_size), flip=0.5)
    experiment = Experiment(
        model=plan.model,
        augmentation=augmentation,
        batch_size=batch,
        input_size=max(plan.image_size),
        aux_heads=bool(plan.spec.aux),
        precision=plan.dtype,  # type: ignore[arg-type]
    )
    examples = _examples(cifar, batch, quick=plan.seconds < 1)
    settings = BatchSettings(
        augmentation,
        plan.image_size,
        batch,
        drop_remainder=True,
        place="device",
        channels=plan.spec.channels,
    )
    batches = TrainingBatches(
        examples,
        settings,
        framework=backend,  # type: ignore[arg-type]
    )
    network = build_network(experiment, plan.spec.classes, input_preprocessing(experiment))
    trainer = training_model(network, experiment, batches.inputs, size=plan.image_size)
    optimizer = create_optimizer("sgd", LEARNING_RATE, momentum=MOMENTUM)
    compile_training(trainer, experiment, optimizer)
    optimizer.build(trainer.trainable_variables)
    wait = wait_for_device(plan)

    class Timer(keras.callbacks.Callback):
        """Images per second from the fifth batch of an epoch on, the last one computed."""

        rate = 0.0

        def on_train_batch_end(self, number: int, logs: Any = None) -> None:
            """Begin, and end, when the device is done with the batch."""
            if number == _FILL - 1:
                wait(logs)
                self._start = time.perf_counter()
            elif number == batches.steps - 1:
                wait(logs)
                seconds = time.perf_counter() - self._start
                self.rate = (batches.steps - _FILL) * batch / seconds

    return trainer, batches, Timer()


def _examples(cifar: str | None, batch: int, *, quick: bool) -> Any:
    """Return CIFAR-10's training images, or noise of their shape; enough for some steps."""
    from keras_alexnet.data.examples import Arrays

    count = (_FILL + (4 if quick else 40)) * batch
    if cifar is not None:
        from pathlib import Path

        from keras_alexnet.data.sources.cifar import read_cifar
        from keras_alexnet.data.sources.cifar_formats import CIFAR10

        found = read_cifar(CIFAR10, Path(cifar), download=False).train
        assert isinstance(found, Arrays)
        return found.subset(np.arange(count) % len(found))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, _STORED, _STORED, 3), np.uint8)
    return Arrays(images, rng.integers(0, 10, count))


def main() -> None:
    """Do what the first argument says, with the JSON that is the second."""
    work, job = sys.argv[1], json.loads(sys.argv[2])
    settle(cores(), job["device"])
    print(json.dumps({"peaks": peaks, "epoch": epoch, "macs": macs}[work](job)))


if __name__ == "__main__":
    main()
