"""Faster ways on JAX's CPU. XLA's gradients of max pools and of weights take most of a step.

Forward passes stay what XLA makes of them, but for max pools and convolutions by one pixel. The
gradients are written by hand, which leaves JAX no other way to differentiate (`jax.jvp`,
`jax.jacfwd`, `jax.linearize`): so they stand in calls of training alone, elsewhere XLA's do.
"""

from types import MethodType
from typing import Any

from keras_alexnet.core import backend
from keras_alexnet.core.keras_internals import is_training
from keras_alexnet.models.fast.jax_pooling import Pair, explicit_padding, max_pool_call

keras = backend.load_keras()
jax = backend.require("jax")
jnp, lax = jax.numpy, jax.lax

# Windows are unrolled; a larger one is XLA's.
_LARGEST_WINDOW = 8
# Below that many rows the sum over batches costs more than the product it adds.
_PATCHES = 1024
_WIDE = ("float32", "float64")
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def quicken_jax(layer: Any) -> None:
    """Replace methods of one layer by faster ones with the same result.

    Max pooling, `Dense` and channels-last `Conv2D` without dilation gain; other layers are left
    alone, and all of them where JAX does not run on a CPU.
    """
    if jax.default_backend() != "cpu":
        return
    if type(layer) is keras.layers.MaxPooling2D:
        if max(layer.pool_size) <= _LARGEST_WINDOW:
            layer.call = MethodType(max_pool_call, layer)
    elif type(layer) is keras.layers.Dense:
        layer.call = MethodType(_dense_call, layer)
    elif (
        type(layer) is keras.layers.Conv2D
        and layer.data_format == "channels_last"
        and set(layer.dilation_rate) == {1}
    ):
        layer.convolution_op = MethodType(_convolution_op, layer)


def _dense_call(layer: Any, inputs: Any, training: Any = None) -> Any:
    kernel = jnp.asarray(layer.kernel)
    if (
        isinstance(inputs, keras.KerasTensor)
        or inputs.ndim != 2
        or not inputs.dtype == kernel.dtype == layer.compute_dtype
        or kernel.dtype not in _WIDE
        or layer.quantization_mode
    ):
        return type(layer).call(layer, inputs, training=training)
    outputs = _multiply(inputs, kernel) if training else inputs @ kernel
    if layer.bias is not None:
        outputs = outputs + jnp.asarray(layer.bias)
    return outputs if layer.activation is None else layer.activation(outputs)


@jax.custom_vjp
def _multiply(rows: Any, matrix: Any) -> Any:
    """Return (N, I) times (I, O)."""
    return rows @ matrix


def _multiply_forward(rows: Any, matrix: Any) -> Any:
    return rows @ matrix, (rows, matrix)


def _multiply_backward(residuals: Any, gradient: Any) -> Any:
    rows, matrix = residuals
    # With the matrix at the left, as XLA takes seven times as long to have it at the right and
    # transposed; without the barrier it would exchange the two.
    columns = lax.optimization_barrier(jnp.einsum("io,no->in", matrix, gradient))
    return columns.T, rows.T @ gradient


_multiply.defvjp(_multiply_forward, _multiply_backward)


def _convolution_op(layer: Any, inputs: Any, kernel: Any) -> Any:
    kernel = jnp.asarray(kernel)
    sizes = inputs.shape[1:3]
    plain = all(isinstance(n, int) for n in sizes) and not isinstance(inputs, keras.KerasTensor)
    padding = (
        explicit_padding(sizes, layer.kernel_size, layer.strides, layer.padding) if plain else ()
    )
    fits = all(
        n + sum(ends) >= window
        for n, ends, window in zip(sizes, padding, layer.kernel_size, strict=False)
    )
    empty = isinstance(inputs.shape[0], int) and inputs.shape[0] == 0
    wide = kernel.dtype in _WIDE and inputs.dtype == kernel.dtype
    if not plain or not fits or not wide or empty or inputs.ndim != 4:
        return type(layer).convolution_op(layer, inputs, kernel)
    if inputs.shape[3] != kernel.shape[2] * layer.groups:  # Keras says what is wrong with it
        return type(layer).convolution_op(layer, inputs, kernel)
    if layer.kernel_size == layer.strides == (1, 1) and layer.groups == 1:
        # XLA's product is faster than its convolution, twice and more for the kernel's gradient.
        pixels = inputs.reshape(-1, inputs.shape[-1])  # (N * H * W, C)
        return (pixels @ kernel[0, 0]).reshape(*inputs.shape[:3], kernel.shape[-1])
    convolve = _convolve if is_training() else _stock_convolve
    parts = [
        convolve(part, part_kernel, layer.strides, padding)
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

    XLA makes a convolution of it whose kernel is a whole map, which it packs slowly. `x` is
    (N, H, W, C); `shape` is the kernel's, `padding` pixels before and behind by axis.
    """
    height, width, channels, filters = shape
    batch, rows, columns, _ = gradient.shape  # (N, H', W', F)
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
