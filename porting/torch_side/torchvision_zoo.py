"""Torchvision's networks and their weights. The only module that imports torchvision.

`describe` asks a child process, so that a process that holds TensorFlow can use it; the other
functions import torchvision where they are called.
"""

import dataclasses
import difflib
from collections.abc import Callable
from functools import partial
from typing import Any

from keras_alexnet.core.backend import installed, pip_line, require
from keras_alexnet.core.children import call_child, enter_child
from keras_alexnet.errors import MissingDependencyError
from keras_alexnet.specs.preprocessing import Preprocessing
from porting.errors import UsageError

NETWORKS = ("alexnet", "googlenet")

# Beginnings of the SHA-256 of torchvision's files, which their names hold too: a downloaded file is
# recognised whatever it is called.
OFFICIAL_HASHES = {
    "alexnet": {"7be5be79": "IMAGENET1K_V1"},
    "googlenet": {"1378be20": "IMAGENET1K_V1"},
}


@dataclasses.dataclass(frozen=True)
class WeightsInfo:
    """What torchvision says of one set of weights, such as `IMAGENET1K_V1`.

    The file's name in `url` holds the beginning of its SHA-256. `labels` are the class names by
    index, `metrics` accuracies in per cent, `preprocessing` the fields of a `Preprocessing`.
    """

    name: str
    url: str
    labels: tuple[str, ...]
    metrics: dict[str, float]
    preprocessing: dict[str, Any]


def describe(
    model: str,
    weights: str,
    *,
    timeout: float = 300,
    ask: Callable[[dict[str, Any]], Any] | None = None,
) -> WeightsInfo:
    """Return what torchvision says of `weights`, asked in a process of its own.

    `weights` is `"IMAGENET1K_V1"`, `"DEFAULT"` or `"GoogLeNet_Weights.IMAGENET1K_V1"`, `timeout`
    the seconds to wait for torchvision. A child that has imported it already can be the one to
    `ask`, which has `main` answer.

    Raises:
        UsageError: torchvision knows no such weights.
        MissingDependencyError: torchvision is not installed.
    """
    if not installed("torchvision"):
        raise MissingDependencyError(
            f"torchvision is needed for {model} and its weights {weights!r}. "
            f"Install it with: {pip_line('torchvision')}"
        )
    job = {"model": model, "weights": weights}
    if ask is None:
        ask = partial(call_child, "porting.torch_side.torchvision_zoo", timeout=timeout)
    fields = ask(job)
    return WeightsInfo(**{**fields, "labels": tuple(fields["labels"])})


def build(model: str, *, classes: int, aux_heads: bool, transform_input: bool) -> Any:
    """Return torchvision's network with unspecified weights, in inference mode."""
    models = require("torchvision").models
    options: dict[str, Any] = {}
    if model == "googlenet":
        # init_weights=True draws from SciPy's slow truncated normal, for nothing here.
        options = {
            "aux_logits": aux_heads,
            "transform_input": transform_input,
            "init_weights": False,
        }
    return models.get_model(model, weights=None, num_classes=classes, **options).eval()


def transforms(model: str, preprocessing: Preprocessing) -> Any:
    """Return an evaluation transform with the sizes of a record: image or tensor -> (C, H, W).

    It is torchvision's own preset for its own networks, and made of torchvision's functions
    elsewhere.
    """
    models = require("torchvision").models
    if model not in NETWORKS:
        return _Evaluation(preprocessing)
    transform = models.get_model_weights(model).DEFAULT.transforms()
    transform.resize_size = [preprocessing.resize_size]
    transform.crop_size = list(preprocessing.crop_size)
    transform.interpolation = _interpolation(preprocessing)
    return transform


def cropped(image: Any, transform: Any) -> Any:
    """Return an image or tensor resized and cropped as a transform of `transforms` does it."""
    functional = require("torchvision").transforms.functional
    filters = {"interpolation": transform.interpolation, "antialias": transform.antialias}
    return functional.center_crop(
        functional.resize(image, transform.resize_size, **filters), transform.crop_size
    )


def _interpolation(preprocessing: Preprocessing) -> Any:
    return require("torchvision").transforms.InterpolationMode(preprocessing.interpolation)


class _Evaluation:
    """What torchvision's preset does, for networks with other channels and ranges."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing
        self.resize_size = [preprocessing.resize_size]
        self.crop_size = list(preprocessing.crop_size)
        self.interpolation = _interpolation(preprocessing)
        self.antialias = True

    def __call__(self, image: Any) -> Any:
        torch = require("torch")
        functional = require("torchvision").transforms.functional
        image = cropped(image, self)
        planes = image if isinstance(image, torch.Tensor) else functional.pil_to_tensor(image)
        if self.preprocessing.channels == "BGR":
            planes = planes.flip(-3)
        unit = self.preprocessing.scale == 255
        planes = functional.convert_image_dtype(planes) if unit else planes.float()
        return functional.normalize(planes, self.preprocessing.mean, self.preprocessing.std)


def classifiers() -> list[str]:
    """Return the names of torchvision's classifiers."""
    models = require("torchvision").models
    return list(models.list_models(module=models))


def check_classifier(name: str) -> None:
    """Check that torchvision has a classifier of this name.

    Raises:
        UsageError: It has none; the message names a similar one.
    """
    known = classifiers()
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}"
        raise UsageError(f"torchvision has no classifier {name!r}. {hint}")


def main(job: dict[str, Any]) -> Any:
    """Answer a question about torchvision: its classifiers, or one of `describe`."""
    if job.get("list"):
        return classifiers()
    model, weights = job["model"], job["weights"]
    check_classifier(model)
    models = require("torchvision").models
    enum = models.get_model_weights(model)
    name = weights.rpartition(".")[2]
    known = {**{entry.name: entry for entry in enum}, "DEFAULT": enum.DEFAULT}
    if name not in known:
        raise UsageError(
            f"torchvision has no weights {weights!r} for {model}, and there is no such file. "
            f"Known names: {', '.join(known)}"
        )
    entry = known[name]
    transform = entry.transforms()
    info = WeightsInfo(
        name=entry.name,
        url=entry.url,
        labels=tuple(entry.meta["categories"]),
        metrics=entry.meta["_metrics"]["ImageNet-1K"],
        preprocessing={
            "resize_size": transform.resize_size[0],
            "crop_size": [transform.crop_size[0]] * 2,
            "mean": transform.mean,
            "std": transform.std,
            "interpolation": transform.interpolation.value,
        },
    )
    return dataclasses.asdict(info)


if __name__ == "__main__":
    enter_child(main)
