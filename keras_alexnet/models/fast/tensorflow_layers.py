"""Stock layers on TensorFlow in fewer passes over memory.

A product with a bias behind it becomes one fused operation of oneDNN, which brings the kernel into
another order of memory at every call: for the 151 MB of AlexNet's first dense layer that takes
longer than the product. Batch norm is written by Keras in a dozen operations, each with a gradient
of its own, where TensorFlow has one. In training on the CPU, norms and activations are loops that
XLA makes (`tensorflow_fused`).

The functions here compute what a layer's own `call` computes, and leave to that what TensorFlow's
operation does not cover.
"""

import contextlib
import math
from typing import Any

from keras_alexnet.core import backend
from keras_alexnet.core.keras_internals import MissingPartError, has_mask, is_training, maker_of
from keras_alexnet.models.fast import tensorflow_fused

keras = backend.load_keras()
tf = backend.require("tensorflow")

# Numbers of an image below which XLA takes longer to compile than it saves in hundreds of steps.
_LEAST = 1 << 15
# Of a tensor: the batch norm in training that it comes from.
_NORM = "_keras_alexnet_batch_norm"


def _multiply(layer: Any, inputs: Any, training: Any = None) -> Any:
    """Compute a `Dense` of vectors (N, I)."""
    if not _covers(layer, inputs) or inputs.shape.rank != 2 or layer.quantization_mode:
        return type(layer).call(layer, inputs, training=training)
    kernel = tf.convert_to_tensor(layer.kernel)
    # Exporters make further outputs of what `tf.custom_gradient` wraps.
    outputs = _trained_product(inputs, kernel) if training else _product(inputs, kernel)
    if layer.bias is not None:
        outputs = tf.nn.bias_add(outputs, tf.convert_to_tensor(layer.bias))
    return outputs if layer.activation is None else layer.activation(outputs)


def _product(rows: Any, matrix: Any) -> Any:
    """Return (N, I) times (I, O) as a sum, which TensorFlow fuses no bias with."""
    return tf.einsum("ni,io->no", rows, matrix)


@tf.custom_gradient
def _trained_product(rows: Any, matrix: Any) -> Any:
    """As `_product`; the matrix's gradient is faster as a product, that of the rows as a sum."""

    def gradients(upstream: Any) -> Any:
        return (
            tf.einsum("no,io->ni", upstream, matrix),
            tf.matmul(rows, upstream, transpose_a=True),
        )

    return _product(rows, matrix), gradients


def _normalize(layer: Any, inputs: Any, training: Any = None, mask: Any = None) -> Any:
    """Compute a `BatchNormalization` of channels-last feature maps in float32 or 16 bits.

    Statistics and parameters are float32's either way, as in Keras.

    As in Keras, a layer that is not trainable normalises by its moving statistics, and the moving
    variance follows the biased variance of the batches, not the unbiased one of the operation.
    """
    if (
        mask is not None
        or layer.renorm
        or layer.synchronized
        or not _covers(layer, inputs)
        or inputs.dtype not in (tf.float32, tf.bfloat16, tf.float16)
        or layer.variable_dtype != "float32"
        or inputs.shape.rank != 4
        or layer.axis not in (-1, 3)
    ):
        return type(layer).call(layer, inputs, training=training, mask=mask)
    moving_mean, moving_variance = (
        tf.convert_to_tensor(v) for v in (layer.moving_mean, layer.moving_variance)
    )
    scale = tf.convert_to_tensor(layer.gamma) if layer.scale else tf.ones_like(moving_mean)
    offset = tf.convert_to_tensor(layer.beta) if layer.center else tf.zeros_like(moving_mean)
    learns = bool(training and layer.trainable)
    if not learns and inputs.shape[0] == 1 and inputs.dtype == tf.float32:
        # TensorFlow fuses the convolution before with the operation below, which makes it faster
        # but for a single image, where oneDNN's takes up to 80 times as long.
        return tf.nn.batch_normalization(
            inputs, moving_mean, moving_variance, offset, scale, layer.epsilon
        )
    if learns and _fuses(inputs):
        norm = tensorflow_fused.BatchNorm(inputs, scale, offset, layer.epsilon)
        y, mean, variance = norm(), norm.mean, norm.variance
        if not tf.executing_eagerly():
            # An activation computes both; then nothing reads `y`, and a graph does not compute it.
            setattr(y, _NORM, norm)
    else:
        nothing = tf.zeros((0,), tf.float32)
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,  # (N, H, W, C)
            scale=scale,
            offset=offset,
            mean=nothing if learns else moving_mean,
            variance=nothing if learns else moving_variance,
            epsilon=layer.epsilon,
            exponential_avg_factor=1.0,  # what comes out are the batch's own statistics
            data_format="NHWC",
            is_training=learns,
        )
        if learns:
            values = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), tf.float32)  # of each channel
            variance *= (values - 1.0) / values  # the biased one
    if learns:
        new = 1.0 - layer.momentum
        layer.moving_mean.assign(moving_mean * layer.momentum + mean * new)
        layer.moving_variance.assign(moving_variance * layer.momentum + variance * new)
    return y


def _normalize_vectors(layer: Any, inputs: Any) -> Any:
    """Compute a `LayerNormalization` over the last axis in training."""
    if (
        not _is_trained(layer, inputs)
        or layer.rms_scaling
        or tuple(layer.axis) not in ((-1,), (inputs.shape.rank - 1,))
        or layer.variable_dtype != "float32"
    ):
        return type(layer).call(layer, inputs)
    channels = inputs.shape[-1]
    scale = tf.convert_to_tensor(layer.gamma) if layer.scale else tf.ones((channels,))
    offset = tf.convert_to_tensor(layer.beta) if layer.center else tf.zeros((channels,))
    return tensorflow_fused.layer_norm(inputs, scale, offset, layer.epsilon)


def _activate(layer: Any, inputs: Any) -> Any:
    """Compute an `Activation` in training."""
    name = getattr(layer.activation, "__name__", "")
    # A function of somebody's own may have the name of one of Keras'.
    known = name in tensorflow_fused.BEHIND_BATCH_NORM
    is_keras = known and layer.activation is keras.activations.get(name)
    return _activated(layer, inputs, name if is_keras else "")


def _rectify(layer: Any, inputs: Any) -> Any:
    """Compute a `ReLU` in training."""
    named = not layer.negative_slope and not layer.threshold
    name = {None: "relu", 6: "relu6"}.get(layer.max_value, "") if named else ""
    return _activated(layer, inputs, name)


def _activated(layer: Any, inputs: Any, name: str) -> Any:
    """Compute a layer of one of Keras' activations, if it gains by a loop of XLA's, in that."""
    norm, behind = getattr(inputs, _NORM, None), tensorflow_fused.BEHIND_BATCH_NORM.get(name)
    if norm is not None and behind is not None:
        return norm(behind)
    alone = tensorflow_fused.ALONE.get(name)
    if alone is not None and _is_trained(layer, inputs):
        return alone(inputs)
    return type(layer).call(layer, inputs)


def _is_trained(layer: Any, inputs: Any) -> bool:
    """Return whether a layer's call is one of training that XLA's loops cover."""
    return is_training() and _covers(layer, inputs) and _fuses(inputs) and not has_mask(inputs)


def _fuses(inputs: Any) -> bool:
    """Return whether XLA's loops are for these values: they were measured on CPUs alone."""
    known = [length or 1 for length in inputs.shape[1:]]
    return (
        inputs.dtype == tf.float32
        and math.prod(known) >= _LEAST
        and not tf.config.list_physical_devices("GPU")
    )


def _attend(
    operation: Any,
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    mask: Any = None,
    scale: Any = None,
) -> Any:
    """Compute `keras.ops.dot_product_attention` (N, T, heads, channels) without a mask.

    Keras has it as sums of products, whose gradients move the axes of each operand again.
    """
    plain = mask is None and not operation.is_causal and operation.attn_logits_soft_cap is None
    tensors = query, key, value
    if not plain or any(not tf.is_tensor(x) or x.dtype != tf.float32 for x in tensors):
        return type(operation).call(operation, query, key, value, bias, mask, scale)
    if scale is None:
        scale = 1.0 / math.sqrt(key.shape[-1])
    query, key, value = (tf.transpose(x, (0, 2, 1, 3)) for x in tensors)  # (N, heads, T, channels)
    scores = tf.matmul(query * scale, key, transpose_b=True)
    weights = tf.nn.softmax(scores if bias is None else scores + bias)
    return tf.transpose(tf.matmul(weights, value), (0, 2, 1, 3))


def _covers(layer: Any, inputs: Any) -> bool:
    """Return whether a layer's input is a tensor of the layer's dtype."""
    return tf.is_tensor(inputs) and inputs.dtype == layer.compute_dtype and inputs.dtype.is_floating


def _attention() -> type:
    """Return the class of the operation of attention, which has no public name."""
    heads = keras.KerasTensor((1, 1, 1, 1))
    return type(maker_of(keras.ops.dot_product_attention(heads, heads, heads))[0])


# Class -> the function that computes its `call`.
METHODS: dict[type, Any] = {
    keras.layers.Activation: _activate,
    keras.layers.BatchNormalization: _normalize,
    keras.layers.Dense: _multiply,
    keras.layers.LayerNormalization: _normalize_vectors,
    keras.layers.ReLU: _rectify,
}
with contextlib.suppress(MissingPartError):
    METHODS[_attention()] = _attend
