"""Norms and activations of float32 for training on TensorFlow, each fused into a few loops by XLA.

TensorFlow computes them one arithmetic operation after the other, and so are their gradients:
a GELU and its gradient pass over memory some twenty times. Its one operation for batch norm is
oneDNN's, which takes about twice the time of these loops, and is further from the result in
float64. Every shape of a batch is compiled once, which is for training, not for images of any size.

Functions of float32 tensors. Gradients are in closed form; those of the gradients are TensorFlow's.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from keras_alexnet.core import backend

tf = backend.require("tensorflow")

Function = Callable[..., Any]
_SQRT_HALF = 0.7071067811865476  # 1 / sqrt(2)
_DENSITY = 0.3989422804014327  # of the normal distribution at 0, 1 / sqrt(2 pi)


def _loop(function: Function) -> Function:
    fused: Function = tf.function(function, jit_compile=True, autograph=False)
    return fused


def _with_gradients(plain: Function, value: Function, gradients: Function, *inputs: Any) -> Any:
    """Return `value(*inputs)`, which equals `plain`'s, with `gradients(upstream, *inputs)`.

    The gradients of those are TensorFlow's of `plain`: what `value` and `gradients` share, such as
    a mean, would be a constant to them.
    """

    @tf.custom_gradient
    def first(upstream: Any, *inputs: Any) -> Any:
        def second(*upstreams: Any) -> Any:
            given = upstream, *inputs
            with tf.GradientTape() as outer:
                outer.watch(given)
                with tf.GradientTape() as inner:
                    inner.watch(inputs)
                    y = plain(*inputs)
                found = inner.gradient(y, inputs, upstream)
            return outer.gradient(found, given, upstreams)

        return gradients(upstream, *inputs), second

    @tf.custom_gradient
    def computed(*inputs: Any) -> Any:
        return value(*inputs), lambda upstream: first(upstream, *inputs)

    return computed(*inputs)


def _rows(x: Any) -> Any:
    """Return (..., C) as (R, C)."""
    return tf.reshape(x, (-1, x.shape[-1]))


# Activations


class Activation:
    """A function of each number, alone and behind a batch norm.

    Args:
        value: The function.
        slope: Its derivative.
    """

    def __init__(self, value: Function, slope: Function) -> None:
        self._value, self._slope = value, slope
        self._fused = _loop(value)
        self._fused_gradients = _loop(lambda upstream, x: (upstream * slope(x),))
        # Of `BatchNorm`.
        self.of_batch_norm = _loop(self._of_batch_norm)
        self.gradients_of_batch_norm = _loop(self._gradients_of_batch_norm)

    def __call__(self, x: Any) -> Any:
        """Compute the function of a tensor of any shape."""
        return _with_gradients(self._value, self._fused, self._fused_gradients, x)

    def _of_batch_norm(self, x: Any, gamma: Any, beta: Any, *statistics: Any) -> Any:
        return tf.reshape(self._value(_normalized(x, gamma, beta, *statistics)), tf.shape(x))

    def of_whole_batch_norm(self, epsilon: float, x: Any, gamma: Any, beta: Any) -> Any:
        """Compute the function of a batch norm, statistics too, one operation after the other."""
        return self._of_batch_norm(x, gamma, beta, *_moments(x), epsilon)

    def _gradients_of_batch_norm(
        self, upstream: Any, x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: Any
    ) -> tuple[Any, Any, Any]:
        rows = _rows(x)
        slope = self._slope(_normalized(x, gamma, beta, mean, variance, epsilon))
        given = _rows(upstream) * slope
        inverse = tf.math.rsqrt(variance + epsilon)
        count = tf.cast(tf.shape(rows)[0], x.dtype)
        for_beta = tf.reduce_sum(given, 0)
        for_gamma = tf.reduce_sum(given * (rows - mean), 0) * inverse
        centred = given - for_beta / count - (rows - mean) * (inverse * for_gamma / count)
        return tf.reshape(centred * (gamma * inverse), tf.shape(x)), for_gamma, for_beta


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


# By the names of `keras.activations`: those that gain by a loop of their own, and those that have
# an operation of TensorFlow's, but gain as the end of a batch norm's loop.
ALONE: Mapping[str, Activation] = {
    "gelu": Activation(_gelu, _gelu_slope),
    "silu": Activation(lambda x: x * tf.sigmoid(x), _silu_slope),
    "hard_silu": Activation(_hard_silu, _hard_silu_slope),
}
BEHIND_BATCH_NORM: Mapping[str, Activation] = {
    **ALONE,
    "relu": Activation(lambda x: tf.maximum(x, 0.0), lambda x: tf.where(x > 0.0, 1.0, 0.0)),
    "relu6": Activation(
        lambda x: tf.clip_by_value(x, 0.0, 6.0),
        lambda x: tf.where((x > 0.0) & (x < 6.0), 1.0, 0.0),
    ),
}
_NONE = Activation(lambda x: x, tf.ones_like)


# Batch norm


class BatchNorm:
    """A batch (..., C) of which each channel is normalised by its own statistics.

    Args:
        x: The batch.
        gamma: Scales (C,).
        beta: Offsets (C,).
        epsilon: What is added to variances.

    Attributes:
        mean: The batch's (C,), without a gradient.
        variance: Its biased variance (C,), the same.
    """

    def __init__(self, x: Any, gamma: Any, beta: Any, epsilon: float) -> None:
        self._inputs, self._epsilon = (x, gamma, beta), epsilon
        self.mean, self.variance = _fused_moments(tf.stop_gradient(x))

    def __call__(self, activation: Activation = _NONE) -> Any:
        """Return the normalised batch, or an activation of it."""
        kept = self.mean, self.variance, self._epsilon
        return _with_gradients(
            partial(activation.of_whole_batch_norm, self._epsilon),
            lambda *inputs: activation.of_batch_norm(*inputs, *kept),
            lambda *given: activation.gradients_of_batch_norm(*given, *kept),
            *self._inputs,
        )


def _moments(x: Any) -> tuple[Any, Any]:
    rows = _rows(x)
    mean = tf.reduce_mean(rows, 0)
    return mean, tf.reduce_mean(tf.square(rows - mean), 0)


_fused_moments = _loop(_moments)


def _normalized(x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: Any) -> Any:
    """Return the normalised (R, C)."""
    return (_rows(x) - mean) * (gamma * tf.math.rsqrt(variance + epsilon)) + beta


# Layer norm. Sums along rows are products, which XLA computes much faster than sums.


def _layer_norm(x: Any, gamma: Any, beta: Any, epsilon: Any) -> tuple[Any, Any, Any]:
    rows = _rows(x)
    mean = _row_means(rows)
    inverse = tf.math.rsqrt(_row_means(tf.square(rows - mean)) + epsilon)
    return tf.reshape((rows - mean) * inverse * gamma + beta, tf.shape(x)), mean, inverse


_fused_layer_norm = _loop(_layer_norm)


def _row_means(rows: Any) -> Any:
    """Return the means (R, 1) of (R, C)."""
    channels = rows.shape[-1]
    return tf.matmul(rows, tf.fill((channels, 1), 1.0 / channels))


@_loop
def _layer_norm_gradients(
    upstream: Any, x: Any, gamma: Any, mean: Any, inverse: Any
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
    y, mean, inverse = _fused_layer_norm(*map(tf.stop_gradient, (x, gamma, beta)), epsilon)
    return _with_gradients(
        lambda x, gamma, beta: _layer_norm(x, gamma, beta, epsilon)[0],
        lambda *_: y,
        lambda upstream, x, gamma, _: _layer_norm_gradients(upstream, x, gamma, mean, inverse),
        *(x, gamma, beta),
    )
