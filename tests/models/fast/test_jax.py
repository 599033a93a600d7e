"""Faster layers on JAX against stock layers and against torch. Each child runs on JAX."""

from typing import Any

import numpy as np
import pytest
import torch

# Seconds of optimisation per function would be spent on milliseconds of work.
ENVIRONMENT = {
    "KERAS_BACKEND": "jax",
    "JAX_ENABLE_X64": "1",
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
}

# (window, stride, Keras' padding, torch's, H, W)
POOLS = [
    (3, 2, "valid", 0, 8, 9),
    (3, 2, "valid", 0, 13, 7),
    (3, 1, "same", 1, 6, 5),
    (2, 2, "valid", 0, 8, 9),
    (2, 3, "valid", 0, 8, 9),
    (3, 2, "same", None, 8, 9),  # not symmetric on an even size: torch has no such padding
]

POOLING = """
import sys
import jax, keras, numpy as np
from keras_alexnet.models.fast.jax_layers import quicken_jax

arrays = np.load(sys.argv[1], allow_pickle=False)
cases = eval(sys.argv[2])
results = {}

def gradient(layer, x, upstream):
    def both(x, upstream):
        y, backward = jax.vjp(layer, x)
        return y, backward(upstream)[0]
    return jax.jit(both)(x, upstream)

for number, (window, stride, padding, *_) in enumerate(cases):
    for data_format in ("channels_last", "channels_first"):
        stock, fast = (
            keras.layers.MaxPooling2D(
                window, stride, padding, data_format=data_format, dtype="float64"
            )
            for _ in range(2)
        )
        quicken_jax(fast)
        assert "call" in vars(fast) and "call" not in vars(stock)
        x, upstream = arrays[f"x{number}"], arrays[f"g{number}"]
        if data_format == "channels_first":
            x, upstream = x.transpose(0, 3, 1, 2), upstream.transpose(0, 3, 1, 2)
        y, dx = gradient(fast, x, upstream)
        stock_y, stock_dx = gradient(stock, x, upstream)
        np.testing.assert_array_equal(y, stock_y)
        np.testing.assert_array_equal(dx, stock_dx)
        if data_format == "channels_first":
            results[f"y{number}"], results[f"dx{number}"] = y, dx
np.savez(sys.argv[3], **results)
"""


@pytest.mark.slow
def test_pooling_and_its_gradient_are_torchs_to_the_last_bit_ties_included(
    run_python: Any, tmp_path: Any
) -> None:
    rng = np.random.default_rng(0)
    arrays = {}
    for number, (window, stride, padding, _, height, width) in enumerate(POOLS):
        # Three values make ties in nearly every window, and one map is the same all over. Whole
        # numbers add up exactly, in any order.
        x = rng.integers(0, 3, (3, height, width, 4)).astype(np.float64)
        x[0] = 0
        sizes = [
            -(-n // stride) if padding == "same" else (n - window) // stride + 1
            for n in (height, width)
        ]
        arrays[f"x{number}"] = x
        arrays[f"g{number}"] = rng.integers(-9, 10, (3, *sizes, 4)).astype(np.float64)
    np.savez(tmp_path / "in.npz", **arrays)
    run_python(POOLING, tmp_path / "in.npz", POOLS, tmp_path / "out.npz", **ENVIRONMENT)
    results = np.load(tmp_path / "out.npz")
    for number, (window, stride, _, torch_padding, *_) in enumerate(POOLS):
        if torch_padding is None:
            continue
        x = torch.from_numpy(arrays[f"x{number}"].transpose(0, 3, 1, 2).copy()).requires_grad_()
        y = torch.nn.functional.max_pool2d(x, window, stride, torch_padding)
        y.backward(torch.from_numpy(arrays[f"g{number}"].transpose(0, 3, 1, 2).copy()))
        assert x.grad is not None
        np.testing.assert_array_equal(results[f"y{number}"], y.detach().numpy())
        np.testing.assert_array_equal(results[f"dx{number}"], x.grad.numpy())


WEIGHTED = """
import jax, keras, numpy as np
from keras_alexnet.models.fast.jax_layers import quicken_jax

# kernel, stride, padding, groups, H, W, filters
CASES = [
    (3, 1, "same", 1, 9, 7, 6),
    (5, 1, "same", 2, 8, 9, 6),
    (11, 4, "valid", 1, 35, 31, 6),
    (7, 2, "valid", 1, 20, 21, 6),
    (3, 2, "same", 1, 10, 9, 6),
    (1, 1, "valid", 1, 5, 6, 6),
    (1, 2, "valid", 1, 10, 9, 6),
    ((3, 1), 1, "same", 1, 9, 7, 6),
]
rng = np.random.default_rng(0)
pairs = [
    (
        (6, height, width, 4),
        *(
            keras.layers.Conv2D(filters, kernel, stride, padding, groups=groups, dtype="float64")
            for _ in range(2)
        ),
    )
    for kernel, stride, padding, groups, height, width, filters in CASES
]
pairs += [
    ((5, 7), *(keras.layers.Dense(11, dtype="float64", **options) for _ in range(2)))
    for options in ({}, {"use_bias": False}, {"activation": "relu"})
]
for shape, stock, fast in pairs:
    x = rng.normal(size=shape)
    quicken_jax(fast)
    assert {"call", "convolution_op"} & set(vars(fast))
    stock.build(x.shape)
    fast.build(x.shape)
    fast.set_weights(stock.get_weights())
    upstream = rng.normal(size=stock.compute_output_shape(x.shape))

    def gradients(layer):
        weights = [weight.value for weight in layer.weights]
        def both(x, weights, upstream):
            y, backward = jax.vjp(lambda x, w: layer.stateless_call(w, [], x)[0], x, weights)
            return y, backward(upstream)
        return jax.tree.leaves(jax.jit(both)(x, weights, upstream))

    for wanted, got in zip(gradients(stock), gradients(fast), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-13 * abs(wanted).max())

# What they do not cover is Keras' own.
for layer, shape in [
    (keras.layers.Conv2D(2, 3, dilation_rate=2), (1, 9, 9, 2)),
    (keras.layers.Conv2D(2, 3, data_format="channels_first"), (1, 2, 9, 9)),
    (keras.layers.MaxPooling2D(9), (1, 9, 9, 2)),
    (keras.layers.Flatten(), (1, 3)),
]:
    quicken_jax(layer)
    assert not {"call", "convolution_op"} & set(vars(layer)), layer
pool = keras.layers.MaxPooling2D(2)
quicken_jax(pool)
assert pool(np.arange(16).reshape(1, 4, 4, 1).astype("int32"))[0, 0, 0, 0] == 5
assert np.isnan(pool(np.array([1.0, np.nan, 0, 2]).reshape(1, 2, 2, 1))).all()
half = keras.layers.MaxPooling2D(2, dtype="bfloat16")
quicken_jax(half)
assert half(np.ones((1, 2, 2, 1))).dtype == "bfloat16"
sequences = keras.layers.Dense(2, dtype="mixed_bfloat16")
quicken_jax(sequences)
assert sequences(np.ones((3, 4, 5))).shape == (3, 4, 2)
assert sequences(np.ones((3, 5))).dtype == "bfloat16"
"""


@pytest.mark.slow
def test_weighted_layers_and_their_gradients_are_stock_ones_and_other_layers_stay(
    run_python: Any,
) -> None:
    run_python(WEIGHTED, **ENVIRONMENT)


FILES = """
import copy, sys
import jax, keras, numpy as np
from jax import export
from keras_alexnet.models.fast.jax_layers import quicken_jax

def build(fast):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((None, None, 3), name="images")
    for layer in (
        keras.layers.Conv2D(4, 5, 2, name="a"),
        keras.layers.MaxPooling2D(3, 2, name="b"),
        keras.layers.Conv2D(4, 1, name="c"),
        keras.layers.GlobalAveragePooling2D(name="d"),
    ):
        if fast:
            quicken_jax(layer)
        x = layer(x)
    return keras.Model(inputs, x, name="net")

stock, model = build(False), build(True)
assert model.get_config() == stock.get_config()
images = np.random.default_rng(0).normal(size=(2, 19, 21, 3)).astype("float32")
wanted = stock.predict_on_batch(images)

def same(other, fast=False):
    got = other.predict_on_batch(images)
    assert abs(got - wanted).max() < 1e-5 * abs(wanted).max()
    assert ("convolution_op" in vars(other.get_layer("a"))) == fast
    assert ("call" in vars(other.get_layer("b"))) == fast

same(model, True)
copied = copy.deepcopy(model)
same(copied, "call" in vars(copied.get_layer("b")))  # Keras copies by way of the configuration
clone = keras.models.clone_model(model)
clone.set_weights(model.get_weights())
same(clone)
model.save(sys.argv[1])
same(keras.saving.load_model(sys.argv[1]))

values = [weight.value for weight in model.trainable_variables]
call = jax.jit(lambda x: model.stateless_call(values, [], x)[0])
for sizes in ("n, 19, 21, 3", "n, h, w, 3"):
    shape = export.symbolic_shape(sizes, constraints=["h >= 19", "w >= 19"] if "h" in sizes else ())
    exported = export.export(call)(jax.ShapeDtypeStruct(shape, "float32"))
    got = exported.call(images)
    assert abs(got - wanted).max() < 1e-5 * abs(wanted).max()
"""


@pytest.mark.slow
def test_files_clones_copies_and_exports_are_those_of_the_stock_model(
    run_python: Any, tmp_path: Any
) -> None:
    run_python(FILES, tmp_path / "net.keras", **ENVIRONMENT)


TRAINING = """
import sys
import jax, keras, numpy as np
from keras_alexnet import create_model
from keras_alexnet.models.fast.quicken import quicken
from porting.checks.precision import computing_in

def run(name, fast, **options):
    keras.utils.set_random_seed(0)
    built = create_model(name, classes=5, dtype="float64", dropout_rate=0.0, **options)
    model = keras.models.clone_model(built)
    model.set_weights(built.get_weights())
    if fast:
        quicken(model)
    values = [weight.value for weight in model.trainable_variables]
    fixed = [weight.value for weight in model.non_trainable_variables]
    images = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:]))
    def loss(values):
        outputs, _ = model.stateless_call(values, fixed, images, training=True)
        return sum((output**2).mean() for output in jax.tree.leaves(outputs))
    total, gradients = jax.jit(jax.value_and_grad(loss))(values)
    return [total, *gradients]

for name, options in [
    ("alexnet", {"input_shape": (67, 67, 3)}),
    ("googlenet", {"input_shape": (64, 64, 3), "aux_heads": True}),
]:
    with computing_in("jax", "float64"):  # else Keras has products and batch norm in float32
        stock, fast = (run(name, quick, **options) for quick in (False, True))
    for wanted, got in zip(stock, fast, strict=True):
        # Behind batch norm the gradients of some weights cancel to nothing.
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12 * max(1, abs(wanted).max()))
"""


@pytest.mark.slow
def test_gradients_of_whole_networks_are_those_of_stock_layers(run_python: Any) -> None:
    run_python(TRAINING, **ENVIRONMENT)
