"""Products of matrices, and attention, which is made of them."""

import math
import string
from collections.abc import Sequence
from typing import Any

from porting.graph.axes import Axis, Value, axis_of, factors, length


def contraction(
    call: Any, a: Value, b: Value, left: Sequence[str], right: Sequence[str], result: Sequence[str]
) -> Value:
    """Return the sum of products over axes of two values, as `einsum` has it.

    Both tensors are read in the order in which they are held. `left` and `right` name the axes of
    the values, `result` those that remain, in torch's order; axes of one name have one length, or
    one of them has 1.
    """
    mover, b = call.mover, b.relabelled()
    pairs = [
        (i, right.index(name))
        for i, name in enumerate(left)
        if name in right and a.axes[i] and b.axes[right.index(name)]
    ]
    a, b = mover.matched(a, b, pairs)
    by_name = dict(zip(right, b.axes, strict=True))
    by_name |= {
        name: axis for name, axis in zip(left, a.axes, strict=True) if axis or name not in right
    }
    axes = tuple(by_name[name] for name in result)
    kept = set(factors(axes))
    shared = set(factors(a.axes)) & set(factors(b.axes))
    a, b = (_bracketed(call, v, shared, kept) for v in (a, b))
    if set(a.order) & set(b.order) != {axis for axis in a.order if set(axis) & shared}:
        # Axes of several factors, held in another order by the other one.
        a, b = (
            mover.arrange(v, tuple(p for axis in v.order for p in _single(axis, shared)))
            for v in (a, b)
        )
    order = _order(a.order, b.order, axes, kept)
    letters = dict(zip(dict.fromkeys((*a.order, *b.order)), string.ascii_lowercase, strict=False))
    texts = ["".join(letters[axis] for axis in held) for held in (a.order, b.order, order)]
    tensor = call.op("einsum", f"{texts[0]},{texts[1]}->{texts[2]}", a.tensor, b.tensor)
    return Value(tensor, axes, order)


def _bracketed(call: Any, value: Value, shared: set[Any], kept: set[Any]) -> Value:
    """Return a value whose held axes have one part in the product each; none has length 1."""
    mover = call.mover
    value = mover.apart(mover.apart(value, shared), kept)
    return mover.arrange(value, tuple(axis for axis in value.order if axis))


def _single(axis: Axis, shared: set[Any]) -> list[Axis]:
    return [(factor,) for factor in axis] if set(axis) & shared else [axis]


def _order(a: Sequence[Axis], b: Sequence[Axis], axes: Sequence[Axis], kept: set[Any]) -> Any:
    """Return the order in which a product is held.

    That of the second operand, its summed axes replaced by those of the first, where its last axis
    remains: attention's heads then stay beside their channels. Otherwise torch's.
    """
    own = [axis for axis in a if axis not in b and set(axis) <= kept]
    summed = [i for i, axis in enumerate(b) if axis and not set(axis) & kept]
    if b and set(b[-1]) <= kept and b[-1] not in a and summed:
        held: list[Axis] = []
        for i, axis in enumerate(b):
            held += own if i == summed[0] else [] if i in summed else [axis]
        return tuple(held)
    # In torch's order, each axis bracketed as its operand holds it.
    place = {factor: i for i, factor in enumerate(factors(tuple(axes)))}
    parts = [axis for axis in dict.fromkeys((*a, *b)) if axis and set(axis) <= kept]
    return tuple(sorted(parts, key=lambda axis: place[axis[0]]))


def _matmul(call: Any) -> Value:
    a = call.network_value("input")
    b = call.network_value("other" if "other" in call.node.arguments else "mat2")
    if len(a.axes) < 2 or len(b.axes) < 2:
        raise call.fail("a product with a vector is not supported")
    batch = [f"batch{i}" for i in range(max(len(a.axes), len(b.axes)) - 2)]
    left, right = (batch[len(batch) - len(v.axes) + 2 :] for v in (a, b))
    return contraction(
        call, a, b, [*left, "row", "sum"], [*right, "sum", "column"], [*batch, "row", "column"]
    )


def _einsum(call: Any) -> Value:
    values, equation = call.network_values("tensors"), call["equation"].replace(" ", "")
    inputs, _, result = equation.partition("->")
    terms = inputs.split(",")
    known = len(values) == 2 and "->" in equation and "." not in equation
    if not known or any(len(set(term)) < len(term) for term in (*terms, result)):
        raise call.fail(f"the equation {equation!r} is of a kind that is not supported")
    (a, b), (left, right) = values, terms
    return contraction(call, a, b, left, right, result)


def _scaled_dot_product_attention(call: Any) -> Value:
    if call.get("is_causal") or call.get("enable_gqa"):
        raise call.fail("causal attention and grouped queries are not supported")
    query, key, value = (call.network_value(name) for name in ("query", "key", "value"))
    query, key, value = (_heads(call, v) for v in (query, key, value))
    scale = call.get("scale")
    if scale is None:
        scale = 1 / math.sqrt(length(query.axes[-1]).static)
    options: dict[str, Any] = {}
    if call.raw("attn_mask") is not None:
        mask = call.value("attn_mask")
        boolean = str(getattr(mask.tensor, "dtype", "")) == "bool"
        options["mask" if boolean else "bias"] = call.array(_rank4(call, mask))
    heads = query.tensor.shape[2]

    def for_all(tensor: Any) -> Any:  # one head for all queries, which TensorFlow does not repeat
        alone = tensor.shape[2] == 1 < heads
        return call.op("repeat", tensor, heads, axis=2, aside=True) if alone else tensor

    tensors = query.tensor, for_all(key.tensor), for_all(value.tensor)
    # Keras' own computes its softmax in float32, and takes the values for as long as the queries.
    if call.wide or value.shape[-1] != query.shape[-1]:
        tensor = _attention_by_parts(call, *tensors, scale, **options)
    else:
        tensor = call.op("dot_product_attention", *tensors, scale=scale, **options)
    axes = (*query.axes[:-1], axis_of(value.shape[-1]))
    return Value(tensor, axes, (*query.order[:-1], axes[-1]))


def _attention_by_parts(
    call: Any, query: Any, key: Any, value: Any, scale: float, bias: Any = None, mask: Any = None
) -> Any:
    op = call.op
    scores = op("einsum", "nthd,nshd->nhts", op("multiply", query, scale), key)
    if bias is not None:
        scores = op("add", scores, bias)
    if mask is not None:
        scores = op("where", mask, scores, -math.inf)
    return op("einsum", "nhts,nshd->nthd", op("softmax", scores, axis=-1), value)


def _heads(call: Any, value: Value) -> Value:
    """Return (..., heads, tokens, channels) held as (batch, tokens, heads, channels)."""
    *batch, heads, tokens, channels = ((),) * (4 - len(value.axes)) + value.axes
    return call.mover.arrange(value, (factors(tuple(batch)), tokens, heads, channels))


def _rank4(call: Any, mask: Value) -> Any:
    axes = ((),) * (4 - len(mask.axes)) + mask.axes
    *batch, heads, rows, columns = axes
    return call.mover.arrange(mask, (factors(tuple(batch)), heads, rows, columns)).tensor


RULES = {
    "matmul": _matmul,
    "bmm": _matmul,
    "einsum": _einsum,
    "scaled_dot_product_attention": _scaled_dot_product_attention,
}
