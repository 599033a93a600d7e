"""What a weights file says of its own network, against an architecture's table.

Names and shapes do not tell how layers are joined: CaffeNet has AlexNet's, and pools before it
normalises. A Caffe file says what each layer reads and how; whatever contradicts the architecture
is found here, by name.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from keras_alexnet.specs import schema
from porting.checkpoints.caffe_net import Net, NetLayer
from porting.weights.spec_tables import canonical


class Step(NamedTuple):
    """Something without weights that a layer's input went through, with its numbers."""

    kind: str
    numbers: tuple[float, ...] = ()

    def __str__(self) -> str:
        numbers = ", ".join(f"{number:g}" for number in self.numbers)
        return f"{self.kind} ({numbers})" if numbers else self.kind


# A layer with weights, and all between it and the reader.
Source = tuple[str, tuple[Step, ...]]


@dataclass(frozen=True)
class Node:
    """A layer with weights: its own numbers, and what it reads."""

    numbers: Mapping[str, int]
    reads: frozenset[Source]


# Layers that pass their input on at inference, or stand behind all others.
_PASSING = ("Dropout", "Split", "Flatten", "Softmax", "Data", "Input")
_INPUT = "the images"


def contradictions(net: Net, spec: schema.ModelSpec) -> list[str]:
    """Return what a file says of its network and an architecture does not, a sentence each.

    Layers that only one of the two has are none of it: their weights are missing or unexpected.
    """
    ours = _of_spec(spec)
    found = []
    for name, node in _of_net(net).items():
        own = ours.get(name)
        if own is None:
            continue
        found += [
            f"{name} has {what} {value}, {spec.name} {own.numbers[what]}"
            for what, value in node.numbers.items()
            if own.numbers[what] != value
        ]
        if not _same_sources(node.reads, own.reads):
            found.append(f"{name} reads {_words(node.reads)}; in {spec.name} {_words(own.reads)}")
    return found


def _same_sources(theirs: Iterable[Source], ours: Iterable[Source]) -> bool:
    left, right = sorted(theirs), sorted(ours)
    return len(left) == len(right) and all(
        a == b and len(steps) == len(own) and all(map(_same_step, steps, own))
        for (a, steps), (b, own) in zip(left, right, strict=True)
    )


def _same_step(theirs: Step, ours: Step) -> bool:
    return theirs.kind == ours.kind and all(
        math.isclose(a, b, rel_tol=1e-5) for a, b in zip(theirs.numbers, ours.numbers, strict=False)
    )


def _words(sources: Iterable[Source]) -> str:
    return " and ".join(
        " through ".join([name, ", ".join(map(str, steps))] if steps else [name])
        for name, steps in sorted(sources)
    )


def _of_net(net: Net) -> dict[str, Node]:
    nodes: dict[str, Node] = {}
    # What each blob is at the moment: layers that work in place write the blob that they read.
    blobs: dict[str, frozenset[Source]] = {}
    for layer in net.layers:
        reads = frozenset(s for b in layer.bottoms for s in blobs.get(b, {(_INPUT, ())}))
        if layer.kind in ("Convolution", "InnerProduct"):
            name = canonical(layer.name)
            nodes[name] = Node(_numbers_of_layer(layer), reads)
            reads = frozenset({(name, ())})
        elif layer.kind not in (*_PASSING, "Concat"):
            step = _step_of_layer(layer)
            reads = frozenset((source, (*steps, step)) for source, steps in reads)
        blobs |= dict.fromkeys(layer.tops, reads) if layer.bottoms else {}
    return nodes


def _numbers_of_layer(layer: NetLayer) -> dict[str, int]:
    """Return the numbers of a convolution, where the file has them."""
    if not layer.get("kernel_size", 0):
        return {}
    return {
        "kernel": int(layer.get("kernel_size", 1)),
        "stride": int(layer.get("stride", 1)),
        "padding": int(layer.get("pad", 0)),
        "groups": int(layer.get("group", 1)),
        "dilation": int(layer.get("dilation", 1)),
    }


def _step_of_layer(layer: NetLayer) -> Step:
    get = layer.get
    if layer.kind == "LRN" and not get("norm_region", 0):
        return _lrn(get("local_size", 5), get("alpha", 1), get("beta", 0.75), get("k", 1))
    if layer.kind == "Pooling" and get("pool", 0) == 0 and not get("global_pooling", 0):
        return _max_pool(get("kernel_size", 1), get("stride", 1), get("pad", 0))
    if layer.kind == "Pooling" and get("pool", 0) == 1:
        return Step("average pooling")
    if layer.kind == "ReLU" and get("negative_slope", 0):
        return Step("leaky ReLU", (get("negative_slope", 0),))
    return Step(layer.kind)


def _lrn(size: float, alpha: float, beta: float, k: float) -> Step:
    return Step("LRN", (size, alpha, beta, k))


def _max_pool(kernel: float, stride: float, padding: float) -> Step:
    return Step("max pooling", (kernel, stride, padding))


def _of_spec(spec: schema.ModelSpec) -> dict[str, Node]:
    nodes: dict[str, Node] = {}
    outputs: dict[str, frozenset[Source]] = {}
    images: frozenset[Source] = frozenset({(_INPUT, ())})
    body = _walk(spec.body, images, nodes, outputs)
    _walk(spec.head, body, nodes, outputs)
    for aux in spec.aux:
        _walk(aux.rows, outputs[aux.reads], nodes, outputs)
    return nodes


def _walk(
    rows: Iterable[schema.Row],
    reads: frozenset[Source],
    nodes: dict[str, Node],
    outputs: dict[str, frozenset[Source]],
) -> frozenset[Source]:
    for row in rows:
        name = canonical(row.name)
        if isinstance(row, schema.Concat):
            branches = [_walk(branch, reads, nodes, outputs) for branch in row.branches]
            reads = frozenset().union(*branches)
        elif isinstance(row, schema.Conv | schema.Dense):
            nodes[name] = Node(_numbers_of_row(row), reads)
            reads = frozenset({(name, ())})
        else:
            steps = tuple(_steps_of_row(row))
            reads = frozenset((source, (*before, *steps)) for source, before in reads)
        outputs[row.name] = reads
    return reads


def _numbers_of_row(row: schema.Row) -> dict[str, Any]:
    if not isinstance(row, schema.Conv):
        return {}
    return {
        "kernel": row.kernel,
        "stride": row.stride,
        "padding": row.padding,
        "groups": row.groups,
        "dilation": 1,
    }


def _steps_of_row(row: schema.Row) -> Iterator[Step]:
    match row:
        case schema.LRN():
            yield _lrn(row.size, row.alpha, row.beta, row.k)
        case schema.MaxPool():
            yield _max_pool(row.size, row.stride, row.padding)
        case schema.AvgPool() | schema.AdaptiveAvgPool():
            yield Step("average pooling")
        case schema.Dropout() | schema.Flatten():
            return
        case _:
            yield Step(type(row).__name__)
