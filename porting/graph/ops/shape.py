"""Operations that give numbers other axes, or put values side by side, and compute nothing."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from porting.graph.axes import Value, axis_of, factors, image_order
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


def _m_t(call: Any) -> Value:
    x = call.value("input")
    *before, i, j = range(len(x.axes))
    return x.permuted([*before, j, i])


def _movedim(call: Any) -> Value:
    x = call.value("input")
    source, destination = (
        [axis % len(x.axes) for axis in (value if isinstance(value, list) else [value])]
        for value in (call["source"], call["destination"])
    )
    order = [axis for axis in range(len(x.axes)) if axis not in source]
    for place, axis in sorted(zip(destination, source, strict=True)):
        order.insert(place, axis)
    return x.permuted(order)


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
    users = {node.op for node in call.build.users_of(call.node.name)}
    if not missing or users <= _BROADCASTING:
        return x
    for i in missing:
        x = expanded(call, x, i, call.shape[i])
    return x


def expanded(call: Any, x: Value, i: int, dim: Dim) -> Value:
    """Return a value whose axis `i`, of length 1, is repeated to a length; to the batch's, too."""
    x = call.mover.plain(x)
    if dim.unknown and dim != call.build.plan.batch:
        raise call.fail(f"an expansion to {dim} is not supported")
    if dim.unknown:
        tensor = call.op("add", x.tensor, call.build.batch_of_zeros(len(x.axes), i))
    else:
        tensor = call.op("repeat", x.tensor, dim.static, axis=i)
    axes = (*x.axes[:i], axis_of(dim), *x.axes[i + 1 :])
    return Value(tensor, axes, axes, x.nonnegative)


def joined(call: Any, values: list[Value], i: int) -> Value:
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
    return joined(call, values, call.axis())


def _stack(call: Any) -> Value:
    i = call.axis()
    values = call.network_values("tensors")
    return joined(call, [replace(v, axes=(*v.axes[:i], (), *v.axes[i:])) for v in values], i)


_VIEWS = ("view", "reshape", "flatten", "unflatten", "_unsafe_view", "view_as", "reshape_as")

RULES: dict[str, Callable[[Any], Any]] = {
    "permute": _permute,
    "transpose": _transpose,
    "swapaxes": _transpose,
    "swapdims": _transpose,
    "t": _t,
    "numpy_T": _t,
    "mT": _m_t,
    "movedim": _movedim,
    "moveaxis": _movedim,
    **dict.fromkeys(_VIEWS, _view),
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "expand": _expand,
    "expand_as": _expand,
    "cat": _cat,
    "stack": _stack,
}
