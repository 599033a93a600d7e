"""Operations that take axes away: means, sums, norms, softmax."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from porting.graph.axes import Value, factors

# Of a softmax of TensorFlow's with oneDNN, which ends with "Input dims must be <= 5 and >=1".
_MOST_AXES = 5
# The least normal number of float32.
_LEAST = 2.0**-126


def _axes(call: Any, rank: int) -> list[int]:
    dim = call.get("dim")
    if dim is None or dim == []:
        return list(range(rank))
    return [i % rank for i in (dim if isinstance(dim, list) else [dim])]


def _reduced(call: Any, compute: Callable[[Any, tuple[int, ...]], Any]) -> Value:
    """Reduce axes by a function of a tensor and its axes that keeps them, of length 1."""
    x = call.network_value("input")
    chosen = _axes(call, len(x.axes))
    gone = set(factors(tuple(x.axes[i] for i in chosen)))
    x = call.mover.apart(x, gone)
    places = tuple(i for i, axis in enumerate(x.order) if set(axis) & gone)
    tensor = compute(x.tensor, places) if places else x.tensor
    order = tuple(() if i in places else axis for i, axis in enumerate(x.order))
    kept = [() if i in chosen else axis for i, axis in enumerate(x.axes)]
    if not call.get("keepdim"):
        kept = [axis for i, axis in enumerate(x.axes) if i not in chosen]
    return Value(tensor, tuple(kept), order)


def _function(name: str, call: Any) -> Value:
    return _reduced(call, lambda x, axis: call.op(name, x, axis=axis, keepdims=True))


def _extreme(name: str, call: Any) -> list[Value]:
    """The largest or smallest along an axis; where it stood is left out, nobody having asked."""
    if call.get("dim") is None:
        raise call.fail("over all images together it is not supported")
    return [_function(name, call)]


def _var(call: Any) -> Value:
    x = call.value("input")
    correction = call.get("correction", 1 if call.get("unbiased", True) else 0)
    correction = 1 if correction is None else correction
    count = math.prod(x.shape[i].static for i in _axes(call, len(x.axes)))
    scale = count / (count - correction)

    def compute(tensor: Any, axis: tuple[int, ...]) -> Any:
        # On torch Keras' own computes in float32.
        mean = call.op("mean", tensor, axis=axis, keepdims=True)
        squares = call.op("square", call.op("subtract", tensor, mean))
        variance = call.op("mean", squares, axis=axis, keepdims=True)
        return variance if scale == 1 else call.op("multiply", variance, scale)

    return _reduced(call, compute)


def _norm(call: Any) -> Value:
    if call["ord"] != 2:
        raise call.fail(f"a norm of order {call['ord']} is not supported, only 2")

    def compute(tensor: Any, axis: tuple[int, ...]) -> Any:
        squares = call.op("sum", call.op("square", tensor), axis=axis, keepdims=True)
        # The root has no gradient at 0, where torch's norm has 0.
        return call.op("sqrt", call.op("maximum", squares, _LEAST))

    return _reduced(call, compute)


def _softmax(call: Any) -> Value:
    x, axis = call.mover.isolate(call.network_value("input"), call.axis())
    if len(x.order) > _MOST_AXES:
        before, behind = factors(x.order[:axis]), factors(x.order[axis + 1 :])
        order = (before, x.order[axis], behind)
        x, axis = call.mover.arrange(x, order if behind else order[:-1]), 1
    axis = axis if axis < len(x.order) - 1 else -1
    return x.with_tensor(call.layer("Softmax", x.tensor, axis=axis), nonnegative=True)


RULES: dict[str, Callable[[Any], Any]] = {
    "mean": partial(_function, "mean"),
    "sum": partial(_function, "sum"),
    "amax": partial(_function, "max"),
    "amin": partial(_function, "min"),
    "max": partial(_extreme, "max"),
    "min": partial(_extreme, "min"),
    "var": _var,
    "linalg_vector_norm": _norm,
    "softmax": _softmax,
    "_softmax": _softmax,
}
