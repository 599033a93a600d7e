"""The operations of torch that have a counterpart in Keras: a module a family, a row an operation.

A rule takes a `call.Call` and returns the value that stands for torch's result. It computes with
layers and functions of Keras by their names (`call.layer("ReLU", ...)`, `call.op("add", ...)`), so
that the names of all operations are known without Keras.
"""

from collections.abc import Callable, Mapping
from typing import Any

from porting.graph.ops import (
    attention,
    convolution,
    elementwise,
    indexing,
    normalization,
    pooling,
    reduction,
    resizing,
    shape,
    windows,
)

_FAMILIES = (
    *(attention, convolution, elementwise, indexing, normalization, pooling, reduction),
    *(resizing, shape, windows),
)

RULES: Mapping[str, Callable[[Any], Any]] = {
    op: rule for family in _FAMILIES for op, rule in family.RULES.items()
}
assert len(RULES) == sum(len(family.RULES) for family in _FAMILIES), "an operation has two rules"
