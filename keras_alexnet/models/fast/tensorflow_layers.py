"""Stock layers on TensorFlow in fewer passes over memory.

A product with a bias behind it becomes one fused operation of oneDNN, which brings the kernel into
another order of memory at every call: for the 151 MB of AlexNet's first dense layer that takes
longer than the product. Batch norm is written by Keras in a dozen operations, each with a gradient
of its own, where TensorFlow has one.

The functions here compute what a layer's own `call` computes, and leave to that what TensorFlow's
operation does not cover.
"""

from typing import Any

from keras_alexnet.core import backend

keras = backend.load_keras()
tf = backend.require("tensorflow")


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
    nothing = tf.zeros((0,), tf.float32)
    result = tf.raw_ops.FusedBatchNormV3(
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
        new = 1.0 - layer.momentum
        values = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), tf.float32)  # of each channel
        biased = result.batch_variance * ((values - 1.0) / values)
        layer.moving_mean.assign(moving_mean * layer.momentum + result.batch_mean * new)
        layer.moving_variance.assign(moving_variance * layer.momentum + biased * new)
    return result.y


def _covers(layer: Any, inputs: Any) -> bool:
    """Return whether a layer's input is a tensor of the layer's dtype."""
    return tf.is_tensor(inputs) and inputs.dtype == layer.compute_dtype and inputs.dtype.is_floating


# Class -> the function that computes its `call`.
METHODS: dict[type, Any] = {
    keras.layers.BatchNormalization: _normalize,
    keras.layers.Dense: _multiply,
}
