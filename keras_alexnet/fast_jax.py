"""Faster ways on JAX's CPU. XLA's gradients of max pools and of kernels take most of a step.

Forward passes stay what XLA makes of them, but for max pools and convolutions by one pixel.
"""

from collections.abc import Sequence
from functools import partial
from types import MethodType
from typing import Any, TypeAlias

from keras_alexnet import backend

keras = backend.load_keras()
jax = backend.require("jax")
jnp, lax = jax.numpy, jax.lax

Pair: TypeAlias = tuple[int, int]

# Windows are unrolled; a larger one is XLA's.
_LARGEST_WINDOW = 8
# Below that many rows the sum over batches costs more than the product it adds.
_PATCHES = 1024
_WIDE = ("float32", "float64")
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def quicken_jax(layer: Any) -> None:
    """Replace methods of one layer by faster ones with the same result.

    Max pooling and channels-last `Conv2D` without dilation gain; other layers are left alone, and
    all of them where JAX does not run on a CPU. Weights, shapes and the saved configuration stay
    as they are.

    Args:
        layer: A Keras layer on the JAX backend.
    """
    if jax.default_backend() != "cpu":
        return
    if type(layer) is keras.layers.MaxPooling2D:
        if max(layer.pool_size) <= _LARGEST_WINDOW:
            layer.call = MethodType(_max_pool_call, layer)
    elif (
        type(layer) is keras.layers.Conv2D
        and layer.data_format == "channels_last"
        and set(layer.dilation_rate) == {1}
    ):
        layer.convolution_op = MethodType(_convolution_op, layer)


def _max_pool_call(layer: Any, inputs: Any) -> Any:
    axes = (1, 2) if layer.data_format == "channels_last" else (2, 3)
    sizes = [inputs.shape[axis] for axis in axes]
    # Symbolic sizes, of an export, have no slices; whatever is empty or exotic is Keras' affair.
    plain = all(isinstance(size, int) for size in sizes) and not isinstance(
        inputs, keras.KerasTensor
    )
    if plain and jnp.issubdtype(inputs.dtype, jnp.floating):
        padding = _padding(sizes, layer.pool_size, layer.strides, layer.padding)
        widths = [n + sum(ends) for n, ends in zip(sizes, padding, strict=True)]
        if all(n >= window for n, window in zip(widths, layer.pool_size, strict=True)):
            # The width first: then the first maximum in rows, not in columns, has the gradient.
            passes = tuple(zip(axes, layer.pool_size, layer.strides, padding, strict=True))[::-1]
            return _max_pool(inputs, passes)
    return type(layer).call(layer, inputs)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(x: Any, passes: Any) -> Any:
    """Return the maximum of every window, one axis after the other.

    The gradient goes to the first maximum of a window in row-major order, as it does in XLA's
    select-and-scatter and in torch: at ties, of which a ReLU makes many, the others get none.
    """
    for way in passes:
        x, _ = _max_along(x, *way)
    return x


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


def _convolution_op(layer: Any, inputs: Any, kernel: Any) -> Any:
    kernel = jnp.asarray(kernel)
    sizes = inputs.shape[1:3]
    plain = all(isinstance(n, int) for n in sizes) and not isinstance(inputs, keras.KerasTensor)
    padding = _padding(sizes, layer.kernel_size, layer.strides, layer.padding) if plain else ()
    fits = all(
        n + sum(ends) >= window
        for n, ends, window in zip(sizes, padding, layer.kernel_size, strict=False)
    )
    if not plain or not fits or kernel.dtype not in _WIDE or inputs.dtype != kernel.dtype:
        return type(layer).convolution_op(layer, inputs, kernel)
    if layer.kernel_size == layer.strides == (1, 1) and layer.groups == 1:
        # XLA's product is faster than its convolution, twice and more for the kernel's gradient.
        pixels = inputs.reshape(-1, inputs.shape[-1])  # (N * H * W, C)
        return (pixels @ kernel[0, 0]).reshape(*inputs.shape[:3], -1)
    parts = [
        _convolve(part, part_kernel, layer.strides, padding)
        for part, part_kernel in zip(
            jnp.split(inputs, layer.groups, axis=-1),
            jnp.split(kernel, layer.groups, axis=-1),
            strict=True,
        )
    ]
    return jnp.concatenate(parts, axis=-1)


def _stock_convolve(x: Any, kernel: Any, strides: Pair, padding: Any) -> Any:
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_LAYOUT)


# (x, kernel, strides, padding) -> convolution
_convolve = jax.custom_vjp(_stock_convolve, nondiff_argnums=(2, 3))


def _convolve_forward(x: Any, kernel: Any, strides: Pair, padding: Any) -> Any:
    return _stock_convolve(x, kernel, strides, padding), (x, kernel)


def _convolve_backward(strides: Pair, padding: Any, residuals: Any, gradient: Any) -> Any:
    x, kernel = residuals
    (x_gradient,) = jax.linear_transpose(lambda x: _stock_convolve(x, kernel, strides, padding), x)(
        gradient
    )
    return x_gradient, _kernel_gradient(x, kernel.shape, gradient, strides, padding)


_convolve.defvjp(_convolve_forward, _convolve_backward)


def _kernel_gradient(
    x: Any, shape: tuple[int, ...], gradient: Any, strides: Pair, padding: Any
) -> Any:
    """Return the kernel's gradient: products of a few images' patches with theirs, summed up.

    XLA makes a convolution of it whose kernel is a whole map, which it packs slowly.

    Args:
        x: (N, H, W, C).
        shape: (h, w, C, F) of the kernel.
        gradient: (N, H', W', F).
        strides: Of the convolution.
        padding: Pixels before and behind, by axis.
    """
    height, width, channels, filters = shape
    batch, rows, columns, _ = gradient.shape
    down, across = strides
    # Pixels that share a window's place modulo the stride become channels: patches are then slices
    # without steps, in longer runs.
    steps = -(-width // across)
    wanted = (columns + steps - 1) * across
    left, right = padding[1]
    excess = wanted - (x.shape[2] + left + right)
    ends = [(0, 0, 0), (*padding[0], 0), (left, right + excess, 0), (0, 0, 0)]
    x = lax.pad(x, jnp.zeros((), x.dtype), ends)
    x = x.reshape(batch, x.shape[1], wanted // across, across * channels)
    last = down * (rows - 1) + 1
    count = max(
        n
        for n in range(1, batch + 1)
        if batch % n == 0 and (n == 1 or n * rows * columns <= _PATCHES)
    )

    def add(total: Any, images: Any) -> Any:
        some, upstream = images
        patches = jnp.concatenate(
            [
                some[:, row : row + last : down, step : step + columns]
                for row in range(height)
                for step in range(steps)
            ],
            axis=-1,
        ).reshape(count * rows * columns, -1)
        return total + patches.T @ upstream.reshape(-1, filters), None

    groups = (batch // count, count)
    total, _ = lax.scan(
        add,
        jnp.zeros((height * steps * across * channels, filters), x.dtype),
        (x.reshape(*groups, *x.shape[1:]), gradient.reshape(*groups, *gradient.shape[1:])),
    )
    return total.reshape(height, steps * across, channels, filters)[:, :width]


def _padding(
    sizes: Sequence[int], window: Sequence[int], strides: Sequence[int], name: str
) -> tuple[Pair, ...]:
    """Return pixels before and behind by axis, for Keras' name of a padding."""
    return tuple(lax.padtype_to_pads(sizes, window, strides, name.upper()))
