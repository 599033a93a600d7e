"""TensorFlow as the engine: one graph of NHWC operations whose weights are constants.

Not compiled by XLA, which is slower than TensorFlow's own kernels on a CPU.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import numpy as np

from keras_alexnet.core.backend import require
from keras_alexnet.layers import keras
from keras_alexnet.models.interface import alone_or_list
from keras_alexnet.optimizing import operations as op
from keras_alexnet.optimizing.plan import Plan

tf = require("tensorflow")

Step = Callable[..., Any]


class TensorFlowEngine:
    """A plan on TensorFlow, traced anew for each size of image, not of a batch."""

    fixed_batches = False

    def __init__(self, model: Any, plan: Plan, batch_size: int | None) -> None:
        self._plan = plan
        self._graphs: dict[tuple[tuple[int | None, ...], ...], Any] = {}

    def is_tensor(self, x: Any) -> bool:
        """Say whether `x` is a tensor of this framework."""
        return tf.is_tensor(x)

    def to_numpy(self, x: Any) -> np.ndarray:
        """Return a tensor as an array."""
        return x.numpy()

    def __call__(self, x: Any) -> Any:
        """Run a batch, an array or tensor in the model's layout; return tensors in that."""
        given = [tf.cast(each, tf.float32) for each in keras.tree.flatten(x)]
        shapes = tuple(tuple(each.shape[1:]) for each in given)
        if shapes not in self._graphs:
            specs = [tf.TensorSpec((None, *shape), tf.float32) for shape in shapes]
            graph = tf.function(self._compute, autograph=False, jit_compile=False)
            self._graphs[shapes] = graph.get_concrete_function(*specs)
        return self._graphs[shapes](*given)

    def _compute(self, *inputs: Any) -> Any:
        channels_first = self._plan.data_format == "channels_first"

        def given(x: Any) -> Any:
            return tf.transpose(x, (0, 2, 3, 1)) if channels_first and len(x.shape) == 4 else x

        values = [alone_or_list(list(map(given, inputs)))]  # maps (N, H, W, C)
        for each in self._plan.operations:
            values.append(_STEPS[type(each)](each, *[values[i] for i in each.inputs]))

        def placed(number: int) -> Any:
            y = values[number]
            return tf.transpose(y, (0, 3, 1, 2)) if channels_first and len(y.shape) == 4 else y

        return keras.tree.map_structure(placed, self._plan.outputs)


def _affine(each: op.Affine, x: Any) -> Any:
    scale, offset = (np.asarray(v, np.float32) for v in (each.scale, each.offset))
    x = tf.reverse(x, (-1,)) if each.reverse else x
    if len(x.shape) == 4 and scale.ndim == offset.ndim == 1:
        # One pass of oneDNN's, with a ReLU behind it too, where products and sums take three.
        y = tf.nn.depthwise_conv2d(x, scale.reshape(1, 1, -1, 1), (1, 1, 1, 1), "VALID")
        return tf.nn.bias_add(y, offset)
    return x * scale + offset


def _conv(each: op.Conv, x: Any, *added: Any) -> Any:
    padding = "SAME" if each.padding is None else ((0, 0), *each.padding, (0, 0))
    convolve = partial(tf.nn.conv2d, strides=each.strides, padding=padding)
    if each.groups == 1:
        y = convolve(x, each.kernel)
    elif each.groups == x.shape[-1] and each.strides[0] == each.strides[1]:
        y = _depthwise(each, x)
    else:
        # TensorFlow has no grouped convolution on a CPU but XLA's, which is far slower.
        parts = zip(
            tf.split(x, each.groups, axis=-1),
            np.split(each.kernel, each.groups, axis=-1),
            strict=True,
        )
        y = tf.concat([convolve(part, kernel) for part, kernel in parts], -1)
    y = tf.nn.bias_add(y, each.bias)
    return _ACTIVATIONS[each.activation](y + added[0] if added else y)


def _depthwise(each: op.Conv, x: Any) -> Any:
    height, width, _, outputs = each.kernel.shape
    kernel = each.kernel.reshape(height, width, each.groups, outputs // each.groups)
    window = height, width
    padding, stride = each.padding, each.strides[0]
    if stride == 1 and padding == op.same_padding(window, window, (1, 1)):
        padding = None  # in the same pass
    elif padding not in (None, op.NO_PADDING):
        x = tf.pad(x, ((0, 0), *padding, (0, 0)))
    how = "SAME" if padding is None else "VALID"
    return tf.nn.depthwise_conv2d(x, kernel, (1, stride, stride, 1), how)


def _dense(each: op.Dense, x: Any) -> Any:
    # One operation of oneDNN's, which lays a constant kernel out once: good for a few rows, slower
    # for the many of tokens or pixels, to which the kernel comes as a tensor of no known value.
    rows, kernel = x, each.kernel
    if len(x.shape) > 2:
        rows = tf.reshape(x, (-1, x.shape[-1]))
        with tf.init_scope():
            kernel = tf.constant(each.kernel)
    y = _ACTIVATIONS[each.activation](tf.nn.bias_add(tf.matmul(rows, kernel), each.bias))
    return y if rows is x else tf.reshape(y, (*_sizes(x)[:-1], y.shape[-1]))


def _sizes(x: Any) -> list[Any]:
    """Return a shape, in numbers as far as they are known."""
    known, here = x.shape.as_list(), tf.shape(x)
    return [here[i] if size is None else size for i, size in enumerate(known)]


def _pad(each: op.Pad, x: Any) -> Any:
    return tf.pad(x, ((0, 0), *each.padding, (0, 0)))


def _max_pool(each: op.MaxPool, x: Any) -> Any:
    same = op.same_padding((x.shape[1], x.shape[2]), each.size, each.strides)
    padding = each.padding or same
    if padding != op.NO_PADDING:
        if padding == same:
            return tf.nn.max_pool2d(x, each.size, each.strides, "SAME")
        x = tf.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-float("inf"))
    return tf.nn.max_pool2d(x, each.size, each.strides, "VALID")


def _avg_pool(each: op.AvgPool, x: Any) -> Any:
    return tf.nn.avg_pool2d(x, each.size, each.strides, "VALID")


def _adaptive(each: op.AdaptiveAvgPool, x: Any) -> Any:
    height, width = x.shape[1:3]
    rows, columns = each.size
    if height % rows == width % columns == 0:
        window = (height // rows, width // columns)
        return x if window == (1, 1) else tf.nn.avg_pool2d(x, window, window, "VALID")
    x = tf.einsum("ih,nhwc->niwc", op.adaptive_matrix(height, rows), x)
    return tf.einsum("jw,niwc->nijc", op.adaptive_matrix(width, columns), x)


def _global_pool(each: op.GlobalPool, x: Any) -> Any:
    reduce = tf.reduce_max if each.largest else tf.reduce_mean
    return reduce(x, (1, 2), keepdims=each.keepdims)


def _repeat(each: op.Repeat, x: Any) -> Any:
    return tf.repeat(tf.repeat(x, each.factors[0], 1), each.factors[1], 2)


def _flatten(each: op.Flatten, x: Any) -> Any:
    return tf.reshape(x, (-1, int(np.prod(x.shape[1:]))))


def _reshape(each: op.Reshape, x: Any) -> Any:
    return tf.reshape(x, each.shape)


def _elementwise(each: op.Elementwise, *values: Any) -> Any:
    return _ACTIVATIONS[each.activation](reduce(getattr(tf, each.function), values))


def _layer_norm(each: op.LayerNorm, x: Any) -> Any:
    mean, variance = tf.nn.moments(x, (-1,), keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + each.epsilon) * each.gamma + each.beta


def _constant(each: op.Constant) -> Any:
    return tf.constant(each.value)


def _concat(each: op.Concat, *parts: Any) -> Any:
    return tf.concat(parts, -1)


def _lrn(each: op.LRN, x: Any) -> Any:
    band = op.lrn_band(x.shape[-1], each)
    d = each.k + tf.matmul(tf.reshape(x * x, (-1, x.shape[-1])), band)
    # The roots are several times faster than the power.
    factor = tf.math.rsqrt(d * tf.sqrt(d)) if each.beta == 0.75 else d**-each.beta
    return x * tf.reshape(factor, tf.shape(x))


def _activation(each: op.Activation, x: Any) -> Any:
    return _ACTIVATIONS[each.function](x)


_ACTIVATIONS: dict[str, Step] = {
    "linear": lambda x: x,
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
    "sigmoid": tf.nn.sigmoid,
    "softmax": tf.nn.softmax,
    "tanh": tf.nn.tanh,
    "silu": tf.nn.silu,
    "hard_silu": lambda x: x * (tf.nn.relu6(x + 3) / 6),
    "hard_sigmoid": lambda x: tf.nn.relu6(x + 3) / 6,
    # As TensorFlow writes it: oneDNN takes it into the product before.
    "gelu": partial(tf.nn.gelu, approximate=False),
    "gelu_tanh": partial(tf.nn.gelu, approximate=True),
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
