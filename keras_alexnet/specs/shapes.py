"""Shapes along a spec, by arithmetic alone: what the weight maps, checks and profiles read."""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import NamedTuple

from keras_alexnet.specs import schema


class Traced(NamedTuple):
    """A row with the shapes, (C, H, W) or (features,), around it."""

    row: schema.Row
    before: tuple[int, ...]
    after: tuple[int, ...]


def trace(
    spec: schema.ModelSpec,
    *,
    classes: int | None = None,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    aux_heads: bool = True,
    include_top: bool = True,
) -> Iterator[Traced]:
    """Walk a network in torch's order of definition and yield each row with its shapes.

    Branches of a `Concat` come before it. What is None is the spec's; `size` is the input's height
    and width in pixels.

    Raises:
        ValueError: A feature map would vanish at this size.
    """
    classes = spec.classes if classes is None else classes
    outputs: dict[str, tuple[int, ...]] = {}
    shape: tuple[int, ...] = (channels or spec.channels, *(size or spec.default_size))
    for traced in _trace_rows(spec.body, shape, classes):
        outputs[traced.row.name] = traced.after
        yield traced
    shape = outputs[spec.body[-1].name]
    for aux in spec.aux if aux_heads else ():
        yield from _trace_rows(aux.rows, outputs[aux.reads], classes)
    if include_top:
        yield from _trace_rows(spec.head, shape, classes)


def min_size(spec: schema.ModelSpec, *, aux_heads: bool = False) -> int:
    """Return the smallest height and width in pixels at which no feature map vanishes."""
    return next(n for n in count(1) if _fits(spec, (n, n), aux_heads))


def too_small(
    spec: schema.ModelSpec, size: Sequence[int | None], *, aux_heads: bool = False
) -> str | None:
    """Return a sentence where images are too small for a network, else None.

    `size` is height and width in pixels, None where it varies.
    """
    height, width = (
        own if n is None else n for n, own in zip(size, spec.default_size, strict=True)
    )
    if _fits(spec, (height, width), aux_heads):
        return None
    least = min_size(spec, aux_heads=aux_heads)
    heads = " with auxiliary heads" if aux_heads else ""
    return (
        f"{spec.name}{heads} needs images of at least {least} x {least} pixels, as its feature map "
        f"vanishes below; got {size[0]} x {size[1]}"
    )


def _fits(spec: schema.ModelSpec, size: tuple[int, int], aux_heads: bool) -> bool:
    """Say whether no feature map of a network vanishes at a height and width."""
    try:
        list(trace(spec, size=size, aux_heads=aux_heads))
    except ValueError:
        return False
    return True


def _trace_rows(
    rows: tuple[schema.Row, ...], shape: tuple[int, ...], classes: int
) -> Iterator[Traced]:
    for row in rows:
        if isinstance(row, schema.Concat):
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


def _shape_after(row: schema.Row, shape: tuple[int, ...], classes: int) -> tuple[int, ...]:
    match row:
        case schema.Conv():
            return (row.filters, *(convolved_size(n, row) for n in shape[1:]))
        case schema.MaxPool():
            return (shape[0], *(pooled_size(n, row) for n in shape[1:]))
        case schema.AvgPool():
            return (shape[0], *((n - row.size) // row.stride + 1 for n in shape[1:]))
        case schema.AdaptiveAvgPool():
            return (shape[0], row.size, row.size)
        case schema.Flatten():
            return (shape[0] * shape[1] * shape[2],)
        case schema.Dense():
            return (classes if row.units is None else row.units,)
    return shape


def convolved_size(size: int, conv: schema.Conv) -> int:
    """Return the output size of `conv` along an axis of `size` pixels (below 1 if it vanishes)."""
    if conv.padding == "same":
        return -(-size // conv.stride)
    return (size + 2 * conv.padding - conv.kernel) // conv.stride + 1


def conv_padding(size: int, conv: schema.Conv) -> tuple[int, int]:
    """Return the zeros that `conv` puts before and behind an axis of `size` pixels."""
    if conv.padding != "same":
        return conv.padding, conv.padding
    total = max((convolved_size(size, conv) - 1) * conv.stride + conv.kernel - size, 0)
    return total // 2, total - total // 2


def pooled_size(size: int, pool: schema.MaxPool) -> int:
    """Return torch's output size of `pool` along an axis of `size` pixels (0 where it vanishes)."""
    span = size + 2 * pool.padding - pool.size
    if not pool.ceil:
        return max(span // pool.stride + 1, 0)
    count = -(-span // pool.stride) + 1
    # torch drops a last window that would start beyond the input and its leading padding.
    if (count - 1) * pool.stride >= size + pool.padding:
        count -= 1
    return max(count, 0) if span > -pool.stride else 0
