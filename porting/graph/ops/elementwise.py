"""Operations that take numbers one by one: activations and arithmetic."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from porting.graph.axes import Value
from porting.graph.plan import Parameter


def _activation(name: str, call: Any, *, nonnegative: bool = False) -> Value:
    """A layer `Activation` of this name."""
    x = call.network_value("input")
    tensor = call.layer("Activation", x.tensor, activation=name)
    return x.with_tensor(tensor, nonnegative=nonnegative)


def _function(name: str, call: Any, *, nonnegative: bool = False) -> Value:
    """A function of `keras.ops` of this name."""
    x = call.network_value("input")
    return x.with_tensor(call.op(name, x.tensor), nonnegative=nonnegative)


def _relu(call: Any) -> Value:
    x = call.network_value("input")
    return x.with_tensor(call.layer("ReLU", x.tensor), nonnegative=True)


def _leaky_relu(call: Any) -> Value:
    x, slope = call.network_value("input"), call["negative_slope"]
    if call.wide and 0 <= slope <= 1:  # TensorFlow's has its slope in float32
        return x.with_tensor(call.op("maximum", x.tensor, call.op("multiply", x.tensor, slope)))
    return x.with_tensor(call.layer("LeakyReLU", x.tensor, negative_slope=slope))


def _elu(call: Any) -> Value:
    if (call["scale"], call["input_scale"]) != (1, 1):
        raise call.fail("an ELU with scales has no counterpart in Keras")
    x = call.network_value("input")
    return x.with_tensor(call.layer("ELU", x.tensor, alpha=call["alpha"]))


def _gelu(call: Any) -> Value:
    exact = call["approximate"] == "none"
    if call.wide:  # TensorFlow's has its constants in float32
        return _gelu_by_parts(call, exact)
    if exact:
        return _activation("gelu", call)
    x = call.network_value("input")
    return x.with_tensor(call.op("gelu", x.tensor, approximate=True))


def _gelu_by_parts(call: Any, exact: bool) -> Value:
    x, op = call.network_value("input"), call.op
    if exact:
        bend = op("erf", op("multiply", x.tensor, math.sqrt(0.5)))
    else:
        cube = op("multiply", op("multiply", op("square", x.tensor), x.tensor), 0.044715)
        bend = op("tanh", op("multiply", op("add", x.tensor, cube), math.sqrt(2 / math.pi)))
    half = op("multiply", x.tensor, 0.5)
    return x.with_tensor(op("multiply", half, op("add", bend, 1.0)))


def _hardsigmoid(call: Any) -> Value:
    if not call.wide:
        return _activation("hard_sigmoid", call, nonnegative=True)
    # Torch's gradient, which Keras has there too, has its 1/6 in float32.
    x, op = call.network_value("input"), call.op
    ramp = op("minimum", op("maximum", op("add", x.tensor, 3.0), 0.0), 6.0)
    return x.with_tensor(op("divide", ramp, 6.0), nonnegative=True)


def _softplus(call: Any) -> Value:
    if call["beta"] != 1:
        raise call.fail("a softplus with a beta has no counterpart in Keras")
    return _activation("softplus", call, nonnegative=True)


def _hardtanh(call: Any) -> Value:
    if (call["min_val"], call["max_val"]) == (0, 6):
        return _activation("relu6", call, nonnegative=True)
    return _between(call, call["min_val"], call["max_val"])


def _clamp(call: Any) -> Value:
    low, high = (_limit(call, name) for name in ("min", "max"))
    return _between(call, low, high)


def _limit(call: Any, name: str) -> float | None:
    """Return a limit that is one number; None where there is none."""
    raw = call.raw(name)
    number = _number(raw)
    if raw is not None and number is None:
        raise call.fail("limits that are more than one number are not supported")
    return None if number is None or math.isinf(number) else number


def _between(call: Any, low: float | None, high: float | None) -> Value:
    x = call.network_value("input")
    tensor = x.tensor
    if low is not None:
        tensor = call.op("maximum", tensor, float(low))
    if high is not None:
        tensor = call.op("minimum", tensor, float(high))
    return x.with_tensor(tensor, nonnegative=low is not None and low >= 0)


def _same(call: Any) -> Value | Parameter:
    """What changes nothing in inference, or only how torch keeps it in memory."""
    raw = call.raw("input")
    return raw if isinstance(raw, Parameter) else call.network_value("input")


def _zero(call: Any) -> Value:
    x = call.network_value("input")
    return x.with_tensor(call.op("zeros_like", x.tensor), nonnegative=True)


def _number(value: Any) -> float | None:
    """Return an operand that is one number, or None for a tensor."""
    if isinstance(value, bool | int | float):
        return float(value)
    if isinstance(value, np.ndarray) and value.size == 1 and value.ndim == 0:
        return float(value)
    return None


def _binary(function: str, call: Any, first: str = "input", second: str = "other") -> Value:
    """A function of two operands, which broadcast."""
    if call.get("alpha", 1) != 1:
        raise call.fail("it scales its second operand; that is not supported")
    a, b = (_number(call.raw(name)) for name in (first, second))
    if b is not None:
        x = call.network_value(first)
        kept = x.nonnegative and function in ("add", "multiply") and b >= 0
        return x.with_tensor(call.op(function, x.tensor, b), nonnegative=kept)
    if a is not None:
        x = call.network_value(second)
        return x.with_tensor(call.op(function, a, x.tensor))
    return combined(call, function, call.value(first), call.value(second))


def combined(call: Any, function: str, a: Value, b: Value) -> Value:
    """Return a function of two values that broadcast."""
    nonnegative = a.nonnegative and b.nonnegative and function in ("add", "multiply")
    x, y, axes, order = call.mover.broadcast(a, b)
    layer = {"add": "Add", "multiply": "Multiply"}.get(function)
    both = not any(isinstance(tensor, np.ndarray) for tensor in (x, y))
    if layer and both and tuple(x.shape) == tuple(y.shape):
        tensor = call.layer(layer, call.build.earliest_first([x, y]))
    else:
        tensor = call.op(function, call.array(x), call.array(y))
    return Value(tensor, axes, order, nonnegative)


def added(call: Any, a: Value, b: Value) -> Value:
    """Return the sum of two values that broadcast."""
    return combined(call, "add", a, b)


def _reversed(function: str, call: Any) -> Value:
    return _binary(function, call, "other", "input")


def _divide(call: Any) -> Value:
    if call.get("rounding_mode") is not None:
        raise call.fail("a division that rounds is not supported")
    return _binary("divide", call)


def _addcmul(call: Any) -> Value:
    product = combined(call, "multiply", call.value("tensor1"), call.value("tensor2"))
    if call.get("value", 1) != 1:
        product = product.with_tensor(call.op("multiply", product.tensor, float(call["value"])))
    return added(call, call.value("input"), product)


_ACTIVATIONS = {
    "relu6": "relu6",
    "sigmoid": "sigmoid",
    "hardswish": "hard_silu",
    "silu": "silu",
    "tanh": "tanh",
    "mish": "mish",
    "selu": "selu",
    "log_sigmoid": "log_sigmoid",
}
_NONNEGATIVE = {"relu6", "sigmoid", "exp", "sqrt", "rsqrt", "abs", "square"}
_FUNCTIONS = {
    "exp": "exp",
    "log": "log",
    "sqrt": "sqrt",
    "rsqrt": "rsqrt",
    "neg": "negative",
    "abs": "abs",
    "square": "square",
    "sin": "sin",
    "cos": "cos",
    "erf": "erf",
    "reciprocal": "reciprocal",
}
_SAME = (
    "alias",
    "clone",
    "contiguous",
    "detach",
    "lift_fresh_copy",
    "to",
    "_to_copy",
    "type_as",
)
Rule = Callable[[Any], Any]

RULES: dict[str, Rule] = {
    **{
        op: partial(_activation, name, nonnegative=op in _NONNEGATIVE)
        for op, name in _ACTIVATIONS.items()
    },
    **{
        op: partial(_function, name, nonnegative=op in _NONNEGATIVE)
        for op, name in _FUNCTIONS.items()
    },
    **dict.fromkeys(_SAME, _same),
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "gelu": _gelu,
    "hardsigmoid": _hardsigmoid,
    "softplus": _softplus,
    "hardtanh": _hardtanh,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "clamp_max": _clamp,
    "zero": _zero,
    "addcmul": _addcmul,
    "add": partial(_binary, "add"),
    "sub": partial(_binary, "subtract"),
    "rsub": partial(_reversed, "subtract"),
    "mul": partial(_binary, "multiply"),
    "div": _divide,
    "maximum": partial(_binary, "maximum"),
    "minimum": partial(_binary, "minimum"),
    "pow": partial(_binary, "power", second="exponent"),
}
