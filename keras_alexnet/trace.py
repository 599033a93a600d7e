"""Shapes along a spec, by arithmetic alone: what the weight maps and checks read."""

from collections.abc import Iterator
from typing import NamedTuple

from keras_alexnet.specs import (
    AdaptiveAvgPool,
    Concat,
    Conv,
    Dense,
    Flatten,
    MaxPool,
    ModelSpec,
    Row,
)


class Traced(NamedTuple):
    """A row with the shapes, (C, H, W) or (features,), around it."""

    row: Row
    before: tuple[int, ...]
    after: tuple[int, ...]


def trace(
    spec: ModelSpec,
    *,
    classes: int = 1000,
    size: tuple[int, int] | None = None,
    channels: int = 3,
    aux_heads: bool = True,
    include_top: bool = True,
) -> Iterator[Traced]:
    """Walk a network in torch's order of definition and yield each row with its shapes.

    Args:
        spec: The network.
        classes: Number of classes.
        size: Input height and width in pixels; by default the spec's.
        channels: Input channels.
        aux_heads: Whether the auxiliary classifiers are included.
        include_top: Whether the head is included.

    Yields:
        `Traced` rows; branches of a `Concat` come before it.

    Raises:
        ValueError: A feature map would vanish at this size.
    """
    height, width = size or (spec.default_size, spec.default_size)
    outputs: dict[str, tuple[int, ...]] = {}
    shape: tuple[int, ...] = (channels, height, width)
    for traced in _trace_rows(spec.body, shape, classes):
        outputs[traced.row.name] = traced.after
        yield traced
    shape = outputs[spec.body[-1].name]
    for aux in spec.aux if aux_heads else ():
        yield from _trace_rows(aux.rows, outputs[aux.reads], classes)
    if include_top:
        yield from _trace_rows(spec.head, shape, classes)


def _trace_rows(rows: tuple[Row, ...], shape: tuple[int, ...], classes: int) -> Iterator[Traced]:
    for row in rows:
        if isinstance(row, Concat):
            channels = 0
            for branch in row.branches:
                *inner, last = _trace_rows(branch, shape, classes)
                yield from (*inner, last)
                channels += last.after[0]
            after: tuple[int, ...] = (channels, *last.after[1:])
        else:
            after = _shape_after(row, shape, classes)
        if min(after) < 1:
            raise ValueError(f"the feature map vanishes at {row.name} (its input is {shape[1:]})")
        yield Traced(row, shape, after)
        shape = after


def _shape_after(row: Row, shape: tuple[int, ...], classes: int) -> tuple[int, ...]:
    match row:
        case Conv():
            sizes = [(n + 2 * row.padding - row.kernel) // row.stride + 1 for n in shape[1:]]
            return (row.filters, *sizes)
        case MaxPool():
            return (shape[0], *(pooled_size(n, row) for n in shape[1:]))
        case AdaptiveAvgPool():
            return (shape[0], row.size, row.size)
        case Flatten():
            return (shape[0] * shape[1] * shape[2],)
        case Dense():
            return (classes if row.units is None else row.units,)
    return shape


def pooled_size(size: int, pool: MaxPool) -> int:
    """Return torch's output size of `pool` along an axis of `size` pixels (0 where it vanishes)."""
    span = size + 2 * pool.padding - pool.size
    if not pool.ceil:
        return max(span // pool.stride + 1, 0)
    count = -(-span // pool.stride) + 1
    # torch drops a last window that would start beyond the input and its leading padding.
    if (count - 1) * pool.stride >= size + pool.padding:
        count -= 1
    return max(count, 0) if span > -pool.stride else 0
