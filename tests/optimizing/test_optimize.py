"""`optimize`: the same function, fused, on every engine."""

import inspect
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from helpers.models import BOTH, assert_close

from keras_alexnet import create_model, optimize
from keras_alexnet.errors import CompilationError, ConfigurationError, MissingDependencyError
from keras_alexnet.optimizing import operations as op
from keras_alexnet.optimizing.engines.registry import ENGINES
from keras_alexnet.optimizing.operations import (
    Affine,
    Conv,
    MaxPool,
    Operation,
    adaptive_matrix,
    same_padding,
)
from keras_alexnet.optimizing.plan import make_plan
from keras_alexnet.specs import SPECS

LIMIT = 1e-5  # porting.tolerances "logits"

# Small images, with which the quick tests take little time.
QUICK: dict[str, dict[str, Any]] = {
    "alexnet": {"size": 63, "include_preprocessing": True},
    "googlenet": {"size": 47, "include_preprocessing": True, "transform_input": True},
    "alexnet_caffe": {"size": 99, "include_preprocessing": True},
    "lenet5": {"size": 28},
}

# Runs in a child, whose backend the environment names, on what `keep_case` has written.
CHILD = """
import json, sys
import numpy as np
import keras
from keras_alexnet import load_model, optimize

folder, engine, *names = sys.argv[1:]
gaps = {}
for name in names:
    model = load_model(f"{folder}/{name}.keras")
    images = np.load(f"{folder}/{name}.npy")
    wanted = np.load(f"{folder}/{name}.out.npy")
    fast = optimize(model, engine)
    got, tensor = fast(images), fast(keras.ops.convert_to_tensor(images))
    assert isinstance(got, np.ndarray) and keras.ops.is_tensor(tensor)
    # Each size of a batch is compiled, which takes long for the large ones.
    parts = fast.predict(images, batch_size=2 if "lenet" in name else len(images))
    scale = np.abs(wanted).max()
    for value in (got, keras.ops.convert_to_numpy(tensor), parts):
        assert value.shape == wanted.shape
        gap = float(np.abs(value - wanted).max() / scale)
        gaps[name] = max(gap, gaps.get(name, 0.0))
print(json.dumps(gaps))
"""


def live_model(name: str, **options: Any) -> Any:
    """A model whose weights and statistics all matter, and whose activations stay in range."""
    return enlivened(create_model(name, **options))


def enlivened(model: Any) -> Any:
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            continue
        for weight in layer.weights:
            if weight.name in ("gamma", "moving_variance"):
                value = rng.uniform(0.5, 1.5, weight.shape)
            elif weight.name == "kernel":
                fan_in = np.prod(weight.shape[:-1])
                value = rng.normal(0, (2 / fan_in) ** 0.5, weight.shape)
            elif "seed" in weight.name:
                continue
            else:
                value = rng.normal(0, 0.2, weight.shape)
            weight.assign(value.astype(np.float32))
    return model


def sized(name: str, data_format: str = "channels_last", **options: Any) -> dict[str, Any]:
    """Options of a quick model, its shape in the order of the format."""
    options = QUICK[name] | options
    size, channels = options.pop("size"), SPECS[name].channels
    shape = (size, size, channels) if data_format == "channels_last" else (channels, size, size)
    return {"input_shape": shape, "data_format": data_format, "classes": 7, **options}


def images_for(model: Any, count: int = 3) -> np.ndarray:
    """Pixels where the model normalises them itself, noise elsewhere."""
    rng = np.random.default_rng(1)
    shape = (count, *(64 if n is None else n for n in model.input_shape[1:]))
    if any(isinstance(layer, keras.layers.Normalization) for layer in model.layers):
        return rng.integers(0, 256, shape).astype(np.float32)
    return rng.normal(size=shape).astype(np.float32)


def outputs(model: Any, images: Any) -> np.ndarray:
    with torch.no_grad():
        return keras.ops.convert_to_numpy(model(images, training=False))


def keep_case(stem: Path, model: Any) -> None:
    """Write a model, images and its outputs for them, for `CHILD`."""
    images = images_for(model)
    model.save(f"{stem}.keras")
    np.save(f"{stem}.npy", images)
    np.save(f"{stem}.out.npy", outputs(model, images))


def check(model: Any, engine: str = "auto", images: np.ndarray | None = None) -> Any:
    images = images_for(model) if images is None else images
    fast = optimize(model, engine)
    assert_close(outputs(model, images), fast(images), "logits")
    return fast


def kinds(model: Any) -> Counter[type[Operation]]:
    return Counter(type(operation) for operation in make_plan(model).operations)


@BOTH
@pytest.mark.parametrize("name", QUICK)
def test_torch_computes_the_same(name: str, data_format: str) -> None:
    model = live_model(name, **sized(name, data_format))
    fast = check(model)
    assert fast.engine == "torch"
    assert fast.data_format == data_format
    assert fast.input_shape == model.input_shape
    assert fast.operations == len(make_plan(model).operations)


@pytest.mark.slow
def test_torch_compile_computes_the_same() -> None:
    """One compilation serves arrays, tensors of either mode, and what is left of a prediction."""
    model = live_model("lenet5", **sized("lenet5"))
    images = images_for(model, 5)
    wanted = outputs(model, images)
    fast = optimize(model, "torch_compile", batch_size=3)
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape, np.float32))
    assert_close(wanted[:3], fast(images[:3]), "logits")
    assert_close(wanted, fast.predict(images, batch_size=3), "logits")
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            tensor = fast(torch.from_numpy(images[:3]) + 0)
        assert isinstance(tensor, torch.Tensor)
        assert_close(wanted[:3], tensor.numpy(), "logits")
    assert len(fast._run._compiled) == 1


def test_torch_compile_without_a_compiler() -> None:
    fast = optimize(live_model("lenet5"), "torch_compile")
    config = torch._inductor.config
    images = images_for(live_model("lenet5"), 2)
    with (
        config.patch({"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True}),
        pytest.raises(CompilationError, match="cannot compile for cpu here") as raised,
    ):
        fast(images)
    text = str(raised.value)
    assert "No working C++ compiler found" in text
    assert "install g++ or clang" in text
    assert 'use engine="torch"' in text


@pytest.fixture(scope="module")
def quick_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with models as files, images for them, and their outputs."""
    folder = tmp_path_factory.mktemp("quick")
    for name in ("lenet5", "alexnet_caffe"):
        model = live_model(name, **sized(name, "channels_first"))
        keep_case(folder / f"{name}_channels_first", model)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_other_backends_compute_the_same(
    backend: str,
    quick_files: Path,
    run_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    names = ["lenet5_channels_first"]  # Keras builds GoogLeNet for long: a slow test
    if backend == "tensorflow":
        names += ["alexnet_caffe_channels_first"]
    done = run_python(CHILD, quick_files, "auto", *names, KERAS_BACKEND=backend)
    gaps = json.loads(done.stdout.splitlines()[-1])
    assert set(gaps) == set(names)
    assert max(gaps.values()) <= LIMIT, gaps


def test_googlenet_is_fused() -> None:
    model = live_model("googlenet", **sized("googlenet"))
    found = kinds(model)
    names = {kind.__name__ for kind in found}
    assert names == {"Affine", "Conv", "MaxPool", "Concat", "GlobalPool", "Flatten", "Dense"}
    # Scale, normalisation and transform_input are one step; no batch norm, padding or ReLU is left.
    assert found[Affine] == 1
    assert found[Conv] == 57
    assert found.total() == 83
    plan = make_plan(model)
    convolutions = [each for each in plan.operations if isinstance(each, Conv)]
    assert {each.activation for each in convolutions} == {"relu"}


def test_alexnet_is_fused() -> None:
    found = kinds(live_model("alexnet", input_shape=(224, 224, 3)))
    by_name = {kind.__name__: count for kind, count in found.items()}
    assert by_name == {"Conv": 5, "MaxPool": 3, "Flatten": 1, "Dense": 3}


@BOTH
@pytest.mark.parametrize("pooling", [None, "avg", "max"])
def test_features_of_any_size(pooling: str | None, data_format: str) -> None:
    model = live_model("googlenet", include_top=False, pooling=pooling, data_format=data_format)
    for size in (32, 47):
        shape = (2, size, size, 3) if data_format == "channels_last" else (2, 3, size, size)
        check(model, images=np.random.default_rng(size).normal(size=shape).astype(np.float32))


def test_adaptive_pooling_of_any_size() -> None:
    model = live_model("alexnet", input_shape=(None, None, 3), classes=4)
    for size in (95, 260):
        check(model, images=np.ones((1, size, size, 3), np.float32) * np.arange(3, dtype="f"))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "relu", "linear"])
def test_classifier_activations(activation: str) -> None:
    check(live_model("lenet5", classifier_activation=activation))


def test_auxiliary_outputs_are_dropped() -> None:
    options = {"input_shape": (64, 64, 3), "classes": 5}
    model = live_model("googlenet", aux_heads=True, **options)
    images = images_for(model, 2)
    with torch.no_grad():
        wanted = model(images, training=False)["logits"].numpy()
    fast = optimize(model)
    assert_close(wanted, fast(images), "logits")
    assert fast.operations == optimize(live_model("googlenet", **options)).operations


def forked(data_format: str = "channels_last", *, as_list: bool = False) -> Any:
    """A model of three outputs, of which one is read further: nothing may be fused into it."""
    layers = keras.layers
    shape = (12, 10, 3) if data_format == "channels_last" else (3, 12, 10)
    image = keras.Input(shape)
    where = {"data_format": data_format}
    x = layers.Conv2D(4, 3, **where)(image)
    y = layers.ReLU()(x)
    features = layers.GlobalAveragePooling2D(**where)(layers.Conv2D(5, 3, **where)(y))
    found = {"raw": x, "features": layers.Dense(6)(features), "active": y}
    return enlivened(keras.Model(image, list(found.values()) if as_list else found))


def assert_all_close(wanted: Any, got: Any) -> None:
    keras.tree.assert_same_structure(wanted, got)
    for a, b in zip(keras.tree.flatten(wanted), keras.tree.flatten(got), strict=True):
        assert_close(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b), "logits")


@BOTH
@pytest.mark.parametrize("as_list", [False, True])
def test_several_outputs_have_the_structure_of_the_model(as_list: bool, data_format: str) -> None:
    model = forked(data_format, as_list=as_list)
    images, fast = images_for(model, 5), optimize(model)
    wanted = model(images, training=False)
    for got in (fast(images), fast(torch.from_numpy(images)), fast.predict(images, batch_size=2)):
        assert_all_close(wanted, got)


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("engine", ["torch_compile", "openvino", "onnxruntime"])
def test_several_outputs_of_other_engines(engine: str, data_format: str) -> None:
    model = forked(data_format)
    images = images_for(model, 3)
    assert_all_close(model(images, training=False), optimize(model, engine)(images))


def fed(data_format: str) -> Any:
    """A model of two images and of numbers, named against the order of the alphabet."""
    layers, first = keras.layers, data_format == "channels_first"
    where = {"data_format": data_format}
    shapes = [(3, 12, 14), (1, 12, 14)] if first else [(12, 14, 3), (12, 14, 1)]
    photo, mask = (
        keras.Input(shape, name=name) for shape, name in zip(shapes, ("photo", "mask"), strict=True)
    )
    age = keras.Input((5,), name="age")
    x = layers.Concatenate(axis=1 if first else -1)([photo, mask])
    x = layers.ReLU()(layers.Conv2D(8, 3, **where)(x))
    x = layers.GlobalAveragePooling2D(**where)(x)
    x = layers.Add()([x, layers.Dense(8, activation="tanh")(age)])
    return enlivened(keras.Model([photo, mask, age], layers.Dense(4)(x), name="fed"))


def inputs_for(model: Any, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    shapes = [(count, *each.shape[1:]) for each in model.inputs]
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


@BOTH
@pytest.mark.parametrize(
    "engine",
    [
        "torch",
        *(
            pytest.param(engine, marks=pytest.mark.slow)
            for engine in ("torch_compile", "openvino", "onnxruntime")
        ),
    ],
)
def test_several_inputs(engine: str, data_format: str) -> None:
    model = fed(data_format)
    given, fast = inputs_for(model, 5), optimize(model, engine, batch_size=2)
    wanted = model(given, training=False)
    tensors = list(map(torch.from_numpy, given))
    named = {"age": given[2], "photo": given[0], "mask": given[1]}
    for got in (fast(given), fast(tensors), fast(named), fast.predict(given, batch_size=2)):
        assert_all_close(wanted, got)
    assert fast.input_shape["age"] == (None, 5)


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_several_inputs_on_other_backends(
    backend: str,
    data_format: str,
    tmp_path: Path,
    run_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    model = fed(data_format)
    given = inputs_for(model, 5)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "given.npz", *given)
    child = """
import sys
import numpy as np
from keras_alexnet import load_model, optimize

folder = sys.argv[1]
given = list(np.load(f"{folder}/given.npz").values())
found = optimize(load_model(f"{folder}/model.keras")).predict(given, batch_size=2)
np.save(f"{folder}/found.npy", found)
"""
    run_python(child, tmp_path, KERAS_BACKEND=backend)
    assert_all_close(model(given, training=False), np.load(tmp_path / "found.npy"))


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        (lambda a, b, c: a, r"takes a list or dict of 3 inputs \(photo, mask, age\), got ndarray"),
        (lambda a, b, c: [a, b], "of 3 inputs .*, got 2 of them"),
        (lambda a, b, c: {"photo": a}, r"takes \['photo', 'mask', 'age'\], got \['photo'\]"),
        (lambda a, b, c: [a, b, c[:1]], "its inputs are batches of 1 and 2"),
        (lambda a, b, c: [b, a, c], r"images of shape \(None, 12, 14, 3\) .* as 'photo', got"),
        (lambda a, b, c: [a, b, c[0]], r"numbers of shape \(None, 5\) as 'age', got \(5,\)"),
        (lambda a, b, c: [a, b, "me"], r"numbers of shape \(None, 5\) as 'age', got \(\)"),
    ],
)
def test_several_inputs_are_checked(chosen: Callable[..., Any], text: str) -> None:
    model = fed("channels_last")
    with pytest.raises(ConfigurationError, match=text):
        optimize(model)(chosen(*inputs_for(model, 2)))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_several_outputs_on_other_backends(
    backend: str, tmp_path: Path, run_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    model = forked("channels_last")
    images = images_for(model, 3)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    child = """
import sys
import numpy as np
from keras_alexnet import load_model, optimize

folder = sys.argv[1]
found = optimize(load_model(f"{folder}/model.keras"))(np.load(f"{folder}/images.npy"))
np.savez(f"{folder}/found.npz", **found)
"""
    run_python(child, tmp_path, KERAS_BACKEND=backend)
    with np.load(tmp_path / "found.npz") as found:
        assert_all_close(model(images, training=False), dict(found))


def test_arrays_tensors_and_bytes() -> None:
    model = live_model("lenet5", include_preprocessing=True)
    fast = optimize(model)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1), np.uint8)
    wanted = outputs(model, pixels)
    got = fast(torch.from_numpy(pixels))
    assert isinstance(got, torch.Tensor)
    assert_close(wanted, got.numpy(), "logits")
    assert_close(wanted, fast(pixels), "logits")
    for batch_size in (1, 2, 5, 32):
        assert_close(wanted, fast.predict(pixels, batch_size), "logits")


def test_the_model_is_left_alone_and_its_weights_are_copied() -> None:
    model = live_model("lenet5")
    images = images_for(model)
    before, weights = outputs(model, images), model.get_weights()
    fast = optimize(model, batch_size=2)
    np.testing.assert_array_equal(outputs(model, images), before)
    for kept, now in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(now, kept)
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape, np.float32))
    assert_close(before, fast(images), "logits")


def test_what_something_else_reads_too_is_not_fused() -> None:
    layers = keras.layers
    image = keras.Input((8, 8, 3))
    conv = layers.Conv2D(4, 3, bias_initializer="normal")(image)
    dropped = layers.Dropout(0.5)(conv)
    relu, again = layers.ReLU()(dropped), layers.ReLU()(layers.BatchNormalization()(conv))
    negative = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(((0, 1), (0, 1)))(conv))
    pooled = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(((0, 1), (0, 1)))(relu))
    joined = layers.Concatenate()([pooled, negative, layers.MaxPooling2D(2, 2)(again)])
    model = keras.Model(image, joined)
    check(model)
    # Zeros are padding of a pool only where nothing is below them.
    found = kinds(model)
    assert {kind.__name__: count for kind, count in found.items()} == {
        "Conv": 1,
        "Activation": 2,
        "Affine": 1,
        "MaxPool": 3,
        "Pad": 1,
        "Concat": 1,
    }
    assert found[MaxPool] == 3


class Doubled(keras.layers.Layer):
    """Somebody's own layer, with a weight."""

    def build(self, shape: Any) -> None:
        self.factor = self.add_weight(shape=(), initializer="ones", name="factor")

    def call(self, inputs: Any) -> Any:
        return 2 * self.factor * inputs


def assorted(data_format: str) -> Any:
    """A network of what converted networks have: residuals, gates, attention, constants."""
    layers, ops = keras.layers, keras.ops
    last = data_format == "channels_last"
    axis, free = (-1, (1, 2)) if last else (1, (2, 3))
    image = keras.Input((10, 12, 3) if last else (3, 10, 12))
    with_format = {"data_format": data_format}
    x = layers.Conv2D(8, 3, padding="same", activation="silu", **with_format)(image)
    x = layers.BatchNormalization(axis=axis)(x)
    for name in op.ACTIVATIONS:
        if name == "softmax":
            continue
        y = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, **with_format)(x)
        y = layers.BatchNormalization(axis=axis)(y)
        y = ops.gelu(y) if name == "gelu_tanh" else layers.Activation(name)(y)
        y = layers.Conv2D(8, 1, **with_format)(y)
        # In turns the convolution is the first or the second of what is added.
        x = layers.Add()([x, y] if len(name) % 2 else [y, x])
        x = layers.Activation("relu" if name == "relu" else "hard_silu")(x)
    gate = layers.GlobalAveragePooling2D(keepdims=True, **with_format)(x)
    gate = layers.Conv2D(8, 1, activation="sigmoid", **with_format)(gate)
    x = layers.Multiply()([gate, x])
    x = layers.Conv2D(8, 3, dilation_rate=2, padding="same", groups=2, **with_format)(x)
    x = ops.subtract(Doubled()(x), ops.max(x, axis=free, keepdims=True))
    # A table and a vector of the model's own, looked up as a conversion does it.
    zero = ops.zeros_like(image[0, 0, 0:1, 0])
    zero = ops.cast(zero, "int32")
    rows = ops.add(zero, np.arange(8, dtype=np.int32))
    vector = ops.reshape(layers.Embedding(8, 1)(rows), (8,) if last else (8, 1, 1))
    x = layers.Add()([x, ops.multiply(vector, layers.Conv2D(8, 1, **with_format)(x))])
    first, second = ops.split(x, 2, axis=axis)
    x = layers.Concatenate(axis=axis)([second, first])
    x = ops.add(x, 0.5)
    if not last:
        x = ops.transpose(x, (0, 2, 3, 1))
    tokens = ops.reshape(x, (-1, 120, 8))
    table = layers.Embedding(120, 8)(ops.add(zero, np.arange(120, dtype=np.int32)))
    tokens = ops.add(tokens, table)
    tokens = layers.LayerNormalization(epsilon=1e-6)(tokens)
    parts = [ops.reshape(layers.Dense(8)(tokens), (-1, 120, 2, 4)) for _ in range(3)]
    mixed = ops.reshape(ops.dot_product_attention(*parts), (-1, 120, 8))
    tokens = layers.Add()([tokens, layers.Dense(8, activation="gelu")(mixed)])
    return keras.Model(image, layers.Dense(5, activation="softmax")(tokens[:, 3]))


@BOTH
def test_networks_of_all_kinds(data_format: str) -> None:
    """What has no operation is called as Keras has it, by weights of its own."""
    model = enlivened(assorted(data_format))
    images = images_for(model)
    wanted = outputs(model, images)
    assert wanted.std(0).max() > 0.01  # the images matter
    fast = check(model)
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape, weight.dtype))
    assert_close(wanted, fast(images), "logits")


def test_what_is_added_goes_into_convolutions() -> None:
    found = kinds(assorted("channels_last"))
    plan = make_plan(assorted("channels_last"))
    convolutions = [each for each in plan.operations if isinstance(each, Conv)]
    # One for each activation, and the one that the vector scales.
    assert sum(len(each.inputs) == 2 for each in convolutions) == len(op.ACTIVATIONS)
    # Tables that no image changes are numbers; only the table of the tokens is added as such.
    assert found[op.Constant] == 1
    assert not any("embedding" in each.name for each in plan.operations if each.inputs)


def test_a_batch_of_zeros_is_no_constant() -> None:
    """What is as large as the batch, or counts it, is computed."""
    layers, ops = keras.layers, keras.ops
    image = keras.Input((4, 4, 2))
    ones = ops.add(ops.zeros_like(image[:, 0, 0, 0]), 1.0)  # (N,)
    count = ops.sum(ones, keepdims=True)  # (1,)
    features = layers.Flatten()(image)
    model = keras.Model(image, ops.add(ops.multiply(features, count), ops.reshape(ones, (-1, 1))))
    for size in (1, 2, 5):
        check(model, images=np.random.default_rng(size).normal(size=(size, 4, 4, 2)).astype("f"))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_networks_of_all_kinds_on_other_backends(
    backend: str, tmp_path: Path, run_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    child = CHILD.replace(
        "import keras\n",
        "import keras\n\n"
        "@keras.saving.register_keras_serializable('tests')\n" + inspect.getsource(Doubled),
    )
    keras.saving.register_keras_serializable("tests")(Doubled)
    names = ["channels_last"] + ["channels_first"] * (backend == "jax")
    for name in names:
        keep_case(tmp_path / name, enlivened(assorted(name)))
    done = run_python(
        "from typing import Any\n" + child, tmp_path, "auto", *names, KERAS_BACKEND=backend
    )
    gaps = json.loads(done.stdout.splitlines()[-1])
    assert set(gaps) == set(names)
    assert max(gaps.values()) <= LIMIT, gaps


@pytest.mark.parametrize("size", range(5, 12))
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_strided_padding_at_every_size(size: int, padding: str) -> None:
    """TensorFlow's "same" pads the end more; ceil-mode pools have a border of their own."""
    layers = keras.layers
    image = keras.Input((None, None, 2))
    x = layers.Conv2D(3, 4, 2, padding=padding, activation="relu")(image)
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x) if padding == "valid" else x
    model = keras.Model(image, layers.MaxPooling2D(2, 2, padding=padding)(x))
    check(model, images=np.random.default_rng(size).normal(size=(2, size, size, 2)).astype("f"))


def test_windows_of_torch() -> None:
    assert same_padding((224, 7), (3, 3), (2, 2)) == ((0, 1), (1, 1))
    for size, results in ((7, 6), (13, 6), (12, 6), (1, 6), (5, 2)):
        x = np.random.default_rng(size).normal(size=(1, 1, size)).astype(np.float32)
        wanted = torch.nn.functional.adaptive_avg_pool1d(torch.from_numpy(x), results).numpy()
        np.testing.assert_allclose(x @ adaptive_matrix(size, results).T, wanted, atol=1e-6, rtol=0)


def test_unknown_engine() -> None:
    model = live_model("lenet5")
    with pytest.raises(ConfigurationError, match=r"unknown engine 'tvm'; there are auto, torch"):
        optimize(model, "tvm")


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, "many"])
def test_batch_size_must_be_positive(batch_size: Any) -> None:
    with pytest.raises(ConfigurationError, match="batch_size must be a positive integer"):
        optimize(live_model("lenet5"), batch_size=batch_size)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_missing_package(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "keras_alexnet.exporting.formats.installed", lambda package: package != engine
    )
    with pytest.raises(MissingDependencyError, match=rf"{engine}.*pip install"):
        optimize(live_model("lenet5"), engine)


def test_missing_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)
    text = "jax is needed here and is not installed.*pip install jax"
    with pytest.raises(MissingDependencyError, match=text):
        optimize(live_model("lenet5"), "jax")


def test_what_is_no_functional_model() -> None:
    with pytest.raises(ConfigurationError, match=r"functional Keras model.*got Linear"):
        optimize(torch.nn.Linear(1, 1))

    class Own(keras.Model):
        pass

    with pytest.raises(ConfigurationError, match="got Own: it has no layers that are connected"):
        optimize(Own())


def test_models_that_cannot_be_optimized() -> None:
    layers = keras.layers
    image = keras.Input((8, 8, 3))
    # Keras computes them, on its own backend alone.
    odd = keras.Model(image, layers.SeparableConv2D(2, 3, name="odd")(image))
    with pytest.raises(
        ConfigurationError,
        match=r"'odd' \(SeparableConv2D\) cannot be optimized for engine='jax': Keras computes it, "
        r'on torch; engine="auto" has it do so',
    ):
        optimize(odd, "jax")
    wide = keras.Model(image, layers.Conv2D(2, 3, dilation_rate=2, name="wide")(image))
    with pytest.raises(ConfigurationError, match=r"'wide'.*with dilation_rate=.* for engine='jax'"):
        optimize(wide, "jax")
    vector = keras.Input((8,))
    with pytest.raises(ConfigurationError, match="must take a batch of images"):
        optimize(keras.Model(vector, layers.Dense(2)(vector)))
    with pytest.raises(ConfigurationError, match="has no layer that computes something"):
        optimize(keras.Model(image, layers.Dropout(0.5)(image)))
    x = layers.Conv2D(2, 3, data_format="channels_last")(image)
    with pytest.raises(ConfigurationError, match="both data formats"):
        optimize(keras.Model(image, layers.Conv2D(2, 1, data_format="channels_first")(x)))


def test_other_precisions_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="computes in bfloat16; only float32 models"):
        optimize(create_model("lenet5", dtype="mixed_bfloat16"))


def test_images_are_checked() -> None:
    fast = optimize(live_model("lenet5"))
    with pytest.raises(ConfigurationError, match=r"takes images of shape \(None, 28, 28, 1\)"):
        fast(np.zeros((1, 1, 28, 28), np.float32))
    with pytest.raises(ConfigurationError, match=r"got \(28, 28, 1\)"):
        fast.predict(np.zeros((28, 28, 1), np.float32))
    with pytest.raises(ConfigurationError, match="no images"):
        fast.predict(np.zeros((0, 28, 28, 1), np.float32))
    with pytest.raises(ConfigurationError, match="batch_size must be positive"):
        fast.predict(np.zeros((1, 28, 28, 1), np.float32), batch_size=0)
    assert repr(fast).startswith("OptimizedModel('lenet5', engine='torch', input_shape=(None, 28")


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("name", SPECS)
def test_every_model_on_every_backend(
    name: str,
    data_format: str,
    tmp_path: Path,
    run_python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    model = live_model(name, data_format=data_format, include_preprocessing=True)
    check(model)
    keep_case(tmp_path / "model", model)
    for backend in ("tensorflow", "jax"):
        done = run_python(CHILD, tmp_path, "auto", "model", KERAS_BACKEND=backend)
        assert json.loads(done.stdout.splitlines()[-1])["model"] <= LIMIT


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("name", ["alexnet", "googlenet", "alexnet_caffe"])
def test_torch_compile_of_every_operation(name: str, data_format: str) -> None:
    model = live_model(name, **sized(name, data_format))
    fast = check(model, "torch_compile")
    images = images_for(model, 2)
    assert_close(outputs(model, images), fast(images), "logits")
    assert len(fast._run._compiled) == 2


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("name", QUICK)
def test_runtimes_compute_the_same(name: str, engine: str, data_format: str) -> None:
    model = live_model(name, **sized(name, data_format))
    fast = optimize(model, engine, batch_size=2)
    for count in (1, 2, 5):
        images = images_for(model, count)
        wanted = outputs(model, images)
        assert_close(wanted, fast(images), "logits")
        assert_close(wanted, fast.predict(images, batch_size=2), "logits")
    tensor = fast(torch.from_numpy(images))
    assert isinstance(tensor, torch.Tensor)


@pytest.mark.slow
def test_optional_engines_keep_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    fast = optimize(live_model("lenet5"), "onnxruntime")
    assert fast.engine in ENGINES
    del fast
    assert not list(tmp_path.iterdir())
