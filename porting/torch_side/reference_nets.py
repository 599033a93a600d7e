"""The torch network that a check compares with: the user's own, torchvision's, or the spec's."""

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_alexnet.core.backend import require
from keras_alexnet.specs import SPECS
from keras_alexnet.specs.schema import AuxHead
from porting.checkpoints.files import as_tensors, read_checkpoint
from porting.checks.inputs import AUX_LOSS_WEIGHT
from porting.errors import UsageError
from porting.torch_side import torchvision_zoo

_MODULE = "porting_user_reference"


def build(
    model: str,
    *,
    classes: int,
    aux_heads: bool = False,
    transform_input: bool = False,
    size: tuple[int, int] | None = None,
    reference: str | None = None,
) -> Any:
    """Return the reference network with unspecified weights, in inference mode.

    Args:
        model: Architecture.
        classes: Number of classes.
        aux_heads: Whether to include the auxiliary classifiers.
        transform_input: Whether torchvision's GoogLeNet applies it.
        size: Height and width of the images in pixels; by default the spec's.
        reference: `FILE.py:FUNCTION` of the user's own network, see `check_reference`.

    Raises:
        UsageError: The user's function is not there, failed, or returned no `torch.nn.Module`.
    """
    if reference is not None:
        return _call(reference, model, classes=classes, aux_heads=aux_heads, size=size)
    if model in torchvision_zoo.NETWORKS:
        return torchvision_zoo.build(
            model, classes=classes, aux_heads=aux_heads, transform_input=transform_input
        )
    from porting.torch_side.torch_model import build_torch

    return build_torch(model, classes=classes, aux_heads=aux_heads, size=size)


def load_weights(net: Any, model: str, weights: str | Path, *, aux_heads: bool) -> None:
    """Fill a network of `build` from a checkpoint.

    Args:
        net: The network.
        model: Architecture.
        weights: The checkpoint; auxiliary heads in it may be left out.
        aux_heads: Whether the network has them.
    """
    unwanted = () if aux_heads else tuple(f"{aux.name}." for aux in SPECS[model].aux)
    arrays = read_checkpoint(weights).arrays
    wanted = {key: array for key, array in arrays.items() if not key.startswith(unwanted)}
    net.load_state_dict(as_tensors(wanted), strict=True)


def title(model: str, reference: str | None) -> str:
    """Return what the reference of a check is called in its results."""
    if reference is not None:
        return Path(reference.rpartition(":")[0]).name
    return "torchvision" if model in torchvision_zoo.NETWORKS else "torch"


def forward(net: Any, images: Any, aux: tuple[AuxHead, ...] = ()) -> dict[str, Any]:
    """Run a network and its auxiliary heads, which torchvision's leaves out in inference.

    Args:
        net: The network; a head is a submodule with the head's name.
        images: Tensor (N, C, H, W).
        aux: The heads that `net` has.

    Returns:
        `"logits"` and the heads' names -> tensors (N, classes).
    """
    maps: dict[str, Any] = {}
    hooks = [
        net.get_submodule(module).register_forward_hook(
            lambda _module, _inputs, output, name=module: maps.__setitem__(name, output)
        )
        for head in aux
        for module in (head.reads, head.name)
    ]
    try:
        outputs = net(images)
    finally:
        for hook in hooks:
            hook.remove()
    # In training torchvision's GoogLeNet has run its heads, and returns a named tuple.
    heads = {
        head.name: maps[head.name]
        if head.name in maps
        else net.get_submodule(head.name)(maps[head.reads])
        for head in aux
    }
    return {"logits": getattr(outputs, "logits", outputs)} | heads


def training_loss(outputs: Mapping[str, Any], labels: Any) -> Any:
    """Return the mean cross-entropy of the logits and of the auxiliary heads by their weight.

    Args:
        outputs: What `forward` returned.
        labels: Class of each image, int64 (N,).
    """
    cross_entropy = require("torch").nn.functional.cross_entropy
    return sum(
        cross_entropy(logits, labels) * (1 if output == "logits" else AUX_LOSS_WEIGHT)
        for output, logits in outputs.items()
    )


def check_reference(reference: str) -> str:
    """Return `FILE.py:FUNCTION` with an absolute path.

    The function is called as `function(model, classes=..., aux_heads=..., size=...)` and returns a
    `torch.nn.Module` that takes images (N, C, H, W) and returns logits (N, classes). Its
    state_dict has the architecture's keys.

    Raises:
        UsageError: The text has another form, or there is no such file.
    """
    file, _, function = reference.rpartition(":")
    if not (file.endswith(".py") and function.isidentifier()):
        raise UsageError(f"reference {reference!r} is not of the form FILE.py:FUNCTION")
    if not Path(file).is_file():
        raise UsageError(f"{file}: no such Python file")
    return f"{Path(file).resolve()}:{function}"


def _call(reference: str, model: str, **arguments: Any) -> Any:
    file, _, function = reference.rpartition(":")
    spec = importlib.util.spec_from_file_location(_MODULE, file)
    assert spec is not None  # the name ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
        net = getattr(module, function)(model, **arguments)
    except Exception as error:
        # Whatever the user's file happens to raise.
        raise UsageError(f"{reference} failed: {type(error).__name__}: {error}") from error
    if not isinstance(net, require("torch").nn.Module):
        raise UsageError(f"{reference} returned {type(net).__name__}, wanted a torch.nn.Module")
    return net.eval()
