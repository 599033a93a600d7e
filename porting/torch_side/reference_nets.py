"""The torch network that a check compares with: the user's own, torchvision's, or the spec's."""

import contextlib
import dataclasses
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from keras_alexnet.core.backend import require
from keras_alexnet.models.interface import MAIN_OUTPUT
from keras_alexnet.specs.shared import AUX_LOSS_WEIGHT
from porting.checkpoints.files import as_tensors, read_checkpoint
from porting.checkpoints.states import under_own_names
from porting.errors import GraphError
from porting.torch_side import torchvision_zoo
from porting.torch_side.targets import Target
from porting.torch_side.user_code import call_function
from porting.weights.counterpart import Output

# What an output is called that has no name, before its place.
_PLACE = "output"
# Modules that drop whole images while training: class -> what holds its rate.
DROP_PATHS = {"StochasticDepth": "p", "DropPath": "drop_prob"}


@dataclasses.dataclass(frozen=True)
class Reference:
    """Which torch network a check compares with.

    `transform_input` is that of torchvision's GoogLeNet. `size` is the height and width of the
    images in pixels, by default the architecture's. `function` is `FILE.py:FUNCTION` of the user's
    own network, called as `function(model, classes=..., aux_heads=..., size=...)`; its state_dict
    has the architecture's keys. `target` is any torch network instead, see `targets.Target`, for
    which `transform_input` says whether its weights are torchvision's own. By default the network
    is torchvision's, or one of torch's layers after the architecture's table.
    """

    model: str
    classes: int | None
    aux_heads: bool = False
    transform_input: bool = False
    size: tuple[int, int] | None = None
    function: str | None = None
    target: str | None = None

    @property
    def title(self) -> str:
        """What it is called in results."""
        if self.target is not None:
            return Target(self.target).library or "torch"
        if self.function is not None:
            return Path(self.function.rpartition(":")[0]).name
        return "torchvision" if self.model in torchvision_zoo.NETWORKS else "torch"

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages that it is made by."""
        library = Target(self.target).library if self.target is not None else None
        return tuple(dict.fromkeys(("torch", "torchvision", library or "torch")))

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
        if self.target is not None:
            return Target(self.target).build(
                classes=self.classes,
                size=self.size,
                official=self.transform_input,
                aux_heads=self.aux_heads,
            )
        options: dict[str, Any] = {"classes": self.classes, "aux_heads": self.aux_heads}
        if self.function is not None:
            return call_function(self.function, self.model, size=self.size, **options)
        if self.model in torchvision_zoo.NETWORKS:
            return torchvision_zoo.build(
                self.model, transform_input=self.transform_input, **options
            )
        from porting.torch_side.torch_model import build_torch

        return build_torch(self.model, size=self.size, **options)


def load_weights(net: Any, weights: str | Path, ignored: Collection[str]) -> None:
    """Fill a network from a checkpoint, all of whose keys but the ignored ones it must have."""
    arrays = read_checkpoint(weights).arrays
    fill(net, {key: array for key, array in arrays.items() if key not in ignored})


def fill(net: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Load named arrays as what the network's own state_dict would hold today.

    Counters of batches, which older files lack, stay what they are.
    """
    own = net.state_dict()
    arrays = under_own_names(arrays, own)
    counters = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
    state = OrderedDict(counters | as_tensors(arrays))
    # Without it MNASNet takes them for those of an older version.
    state._metadata = own._metadata  # type: ignore[attr-defined]  # noqa: SLF001
    net.load_state_dict(state, strict=True)


def forward(net: Any, outputs: Sequence[Output], *inputs: Any) -> dict[str, Any]:
    """Run a network and its auxiliary heads, which torchvision's leaves out in inference.

    Images are (N, C, H, W). What is returned is name -> tensor, in the order of `outputs`.
    """
    maps: dict[str | None, Any] = {}
    heads = [output for output in outputs if output.module is not None]
    hooks = [
        net.get_submodule(module).register_forward_hook(
            lambda _module, _inputs, output, name=module: maps.__setitem__(name, output)
        )
        for head in heads
        for module in (head.reads, head.module)
    ]
    try:
        result = net(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    returned = named_results(result)

    def found(output: Output) -> Any:
        if output.module is None:
            # What a user's function of one of our networks calls its logits is up to it.
            main = next(iter(returned))
            return returned[main if output.name == MAIN_OUTPUT else output.name]
        # In training torchvision's GoogLeNet has run its heads.
        if output.module in maps:
            return maps[output.module]
        return net.get_submodule(output.module)(maps[output.reads])

    return {output.name: found(output) for output in outputs}


def named_results(result: Any) -> dict[str, Any]:
    """Return what a network returns as name -> tensor: `logits` first, if there are some.

    A tensor alone is called so. Those of a dict, or of a tuple with names, have their names; others
    are `output0`, `output1` ... by their places, the first one `logits` where it is (N, classes).
    Names of what lies in each other are joined by `_`.

    Raises:
        GraphError: Two have the same name.
    """
    if hasattr(result, "shape"):
        return {MAIN_OUTPUT: result}
    leaves = list(_leaves(result, ""))
    if leaves and leaves[0][0] == f"{_PLACE}0" and len(leaves[0][1].shape) == 2:
        leaves[0] = MAIN_OUTPUT, leaves[0][1]
    found = dict(sorted(leaves, key=lambda leaf: leaf[0] != MAIN_OUTPUT))
    if len(found) != len(leaves):
        raise GraphError(
            f"of its outputs two have the same name: {', '.join(n for n, _ in leaves)}"
        )
    return found


def main_result(result: Any) -> Any:
    """Return the first tensor of what a module returns, `logits` before others.

    Raises:
        StopIteration: There is none.
    """
    return next(iter(named_results(result).values()))


def _leaves(result: Any, name: str) -> Iterator[tuple[str, Any]]:
    if hasattr(result, "shape"):
        yield name, result
        return
    if hasattr(result, "_asdict"):
        result = result._asdict()
    if isinstance(result, Mapping):
        named = [(str(key), value) for key, value in result.items()]
    elif isinstance(result, list | tuple):
        named = [(str(i) if name else f"{_PLACE}{i}", value) for i, value in enumerate(result)]
    else:  # None, and numbers
        return
    for key, value in named:
        yield from _leaves(value, f"{name}_{key}" if name else key)


def batch_norms(net: Any) -> dict[str, Any]:
    """Return the batch norm layers of a network by name."""
    nn = require("torch").nn
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return {name: module for name, module in net.named_modules() if isinstance(module, kinds)}


@contextlib.contextmanager
def exact_gradients() -> Iterator[None]:
    """Within this block, let torch compute in float64 what it differentiates in float32.

    That is hardsigmoid's gradient, whose 1/6 is a float (ATen's native/cpu/Activation.cpp).
    """
    functional = require("torch").nn.functional
    stock = functional.hardsigmoid

    def hardsigmoid(x: Any, inplace: bool = False) -> Any:
        return functional.relu6(x + 3) / 6

    functional.hardsigmoid = hardsigmoid
    try:
        yield
    finally:
        functional.hardsigmoid = stock


@contextlib.contextmanager
def in_inference(net: Any) -> Iterator[None]:
    """Within this block, let every module of a network be in inference mode."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def switch_dropout_off(net: Any) -> None:
    """Let no dropout, stochastic depth among it, change what a network computes while training."""
    nn = require("torch").nn
    for module in net.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d) or type(module).__name__ in DROP_PATHS:
            setattr(module, DROP_PATHS.get(type(module).__name__, "p"), 0.0)
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0


def training_loss(outputs: Mapping[str, Any], labels: Any) -> Any:
    """Return the mean cross-entropy of the logits and of the auxiliary heads by their weight.

    `outputs` is what `forward` returned; what remains of one of `labels`, int64 (N,), divided by
    the number of classes, is the class of an image. Of maps and other outputs than (N, classes),
    half the mean of their squares stands for it.
    """
    cross_entropy = require("torch").nn.functional.cross_entropy

    def loss(output: Any) -> Any:
        if output.ndim != 2:
            return output.square().mean() / 2
        return cross_entropy(output, labels % output.shape[1])

    return sum(
        loss(output) * (1 if name == MAIN_OUTPUT else AUX_LOSS_WEIGHT)
        for name, output in outputs.items()
    )
