"""Torchvision's networks and their weights. The only module that imports torchvision.

Its functions import it where they are called; a process that holds TensorFlow asks `zoos`.
"""

import fnmatch
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from keras_alexnet.core.backend import require
from keras_alexnet.specs.preprocessing import Preprocessing
from porting.errors import UsageError
from porting.torch_side.initialisation import quick_initialisation
from porting.torch_side.weights_info import WeightsInfo, unknown_network
from porting.weights.table import Size

NETWORKS = ("alexnet", "googlenet")  # those that this package has tables of

# Beginnings of the SHA-256 of torchvision's files, which their names hold too: a downloaded file is
# recognised whatever it is called.
OFFICIAL_HASHES = {
    "alexnet": {"7be5be79": "IMAGENET1K_V1"},
    "googlenet": {"1378be20": "IMAGENET1K_V1"},
}

# Networks with heads that inference may leave out: the beginning of their keys, and the argument of
# torchvision's builders that says whether to make them.
_AUXILIARY = {
    "googlenet": ("aux1.", "aux_logits"),
    "inception_v3": ("AuxLogits.", "aux_logits"),
    **dict.fromkeys(("fcn_resnet50", "fcn_resnet101"), ("aux_classifier.", "aux_loss")),
    **dict.fromkeys(
        ("deeplabv3_resnet50", "deeplabv3_resnet101", "deeplabv3_mobilenet_v3_large"),
        ("aux_classifier.", "aux_loss"),
    ),
}
# Parts of torchvision.models whose networks stay outside, and why.
_OUTSIDE = {
    "detection": "it is a detector, whose non-maximum suppression has no counterpart here",
    "video": "it takes videos (N, C, T, H, W)",
    "optical_flow": "it takes two images",
    "quantization": "it is quantized; convert the network of that name without it",
}


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
        squashed = preprocessing.squash
        self.resize_size = list(
            preprocessing.squashed_size if squashed else [preprocessing.resize_size]
        )
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


def names(pattern: str) -> list[str]:
    """Return torchvision's classifiers and segmentation networks that match such as `res*`."""
    models = require("torchvision").models
    known = models.list_models(module=models) + models.list_models(module=models.segmentation)
    return fnmatch.filter(known, pattern)


def _check(name: str) -> None:
    """Check that torchvision has a classifier or segmentation network of this name.

    Raises:
        UsageError: It has none; the message names a similar one.
    """
    models = require("torchvision").models
    if name in (known := names("*")):
        return
    if name in models.list_models():
        part = models.get_model_builder(name).__module__.split(".")[2]
        raise UsageError(f"torchvision:{name} cannot be converted: {_OUTSIDE[part]}")
    raise unknown_network("torchvision", name, known)


def adapted(net: Any, arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Return weights under the keys that a network of torchvision's has: they are as they are."""
    return arrays


def has_aux_heads(name: str, keys: Collection[str]) -> bool:
    """Return whether weights of these keys are of a network with auxiliary heads."""
    beginning, _ = _AUXILIARY.get(name, (None, None))
    return beginning is not None and any(key.startswith(beginning) for key in keys)


def build_network(
    name: str,
    *,
    classes: int | None = None,
    size: Size | None = None,
    official: bool = False,
    aux_heads: bool = True,
) -> Any:
    """Return any network that `names` knows with unspecified weights, in inference mode.

    The arguments are those of `Target.build`.

    Raises:
        UsageError: torchvision has no such network, or not with these options.
    """
    _check(name)
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if name in _AUXILIARY:
        options[_AUXILIARY[name][1]] = aux_heads
    if name in ("googlenet", "inception_v3"):
        options |= {"transform_input": official, "init_weights": False}
    if _is_segmentation(name):
        options["weights_backbone"] = None
    if name.startswith("vit_") and size is not None:
        options["image_size"] = size[0]
    try:
        with quick_initialisation():
            return require("torchvision").models.get_model(name, weights=None, **options).eval()
    except ValueError as error:
        raise UsageError(f"torchvision:{name} cannot be built with {options}: {error}") from error


def info(name: str, weights: str) -> WeightsInfo:
    """Return what torchvision says of weights.

    `weights` is `"IMAGENET1K_V1"`, `"DEFAULT"` or `"GoogLeNet_Weights.IMAGENET1K_V1"`.

    Raises:
        UsageError: It knows no such network or weights.
    """
    _check(name)
    enum = require("torchvision").models.get_model_weights(name)
    wanted = weights.rpartition(".")[2]
    known = {**{entry.name: entry for entry in enum}, "DEFAULT": enum.DEFAULT}
    if wanted not in known:
        raise UsageError(
            f"torchvision has no weights {weights!r} for {name}, and there is no such file. "
            f"Known names: {', '.join(known)}"
        )
    entry = known[wanted]
    transform = entry.transforms()
    (metrics,) = entry.meta["_metrics"].values()
    # Segmentation's preset does not crop; what a network of one size sees is the middle.
    (side,) = transform.resize_size if _is_segmentation(name) else transform.crop_size
    return WeightsInfo(
        name=entry.name,
        url=entry.url,
        labels=tuple(entry.meta["categories"]),
        metrics=metrics,
        preprocessing={
            "resize_size": transform.resize_size[0],
            "crop_size": [side, side],
            "mean": transform.mean,
            "std": transform.std,
            "interpolation": transform.interpolation.value,
        },
        shape=(3, side, side),
    )


def _is_segmentation(name: str) -> bool:
    models = require("torchvision").models
    return name in models.list_models(module=models.segmentation)
