"""Child process of `predictor.py`: one side, timed when the parent says so."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from keras_alexnet.benchmarking.environment import settle
from keras_alexnet.core.backend import require
from keras_alexnet.core.children import enter_child

_CALLS, _WARM_UP = 8, 3


def _pixels(batch: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (batch, 1, 224, 224, 3), np.uint8)


def _predictor(file: str, batch: int) -> Callable[[], Any]:
    from keras_alexnet.inference.predictor import Predictor

    predictor, views = Predictor.from_file(file, batch_size=batch), _pixels(batch)
    return lambda: predictor.probabilities(views)


def _optimized(file: str, batch: int) -> Callable[[], Any]:
    from scipy.special import softmax

    from keras_alexnet.data.preprocessing import normalize
    from keras_alexnet.models.weights import load_model
    from keras_alexnet.optimizing.optimize import optimize

    compute, pixels = optimize(load_model(file), batch_size=batch), _pixels(batch)[:, 0]
    return lambda: softmax(np.asarray(compute(normalize(pixels)), np.float64), axis=1)


def _torch(name: str, batch: int) -> Callable[[], Any]:
    torch, models = require("torch"), require("torchvision").models
    net = models.get_model(name, weights=None).eval().to(memory_format=torch.channels_last)
    images = torch.from_numpy(_pixels(batch)[:, 0])
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )

    def compute() -> Any:
        with torch.inference_mode():
            x = (images.permute(0, 3, 1, 2).float() / 255 - mean) / std
            return net(x).softmax(1).double().numpy()

    return compute


_SIDES = {"torch": _torch, "Predictor": _predictor, "optimize": _optimized}


class Session:
    """What is timed, made by the first job that names it."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str, int], Callable[[], Any]] = {}

    def __call__(self, job: dict[str, Any]) -> float:
        """Return the median seconds of a call."""
        key = job["by"], job["what"], job["batch"]
        if key not in self._made:
            settle(job["threads"], "cpu")
            self._made[key] = _SIDES[job["by"]](job["what"], job["batch"])
            for _ in range(_WARM_UP):
                self._made[key]()
        seconds = []
        for _ in range(_CALLS):
            start = time.perf_counter()
            self._made[key]()
            seconds.append(time.perf_counter() - start)
        return median(seconds)


if __name__ == "__main__":
    enter_child(Session())
