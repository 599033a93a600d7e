"""Operations that pick places of an axis, move them or repeat them, and compute nothing."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from porting.graph.axes import Axes, Value, axes_of, axis_of, factors
from porting.graph.ops.shape import expanded, joined
from porting.graph.plan import Dim


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
    x, given = call.value("input"), call["input"]
    i = call["dim"] % len(x.axes)
    index = call["index"] % x.shape[i].static
    if not _selects_all(call, x, i):
        return _picked(call, x, i, index)
    # Queries, keys and values, which are one product: the gradient of one operation puts them
    # together, where those of three would add up three arrays of zeros.
    key = given.name, i
    if key not in call.build.parted:
        call.build.parted[key] = _unbound(call, x, i)
    return call.build.parted[key][index]


def _selects_all(call: Any, x: Value, i: int) -> bool:
    """Return whether each of the places of axis `i` is selected, by a node of its own."""
    places = {
        node.arguments["index"] % x.shape[i].static
        for node in call.build.users_of(call["input"].name)
        if node.op == "select" and node.arguments["dim"] % len(x.axes) == i
    }
    return len(places) == x.shape[i].static > 1 and not isinstance(x.tensor, np.ndarray)


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
    return _unbound(call, x, call["dim"] % len(x.axes))


def _unbound(call: Any, x: Value, i: int) -> list[Value]:
    """Return each place of axis `i`, without the axis."""
    axes = (*x.axes[:i], *x.axes[i + 1 :])
    if not x.axes[i]:
        return [replace(x, axes=axes)]
    x, at = call.mover.isolate(x, i)
    order = (*x.order[:at], *x.order[at + 1 :])
    tensors = call.op("unstack", x.tensor, axis=at)
    return [Value(tensor, axes, order, x.nonnegative) for tensor in tensors]


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
    times = [1] * (len(x.axes) - len(times)) + list(times)
    for i, n in enumerate(times):
        if isinstance(n, Dim) and n.unknown and not x.axes[i]:
            x = expanded(call, x, i, n)
        elif (n := _count(n)) > 1:
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
    return joined(call, parts, i) if len(parts) > 1 else source


RULES: dict[str, Callable[[Any], Any]] = {
    "tile": _tile,
    "repeat": _tile,
    "repeat_interleave": _repeat_interleave,
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
