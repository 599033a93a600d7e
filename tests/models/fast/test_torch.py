"""Quickened layers and models on torch against the stock ones."""

import copy
import json
import pickle
import re
import weakref
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import MethodType
from typing import Any

import keras
import numpy as np
import pytest
import torch
from torch.profiler import profile

import keras_alexnet
from keras_alexnet import create_model
from keras_alexnet.core import keras_internals
from keras_alexnet.models.fast import quicken as fast, torch_graph
from keras_alexnet.models.fast.torch_fusion import fuse
from keras_alexnet.models.fast.torch_layers import COMPUTATIONS, METHODS
from keras_alexnet.specs.schema import DATA_FORMATS
from porting.checks.precision import computing_in

layers = keras.layers
BOTH = pytest.mark.parametrize("data_format", DATA_FORMATS)
# Of the largest element. float64, where nothing but the order of sums differs; float32 likewise.
EXACT, LIMIT = 1e-11, 1e-5
SHAPE = (2, 11, 10, 8)


@pytest.fixture
def float64() -> Iterator[None]:
    with computing_in("torch", "float64"):
        yield


def _stock(model: Any) -> Any:
    """The same model as Keras makes it, with the same weights."""
    stock = keras.models.clone_model(model)
    for layer in model.layers:
        if layer.weights:
            stock.get_layer(layer.name).set_weights(layer.get_weights())
    return stock


def _assert_close(got: Any, wanted: Any, limit: float) -> None:
    got, wanted = (keras.ops.convert_to_numpy(x).astype(np.float64) for x in (got, wanted))
    assert got.shape == wanted.shape
    gap = np.abs(got - wanted).max() / max(np.abs(wanted).max(), 1e-30)
    assert gap <= limit, f"{gap:.2e} of the scale"


def _assert_same(layer: Any, x: np.ndarray, limit: float = EXACT, **kwargs: Any) -> None:
    """Compare values, all gradients and all variables behind a call, before and after `quicken`."""
    results = []
    for quick in (False, True):
        twin = type(layer).from_config(layer.get_config())
        twin.build(x.shape)
        if layer.built:
            twin.set_weights(layer.get_weights())
        else:
            rng = np.random.default_rng(5)
            twin.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in twin.get_weights()])
        twin.trainable = layer.trainable
        if quick:
            assert fast.quicken(twin) is twin
            assert "call" in vars(twin)
        inputs = torch.tensor(x, dtype=getattr(torch, layer.compute_dtype), requires_grad=True)
        y = twin(inputs, **kwargs)
        weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
        (y * weights).sum().backward()
        gradients = [v.value.grad for v in twin.trainable_variables]
        results.append([y, inputs.grad, *gradients, *twin.variables])
    for stock, quickened in zip(*results, strict=True):
        _assert_close(
            quickened.detach() if hasattr(quickened, "detach") else quickened,
            stock.detach() if hasattr(stock, "detach") else stock,
            limit,
        )


def _x(data_format: str, *, positive: bool = False) -> np.ndarray:
    x = np.random.default_rng(1).normal(size=SHAPE)
    x = np.maximum(x, 0) if positive else x
    return x if data_format == "channels_last" else np.ascontiguousarray(x.transpose(0, 3, 1, 2))


CONVOLUTIONS = {
    "plain": {"kernel_size": 3},
    "same": {"kernel_size": 5, "padding": "same"},
    "no bias": {"kernel_size": 3, "padding": "same", "use_bias": False},
    "one pixel": {"kernel_size": 1},
    "one pixel, no bias, relu": {"kernel_size": 1, "use_bias": False, "activation": "relu"},
    "one pixel, strides": {"kernel_size": 1, "strides": 2},
    "one pixel, groups": {"kernel_size": 1, "groups": 2},
    "strides": {"kernel_size": (5, 3), "strides": (2, 3)},
    "dilated": {"kernel_size": 3, "dilation_rate": 2, "padding": "same"},
    "groups": {"kernel_size": 3, "groups": 4, "padding": "same"},
    "activation": {"kernel_size": 3, "activation": "sigmoid"},
    "uneven": {"kernel_size": 4, "padding": "same"},
    "same with strides": {"kernel_size": 3, "strides": 2, "padding": "same"},
}


@BOTH
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions(float64: None, case: str, data_format: str) -> None:
    layer = layers.Conv2D(12, data_format=data_format, **CONVOLUTIONS[case])
    _assert_same(layer, _x(data_format))


@BOTH
@pytest.mark.parametrize("multiplier", [1, 3])
@pytest.mark.parametrize("case", ["plain", "same", "no bias", "strides", "dilated", "uneven"])
def test_depthwise_convolutions(
    float64: None, case: str, multiplier: int, data_format: str
) -> None:
    options = {"depth_multiplier": multiplier, "data_format": data_format} | CONVOLUTIONS[case]
    if case == "strides":  # TensorFlow's and so Keras' depthwise layer has one for both axes
        options["strides"] = 2
    _assert_same(layers.DepthwiseConv2D(**options), _x(data_format))


# For 60 filters of maps of 5 x 6 pixels: options, and whether the windows become a matrix.
WINDOWS = {
    "plain": ({"kernel_size": 3}, True),
    "no bias": ({"kernel_size": 3, "use_bias": False}, True),
    "padded": ({"kernel_size": (3, 5), "padding": "same"}, True),
    "strides": ({"kernel_size": (3, 2), "strides": (1, 2), "activation": "tanh"}, True),
    "one pixel, strides": ({"kernel_size": 1, "strides": 2}, True),
    "dilated": ({"kernel_size": 3, "dilation_rate": 2}, False),
    "groups": ({"kernel_size": 3, "groups": 2}, False),
    "channels_first": ({"kernel_size": 3, "data_format": "channels_first"}, False),
}


@pytest.mark.parametrize("case", WINDOWS)
def test_few_windows_are_multiplied_by_the_kernel(float64: None, case: str) -> None:
    """Where no gradient is asked for; as many windows as filters are still few."""
    options, few = WINDOWS[case]
    layer = layers.Conv2D(60, **options)
    first = layer.data_format == "channels_first"
    for batch, expected in ((1, few), (2, few), (0, few), (9, few and case.startswith("one"))):
        x = np.random.default_rng(batch).normal(
            size=(batch, 8, 5, 6) if first else (batch, 5, 6, 8)
        )
        wanted = type(layer).call(layer, torch.tensor(x)) if layer.built else layer(x)
        quick = fast.quicken(type(layer).from_config(layer.get_config()))
        quick.build(x.shape)
        quick.set_weights(layer.get_weights())
        with torch.no_grad(), profile() as profiled:
            got = quick(torch.tensor(x))
        if batch:
            _assert_close(got, wanted.detach(), EXACT)
        assert got.shape == wanted.shape
        names = {event.name for event in profiled.events()}
        assert ("aten::conv2d" in names) != expected
        again = quick(torch.tensor(x))
        assert again.requires_grad
        assert again.shape == wanted.shape


def test_many_pixels_are_convolved_and_few_multiplied(float64: None) -> None:
    for size, expected in ((8, False), (70, True)):
        x = np.random.default_rng(0).normal(size=(1, size, size, 4))
        layer = layers.Conv2D(3, 1)
        _assert_same(layer, x)
        fast.quicken(layer)
        for context in (torch.no_grad, torch.enable_grad):
            with context(), profile() as profiled:
                layer(torch.tensor(x))
            assert ("aten::conv2d" in {event.name for event in profiled.events()}) == expected


def test_windows_of_maps_that_lie_otherwise_or_are_too_small(float64: None) -> None:
    layer = fast.quicken(layers.Conv2D(60, 3))
    x = torch.tensor(_x("channels_first")[:1]).permute(0, 2, 3, 1)[:, ::2, ::2]
    with torch.no_grad():
        _assert_close(layer(x), type(layer).call(layer, x), EXACT)
        for call in (layer, lambda small: type(layer).call(layer, small)):
            with pytest.raises((RuntimeError, ValueError)):
                call(x[:, :2])


@pytest.mark.parametrize("options", [{}, {"use_bias": False}, {"activation": "tanh"}])
@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8)])
def test_dense(float64: None, options: dict[str, Any], shape: tuple[int, ...]) -> None:
    _assert_same(layers.Dense(6, **options), np.random.default_rng(1).normal(size=shape))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "options",
    [{}, {"scale": False}, {"center": False, "momentum": 0.7, "epsilon": 0.1}, {"renorm": True}],
    ids=str,
)
@BOTH
def test_batch_norm(
    float64: None, options: dict[str, Any], training: bool, data_format: str
) -> None:
    axis = -1 if data_format == "channels_last" else 1
    layer = layers.BatchNormalization(axis=axis, **options)
    _assert_same(layer, _x(data_format), 1e-10, training=training)


def test_batch_norm_on_other_axes_and_shapes(float64: None) -> None:
    x = _x("channels_last")
    for axis in (1, 2, 3):
        _assert_same(layers.BatchNormalization(axis=axis), x, 1e-10, training=True)
    _assert_same(layers.BatchNormalization(), x[:, 0, 0], 1e-10, training=True)
    one = layers.BatchNormalization()  # one value a channel, of which torch has no variance
    _assert_same(one, x[:1, :1, :1] * 0 + 2, 1e-10, training=True)


def test_frozen_batch_norm_uses_and_keeps_its_moving_statistics(float64: None) -> None:
    layer = layers.BatchNormalization()
    layer.trainable = False
    _assert_same(layer, _x("channels_last"), training=True)
    frozen = fast.quicken(layers.BatchNormalization())
    frozen.build(SHAPE)
    frozen.trainable = False
    frozen(_x("channels_last"), training=True)
    np.testing.assert_array_equal(frozen.moving_mean, 0)


def test_moving_variance_is_of_the_biased_one(float64: None) -> None:
    layer = fast.quicken(layers.BatchNormalization(momentum=0.0))
    x = _x("channels_last")
    layer(x, training=True)
    _assert_close(layer.moving_variance, x.var(axis=(0, 1, 2)), EXACT)
    _assert_close(layer.moving_mean, x.mean(axis=(0, 1, 2)), EXACT)


def test_masked_batch_norm(float64: None) -> None:
    mask = torch.arange(2 * 11 * 10).reshape(2, 11, 10) % 3 > 0
    _assert_same(layers.BatchNormalization(), _x("channels_last"), training=True, mask=mask)


@BOTH
@pytest.mark.parametrize(
    "layer",
    [
        layers.MaxPooling2D(3, 2),
        layers.MaxPooling2D(2),
        layers.MaxPooling2D((3, 5), 1, padding="same"),
        layers.MaxPooling2D(3, 2, padding="same"),
        layers.AveragePooling2D(3, 2),
        layers.AveragePooling2D((5, 2)),
        layers.AveragePooling2D(3, 2, padding="same"),
        layers.AdaptiveAveragePooling2D((4, 3)),
    ],
    ids=lambda layer: f"{type(layer).__name__}",
)
def test_pools(float64: None, layer: Any, data_format: str) -> None:
    config = layer.get_config() | {"data_format": data_format, "dtype": "float64"}
    _assert_same(type(layer).from_config(config), _x(data_format))


@pytest.mark.parametrize("policy", ["float32", "bfloat16", "mixed_bfloat16"])
@BOTH
def test_other_dtypes(policy: str, data_format: str) -> None:
    # Sums that cancel; one or two steps of bfloat16, to which Keras rounds more often.
    limit = 5e-5 if policy == "float32" else 2**-6
    x = _x(data_format)
    shared: dict[str, Any] = {"data_format": data_format, "dtype": policy}
    _assert_same(layers.Conv2D(12, 3, padding="same", **shared), x, limit)
    _assert_same(layers.Conv2D(12, 1, **shared), x, limit)
    _assert_same(layers.MaxPooling2D(3, 2, **shared), x, limit)
    axis = -1 if data_format == "channels_last" else 1
    _assert_same(layers.BatchNormalization(axis=axis, dtype=policy), x, limit, training=True)


def test_input_of_another_dtype_and_empty_batches() -> None:
    layer = fast.quicken(layers.Conv2D(4, 3))
    assert layer(np.ones(SHAPE, np.float64)).dtype == torch.float32
    assert layer(np.ones((0, 9, 9, 8), np.float32)).shape == (0, 7, 7, 4)


def test_lora_and_quantised_layers(float64: None) -> None:
    x = torch.tensor(_x("channels_last"))
    layer = fast.quicken(layers.Conv2D(12, 3))
    before = layer(x)
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(np.ones(layer.lora_kernel_b.shape))
    kernel = keras.ops.convert_to_tensor(layer.kernel)
    wanted = keras.ops.conv(x, kernel, data_format="channels_last") + layer.bias
    _assert_close(layer(x).detach(), wanted.detach(), EXACT)
    assert not torch.allclose(layer(x), before)


def test_quantised_dense() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 16)).astype(np.float32)
    stock = layers.Dense(8)
    stock.build(x.shape)
    quick = layers.Dense(8)
    quick.build(x.shape)
    quick.set_weights(stock.get_weights())
    fast.quicken(quick)
    for layer in (stock, quick):
        layer.quantize("int8")
    _assert_close(quick(x).detach(), stock(x).detach(), 0)


def test_subclasses_and_other_layers_are_left_alone() -> None:
    class Own(layers.Conv2D):
        pass

    for layer in (Own(4, 3), layers.SeparableConv2D(4, 3), layers.Conv1D(4, 3), layers.ReLU()):
        assert "call" not in vars(fast.quicken(layer))


# --- models


def _network(name: str, data_format: str, **options: Any) -> Any:
    keras.utils.set_random_seed(0)
    size = (64, 64, 3) if data_format == "channels_last" else (3, 64, 64)
    options = {"classes": 5} | options if options.get("include_top", True) else options
    model = create_model(name, input_shape=size, data_format=data_format, **options)
    for layer in model.layers:
        if isinstance(layer, layers.Dropout):
            layer.rate = 0.0
        if isinstance(layer, layers.Conv2D | layers.Dense):
            # Live at every depth, which the initial weights of GoogLeNet are not.
            kernel = layer.kernel
            scale = (2 / np.prod(kernel.shape[:-1])) ** 0.5
            kernel.assign(np.random.default_rng(3).normal(size=kernel.shape) * scale)
    return fast.quicken(model)


def _images(model: Any) -> torch.Tensor:
    dtype = getattr(torch, model.compute_dtype)
    return torch.tensor(
        np.random.default_rng(2).normal(size=(3, *model.input_shape[1:])), dtype=dtype
    )


def _heads(outputs: Any) -> dict[str, Any]:
    return outputs if isinstance(outputs, dict) else {"logits": outputs}


TOPLESS = {"include_top": False, "pooling": "avg"}
MODELS = pytest.mark.parametrize(
    ("name", "options"),
    # AlexNet without the 58 million weights of its classifier, but for where they are tested.
    [("alexnet", TOPLESS), ("googlenet", {"aux_heads": True})],
)


@MODELS
@BOTH
def test_models(float64: None, name: str, options: dict[str, Any], data_format: str) -> None:
    """Outputs in both phases, gradients and moving statistics."""
    model = _network(name, data_format, **options)
    stock = _stock(model)
    assert "call" not in vars(stock)
    x = _images(model)
    for training in (False, True):
        found = []
        for net in (model, stock):
            net.zero_grad()
            outputs = _heads(net(x, training=training))
            sum((y**2).mean() for y in outputs.values()).backward()
            found.append(outputs)
        for key, wanted in found[1].items():
            _assert_close(found[0][key].detach(), wanted.detach(), 1e-9)
        for own in model.layers:
            for a, b in zip(own.weights, stock.get_layer(own.name).weights, strict=True):
                _assert_close(a.value.detach(), b.value.detach(), 1e-9)
                if a.trainable:
                    _assert_close(a.value.grad, b.value.grad, 1e-8)


@MODELS
def test_models_in_float32(name: str, options: dict[str, Any]) -> None:
    model = _network(name, "channels_last", **options)
    x = _images(model)
    with torch.no_grad():
        got, wanted = _heads(model(x)), _heads(_stock(model)(x))
    for key in wanted:
        _assert_close(got[key], wanted[key], LIMIT)


def test_whole_alexnet() -> None:
    model = _network("alexnet", "channels_last")
    x = _images(model)
    with torch.no_grad():
        got = model(x)
        del model.call
        for layer in model.layers:
            vars(layer).pop("call", None)
        _assert_close(got, model(x), LIMIT)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
def test_models_of_16_bits(policy: str) -> None:
    model = _network("alexnet", "channels_last", dtype=policy, **TOPLESS)
    x = _images(model).float()
    with torch.no_grad():
        _assert_close(model(x).float(), _stock(model)(x).float(), 3e-2)


def test_mixed_precision_skips_what_lies_between_layers_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of all layers but the first, whose input is of another dtype, which Keras casts."""
    model = _network("googlenet", "channels_last", dtype="mixed_bfloat16")
    x = _images(model).float()
    stock = _stock(model)
    exact = _network("googlenet", "channels_last")
    exact.set_weights(model.get_weights())
    called: list[str] = []
    keras_call = layers.Layer.__call__

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        called.append(layer.name)
        return keras_call(layer, *args, **kwargs)

    monkeypatch.setattr(layers.Layer, "__call__", call)
    for training in (False, True):
        called.clear()
        got = model(x, training=training)
        assert called == [model.name, "conv1_conv_pad"]
        wanted = stock(x, training=training)
        exact(x, training=training)
        assert got.dtype == wanted.dtype == torch.bfloat16
    # Both round; ours not more than Keras does.
    statistics = [
        np.concatenate([keras.ops.convert_to_numpy(w) for w in m.weights if "moving" in w.path])
        for m in (model, stock, exact)
    ]
    assert statistics[0].dtype == np.float32
    errors = [np.linalg.norm(values - statistics[2]) for values in statistics[:2]]
    assert 0 < errors[0] < 1.2 * errors[1] < 0.1 * np.linalg.norm(statistics[2])


def test_neighbours_of_other_dtypes_are_not_fused() -> None:
    image = keras.Input((6, 6, 2))
    x = layers.Conv2D(3, 3, dtype="float32")(image)
    model = keras.Model(image, layers.ReLU(dtype="bfloat16")(x))
    values = np.random.default_rng(0).normal(size=(2, 6, 6, 2)).astype(np.float32)
    wanted = model(values)
    got = fast.quicken(model)(values)
    assert got.dtype == wanted.dtype == torch.bfloat16
    _assert_close(got.detach().float(), wanted.detach().float(), 2**-8)


@MODELS
def test_no_layout_is_copied_between_layers(name: str, options: dict[str, Any]) -> None:
    """Kernels are transposed as matrices; feature maps stay as they are from image to logits."""
    model = _network(name, "channels_last", **options)
    x = _images(model)
    for training in (False, True):
        with torch.no_grad():
            model(x, training=training)
            with profile(record_shapes=True) as profiled:
                model(x, training=training)
        copies = [
            (event.name, event.input_shapes)
            for event in profiled.events()
            if event.name in ("aten::copy_", "aten::clone", "aten::contiguous", "aten::_to_copy")
            and event.input_shapes
            and len(event.input_shapes[0]) == 4
        ]
        assert not copies
    with torch.no_grad(), profile(record_shapes=True) as profiled:
        _stock(model)(x)
    names = [e.name for e in profiled.events() if e.input_shapes and len(e.input_shapes[0]) == 4]
    assert names.count("aten::copy_") > 8  # the test sees them where they are


def test_padding_and_relus_are_fused() -> None:
    model = _network("googlenet", "channels_last")
    model(_images(model))
    fused = [step for step in model.call.__self__.steps if step.fusion is not None]
    kinds = [" ".join(type(n).__name__ for n in step.layers) for step in fused]
    assert kinds.count("Conv2D BatchNormalization ReLU") == 56
    assert kinds.count("ZeroPadding2D MaxPooling2D") == 4
    assert kinds.count("ZeroPadding2D Conv2D BatchNormalization ReLU") == 1


@BOTH
@pytest.mark.parametrize(
    ("activation", "fused"),
    [
        *[(name, True) for name in ("relu", "silu", "hard_silu", "hard_sigmoid")],
        *[(name, False) for name in ("gelu", "sigmoid")],
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_activations_in_the_memory_of_what_they_read(
    float64: None, activation: str, fused: bool, training: bool, data_format: str
) -> None:
    """Behind convolutions, norms and dense layers, with an activation of their own and without."""
    both = {"data_format": data_format}
    axis = 1 if data_format == "channels_first" else -1
    last = data_format == "channels_last"
    x = image = keras.Input((6, 5, 2) if last else (2, 6, 5), dtype="float64")
    for layer in (
        layers.Conv2D(4, 3, **both),
        layers.DepthwiseConv2D(3, activation="tanh", padding="same", **both),
        layers.BatchNormalization(axis=axis),
        layers.Conv2D(3, 1, **both),
        layers.GlobalAveragePooling2D(**both),
        layers.Dense(4),
    ):
        x = layer(x)
        if type(layer) is not layers.GlobalAveragePooling2D:
            x = layers.Activation(activation)(x)
    model = keras.Model(image, x)
    rng = np.random.default_rng(3)
    images = torch.from_numpy(rng.normal(size=(2, *image.shape[1:])))
    weights = [rng.uniform(0.5, 1.5, w.shape) for w in model.get_weights()]
    results = []
    for quick in (False, True):
        model.set_weights(weights)
        model.zero_grad()
        y = (fast.quicken(model) if quick else model)(images, training=training)
        (y * torch.arange(1.0, 5.0, dtype=y.dtype)).sum().backward()
        results.append([y.detach(), *(v.value.grad for v in model.trainable_variables)])
        results[-1] += [torch.clone(v.value.detach()) for v in model.non_trainable_variables]
    for stock, quickened in zip(*results, strict=True):
        _assert_close(quickened, stock, EXACT)
    steps = model.call.__self__.steps
    assert sum(step.fusion is not None for step in steps) == (5 if fused else 0)


@pytest.mark.parametrize("size", range(3, 9))
@pytest.mark.parametrize("pool", [2, 3])
@BOTH
def test_padded_pooling_at_every_size(pool: int, size: int, data_format: str) -> None:
    image = keras.Input((None, None, 2) if data_format == "channels_last" else (2, None, None))
    shared = {"data_format": data_format}
    x = layers.ReLU()(image)
    x = layers.ZeroPadding2D(((0, 1), (0, 1)), **shared)(x)
    model = keras.Model(image, layers.MaxPooling2D(pool, 2, **shared)(x))
    values = np.random.default_rng(size).normal(size=(2, size, size + 1, 2)).astype(np.float32)
    values = values if data_format == "channels_last" else values.transpose(0, 3, 1, 2).copy()
    wanted = model(values)
    np.testing.assert_array_equal(fast.quicken(model)(values), wanted)


def test_what_must_not_be_fused() -> None:
    """Values that are read or returned elsewhere, and padding before pooling of negative values."""
    image = keras.Input((6, 6, 2))
    convolved = layers.Conv2D(3, 3, padding="same", name="conv")(image)
    rectified = layers.ReLU()(convolved)
    padded = layers.ZeroPadding2D(1)(convolved)
    pooled = layers.MaxPooling2D(3, 2)(padded)
    again = layers.Conv2D(3, 3)(padded)
    model = keras.Model(image, {"a": convolved, "b": rectified, "c": pooled, "d": again})
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 2)).astype(np.float32) - 5
    wanted = model(x)
    got = fast.quicken(model)(x)
    assert not any(step.fusion for step in model.call.__self__.steps)
    for key in wanted:
        _assert_close(got[key].detach(), wanted[key].detach(), LIMIT)
    assert fuse([], []) == []


def test_hooks_fire_on_a_quickened_model() -> None:
    model = _network("alexnet", "channels_last", **TOPLESS)
    seen: list[Any] = []
    x = _images(model)
    wanted = model(x)
    for name in ("features_0", "features_1"):
        model.get_layer(name).register_forward_hook(lambda *a: seen.append(a[2].min().item()))
    _assert_close(model(x).detach(), wanted.detach(), LIMIT)
    assert seen[0] < 0 <= seen[1]


def test_a_stock_model_that_spares_memory_computes_by_its_layers_and_keeps_nothing() -> None:
    x = inputs = keras.Input((9, 9, 2))
    for layer in (layers.ZeroPadding2D(1), layers.Conv2D(3, 3), layers.ReLU()):
        x = layer(x)
    model = keras.Model(inputs, [layers.Add()([x, x]), x])
    images = np.random.default_rng(0).normal(size=(2, 9, 9, 2)).astype(np.float32)
    wanted = model.predict_on_batch(images)
    alive: list[int] = []
    made: list[Any] = []

    def seen(_layer: Any, _inputs: Any, output: torch.Tensor) -> None:
        alive.append(sum(each() is not None for each in made))
        made.append(weakref.ref(output))

    for layer in model.layers[1:]:
        layer.register_forward_hook(seen)
    model.predict_on_batch(images)
    assert alive == [0, 1, 2, 3]  # as Keras has it
    alive.clear()
    made.clear()
    with fast.sparing_memory(model):
        found = model.predict_on_batch(images)
    assert alive == [0, 1, 1, 1]
    assert "call" not in vars(model)
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(got, want)


def _changing() -> tuple[Any, Any, np.ndarray]:
    """A model with everything that is fused, its stock twin, and images."""
    image = keras.Input((12, 11, 3))
    x = layers.ZeroPadding2D(1)(image)
    x = layers.ReLU(name="first")(layers.Conv2D(6, 3, name="conv")(x))
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
    x = layers.ReLU(name="second")(layers.BatchNormalization()(layers.Conv2D(5, 1)(x)))
    x = layers.ReLU(name="third")(layers.Dense(7, name="dense")(layers.Flatten()(x)))
    outputs = layers.Activation("silu", name="fourth")(layers.Dense(5, name="last")(x))
    model = fast.quicken(keras.Model(image, outputs))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        values = rng.normal(size=weight.shape)
        weight.assign(np.abs(values) if "variance" in weight.name else values)
    images = rng.normal(size=(2, 12, 11, 3)).astype(np.float32)
    model(images)  # what was found at the first call must not stay
    return model, _stock(model), images


@pytest.mark.parametrize("name", ["first", "second", "third"])
@pytest.mark.parametrize(
    ("setting", "value"), [("negative_slope", 0.3), ("threshold", 5.0), ("max_value", 0.5)]
)
def test_what_a_user_changes_after_the_first_call_counts(
    name: str, setting: str, value: float
) -> None:
    model, stock, images = _changing()
    before = model(images)
    for each in (model, stock):
        setattr(each.get_layer(name), setting, value)
    _assert_close(model(images), stock(images), LIMIT)
    assert (model(images) != before).any()


@pytest.mark.parametrize(
    "way",
    [
        *("assign", "set_weights", "load_weights", "data", "numpy", "optimizer", "float64"),
        *("lora", "int8", "trainable", "hook"),
    ],
)
def test_weights_and_layers_that_change_after_the_first_call_count(
    way: str, tmp_path: Path
) -> None:
    model, stock, images = _changing()
    x = torch.tensor(images)
    with torch.no_grad():
        before = model(x)
    learns = way == "trainable"
    path = tmp_path / "other.weights.h5"
    if way == "load_weights":
        other = _stock(stock)
        other.set_weights([2 * w for w in other.get_weights()])
        other.save_weights(path)
    for each in (model, stock):
        conv, dense = each.get_layer("conv"), each.get_layer("dense")
        if way == "assign":
            conv.kernel.assign(conv.kernel * 2)
        elif way == "set_weights":
            each.set_weights([2 * w for w in each.get_weights()])
        elif way == "load_weights":
            each.load_weights(path)
        elif way == "data":
            conv.kernel.value.data[0, 0, 0, 0] += 5
            dense.bias.value.data[1] += 5
        elif way == "numpy":
            dense.kernel.value.detach().numpy()[:, 2] = 3
        elif way == "optimizer":
            # Not Keras', which would train both models differently by rounding.
            for variable in each.trainable_variables:
                variable.value.grad = torch.ones_like(variable.value)
            torch.optim.SGD(each.parameters(), lr=0.1).step()
        elif way == "float64":
            each.double()
        elif way == "lora":
            dense.enable_lora(2)
            dense.lora_kernel_b.assign(np.ones(dense.lora_kernel_b.shape))
            dense.lora_kernel_a.assign(np.ones(dense.lora_kernel_a.shape))
        elif way == "int8":
            dense.quantize("int8")
        elif way == "trainable":
            each.layers[7].trainable = False
            assert type(each.layers[7]) is layers.BatchNormalization
        else:
            conv.register_forward_hook(lambda _layer, _x, y: 2 * y)
    with torch.no_grad():
        if way == "float64":  # which torch cannot multiply by float32
            for each in (model, stock):
                with pytest.raises(RuntimeError, match=r"dtype|same type|double"):
                    each(x)
            return
        got, wanted = (each(x, training=learns) for each in (model, stock))
        _assert_close(got, wanted, LIMIT)
        assert learns or (got != before).any()


def test_stateless_calls_compute_with_the_values_that_they_are_given() -> None:
    model, stock, images = _changing()
    values = [
        [2 * variable.value.detach() for variable in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    ]
    with torch.no_grad():
        before = model(images)
        found = [each.stateless_call(*values, images)[0] for each in (model, stock)]
        _assert_close(found[0], found[1], LIMIT)
        assert (found[0] != before).any()
        np.testing.assert_array_equal(model(images), before)
    # Nor does a first call in such a scope leave them behind.
    fresh = fast.quicken(_stock(stock))
    with torch.no_grad():
        fresh.stateless_call(*values, images)
        np.testing.assert_array_equal(fresh(images), before)


def test_what_computes_a_model_is_found_once() -> None:
    model, _, images = _changing()
    model.compile("sgd", "mse")
    model.train_on_batch(images, np.zeros((2, 5)))
    steps = model.call.__self__.steps
    for _ in range(2):
        model.train_on_batch(images, np.zeros((2, 5)))
        model.predict(images, verbose=0)
        model(images)
        assert model.call.__self__.steps is steps
    model.get_layer("first").negative_slope = 0.5
    model(images)
    assert model.call.__self__.steps is not steps


@pytest.mark.parametrize("kind", COMPUTATIONS, ids=lambda kind: kind.__name__)
def test_settings_that_decide_what_computes_a_layer_are_watched(
    kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, a layer's attribute is read once and is missing in `_SETTINGS`."""
    given: dict[type, tuple[Any, ...]] = {
        layers.Conv2D: (4, 3),
        layers.DepthwiseConv2D: (3,),
        layers.Dense: (4,),
        layers.Dropout: (0.5,),
        layers.AdaptiveAveragePooling2D: (2,),
        layers.AveragePooling2D: (2,),
    }
    layer = kind(*given.get(kind, ()))
    layer.build([(2, 5, 5, 8)] * 2 if kind in (layers.Add, layers.Concatenate) else (2, 5, 5, 8))
    seen: set[str] = set()

    def look_up(self: Any, name: str) -> Any:
        seen.add(name)
        return object.__getattribute__(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(layers.Layer, "__getattribute__", look_up, raising=False)
        assert COMPUTATIONS[kind](layer) is not None
    read = {name for name in seen & vars(layer).keys() if not name.startswith("_")}
    watched = {*keras_internals.CALL_ATTRIBUTES, *torch_graph._SETTINGS.get(kind, ())}
    assert read <= watched
    assert seen or kind in (layers.Add, layers.Concatenate, layers.Dropout)


def test_arguments_of_a_node_and_other_ranks_count() -> None:
    image = keras.Input((4, 4, 3))
    x = layers.BatchNormalization(momentum=0.5)(image, training=True)
    x = layers.ReLU()(layers.Dense(5)(layers.Reshape((8, 6))(layers.ReLU()(x))))
    x = layers.Concatenate()([layers.Add()([x, x]), layers.Add()([x, layers.Dense(1)(x), x])])
    model = keras.Model(image, layers.ReLU()(layers.Add()([x, layers.Dense(10)(x)])))
    stock = _stock(model)
    quick = fast.quicken(model)
    images = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    for options in ({}, {"training": False}, {"training": True}):
        _assert_close(quick(images, **options).detach(), stock(images, **options).detach(), LIMIT)


@pytest.mark.parametrize("where", ["call", "regularizer", "inner layer"])
def test_losses_are_those_of_the_last_call(where: str) -> None:
    model, stock, images = _changing()
    for each in (model, stock):
        layer = each.get_layer("conv")
        if where == "regularizer":
            layer.activity_regularizer = keras.regularizers.L2(0.1)
            continue

        def call(self: Any, inputs: Any) -> Any:
            self.add_loss(keras.ops.mean(inputs))
            return type(self).call(self, inputs)

        if where == "inner layer":
            each.extra = layers.Conv2D(1, 1)
            each.extra.build((None, None, None, 6))
            layer = each.extra
            each.get_layer("first").call = lambda x, own=layer: keras.ops.relu(x + own(x) * 0)
        layer.call = MethodType(call, layer)
    for _ in range(3):
        for each in (model, stock):
            each(images)
        assert len(model.losses) == len(stock.losses) == 1
        _assert_close(model.losses[0].detach(), stock.losses[0].detach(), LIMIT)


def test_operations_that_are_no_layers() -> None:
    """A gate as converted networks have it, and what torch's operation alone does not compute."""
    image = keras.Input((4, 4, 3))
    gate = layers.GlobalAveragePooling2D(keepdims=True)(image)
    whole = keras.ops.cast(image, "int32")
    x = keras.ops.multiply(image, gate) + gate
    x = [x * 2.0, keras.ops.multiply(x, whole), keras.ops.multiply(whole, whole)]
    model = keras.Model(image, x)
    images = 3 * np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    wanted = model(images)
    found = fast.quicken(model)(images)
    for got, want in zip(found, wanted, strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
    steps = {step.layers[0].name: step for step in model.call.__self__.steps}
    assert sum(step.made is not None for step in steps.values()) == 3


def test_another_activation_counts() -> None:
    model, stock, images = _changing()
    before = model(images)
    for each in (model, stock):
        each.get_layer("fourth").activation = keras.activations.hard_silu
    _assert_close(model(images), stock(images), LIMIT)
    assert (model(images) != before).any()


@pytest.mark.parametrize("name", ["first", "conv", "third", "dense", "fourth"])
def test_a_call_of_the_users_own_counts(name: str) -> None:
    """Guided backpropagation replaces the ReLUs' like this."""
    model, stock, images = _changing()
    seen = []
    for each in (model, stock):
        layer = each.get_layer(name)

        def call(self: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(self.name)
            return type(self).call(self, inputs, *args, **kwargs) * 2 - 0.1

        layer.call = MethodType(call, layer)
    _assert_close(model(images), stock(images), LIMIT)
    assert seen == [name] * 2


def test_changes_of_padding_and_pooling_count() -> None:
    model, stock, images = _changing()
    for each in (model, stock):
        pad, convolution, second, pool = (each.layers[i] for i in (1, 2, 4, 5))
        assert (type(pad), type(pool)) == (layers.ZeroPadding2D, layers.MaxPooling2D)
        pad.padding, convolution.padding = ((0, 0), (0, 0)), "same"
        second.padding, pool.pool_size = ((0, 1), (0, 1)), (2, 2)
    _assert_close(model(images), stock(images), LIMIT)


def test_global_module_hooks_see_every_layer() -> None:
    model, stock, images = _changing()
    counts = []
    for each in (model, stock):
        seen: list[str] = []
        handle = torch.nn.modules.module.register_module_forward_hook(
            lambda module, _args, _output, seen=seen: seen.append(module.name)
        )
        try:
            each(images)
        finally:
            handle.remove()
        counts.append(seen)
    assert len(counts[0]) == len(counts[1]) >= len(stock.layers) - 1


def test_empty_batches() -> None:
    model, _, images = _changing()
    assert tuple(model(images[:0]).shape) == (0, 5)
    for options in ({}, {"strides": 2}, {"data_format": "channels_first"}):
        layer = fast.quicken(layers.Conv2D(4, 1, **options))
        empty = np.zeros((0, 8, 8, 8), np.float32)
        assert layer(empty).shape == layers.Conv2D(4, 1, **options)(empty).shape


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("activation", ["softmax", "log_softmax"])
def test_activations_of_a_layer_run_over_its_channels(
    float64: None, activation: str, kernel: int
) -> None:
    _assert_same(layers.Conv2D(4, kernel, activation=activation), _x("channels_last"))


@pytest.mark.parametrize("shape", [(2, 12, 11, 4), (2, 9, 11, 3), (2, 12, 3)])
def test_errors_are_keras_own(shape: tuple[int, ...]) -> None:
    model, stock, _ = _changing()
    said = []
    for each in (model, stock):
        with pytest.raises(ValueError, match=re.escape(str(shape))) as caught:
            each(np.zeros(shape, np.float32))
        said.append(re.sub(r"'\w+'", "NAME", str(caught.value)))
    assert said[0] == said[1]


def test_errors_of_layers_are_keras_own() -> None:
    x = np.zeros((2, 7, 6, 4), np.float32)
    for layer in (layers.Conv2D(3, 1), layers.Conv2D(3, 3), layers.Dense(3)):
        wrong = x if isinstance(layer, layers.Conv2D) else x[:, 0, 0]
        layer.build((None, *wrong.shape[1:-1], 5))
        said = []
        for call in (type(layer).call, METHODS[type(layer)]):
            with pytest.raises((ValueError, RuntimeError)) as caught:
                call(layer, torch.from_numpy(wrong))
            said.append(str(caught.value))
        assert said[0] == said[1]


def test_symbolic_use_and_features_of_a_quickened_model() -> None:
    model = _network("alexnet", "channels_last", **TOPLESS)
    x = _images(model)
    nested = keras.Sequential([keras.Input(model.input_shape[1:]), model])
    _assert_close(nested(x).detach(), model(x).detach(), LIMIT)
    features = keras.Model(model.input, model.get_layer("features_0").output)
    assert features(x).min() < 0


def test_a_global_mixed_policy_does_not_reach_float32_layers() -> None:
    with computing_in("torch", "float32"):
        keras.config.set_dtype_policy("mixed_bfloat16")
        model = _network("alexnet", "channels_last", dtype="float32", **TOPLESS)
        x = torch.tensor(np.random.default_rng(2).normal(size=(3, 64, 64, 3)), dtype=torch.float32)
        with torch.no_grad():
            _assert_close(model(x).float(), _stock(model)(x).float(), LIMIT)


@pytest.mark.parametrize("way", ["pickle", "deepcopy", "save", "clone"])
def test_files_and_copies_are_keras_own(way: str, tmp_path: Path) -> None:
    model = _network("googlenet", "channels_last")
    x = _images(model)
    with torch.no_grad():
        wanted = model(x)
        if way == "pickle":
            twin = pickle.loads(pickle.dumps(model))
        elif way == "deepcopy":
            twin = copy.deepcopy(model)
        elif way == "clone":
            twin = _stock(model)
            assert twin.get_config() == model.get_config()
        else:
            path = tmp_path / "model.keras"
            model.save(path)
            with zipfile.ZipFile(path) as archive:
                config = json.loads(archive.read("config.json"))
            assert "keras_alexnet" not in json.dumps(config)
            twin = keras.saving.load_model(path)
            assert not any("call" in vars(layer) for layer in (twin, *twin.layers))
            loaded = keras_alexnet.load_model(path)
            assert all("call" in vars(e) for e in loaded.layers if type(e) in METHODS)
            _assert_close(loaded(x), wanted, LIMIT)
        _assert_close(twin(x), wanted, LIMIT)
        for layer in twin.layers:  # of which none computes with the weights of the first
            assert getattr(layer.call, "__self__", layer) is layer
        for weight in model.weights:
            weight.assign(weight * 0)
        _assert_close(twin(x), wanted, LIMIT)


@pytest.mark.slow
def test_torch_export() -> None:
    model = _network("googlenet", "channels_last")
    x = _images(model)
    with torch.no_grad():
        wanted = model(x)
        program = torch.export.export(model, (x,), strict=False)
        _assert_close(program.module()(x), wanted, LIMIT)
