"""Operations that move numbers and compute nothing."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from porting.graph.axes import Axes, Value, axes_of, axis_of, factors, image_order
from porting.graph.plan import ONE, Dim

# Operations that broadcast their operands by themselves.
_BROADCASTING = {"add", "sub", "rsub", "mul", "div", "maximum", "minimum", "pow"}


def _permute(call: Any) -> Value:
    return call.value("input").permuted(call["dims"])


def _transpose(call: Any) -> Value:
    x = call.value("input")
    names = ("dim0", "dim1") if "dim0" in call.node.arguments else ("axis0", "axis1")
    i, j = (call.axis(name) for name in names)
    order = list(range(len(x.axes)))
    order[i], order[j] = j, i
    return x.permuted(order)


def _t(call: Any) -> Value:
    x = call.value("input")
    return x.permuted(range(len(x.axes))[::-1])


def _view(call: Any) -> Value:
    return call.mover.view(call.value("input"), call.shape)


def _unsqueeze(call: Any) -> Value:
    x, i = call.value("input"), call.axis()
    return replace(x, axes=(*x.axes[:i], (), *x.axes[i:]))


def _squeeze(call: Any) -> Value:
    x, dim = call.value("input"), call.get("dim")
    rank = len(x.axes)
    given = range(rank) if dim is None else dim if isinstance(dim, list) else [dim]
    chosen = {i % rank for i in given}
    kept = (axis for i, axis in enumerate(x.axes) if axis or i not in chosen)
    return replace(x, axes=tuple(kept))


def _expand(call: Any) -> Value:
    x = call.network_value("input")
    x = replace(x, axes=((),) * (len(call.shape) - len(x.axes)) + x.axes)
    missing = [i for i, dim in enumerate(call.shape) if dim != ONE and not x.axes[i]]
    if not missing or call.build.users_of(call.node) <= _BROADCASTING:
        return x
    x = call.mover.plain(x)
    for i in missing:
        dim = call.shape[i]
        if dim.unknown and dim != call.build.plan.input[1][0]:
            raise call.fail(f"an expansion to {dim} is not supported")
        if dim.unknown:
            tensor = call.op("add", x.tensor, call.build.batch_of_zeros(len(x.axes), i))
        else:
            tensor = call.op("repeat", x.tensor, dim.static, axis=i)
        axes = (*x.axes[:i], axis_of(dim), *x.axes[i + 1 :])
        x = Value(tensor, axes, axes, x.nonnegative)
    return x


def _joined(call: Any, values: list[Value], i: int) -> Value:
    """Return values one behind the other along torch's axis `i`, which all of them have."""
    values = _together(call, values, i)
    base = next((v for v in values if v.axes[i]), values[0])
    if base.axes[i] or (i, len(base.axes)) != (1, 4):
        base, at = call.mover.isolate(base, i)
    else:  # maps of one channel each
        base = call.mover.arrange(base, image_order(base.axes, call.data_format))
        at = 3 if call.data_format == "channels_last" else 1
    order = base.order
    parts = [
        call.mover.arrange(v, (*order[:at], v.axes[i], *order[at + 1 :])).tensor for v in values
    ]
    total = Dim(sum(v.shape[i].static for v in values))
    new = axis_of(total)
    axes = (*base.axes[:i], new, *base.axes[i + 1 :])
    last = at == len(order) - 1
    tensor = call.layer("Concatenate", parts, axis=-1 if last else at)
    nonnegative = all(v.nonnegative for v in values)
    return Value(tensor, axes, (*order[:at], new, *order[at + 1 :]), nonnegative)


def _together(call: Any, values: list[Value], i: int) -> list[Value]:
    """Return values with the same factors in all axes but `i`."""
    rank = len(values[0].axes)
    rest = [v.relabelled() for v in values[1:]]

    def match(a: Value, b: Value) -> tuple[Value, Value]:
        pairs = [(j, j) for j in range(rank) if j != i and a.axes[j]]
        return call.mover.matched(a, b, pairs)

    base = values[0]
    for v in rest:  # takes the axes of the first apart as far as any needs it
        base, _ = match(base, v)
    found = [match(base, v) for v in rest]
    if all(factors(again.axes) == factors(base.axes) for again, _ in found):
        return [base, *(v for _, v in found)]
    return _together(call, [call.mover.settled(v) for v in values], i)


def _cat(call: Any) -> Value:
    values = [v for v in call.network_values("tensors") if v.shape != (Dim(0),)]
    return _joined(call, values, call.axis())


def _stack(call: Any) -> Value:
    i = call.axis()
    values = call.network_values("tensors")
    return _joined(call, [replace(v, axes=(*v.axes[:i], (), *v.axes[i:])) for v in values], i)


def _cut(call: Any, x: Value, i: int, part: slice) -> Value:
    """Return a part of axis `i`."""
    x, at = call.mover.isolate(x, i)
    tensor = _item(call, x.tensor, at, part)
    return _resized(x, i, at, tensor, len(range(*part.indices(x.shape[i].static))))


def _item(call: Any, tensor: Any, at: int, index: slice | int) -> Any:
    """Return a place, or some, of an axis that is held."""
    where = tuple([slice(None)] * at + [index])
    return tensor[where] if isinstance(tensor, np.ndarray) else call.op("get_item", tensor, where)


def _resized(x: Value, i: int, at: int, tensor: Any, count: int) -> Value:
    new = axis_of(Dim(count))
    axes = (*x.axes[:i], new, *x.axes[i + 1 :])
    return Value(tensor, axes, (*x.order[:at], new, *x.order[at + 1 :]), x.nonnegative)


def _slice(call: Any) -> Value:
    x = call.value("input")
    i = call["dim"] % len(x.axes)
    start, end, step = call.get("start") or 0, call.get("end"), call.get("step") or 1
    whole = isinstance(end, Dim) or end is None or end > 1 << 60
    if x.shape[i].unknown:
        if start == 0 and step == 1 and whole:
            return x
        raise call.fail("a part of an axis whose length only the images tell is not supported")
    part = slice(start, None if whole else end, step)
    if range(*part.indices(x.shape[i].static)) == range(x.shape[i].static):
        return x
    return _cut(call, x, i, part)


def _select(call: Any) -> Value:
    x = call.value("input")
    i = call["dim"] % len(x.axes)
    return _picked(call, x, i, call["index"] % x.shape[i].static)


def _picked(call: Any, x: Value, i: int, index: int) -> Value:
    """Return one place of axis `i`, without the axis."""
    axes = (*x.axes[:i], *x.axes[i + 1 :])
    if not x.axes[i]:
        return replace(x, axes=axes)
    x, at = call.mover.isolate(x, i)
    tensor = _item(call, x.tensor, at, index)
    return Value(tensor, axes, (*x.order[:at], *x.order[at + 1 :]), x.nonnegative)


def _split(call: Any) -> list[Value]:
    x = call.network_value("input")
    i = call["dim"] % len(x.axes)
    counts = [shape[i].static for shape in call.node.shapes]
    if len(counts) == 1:
        return [x]
    x, at = call.mover.isolate(x, i)
    places = np.cumsum(counts)[:-1].tolist()
    tensors = call.op("split", x.tensor, places, axis=at)
    return [_resized(x, i, at, t, n) for t, n in zip(tensors, counts, strict=True)]


def _unbind(call: Any) -> list[Value]:
    x = call.network_value("input")
    i = call["dim"] % len(x.axes)
    return [_picked(call, x, i, index) for index in range(x.shape[i].static)]


def _getitem(call: Any) -> Any:
    return call.raw("input")[call["index"]]


def _roll(call: Any) -> Value:
    x = call.network_value("input")
    for shift, dim in zip(call["shifts"], call["dims"], strict=True):
        x, at = call.mover.isolate(x, dim % len(x.axes))
        x = x.with_tensor(call.op("roll", x.tensor, shift, axis=at), nonnegative=x.nonnegative)
    return x


def _flip(call: Any) -> Value:
    x = call.network_value("input")
    for dim in call["dims"]:
        x, at = call.mover.isolate(x, dim % len(x.axes))
        x = x.with_tensor(call.op("flip", x.tensor, axis=at), nonnegative=x.nonnegative)
    return x


# Modes of torch's padding that repeat what is there -> NumPy's names of them.
_REPEATING = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def _pad(call: Any) -> Value:
    mode = call.get("mode", "constant")
    if mode in _REPEATING:
        return _padded_by_itself(call, _REPEATING[mode])
    if mode != "constant":
        raise call.fail(f"padding in mode {mode!r} is not supported")
    x, amounts = call.network_value("input"), call["pad"]
    value = call.get("value") or 0.0
    for j in range(len(amounts) // 2):
        before, behind = amounts[2 * j], amounts[2 * j + 1]
        i = len(x.axes) - 1 - j
        if before < 0 or behind < 0:
            stop = x.shape[i].static + min(0, behind)
            x = _cut(call, x, i, slice(max(0, -before), stop))
            before, behind = max(0, before), max(0, behind)
        if before or behind:
            nonnegative = x.nonnegative and value >= 0
            x, at = call.mover.isolate(x, i)
            widths = [(before, behind) if k == at else (0, 0) for k in range(len(x.order))]
            tensor = call.op("pad", x.tensor, widths, constant_values=value)
            count = x.shape[i].static + before + behind
            x = replace(_resized(x, i, at, tensor, count), nonnegative=nonnegative)
    return x


def _padded_by_itself(call: Any, mode: Any) -> Value:
    x, amounts = call.network_value("input"), call["pad"]
    for j in range(len(amounts) // 2):
        i, around = len(x.axes) - 1 - j, tuple(amounts[2 * j : 2 * j + 2])
        if min(around) < 0:
            raise call.fail("padding that cuts off is not supported in this mode")
        if any(around):
            x = taken(call, x, i, np.pad(np.arange(x.shape[i].static), around, mode=mode))
    return x


def _index(call: Any) -> Value:
    x, indices = call.network_value("input"), call["indices"]
    given = [i for i, index in enumerate(indices) if index is not None]
    arrays = [call.resolved(indices[i]) for i in given]
    if len(given) != 1 or not isinstance(arrays[0], np.ndarray) or arrays[0].dtype.kind != "i":
        raise call.fail("indices other than constant ones of a single axis are not supported")
    (i,), (array,) = given, arrays
    return taken(call, x, i, array)


def _index_select(call: Any) -> Value:
    array = call.raw("index")
    if not isinstance(array, np.ndarray):
        raise call.fail("indices that are computed are not supported")
    x = call.network_value("input")
    return taken(call, x, call["dim"] % len(x.axes), array)


def taken(call: Any, x: Value, i: int, array: np.ndarray) -> Value:
    """Return the places of axis `i` that an array names; its axes stand where that one stood."""
    x, at = call.mover.isolate(x, i)
    places = array.reshape(-1) % x.shape[i].static
    tensor = call.op("take", x.tensor, places.astype(np.int32), axis=at)
    new: Axes = axes_of(array.shape)
    axes = (*x.axes[:i], *new, *x.axes[i + 1 :])
    order = (*x.order[:at], factors(new), *x.order[at + 1 :])
    return Value(tensor, axes, order, x.nonnegative)


def _tile(call: Any) -> Value:
    x, times = call.network_value("input"), call.get("dims") or call["repeats"]
    x = replace(x, axes=((),) * (len(times) - len(x.axes)) + x.axes)
    times = [1] * (len(x.axes) - len(times)) + [_count(n) for n in times]
    for i, n in enumerate(times):
        if n > 1:
            x, at = call.mover.isolate(x, i)
            tensor = call.op("tile", x.tensor, [n if j == at else 1 for j in range(len(x.order))])
            x = _longer(x, i, at, tensor, n)
    return x


def _repeat_interleave(call: Any) -> Value:
    x, times = call.network_value("input"), _count(call["repeats"])
    if call.get("dim") is None:
        raise call.fail("a repetition over all axes is not supported")
    i = call["dim"] % len(x.axes)
    x, at = call.mover.isolate(x, i)
    return _longer(x, i, at, call.op("repeat", x.tensor, times, axis=at), times)


def _count(n: int | Dim) -> int:
    return n.static if isinstance(n, Dim) else n


def _longer(x: Value, i: int, at: int, tensor: Any, times: int) -> Value:
    """Return a value whose axis `i`, held at `at`, is so many times as long."""
    new = axis_of(x.shape[i] * Dim(times))
    axes = (*x.axes[:i], new, *x.axes[i + 1 :])
    return Value(tensor, axes, (*x.order[:at], new, *x.order[at + 1 :]), x.nonnegative)


def _copy(call: Any) -> Value:
    """What overwrites a whole value."""
    source = call.network_value("src")
    if source.shape != call.shape:
        raise call.fail("writing a smaller value into a larger one is not supported")
    return source


def _slice_scatter(call: Any) -> Value:
    """One value with a part of an axis replaced by another."""
    x, source = call.network_value("input"), call.network_value("src")
    i = call["dim"] % len(x.axes)
    if source.shape == x.shape:
        return source
    count = x.shape[i].static
    if (call.get("step") or 1) != 1:
        raise call.fail("steps are not supported")
    start, end, _ = slice(call.get("start"), call.get("end")).indices(count)
    parts = [
        *([_cut(call, x, i, slice(0, start))] if start else []),
        source,
        *([_cut(call, x, i, slice(end, count))] if end < count else []),
    ]
    return _joined(call, parts, i) if len(parts) > 1 else source


_VIEWS = ("view", "reshape", "flatten", "unflatten", "_unsafe_view", "view_as", "reshape_as")

RULES: dict[str, Callable[[Any], Any]] = {
    "permute": _permute,
    "transpose": _transpose,
    "swapaxes": _transpose,
    "t": _t,
    "numpy_T": _t,
    **dict.fromkeys(_VIEWS, _view),
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "expand": _expand,
    "expand_as": _expand,
    "tile": _tile,
    "repeat": _tile,
    "repeat_interleave": _repeat_interleave,
    "cat": _cat,
    "stack": _stack,
    "slice": _slice,
    "slice_scatter": _slice_scatter,
    "copy": _copy,
    "select": _select,
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "tensor_split"), _split),
    "unbind": _unbind,
    "getitem": _getitem,
    "roll": _roll,
    "flip": _flip,
    "pad": _pad,
    "constant_pad_nd": _pad,
    "index": _index,
    "index_select": _index_select,
}
