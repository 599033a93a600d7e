"""Max pooling on JAX's CPU, one axis after the other.

XLA's gradient of a max pool, select-and-scatter, is a serial loop there.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

from keras_alexnet.core import backend
from keras_alexnet.core.keras_internals import is_training

keras = backend.load_keras()
jax = backend.require("jax")
jnp, lax = jax.numpy, jax.lax

Pair: TypeAlias = tuple[int, int]


def max_pool_call(layer: Any, inputs: Any) -> Any:
    """Compute a `MaxPooling2D`; what is symbolic, empty or of integers is left to Keras."""
    axes = (1, 2) if layer.data_format == "channels_last" else (2, 3)
    sizes = [inputs.shape[axis] for axis in axes]
    # Symbolic sizes, of an export, have no slices.
    plain = all(isinstance(size, int) for size in sizes) and not isinstance(
        inputs, keras.KerasTensor
    )
    if plain and jnp.issubdtype(inputs.dtype, jnp.floating):
        padding = explicit_padding(sizes, layer.pool_size, layer.strides, layer.padding)
        widths = [n + sum(ends) for n, ends in zip(sizes, padding, strict=True)]
        if all(n >= window for n, window in zip(widths, layer.pool_size, strict=True)):
            # The width first: then the first maximum in rows, not in columns, has the gradient.
            passes = tuple(zip(axes, layer.pool_size, layer.strides, padding, strict=True))[::-1]
            return (_max_pool if is_training() else _any_max_pool)(inputs, passes)
    return type(layer).call(layer, inputs)


def _pooled(x: Any, passes: Any) -> Any:
    """Return the maximum of every window, one axis after the other.

    The gradient goes to the first maximum of a window in row-major order, as it does in XLA's
    select-and-scatter and in torch: at ties, of which a ReLU makes many, the others get none.
    """
    for way in passes:
        x, _ = _max_along(x, *way)
    return x


# With a gradient by hand, which is several times faster, and one for every way of JAX's.
_max_pool = jax.custom_vjp(_pooled, nondiff_argnums=(1,))
_any_max_pool = jax.custom_jvp(_pooled, nondiff_argnums=(1,))


@_any_max_pool.defjvp
def _max_pool_tangent(passes: Any, primals: Any, tangents: Any) -> tuple[Any, Any]:
    (x,), (tangent,) = primals, tangents
    for way in passes:
        x, first = _max_along(x, *way)
        tangent = _pick_along(tangent, first, *way)
    return x, tangent


def _pick_along(x: Any, first: Any, axis: int, window: int, stride: int, padding: Pair) -> Any:
    """Return of each window along an axis the value where its first maximum is."""
    ends = [(0, 0, 0)] * x.ndim
    ends[axis] = (*padding, 0)
    x = lax.pad(x, jnp.zeros((), x.dtype), ends)
    last = stride * (first.shape[axis] - 1) + 1
    picked = jnp.zeros(first.shape, x.dtype)
    for place in range(window):
        value = lax.slice_in_dim(x, place, place + last, stride, axis)
        picked = jnp.where(first == place, value, picked)
    return picked


def _max_pool_forward(x: Any, passes: Any) -> Any:
    lengths, firsts = [], []
    for way in passes:
        lengths.append(jnp.zeros((x.shape[way[0]], 0)))  # a shape is no residual, an array is
        x, first = _max_along(x, *way)
        firsts.append(first)
    return x, (lengths, firsts)


def _max_pool_backward(passes: Any, residuals: Any, gradient: Any) -> Any:
    for way, length, first in reversed(list(zip(passes, *residuals, strict=True))):
        gradient = _spread_along(gradient, first, len(length), *way)
    return (gradient,)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _max_along(x: Any, axis: int, window: int, stride: int, padding: Pair) -> tuple[Any, Any]:
    """Return the maxima of windows along one axis, and where in its window the first one is."""
    ends = [(0, 0, 0)] * x.ndim
    ends[axis] = (*padding, 0)
    x = lax.pad(x, jnp.array(-jnp.inf, x.dtype), ends)
    count = (x.shape[axis] - window) // stride + 1
    last = stride * (count - 1) + 1
    best = lax.slice_in_dim(x, 0, last, stride, axis)
    first = jnp.zeros(best.shape, jnp.uint8)
    for place in range(1, window):
        other = lax.slice_in_dim(x, place, place + last, stride, axis)
        first = jnp.where(other > best, jnp.uint8(place), first)
        best = jnp.maximum(best, other)
    return best, first


def _spread_along(
    gradient: Any, first: Any, length: int, axis: int, window: int, stride: int, padding: Pair
) -> Any:
    """Return the adjoint of `_max_along`: each window's gradient at its first maximum.

    Positions are computed in `stride` interleaved sets, each of which is a sum of shifted maps.
    """
    zero = jnp.zeros((), gradient.dtype)
    count = gradient.shape[axis]
    rows = -(-(length + sum(padding)) // stride)
    sets = []
    for start in range(stride):
        shape = list(gradient.shape)
        shape[axis] = rows
        total = jnp.zeros(shape, gradient.dtype)
        for place in range(start, window, stride):
            shift = place // stride
            ends = [(0, 0, 0)] * gradient.ndim
            ends[axis] = (shift, rows - count - shift, 0)
            total = total + lax.pad(jnp.where(first == place, gradient, zero), zero, ends)
        sets.append(total)
    shape[axis] = rows * stride
    spread = jnp.stack(sets, axis + 1).reshape(shape)
    return lax.slice_in_dim(spread, padding[0], padding[0] + length, 1, axis)


def explicit_padding(
    sizes: Sequence[int], window: Sequence[int], strides: Sequence[int], name: str
) -> tuple[Pair, ...]:
    """Return pixels before and behind by axis, for Keras' name of a padding."""
    return tuple(lax.padtype_to_pads(sizes, window, strides, name.upper()))
