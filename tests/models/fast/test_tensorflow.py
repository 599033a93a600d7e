"""Faster layers and weight updates on TensorFlow against stock layers and against torch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ENVIRONMENT = {"KERAS_BACKEND": "tensorflow", "OMP_NUM_THREADS": "1"}

LAYERS = """
import keras, numpy as np, tensorflow as tf
from keras_alexnet.models.fast.quicken import quicken

rng = np.random.default_rng(0)

def values(shape, dtype="float32"):
    return tf.constant(rng.standard_normal(shape), dtype)

def pair(make, shape):
    stock, fast = make(), make()
    for layer in (stock, fast):
        layer.build(shape)
    for a, b in zip(stock.weights, fast.weights):
        value = 0.5 + rng.random(a.shape)
        a.assign(value); b.assign(value)
    assert quicken(fast) is fast and "call" in vars(fast)
    return stock, fast

def results(layer, x, upstream, training):
    @tf.function
    def both(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
        wanted = [x, *(v.value for v in layer.trainable_variables)]
        return y, tape.gradient(y, wanted, upstream)
    y, gradients = both(x, upstream)
    return [y, *gradients, *(v.value for v in layer.weights)]

def compare(make, x, training=None, tolerance=2e-6):
    stock, fast = pair(make, x.shape)
    upstream = values(stock.compute_output_shape(x.shape), x.dtype)
    for got, wanted in zip(*(results(layer, x, upstream, training) for layer in (fast, stock))):
        got, wanted = (np.asarray(v, "float64") for v in (got, wanted))
        scale = max(np.abs(wanted).max(), 1e-3)
        # Sums over a whole map, in another order.
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * 10 * scale)

layers = keras.layers
maps = values((3, 5, 4, 6)) * 2 + 1
for training in (True, False, None):
    compare(lambda: layers.BatchNormalization(), maps, training)
    compare(lambda: layers.BatchNormalization(axis=3, momentum=0.7), maps, training)
    compare(lambda: layers.BatchNormalization(scale=False, center=False), maps, training)
    compare(lambda: layers.BatchNormalization(trainable=False), maps, training)
    # Torch's own, smaller than cuDNN before 8 took it, and a smaller one.
    compare(lambda: layers.BatchNormalization(epsilon=1e-5), maps, training)
    compare(lambda: layers.BatchNormalization(epsilon=1e-6), maps, training)
compare(lambda: layers.BatchNormalization(), values((1, 1, 1, 6)), True)
# A single image, which is normalised by other operations.
compare(lambda: layers.BatchNormalization(), maps[:1], False)
compare(lambda: layers.BatchNormalization(scale=False, center=False), maps[:1], None)
compare(lambda: layers.BatchNormalization(trainable=False), maps[:1], True)
for policy, rounding in (("mixed_bfloat16", 2**-8), ("mixed_float16", 2**-11)):
    for training in (True, False):
        compare(
            lambda: layers.BatchNormalization(dtype=policy),
            tf.cast(maps, policy.removeprefix("mixed_")),
            training,
            tolerance=rounding,
        )
# Left to the stock layer: other axes, ranks and dtypes.
compare(lambda: layers.BatchNormalization(axis=1), maps, True)
compare(lambda: layers.BatchNormalization(), values((7, 6)), True)
compare(lambda: layers.BatchNormalization(dtype="float64"), values((3, 5, 4, 6), "float64"), True)
for activation in (None, "relu"):
    for bias in (True, False):
        for training in (True, False):
            compare(
                lambda: layers.Dense(4, activation=activation, use_bias=bias),
                values((5, 6)),
                training,
            )
compare(lambda: layers.Dense(4), values((5, 3, 6)))
compare(lambda: layers.Dense(4, dtype="float64"), values((5, 6), "float64"))

# Another size of batch than the one that was traced.
stock, fast = pair(layers.BatchNormalization, (None, 4, 4, 3))
image = keras.Input((4, 4, 3))
model = keras.Model(image, fast(image))
for size in (2, 5):
    x = values((size, 4, 4, 3))
    np.testing.assert_allclose(model(x, training=True), stock(x, training=True), atol=1e-5)
np.testing.assert_allclose(fast.moving_variance, stock.moving_variance, rtol=1e-6)

# XLA's loops, of maps that are large enough for them, against float64 as the stock layers have it.
def gradients_of(layer, x, upstream, training):
    image = keras.Input(x.shape[1:], dtype=x.dtype)
    model = keras.Model(image, layer(image))

    @tf.function
    def run(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = model(x, training=training)
        return y, tape.gradient(y, [x, *(v.value for v in layer.trainable_variables)], upstream)

    y, gradients = run(x, upstream)
    graph = run.get_concrete_function(x, upstream).graph.as_graph_def()
    loops = sum(f.attr["_XlaMustCompile"].b for f in graph.library.function)
    return [y, *gradients, *(v.value for v in layer.non_trainable_variables)], loops

def second_gradients(layer, x, upstream):
    @tf.function
    def run(x, upstream):
        given = [x, *(v.value for v in layer.trainable_variables)]
        with tf.GradientTape() as outer:
            outer.watch(given)
            with tf.GradientTape() as tape:
                tape.watch(given)
                y = layer(x, training=True)
            first = tape.gradient(y, given, upstream)
            penalty = sum(tf.reduce_sum(tf.square(gradient)) for gradient in first)
        return outer.gradient(penalty, given, unconnected_gradients="zero")
    return run(x, upstream)

def compare_fused(make, shape, loops, training=True):
    fast, wide = quicken(make(None)), make("float64")
    for layer in (fast, wide):
        layer.build((None, *shape[1:]))
    for a, b in zip(fast.weights, wide.weights):
        value = 0.5 + rng.random(a.shape)
        a.assign(value); b.assign(value)
    x, upstream = values(shape) * 2 + 0.3, values(shape)
    found, compiled = gradients_of(fast, x, upstream, training)
    wanted, _ = gradients_of(wide, tf.cast(x, "float64"), tf.cast(upstream, "float64"), training)
    assert compiled == loops, (type(fast), compiled)
    if loops:
        found += second_gradients(fast, x, upstream)
        wanted += second_gradients(wide, tf.cast(x, "float64"), tf.cast(upstream, "float64"))
    for got, true in zip(found, wanted, strict=True):
        scale = max(np.abs(true).max(), 1e-3)
        np.testing.assert_allclose(got, true, rtol=0, atol=5e-6 * scale, err_msg=str(type(fast)))

large, small = (3, 16, 16, 130), (3, 4, 4, 130)
for options in ({}, {"scale": False}, {"center": False}, {"epsilon": 1e-5}):
    norm = lambda dtype: layers.BatchNormalization(dtype=dtype, **options)
    compare_fused(norm, large, 3)
    compare_fused(norm, large, 0, training=False)
    vectors = lambda dtype: layers.LayerNormalization(dtype=dtype, **options)
    compare_fused(vectors, large, 2)
    compare_fused(vectors, (3, 256, 130), 2)
    compare_fused(vectors, large, 0, training=False)
    compare_fused(vectors, small, 0)
compare_fused(lambda dtype: layers.BatchNormalization(trainable=False, dtype=dtype), large, 0)
compare_fused(lambda dtype: layers.LayerNormalization(axis=1, dtype=dtype), large, 0)
for name in ("gelu", "silu", "hard_silu"):
    compare_fused(lambda dtype: layers.Activation(name, dtype=dtype), large, 2)
    compare_fused(lambda dtype: layers.Activation(name, dtype=dtype), large, 0, training=False)
def gelu(x):
    return keras.ops.relu(x)
compare_fused(lambda dtype: layers.Activation(gelu, dtype=dtype), large, 0)

# Batch norm and the activation behind it: the statistics, the norm alone, which the graph then
# leaves out, both together, and their gradients.
def behind(activation, **options):
    def make(dtype):
        norm = layers.BatchNormalization(dtype=dtype)
        kind = layers.ReLU if activation is None else layers.Activation
        names = [] if activation is None else [activation]
        return keras.Sequential([norm, kind(*names, **options, dtype=dtype)])
    return make

for name in ("gelu", "silu", "hard_silu", "relu", "relu6"):
    compare_fused(behind(name), large, 4)
compare_fused(behind(None), large, 4)
compare_fused(behind(None, max_value=6), large, 4)
compare_fused(behind(None, max_value=2), large, 3)
compare_fused(behind(None, negative_slope=0.1), large, 3)
compare_fused(behind("tanh"), large, 3)
compare_fused(behind(gelu), large, 3)
compare_fused(behind("silu"), large, 0, training=False)
compare_fused(lambda dtype: layers.Activation("relu", dtype=dtype), large, 0)

# What reads the norm beside its activation gets the norm; eagerly both are computed.
image = keras.Input(large[1:])
norm = layers.BatchNormalization()(image)
both = quicken(keras.Model(image, [norm, layers.ReLU()(norm)]))
x = values(large)
for run in (both, tf.function(both)):
    normal, rectified = run(x, training=True)
    assert np.min(normal) < 0 == np.min(rectified)
    np.testing.assert_allclose(np.maximum(normal, 0), rectified, atol=1e-6)

def gradients_by(model, given):
    with tf.GradientTape() as tape:
        tape.watch(given)
        y = model(given)
        total = tf.reduce_sum(tf.sin(y))
    return [y, *tape.gradient(total, given)]

# Attention, in and out of training, without and with a bias.
def attention(bias):
    inputs = [keras.Input((None, 3, 8)) for _ in range(3)]
    more = {"bias": keras.Input((3, None, None))} if bias else {}
    y = keras.ops.dot_product_attention(*inputs, **more, scale=0.3)
    return keras.Model([*inputs, *more.values()], y)

for bias in (False, True):
    fast = quicken(attention(bias))
    (operation,) = (o for o in fast.operations if type(o).__name__ == "DotProductAttention")
    assert "call" in vars(operation)
    given = [values((2, n, 3, 8)) for n in (5, 7, 7)] + [values((2, 3, 5, 7))] * bias
    for got, wanted in zip(*(gradients_by(m, given) for m in (fast, attention(bias)))):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-6)

class Mine(layers.Dense):
    pass

assert "call" not in vars(quicken(Mine(3)))
print("all equal")
"""

GRAPH = """
import collections, keras, tensorflow as tf
from keras_alexnet import create_model

def operations(function, *arguments):
    graph = tf.function(function).get_concrete_function(*arguments).graph
    return collections.Counter(node.type for node in graph.get_operations())

network = create_model("googlenet", input_shape=(64, 64, 3), classes=7, aux_heads=False)
x = tf.zeros((2, 64, 64, 3))
for training in (False, True):
    found = operations(lambda x: network(x, training=training), x)
    # The two of large maps are loops of XLA's in training: the statistics, the norm alone and with
    # the ReLU behind it.
    loops = 2 if training else 0
    assert found["FusedBatchNormV3"] + loops == found["Conv2D"] == 57, found
    assert found["PartitionedCall"] == 3 * loops, found
    # oneDNN's product with a bias is slower by half than the two.
    assert found["MatMul"] == 0 and found["Einsum"] == 1, found
print("as wanted")
"""

UPDATES = """
import sys
import keras, numpy as np
from keras_alexnet.training.optim.optimizers import create_optimizer

arrays = np.load(sys.argv[1], allow_pickle=False)
layer = keras.layers.Dense(4, use_bias=False)
model = keras.Sequential([keras.Input((6,)), layer])
layer.kernel.assign(arrays["start"])
optimizer = create_optimizer("sgd", 0.1, momentum=0.9, nesterov=sys.argv[2] == "True",
                             weight_decay=0.01)
model.compile(optimizer, "mse", auto_scale_loss=False)
for x, y in zip(arrays["x"], arrays["y"]):
    model.train_on_batch(x, y)
np.save(sys.argv[3], layer.kernel.numpy())
"""


@pytest.mark.slow
def test_layers_equal_stock_ones(run_python: Any) -> None:
    """Values, gradients and moving statistics, in training, inference and frozen."""
    assert "all equal" in run_python(LAYERS, **ENVIRONMENT).stdout


@pytest.mark.slow
def test_graph_has_one_operation_for_a_layer(run_python: Any) -> None:
    assert "as wanted" in run_python(GRAPH, **ENVIRONMENT).stdout


@pytest.mark.parametrize("nesterov", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_updates_equal_torch(run_python: Any, tmp_path: Path, nesterov: bool) -> None:
    rng = np.random.default_rng(1)
    start = rng.standard_normal((6, 4)).astype(np.float32)
    x = rng.standard_normal((8, 16, 6)).astype(np.float32)
    y = rng.standard_normal((8, 16, 4)).astype(np.float32)
    np.savez(tmp_path / "arrays.npz", start=start, x=x, y=y)
    weights = torch.nn.Parameter(torch.tensor(start))
    optimizer = torch.optim.SGD([weights], 0.1, momentum=0.9, weight_decay=0.01, nesterov=nesterov)
    for inputs, targets in zip(x, y, strict=True):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(
            torch.tensor(inputs) @ weights, torch.tensor(targets)
        ).backward()
        optimizer.step()
    result = tmp_path / "kernel.npy"
    run_python(UPDATES, tmp_path / "arrays.npz", nesterov, result, **ENVIRONMENT)
    np.testing.assert_allclose(np.load(result), weights.detach().numpy(), rtol=0, atol=1e-6)
