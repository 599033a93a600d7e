"""JAX as the engine: one XLA program per shape of a batch, over NHWC maps.

XLA's own operations for pooling and for small convolutions are slow on a CPU; those here are what
it makes fast loops and matrix products of.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import numpy as np

from keras_alexnet.core.backend import require
from keras_alexnet.layers import keras
from keras_alexnet.optimizing import operations as op
from keras_alexnet.optimizing.plan import Plan

jax = require("jax")
jnp = require("jax.numpy")
lax = jax.lax

Step = Callable[..., Any]


class JaxEngine:
    """A plan on JAX, compiled for each shape of a batch."""

    fixed_batches = True

    def __init__(self, model: Any, plan: Plan, batch_size: int | None) -> None:
        self._plan = plan
        # Arguments, because XLA takes minutes to fold constants of this size.
        self._weights = [_weights(each) for each in plan.operations]
        self._compiled = jax.jit(self._compute)

    def is_tensor(self, x: Any) -> bool:
        """Say whether `x` is a tensor of this framework."""
        return isinstance(x, jax.Array)

    def to_numpy(self, x: Any) -> np.ndarray:
        """Return a tensor as an array."""
        return np.asarray(x)

    def __call__(self, x: Any) -> Any:
        """Run a batch, an array or tensor in the model's layout; return tensors in that."""
        given = keras.tree.map_structure(lambda each: jnp.asarray(each, jnp.float32), x)
        return self._compiled(given, self._weights)

    def _compute(self, x: Any, weights: list[Any]) -> Any:
        channels_first = self._plan.data_format == "channels_first"

        def given(x: Any) -> Any:
            return jnp.transpose(x, (0, 2, 3, 1)) if channels_first and x.ndim == 4 else x

        values = [keras.tree.map_structure(given, x)]  # maps (N, H, W, C)
        for each, own in zip(self._plan.operations, weights, strict=True):
            inputs = [values[i] for i in each.inputs]
            values.append(_STEPS[type(each)](each, *inputs, *own))

        def placed(number: int) -> Any:
            y = values[number]
            return jnp.transpose(y, (0, 3, 1, 2)) if channels_first and y.ndim == 4 else y

        return keras.tree.map_structure(placed, self._plan.outputs)


def _weights(each: op.Operation) -> tuple[Any, ...]:
    """Return what an operation multiplies by and adds."""
    if not isinstance(each, op.Conv | op.Dense):
        return ()
    return jnp.asarray(each.kernel), jnp.asarray(each.bias)


def _affine(each: op.Affine, x: Any) -> Any:
    scale, offset = (np.asarray(v, np.float32) for v in (each.scale, each.offset))
    return (x[..., ::-1] if each.reverse else x) * scale + offset


def _conv(each: op.Conv, x: Any, *rest: Any) -> Any:
    *added, kernel, bias = rest
    height, width, inputs, outputs = each.kernel.shape
    if (height, width, each.strides, each.groups) == (1, 1, (1, 1), 1) and not _pads(each):
        y = jnp.matmul(x.reshape(-1, inputs), kernel.reshape(inputs, outputs))
        y = y.reshape(*x.shape[:3], outputs)
    else:
        convolve = partial(
            lax.conv_general_dilated,
            window_strides=each.strides,
            padding=each.padding or "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        if each.groups == x.shape[-1]:
            y = convolve(x, kernel, feature_group_count=each.groups)
        else:
            parts = zip(
                *(jnp.split(value, each.groups, axis=-1) for value in (x, kernel)), strict=True
            )
            y = jnp.concatenate([convolve(part, own) for part, own in parts], -1)
    y = y + bias
    return _ACTIVATIONS[each.activation](y + added[0] if added else y)


def _pads(each: op.Conv) -> bool:
    return each.padding not in (None, op.NO_PADDING)


def _dense(each: op.Dense, x: Any, kernel: Any, bias: Any) -> Any:
    return _ACTIVATIONS[each.activation](x @ kernel + bias)


def _pad(each: op.Pad, x: Any) -> Any:
    return jnp.pad(x, ((0, 0), *each.padding, (0, 0)))


def _max_pool(each: op.MaxPool, x: Any) -> Any:
    """Take the largest of shifted slices, one axis after the other."""
    padding = each.padding or op.same_padding(x.shape[1:3], each.size, each.strides)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
    for axis, size, stride in zip((1, 2), each.size, each.strides, strict=True):
        count = (x.shape[axis] - size) // stride + 1
        slices = [
            lax.slice_in_dim(x, i, i + (count - 1) * stride + 1, stride, axis) for i in range(size)
        ]
        x = reduce(jnp.maximum, slices)
    return x


def _avg_pool(each: op.AvgPool, x: Any) -> Any:
    window, strides = (1, *each.size, 1), (1, *each.strides, 1)
    return lax.reduce_window(x, 0.0, lax.add, window, strides, "VALID") / np.prod(each.size)


def _adaptive(each: op.AdaptiveAvgPool, x: Any) -> Any:
    if x.shape[1:3] == each.size:
        return x
    rows = op.adaptive_matrix(x.shape[1], each.size[0])
    columns = op.adaptive_matrix(x.shape[2], each.size[1])
    return jnp.einsum("ih,jw,nhwc->nijc", rows, columns, x)


def _global_pool(each: op.GlobalPool, x: Any) -> Any:
    pool = jnp.max if each.largest else jnp.mean
    return pool(x, (1, 2), keepdims=each.keepdims)


def _repeat(each: op.Repeat, x: Any) -> Any:
    return jnp.repeat(jnp.repeat(x, each.factors[0], 1), each.factors[1], 2)


def _flatten(each: op.Flatten, x: Any) -> Any:
    return x.reshape(x.shape[0], -1)


def _reshape(each: op.Reshape, x: Any) -> Any:
    return x.reshape(each.shape)


def _elementwise(each: op.Elementwise, *values: Any) -> Any:
    return _ACTIVATIONS[each.activation](reduce(getattr(jnp, each.function), values))


def _layer_norm(each: op.LayerNorm, x: Any) -> Any:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) * (lax.rsqrt(variance + each.epsilon) * each.gamma) + each.beta


def _constant(each: op.Constant) -> Any:
    return jnp.asarray(each.value)


def _concat(each: op.Concat, *parts: Any) -> Any:
    return jnp.concatenate(parts, -1)


def _lrn(each: op.LRN, x: Any) -> Any:
    before, behind = each.size // 2, (each.size - 1) // 2
    squares = jnp.pad(x * x, ((0, 0),) * (x.ndim - 1) + ((before, behind),))
    total = sum(squares[..., i : i + x.shape[-1]] for i in range(each.size))
    d = each.k + each.alpha / each.size * total
    factor = lax.rsqrt(d * jnp.sqrt(d)) if each.beta == 0.75 else d**-each.beta
    return x * factor


def _activation(each: op.Activation, x: Any) -> Any:
    return _ACTIVATIONS[each.function](x)


_ACTIVATIONS: dict[str, Step] = {
    "linear": lambda x: x,
    "relu": lambda x: jnp.maximum(x, 0),
    "relu6": jax.nn.relu6,
    "sigmoid": jax.nn.sigmoid,
    "softmax": jax.nn.softmax,
    "tanh": jnp.tanh,
    "silu": jax.nn.silu,
    "hard_silu": jax.nn.hard_silu,
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
}
_STEPS: dict[type[op.Operation], Step] = {
    op.Affine: _affine,
    op.Conv: _conv,
    op.Dense: _dense,
    op.Pad: _pad,
    op.MaxPool: _max_pool,
    op.AvgPool: _avg_pool,
    op.AdaptiveAvgPool: _adaptive,
    op.GlobalPool: _global_pool,
    op.Repeat: _repeat,
    op.Flatten: _flatten,
    op.Concat: _concat,
    op.Reshape: _reshape,
    op.Elementwise: _elementwise,
    op.LayerNorm: _layer_norm,
    op.Constant: _constant,
    op.Call: op.Call.compute,
    op.Part: op.Part.compute,
    op.LRN: _lrn,
    op.Activation: _activation,
}
