"""The profile of a network, from its spec alone: no framework, no weights.

For every layer its shapes, window, receptive field, stride in the image, and cost.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from keras_alexnet.errors import ConfigurationError
from keras_alexnet.specs import schema
from keras_alexnet.specs.shapes import Traced, conv_padding, too_small, trace
from keras_alexnet.summary.costs import (
    FLOAT32,
    Cost,
    Uncounted,
    adaptive_windows,
    row_cost,
    row_uncounted,
)

# Height (before, behind) and width (before, behind).
Padding = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class LayerProfile:
    """One layer; shapes are (C, H, W) or (features,).

    Kernel and stride are in pixels of the input, None where no window slides over it; receptive
    field and jump are in pixels of the image.
    """

    name: str  # of the Keras layer
    kind: str  # of its row in the spec
    input: tuple[int, ...]  # of a Concat, what its branches read
    output: tuple[int, ...]
    kernel: int | None  # side of its window
    stride: int | None
    padding: Padding | None  # zeros around its input that its windows are laid over at this size
    receptive_field: int | None  # the longer side; None if an output element sees all of the image
    jump: int | None  # total stride; None where there is no constant one
    cost: Cost  # what it adds to the totals
    uncounted: Uncounted | None  # what torchstat's columns leave out


@dataclass(frozen=True)
class Profile:
    """A network at one input size, its layers in torch's order of definition."""

    spec: schema.ModelSpec
    size: tuple[int, int]
    classes: int
    aux_heads: bool
    rows: tuple[LayerProfile, ...]

    @cached_property
    def by_name(self) -> Mapping[str, LayerProfile]:
        """The layers by name."""
        return {row.name: row for row in self.rows}

    @property
    def totals(self) -> Cost:
        """The sum over all layers."""
        return sum((row.cost for row in self.rows), Cost())

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on this network's totals, foremost what torchstat's columns leave out."""
        totals = self.totals
        notes = [
            f"One image in float32: {totals.memory / 2**20:.2f} MiB of activations, "
            f"{FLOAT32 * totals.parameters / 2**20:.2f} MiB of parameters."
        ]
        left_out: dict[tuple[str, str], Uncounted] = {}
        for found in filter(None, (row.uncounted for row in self.rows)):
            kind, rule, *_ = found
            so_far = left_out.get((kind, rule), Uncounted(kind, rule, 0, 0))
            left_out[kind, rule] = Uncounted(
                kind, rule, so_far.flops + found.flops, so_far.madd + found.madd
            )
        if left_out:
            notes.append(
                "torchstat has no rule for some kinds of layers in this network and counts 0 for "
                "them, and so do the columns FLOPs and MAdd. What that leaves out, by an obvious "
                "count: " + "; ".join(map(str, left_out.values())) + "."
            )
        return tuple(notes)


def profile(
    spec: schema.ModelSpec,
    *,
    size: tuple[int, int] | None = None,
    classes: int | None = None,
    aux_heads: bool = False,
) -> Profile:
    """Return the cost of every layer of a network.

    Height and width in pixels and the number of classes are the spec's where they are None.

    Raises:
        ConfigurationError: A feature map vanishes at this size, there is no class, or the network
            has no auxiliary heads.
    """
    size = size or spec.default_size
    classes = spec.classes if classes is None else classes
    if classes < 1:
        raise ConfigurationError(f"classes must be a positive integer, got {classes!r}")
    if aux_heads and not spec.aux:
        raise ConfigurationError(f"{spec.name} has no auxiliary heads")
    if problem := too_small(spec, size, aux_heads=aux_heads):
        raise ConfigurationError(problem)
    steps = trace(spec, size=size, classes=classes, aux_heads=aux_heads)
    traced = {step.row.name: step for step in steps}
    seen: dict[str, View] = {}
    rows = [*_layers(spec.body, View(1, 1), traced, seen)]
    for aux in spec.aux if aux_heads else ():
        rows += _layers(aux.rows, seen[aux.reads], traced, seen)
    rows += _layers(spec.head, seen[spec.body[-1].name], traced, seen)
    return Profile(spec, size, classes, aux_heads, tuple(rows))


class View(NamedTuple):
    """What an output element sees: pixels along one axis (None: all), and the step to the next."""

    field: int | None
    jump: int | None

    def through(self, window: int, stride: int | None) -> "View":
        """Return the view of an element of the next layer; `stride` is None for uneven steps.

        A window over elements with uneven steps counts as seeing all.
        """
        if self.field is None or (self.jump is None and window > 1):
            return View(None, None)
        wider = self.field + (window - 1) * (self.jump or 0)
        return View(wider, self.jump * stride if self.jump and stride else None)


def _layers(
    rows: tuple[schema.Row, ...], view: View, traced: Mapping[str, Traced], seen: dict[str, View]
) -> Iterator[LayerProfile]:
    """Yield the layers of a chain that starts from `view`, entering each one's view into `seen`."""
    for row in rows:
        _, before, after = traced[row.name]
        if isinstance(row, schema.Concat):
            for branch in row.branches:
                yield from _layers(branch, view, traced, seen)
            ends = [seen[branch[-1].name] for branch in row.branches]
            view = max(ends, key=lambda end: float("inf") if end.field is None else end.field)
        else:
            view = _view(row, before, view)
        seen[row.name] = view
        yield LayerProfile(
            schema.keras_name(row.name),
            type(row).__name__,
            before,
            after,
            *_window(row, before, after),
            *view,
            row_cost(row, before, after),
            row_uncounted(row, before, after),
        )


def _view(row: schema.Row, before: tuple[int, ...], view: View) -> View:
    match row:
        case (
            schema.Conv(kernel=window, stride=stride)
            | schema.MaxPool(size=window, stride=stride)
            | schema.AvgPool(size=window, stride=stride)
        ):
            return view.through(window, stride)
        case schema.Dense() | schema.AdaptiveAvgPool(size=1):
            return View(None, None)
        case schema.AdaptiveAvgPool(size=size):
            window = max(max(adaptive_windows(n, size)) for n in before[1:])
            even = all(n == window * size for n in before[1:])
            return view.through(window, window if even else None)
    return view


def _window(
    row: schema.Row, before: tuple[int, ...], after: tuple[int, ...]
) -> tuple[int | None, int | None, Padding | None]:
    """Return kernel, stride and padding in effect."""
    match row:
        case schema.Conv():
            top, left = (conv_padding(n, row) for n in before[1:])
            return row.kernel, row.stride, (top, left)
        case schema.MaxPool():
            # A ceil-mode pool's last window may reach further than its padding, at some sizes.
            reach = [(n - 1) * row.stride + row.size - row.padding for n in after[1:]]
            rows, columns = (
                max(row.padding, end - n) for end, n in zip(reach, before[1:], strict=True)
            )
            return row.size, row.stride, ((row.padding, rows), (row.padding, columns))
        case schema.AvgPool():
            return row.size, row.stride, ((0, 0), (0, 0))
    return None, None, None
