"""Norms and activations of float32 for training on TensorFlow, each fused into a few loops by XLA.

TensorFlow computes them one arithmetic operation after the other, and so are their gradients:
a GELU and its gradient pass over memory some twenty times. Its one operation for batch norm is
oneDNN's, which takes about twice the time of these loops, and is further from the result in
float64. Every shape of a batch is compiled once, which is for training, not for images of any size.

Functions of float32 tensors; gradients are in closed form, and differentiable themselves.
"""

from collections.abc import Callable, Mapping
from typing import Any

from keras_alexnet.core import backend

tf = backend.require("tensorflow")

Function = Callable[..., Any]
_SQRT_HALF = 0.7071067811865476  # 1 / sqrt(2)
_DENSITY = 0.3989422804014327  # of the normal distribution at 0, 1 / sqrt(2 pi)


def _loop(function: Function) -> Function:
    fused: Function = tf.function(function, jit_compile=True, autograph=False)
    return fused


def _rows(x: Any) -> Any:
    """Return (..., C) as (R, C)."""
    return tf.reshape(x, (-1, x.shape[-1]))


# Batch norm


@_loop
def _batch_norm(x: Any, gamma: Any, beta: Any, epsilon: Any) -> tuple[Any, Any, Any]:
    rows = _rows(x)
    mean = tf.reduce_mean(rows, 0)
    variance = tf.reduce_mean(tf.square(rows - mean), 0)
    y = (rows - mean) * (gamma * tf.math.rsqrt(variance + epsilon)) + beta
    return tf.reshape(y, tf.shape(x)), mean, variance


@_loop
def _batch_norm_gradients(
    x: Any, gamma: Any, mean: Any, variance: Any, epsilon: Any, upstream: Any
) -> tuple[Any, Any, Any]:
    rows, given = _rows(x), _rows(upstream)
    inverse = tf.math.rsqrt(variance + epsilon)
    count = tf.cast(tf.shape(rows)[0], x.dtype)
    for_beta = tf.reduce_sum(given, 0)
    for_gamma = tf.reduce_sum(given * (rows - mean), 0) * inverse
    centred = given - for_beta / count - (rows - mean) * (inverse * for_gamma / count)
    return tf.reshape(centred * (gamma * inverse), tf.shape(x)), for_gamma, for_beta


def batch_norm(x: Any, gamma: Any, beta: Any, epsilon: float) -> tuple[Any, Any, Any]:
    """Normalise each channel of a batch (..., C) by its own statistics.

    Returns:
        The batch, and the mean and the biased variance (C,), which have no gradient.
    """

    @tf.custom_gradient
    def normalize(x: Any, gamma: Any, beta: Any) -> Any:
        y, mean, variance = _batch_norm(x, gamma, beta, epsilon)

        def gradients(upstream: Any, *_: Any) -> Any:
            return _batch_norm_gradients(x, gamma, mean, variance, epsilon, upstream)

        return (y, mean, variance), gradients

    y, mean, variance = normalize(x, gamma, beta)
    return y, mean, variance


# Layer norm. Sums along rows are products, which XLA computes much faster than sums.


@_loop
def _layer_norm(x: Any, gamma: Any, beta: Any, epsilon: Any) -> tuple[Any, Any, Any]:
    rows = _rows(x)
    mean = _row_means(rows)
    inverse = tf.math.rsqrt(_row_means(tf.square(rows - mean)) + epsilon)
    return tf.reshape((rows - mean) * inverse * gamma + beta, tf.shape(x)), mean, inverse


def _row_means(rows: Any) -> Any:
    """Return the means (R, 1) of (R, C)."""
    channels = rows.shape[-1]
    return tf.matmul(rows, tf.fill((channels, 1), 1.0 / channels))


@_loop
def _layer_norm_gradients(
    x: Any, gamma: Any, mean: Any, inverse: Any, upstream: Any
) -> tuple[Any, Any, Any]:
    rows, given = _rows(x), _rows(upstream)
    normal = (rows - mean) * inverse
    for_gamma = given * normal
    scale = tf.reshape(gamma, (-1, 1)) / rows.shape[-1]
    centred = given * gamma - tf.matmul(given, scale) - normal * tf.matmul(for_gamma, scale)
    y = tf.reshape(centred * inverse, tf.shape(x))
    return y, tf.reduce_sum(for_gamma, 0), tf.reduce_sum(given, 0)


def layer_norm(x: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    """Normalise each vector of (..., C) by its own mean and biased variance."""

    @tf.custom_gradient
    def normalize(x: Any, gamma: Any, beta: Any) -> Any:
        y, mean, inverse = _layer_norm(x, gamma, beta, epsilon)
        return y, lambda upstream: _layer_norm_gradients(x, gamma, mean, inverse, upstream)

    return normalize(x, gamma, beta)


# Activations


def _activation(value: Function, slope: Function) -> Function:
    """Return a function of one tensor from its value and its derivative."""
    forward = _loop(value)
    backward = _loop(lambda x, upstream: upstream * slope(x))

    @tf.custom_gradient
    def activate(x: Any) -> Any:
        return forward(x), lambda upstream: backward(x, upstream)

    return activate


def _gelu(x: Any) -> Any:
    return x * _normal(x)


def _gelu_slope(x: Any) -> Any:
    return _normal(x) + x * (tf.exp(tf.square(x) * -0.5) * _DENSITY)


def _normal(x: Any) -> Any:
    """Return the normal distribution's probability of less than x."""
    return 0.5 + 0.5 * tf.math.erf(x * _SQRT_HALF)


def _silu_slope(x: Any) -> Any:
    gate = tf.sigmoid(x)
    return gate * (1.0 + x * (1.0 - gate))


def _hard_silu(x: Any) -> Any:
    return x * tf.clip_by_value(x / 6.0 + 0.5, 0.0, 1.0)


def _hard_silu_slope(x: Any) -> Any:
    # At the corners as torch has it.
    return tf.where(x <= -3.0, 0.0, tf.where(x < 3.0, x / 3.0 + 0.5, 1.0))


# By the names of `keras.activations`. What is not here gains nothing.
ACTIVATIONS: Mapping[str, Function] = {
    "gelu": _activation(_gelu, _gelu_slope),
    "silu": _activation(lambda x: x * tf.sigmoid(x), _silu_slope),
    "hard_silu": _activation(_hard_silu, _hard_silu_slope),
}
