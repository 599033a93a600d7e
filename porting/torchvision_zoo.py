"""Torchvision's networks and their weights. The only module that imports torchvision.

`describe` asks a child process, so that a process that holds TensorFlow can use it; the other
functions import torchvision where they are called.
"""

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

from keras_alexnet.backend import installed, pip_line, require
from keras_alexnet.errors import MissingDependencyError
from keras_alexnet.preprocessing import Preprocessing
from keras_alexnet.specs import AuxHead
from porting.children import enter_child, run_child
from porting.errors import PortingError, UsageError

# Beginnings of the SHA-256 of torchvision's files, which their names hold too: a downloaded file is
# recognised whatever it is called.
OFFICIAL_HASHES = {
    "alexnet": {"7be5be79": "IMAGENET1K_V1"},
    "googlenet": {"1378be20": "IMAGENET1K_V1"},
}


@dataclasses.dataclass(frozen=True)
class WeightsInfo:
    """What torchvision says of one set of weights.

    Attributes:
        name: Name in torchvision, such as `IMAGENET1K_V1`.
        url: Address of the file; the name holds the beginning of its SHA-256.
        labels: Class names by index.
        metrics: Accuracies in per cent, as quoted by torchvision.
        preprocessing: Fields of the `Preprocessing` that belongs to the weights.
    """

    name: str
    url: str
    labels: tuple[str, ...]
    metrics: dict[str, float]
    preprocessing: dict[str, Any]


def describe(model: str, weights: str, *, timeout: float = 300) -> WeightsInfo:
    """Return what torchvision says of `weights`, asked in a process of its own.

    Args:
        model: Model name, such as `"googlenet"`.
        weights: `"IMAGENET1K_V1"`, `"DEFAULT"` or `"GoogLeNet_Weights.IMAGENET1K_V1"`.
        timeout: Seconds to wait for torchvision.

    Raises:
        UsageError: torchvision knows no such weights.
        MissingDependencyError: torchvision is not installed.
    """
    if not installed("torchvision"):
        raise MissingDependencyError(
            f"torchvision is needed to look up the weights {weights!r}. "
            f"Install it with: {pip_line('torchvision')}"
        )
    with tempfile.TemporaryDirectory(prefix="porting-") as folder:
        answer = Path(folder, "answer.json")
        job = {"model": model, "weights": weights, "output": str(answer)}
        run_child("porting.torchvision_zoo", job, timeout=timeout)
        fields = json.loads(answer.read_text())
    if "error" in fields:
        raise UsageError(fields["error"])
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


def forward(net: Any, images: Any, aux: tuple[AuxHead, ...] = ()) -> dict[str, Any]:
    """Run a network and its auxiliary heads, which torchvision leaves out in inference.

    Args:
        net: Torchvision's network.
        images: Tensor (N, 3, H, W).
        aux: The heads that `net` has.

    Returns:
        `"logits"` and the heads' names -> tensors (N, classes).
    """
    maps: dict[str, Any] = {}
    hooks = [
        getattr(net, head.reads).register_forward_hook(
            lambda _module, _inputs, output, name=head.name: maps.__setitem__(name, output)
        )
        for head in aux
    ]
    try:
        outputs = {"logits": net(images)}
    finally:
        for hook in hooks:
            hook.remove()
    return outputs | {name: getattr(net, name)(features) for name, features in maps.items()}


def transforms(model: str, preprocessing: Preprocessing) -> Any:
    """Return the evaluation transform of torchvision's weights, with the sizes of a record."""
    transform = require("torchvision").models.get_model_weights(model).DEFAULT.transforms()
    transform.resize_size = [preprocessing.resize_size]
    transform.crop_size = list(preprocessing.crop_size)
    return transform


def _describe_here(model: str, weights: str) -> dict[str, Any]:
    models = require("torchvision").models
    enum = models.get_model_weights(model)
    name = weights.rpartition(".")[2]
    known = {**{entry.name: entry for entry in enum}, "DEFAULT": enum.DEFAULT}
    if name not in known:
        return {
            "error": f"torchvision has no weights {weights!r} for {model}, and there is no such "
            f"file. Known names: {', '.join(known)}"
        }
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
        },
    )
    return dataclasses.asdict(info)


def main(job: dict[str, Any]) -> None:
    """Answer a question of `describe`; the child's side of it."""
    try:
        answer = _describe_here(job["model"], job["weights"])
    except (ImportError, PortingError) as error:
        answer = {"error": str(error)}
    Path(job["output"]).write_text(json.dumps(answer))


if __name__ == "__main__":
    enter_child(main)
