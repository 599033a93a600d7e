"""A spec as a torch network: the reference for architectures that torchvision does not have.

It consists of torch's own layers with torch's own padding, ceil mode, groups and normalisation, and
shares nothing with the Keras side but the table. Imports torch when it is imported.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from keras_alexnet.core.backend import require
from keras_alexnet.specs import find_spec, schema
from keras_alexnet.specs.shapes import Traced, conv_padding, trace

torch = require("torch")
nn = torch.nn


class SameConv2d(nn.Conv2d):  # type: ignore[name-defined]
    """A convolution with TensorFlow's "same" padding, which torch has for stride 1 alone."""

    def __init__(self, row: schema.Conv, channels: int) -> None:
        super().__init__(
            channels, row.filters, row.kernel, row.stride, bias=row.bias, groups=row.groups
        )
        self.row = row

    def forward(self, x: Any) -> Any:
        """Pad and convolve (N, C, H, W)."""
        top, bottom = conv_padding(x.shape[2], self.row)
        left, right = conv_padding(x.shape[3], self.row)
        return super().forward(nn.functional.pad(x, (left, right, top, bottom)))


class Paths(nn.Module):  # type: ignore[name-defined]
    """Chains of named children from one input, their outputs concatenated along the channels."""

    def __init__(self, paths: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self.paths = [tuple(path) for path in paths]
        for path in paths:
            for name, module in path.items():
                self.add_module(name, module)

    def forward(self, x: Any) -> Any:
        """Run every chain."""
        outputs = []
        for path in self.paths:
            y = x
            for name in path:
                y = self.get_submodule(name)(y)
            outputs.append(y)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


def build_torch(
    name: str,
    *,
    classes: int | None = None,
    aux_heads: bool = False,
    size: tuple[int, int] | None = None,
) -> Any:
    """Return a model's torch network in inference mode, with new weights.

    Its state_dict has the keys of the model's weight table. The forward pass takes images
    (N, C, H, W) and returns the logits (N, classes); auxiliary heads are submodules that it does
    not call.

    Args:
        name: Name of the model.
        classes: Number of classes; by default the model's.
        aux_heads: Whether to include the auxiliary classifiers.
        size: Height and width of the images in pixels; by default the model's.

    Raises:
        UnknownModelError: No model has this name.
        ValueError: The images are too small for the network.

    Example:
        >>> sum(p.numel() for p in build_torch("lenet5").parameters())
        61706
    """
    spec = find_spec(name)
    traced = {
        step.row.name: step for step in trace(spec, classes=classes, size=size, aux_heads=aux_heads)
    }
    build = _Builder(traced, spec.dropout_rate)
    net = Paths([build.children((*spec.body, *spec.head), 0)])
    for aux in spec.aux if aux_heads else ():
        net.add_module(aux.name, Paths([build.children(aux.rows, 1)]))
    return net.eval()


class _Builder:
    """Turns rows into modules nested by the parts of their names."""

    def __init__(self, traced: Mapping[str, Traced], dropout_rate: float) -> None:
        self._traced = traced
        self._dropout_rate = dropout_rate

    def children(self, rows: Sequence[schema.Row], depth: int) -> OrderedDict[str, Any]:
        """Return the chain of modules called by part `depth` of the rows' names."""
        chain: OrderedDict[str, Any] = OrderedDict()
        for part, group in groupby(rows, key=lambda row: row.name.split(".")[depth]):
            below = list(group)
            if part in chain:
                raise ValueError(f"rows below {part!r} are not neighbours: {below[0].name}")
            inside = len(below[0].name.split(".")) > depth + 1
            chain[part] = (
                Paths([self.children(below, depth + 1)]) if inside else self._leaf(below[0])
            )
        return chain

    def _leaf(self, row: schema.Row) -> Any:
        if isinstance(row, schema.Concat):
            depth = len(row.name.split("."))
            return Paths([self.children(branch, depth) for branch in row.branches])
        if isinstance(row, schema.Dropout):
            return nn.Dropout(self._dropout_rate if row.rate is None else row.rate)
        return _LEAVES[type(row)](row, self._traced[row.name])


def _conv(row: schema.Conv, step: Traced) -> Any:
    if row.padding == "same":
        return SameConv2d(row, step.before[0])
    return nn.Conv2d(
        step.before[0],
        row.filters,
        row.kernel,
        row.stride,
        row.padding,
        bias=row.bias,
        groups=row.groups,
    )


def _batch_norm(row: schema.BatchNorm, step: Traced) -> Any:
    kind = nn.BatchNorm2d if len(step.before) == 3 else nn.BatchNorm1d
    return kind(step.before[0], eps=row.eps, momentum=row.momentum)


_LEAVES: Mapping[type[schema.Row], Callable[[Any, Traced], Any]] = {
    schema.Conv: _conv,
    schema.BatchNorm: _batch_norm,
    schema.LRN: lambda row, _: nn.LocalResponseNorm(row.size, row.alpha, row.beta, row.k),
    schema.ReLU: lambda _row, _: nn.ReLU(),
    schema.Sigmoid: lambda _row, _: nn.Sigmoid(),
    schema.MaxPool: lambda row, _: nn.MaxPool2d(
        row.size, row.stride, row.padding, ceil_mode=row.ceil
    ),
    schema.AvgPool: lambda row, _: nn.AvgPool2d(row.size, row.stride),
    schema.AdaptiveAvgPool: lambda row, _: nn.AdaptiveAvgPool2d(row.size),
    schema.Flatten: lambda _row, _: nn.Flatten(),
    schema.Dense: lambda _, step: nn.Linear(step.before[0], step.after[0]),
}
