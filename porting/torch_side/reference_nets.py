"""The torch network that a check compares with: the user's own, torchvision's, or the spec's."""

import dataclasses
import importlib.util
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from keras_alexnet.core.backend import require
from keras_alexnet.specs.shared import AUX_LOSS_WEIGHT
from porting.checkpoints.files import as_tensors, read_checkpoint
from porting.errors import UsageError
from porting.torch_side import torchvision_zoo
from porting.weights.counterpart import Output

_MODULE = "porting_user_reference"


@dataclasses.dataclass(frozen=True)
class Reference:
    """Which torch network a check compares with.

    `transform_input` is that of torchvision's GoogLeNet. `size` is the height and width of the
    images in pixels, by default the architecture's. `function` is `FILE.py:FUNCTION` of the user's
    own network, see `check_function`; by default the network is torchvision's, or one of torch's
    layers after the architecture's table.
    """

    model: str
    classes: int
    aux_heads: bool = False
    transform_input: bool = False
    size: tuple[int, int] | None = None
    function: str | None = None

    @property
    def title(self) -> str:
        """What it is called in results."""
        if self.function is not None:
            return Path(self.function.rpartition(":")[0]).name
        return "torchvision" if self.model in torchvision_zoo.NETWORKS else "torch"

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Return the record whose fields travelled as JSON, which knows no tuples."""
        size = fields["size"]
        return cls(**{**fields, "size": None if size is None else tuple(size)})

    def build(self) -> Any:
        """Return the network with unspecified weights, in inference mode.

        Raises:
            UsageError: The user's function is not there, failed, or returned no `torch.nn.Module`.
        """
        options: dict[str, Any] = {"classes": self.classes, "aux_heads": self.aux_heads}
        if self.function is not None:
            return _call(self.function, self.model, size=self.size, **options)
        if self.model in torchvision_zoo.NETWORKS:
            return torchvision_zoo.build(
                self.model, transform_input=self.transform_input, **options
            )
        from porting.torch_side.torch_model import build_torch

        return build_torch(self.model, size=self.size, **options)


def load_weights(net: Any, weights: str | Path, ignored: Collection[str]) -> None:
    """Fill a network from a checkpoint, all of whose keys but the ignored ones it must have."""
    arrays = read_checkpoint(weights).arrays
    wanted = {key: array for key, array in arrays.items() if key not in ignored}
    net.load_state_dict(as_tensors(wanted), strict=True)


def forward(net: Any, images: Any, outputs: Sequence[Output]) -> dict[str, Any]:
    """Run a network and its auxiliary heads, which torchvision's leaves out in inference.

    Images are (N, C, H, W). The main output comes first in `outputs` and in what is returned:
    name -> tensor (N, classes).
    """
    maps: dict[str | None, Any] = {}
    main, *heads = outputs
    hooks = [
        net.get_submodule(module).register_forward_hook(
            lambda _module, _inputs, output, name=module: maps.__setitem__(name, output)
        )
        for head in heads
        for module in (head.reads, head.module)
    ]
    try:
        result = net(images)
    finally:
        for hook in hooks:
            hook.remove()
    # In training torchvision's GoogLeNet has run its heads, and returns a named tuple.
    found = {
        head.name: maps[head.module]
        if head.module in maps
        else net.get_submodule(head.module)(maps[head.reads])
        for head in heads
    }
    return {main.name: getattr(result, "logits", result)} | found


def batch_norms(net: Any) -> dict[str, Any]:
    """Return the batch norm layers of a network by name."""
    nn = require("torch").nn
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return {name: module for name, module in net.named_modules() if isinstance(module, kinds)}


def training_loss(outputs: Mapping[str, Any], labels: Any) -> Any:
    """Return the mean cross-entropy of the logits and of the auxiliary heads by their weight.

    `outputs` is what `forward` returned, `labels` the class of each image, int64 (N,).
    """
    cross_entropy = require("torch").nn.functional.cross_entropy
    return sum(
        cross_entropy(logits, labels) * (1 if output == "logits" else AUX_LOSS_WEIGHT)
        for output, logits in outputs.items()
    )


def check_function(reference: str) -> str:
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
