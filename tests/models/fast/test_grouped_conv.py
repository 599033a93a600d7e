"""Grouped convolutions against torch's, on every backend: a stock layer, computed group by group.

One child process per backend does all work on the shared cases; the tests read what it wrote.
"""

import json
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import torch

import keras_alexnet
from keras_alexnet.core.backend import BACKENDS
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.models.fast import grouped_conv as fast_groups, quicken as fast
from keras_alexnet.models.rows import Settings, apply_rows
from keras_alexnet.specs.schema import DATA_FORMATS, Conv, Dense, Flatten
from keras_alexnet.specs.shared import TORCH_INIT
from porting.weights import layouts
from porting.weights.layouts import Transform

Arrays = dict[str, np.ndarray]

# Values and gradients of groups on every backend are quick in test_exactness.py.
pytestmark = pytest.mark.slow

EACH = pytest.mark.parametrize("backend", BACKENDS)
BOTH = pytest.mark.parametrize("data_format", DATA_FORMATS)
GROUPS = pytest.mark.parametrize("groups", [1, 2, 4])

CHANNELS, FILTERS, SIZE = 8, 12, (9, 10)
# float32 sums of up to 200 products (values), of 2 * 90 of them (gradients), in another order
# than torch's; its own are in float64. In units of the largest element; measured: 4e-7.
LIMIT = 2e-6


class Case(NamedTuple):
    """One convolution in one data format."""

    row: Conv
    data_format: str


CASES = [
    Case(Conv("conv", FILTERS, kernel, stride, padding, groups=groups), data_format)
    for groups, (kernel, stride, padding), data_format in product(
        (1, 2, 4), ((3, 1, 1), (5, 2, 2), (3, 2, 0)), DATA_FORMATS
    )
]
NUMBERS = pytest.mark.parametrize("number", range(len(CASES)))

# One thread as in this process; XLA's optimiser takes longer than anything it would speed up here.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
    "TF_ENABLE_ONEDNN_OPTS": "1",  # for convolutions in channels_first
}
CHILD = """
import json, os, sys
from pathlib import Path
import numpy as np
import keras

folder = Path(sys.argv[1])
backend = keras.backend.backend()
given = dict(np.load(folder / "given.npz"))
arrays, facts = {}, {}

# Keras alone first.
model = keras.saving.load_model(folder / "written.keras", safe_mode=True)
arrays["plain"] = model.predict(given["images"], verbose=0)
facts["imported"] = bool({"keras_alexnet", "porting"} & set(sys.modules))
facts["plain is split"] = "convolution_op" in vars(model.get_layer("grouped"))

import keras_alexnet
from keras import ops
from keras_alexnet.models.rows import Settings, apply_rows
from keras_alexnet.models.fast.quicken import quicken
from keras_alexnet.specs.schema import Conv
from keras_alexnet.specs.shared import TORCH_INIT

model = keras_alexnet.load_model(folder / "written.keras")
arrays["ours"] = model.predict(given["images"], verbose=0)
facts["split"] = [
    layer.name for layer in model.layers if "convolution_op" in vars(layer)
]
model.save(folder / f"written-{backend}.keras")

for number, (row, data_format) in enumerate(json.loads((folder / "cases.json").read_text())):
    row = Conv(**row)
    values = [given[f"{number}/{key}"] for key in ("x", "kernel", "bias", "upstream")]
    settings = Settings(data_format, None, classes=7, dropout_rate=0.5, init=TORCH_INIT)
    image = keras.Input(values[0].shape[1:])
    model = quicken(keras.Model(image, apply_rows((row,), image, settings, {})))
    layer = model.get_layer("conv")
    facts[f"{number}"] = "convolution_op" in vars(layer)
    if backend == "tensorflow":
        import tensorflow as tf

        layer.set_weights(values[1:3])
        x, upstream = tf.constant(values[0]), tf.constant(values[3])

        @tf.function
        def run(x, upstream):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = model(x)
            return y, tape.gradient(y, [x, layer.kernel.value, layer.bias.value], upstream)

        y, gradients = run(x, upstream)
    else:
        import jax

        @jax.jit
        def run(x, kernel, bias, upstream):
            def forward(x, kernel, bias):
                return model.stateless_call([kernel, bias], [], x)[0]

            y, pull = jax.vjp(forward, x, kernel, bias)
            return y, pull(upstream)

        y, gradients = run(*values)
    arrays[f"{number}/y"] = ops.convert_to_numpy(y)
    for key, gradient in zip(("x", "kernel", "bias"), gradients):
        arrays[f"{number}/{key}"] = ops.convert_to_numpy(gradient)

np.savez(folder / f"{backend}.npz", **arrays)
(folder / f"{backend}.json").write_text(json.dumps(facts))
"""


def _settings(data_format: str) -> Settings:
    return Settings(data_format, None, classes=7, dropout_rate=0.5, init=TORCH_INIT)


def _model(rows: tuple[Any, ...], data_format: str = "channels_last") -> keras.Model:
    last = data_format == "channels_last"
    image = keras.Input((*SIZE, CHANNELS) if last else (CHANNELS, *SIZE))
    return fast.quicken(keras.Model(image, apply_rows(rows, image, _settings(data_format), {})))


def _place(planes: np.ndarray, data_format: str) -> np.ndarray:
    """(N, C, H, W) in a data format."""
    placed = planes if data_format == "channels_first" else layouts.nchw_to_nhwc(planes)
    return np.ascontiguousarray(placed)


def _is_split(layer: Any) -> bool:
    """Whether the layer has the operation of `grouped_conv` in place of its class's."""
    return getattr(layer.convolution_op, "__func__", None) is fast_groups._convolve_groups


def _assert_close(got: np.ndarray, wanted: np.ndarray) -> None:
    assert got.shape == wanted.shape
    gap = np.abs(got - wanted).max() / np.abs(wanted).max()
    assert gap <= LIMIT, f"{gap:.2e} of the scale"


class TorchCase(NamedTuple):
    """Torch's inputs in float32 and its results in float64, all in torch's layouts."""

    x: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    upstream: np.ndarray
    y: np.ndarray
    gradients: tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def torch_cases() -> list[TorchCase]:
    """`torch.nn.functional.conv2d` on every case."""
    cases = []
    for number, (row, _) in enumerate(CASES):
        rng = np.random.default_rng(number)
        shapes = (
            (2, CHANNELS, *SIZE),
            (FILTERS, CHANNELS // row.groups, row.kernel, row.kernel),
            (FILTERS,),
        )
        arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
        inputs = [torch.from_numpy(array).double().requires_grad_() for array in arrays]
        y = torch.nn.functional.conv2d(*inputs, row.stride, row.padding, groups=row.groups)
        upstream = rng.normal(size=y.shape).astype(np.float32)
        gradients = torch.autograd.grad(y, inputs, torch.from_numpy(upstream).double())
        results = [tensor.detach().numpy() for tensor in (y, *gradients)]
        cases.append(TorchCase(*arrays, upstream, results[0], tuple(results[1:])))
    return cases


@pytest.fixture(scope="module")
def written() -> keras.Model:
    """A model with a grouped convolution, an ungrouped one and a dense layer."""
    keras.utils.set_random_seed(0)
    rows = (
        Conv("grouped", FILTERS, 3, padding=1, groups=2),
        Conv("plain", 4, 3),
        Flatten("flatten"),
        Dense("dense", 5),
    )
    return _model(rows)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Inputs of `written`."""
    return np.random.default_rng(1).normal(size=(3, *SIZE, CHANNELS)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    torch_cases: list[TorchCase],
    written: keras.Model,
    images: np.ndarray,
) -> Path:
    """Folder with the children's input."""
    folder = tmp_path_factory.mktemp("grouped")
    given = {"images": images}
    for number, ((_, data_format), case) in enumerate(zip(CASES, torch_cases, strict=True)):
        given[f"{number}/x"] = _place(case.x, data_format)
        given[f"{number}/upstream"] = _place(case.upstream, data_format)
        given[f"{number}/kernel"] = layouts.conv_to_keras(case.kernel)
        given[f"{number}/bias"] = case.bias
    np.savez(folder / "given.npz", **given)
    cases = [(asdict(row), data_format) for row, data_format in CASES]
    (folder / "cases.json").write_text(json.dumps(cases))
    written.save(folder / "written.keras")
    return folder


def _torch_results(folder: Path) -> tuple[Arrays, dict[str, Any]]:
    """What the children write, computed in this process."""
    given = dict(np.load(folder / "given.npz"))
    arrays: Arrays = {}
    facts: dict[str, Any] = {}
    for number, (row, data_format) in enumerate(CASES):
        model = _model((row,), data_format)
        layer = model.get_layer("conv")
        layer.set_weights([given[f"{number}/kernel"], given[f"{number}/bias"]])
        x = torch.from_numpy(given[f"{number}/x"]).requires_grad_()
        y = model(x)
        inputs = [x, layer.kernel.value, layer.bias.value]
        gradients = torch.autograd.grad(y, inputs, torch.from_numpy(given[f"{number}/upstream"]))
        facts[f"{number}"] = "convolution_op" in vars(layer)
        arrays[f"{number}/y"] = y.detach().numpy()
        for key, gradient in zip(("x", "kernel", "bias"), gradients, strict=True):
            arrays[f"{number}/{key}"] = gradient.numpy()
    return arrays, facts


@pytest.fixture(scope="module")
def results(
    folder: Path, run_python: Callable[..., Any]
) -> dict[str, tuple[Arrays, dict[str, Any]]]:
    """Backend -> arrays and facts."""

    def run(backend: str) -> tuple[Arrays, dict[str, Any]]:
        run_python(CHILD, folder, KERAS_BACKEND=backend, **ENVIRONMENT)
        with np.load(folder / f"{backend}.npz") as arrays:
            return dict(arrays), json.loads((folder / f"{backend}.json").read_text())

    others = ("tensorflow", "jax")
    with ThreadPoolExecutor(2) as pool:
        pending = pool.map(run, others)
        return {"torch": _torch_results(folder), **dict(zip(others, pending, strict=True))}


@NUMBERS
@EACH
def test_values_and_gradients(
    results: dict[str, tuple[Arrays, Any]],
    torch_cases: list[TorchCase],
    backend: str,
    number: int,
) -> None:
    arrays, _ = results[backend]
    wanted, data_format = torch_cases[number], CASES[number].data_format
    of_x, of_kernel, of_bias = wanted.gradients
    _assert_close(arrays[f"{number}/y"], _place(wanted.y, data_format))
    _assert_close(arrays[f"{number}/x"], _place(of_x, data_format))
    _assert_close(arrays[f"{number}/kernel"], layouts.conv_to_keras(of_kernel))
    _assert_close(arrays[f"{number}/bias"], of_bias)


def test_the_order_of_the_groups_matters(torch_cases: list[TorchCase]) -> None:
    """The comparison above sees inputs and outputs that are dealt out to the groups in turn."""
    for (row, _), case in zip(CASES, torch_cases, strict=True):
        # Channel 1 takes the place of the second group's first one, and so on.
        dealt = case.x.reshape(2, CHANNELS // row.groups, row.groups, *SIZE).swapaxes(1, 2)
        wrong = torch.nn.functional.conv2d(
            torch.from_numpy(np.ascontiguousarray(dealt).reshape(case.x.shape)),
            torch.from_numpy(case.kernel),
            torch.from_numpy(case.bias),
            row.stride,
            row.padding,
            groups=row.groups,
        ).numpy()
        gap = np.abs(wrong - case.y).max() / np.abs(case.y).max()
        assert (gap > 1e-2) == (row.groups > 1)


@BOTH
@GROUPS
def test_kernel_shape_is_torchs_but_for_the_layout(groups: int, data_format: str) -> None:
    layer = _model((Conv("conv", FILTERS, 3, groups=groups),), data_format).get_layer("conv")
    theirs = torch.nn.Conv2d(CHANNELS, FILTERS, 3, groups=groups)
    kernel = theirs.weight.detach().numpy()
    assert kernel.shape == (FILTERS, CHANNELS // groups, 3, 3)
    assert tuple(layer.kernel.shape) == (3, 3, CHANNELS // groups, FILTERS)
    transform = Transform("conv")
    layer.set_weights([transform.to_keras(kernel), theirs.bias.detach().numpy()])
    back = transform.to_torch(layer.kernel.numpy())
    np.testing.assert_array_equal(back, kernel)
    planes = np.random.default_rng(0).normal(size=(2, CHANNELS, *SIZE)).astype(np.float32)
    wanted = theirs(torch.from_numpy(planes)).detach().numpy()
    got = layer(_place(planes, data_format)).detach().numpy()
    _assert_close(got, _place(wanted, data_format))


def test_groups_must_divide_the_channels() -> None:
    row = Conv("features.4", 12, 3, groups=3)
    with pytest.raises(ConfigurationError) as error:
        _model((row,))
    assert str(error.value) == "features.4 has 3 groups, which do not divide its 8 channels"


# --- the faster operation


@NUMBERS
@EACH
def test_only_groups_are_split_and_not_on_torch(
    results: dict[str, tuple[Arrays, Any]], backend: str, number: int
) -> None:
    case = CASES[number]
    replaced = case.row.groups > 1 and backend != "torch"
    # JAX has a faster operation for every convolution of this format.
    replaced |= backend == "jax" and case.data_format == "channels_last"
    assert results[backend][1][f"{number}"] is replaced


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_loaded_models_are_split_again(
    results: dict[str, tuple[Arrays, Any]], backend: str
) -> None:
    replaced = ["grouped"] if backend == "tensorflow" else ["grouped", "plain"]
    assert sorted(results[backend][1]["split"]) == replaced


def test_loaded_models_are_left_alone_on_torch(folder: Path) -> None:
    model = keras_alexnet.load_model(folder / "written.keras")
    assert not any("convolution_op" in vars(layer) for layer in model.layers)


@BOTH
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_split_groups_and_what_it_leaves_alone(
    monkeypatch: pytest.MonkeyPatch, backend: str, data_format: str
) -> None:
    """As the two backends choose it, with all of the layer's options, on torch's operations."""
    options = {"kernel_size": 3, "data_format": data_format}
    many = {"strides": (1, 2), "padding": "same", "dilation_rate": 1}
    grouped = [
        keras.layers.Conv2D(FILTERS, groups=4, **options, **many),
        keras.layers.Conv2D(FILTERS, groups=2, **options, dilation_rate=(2, 1), use_bias=False),
    ]
    others = [
        keras.layers.Conv2D(FILTERS, **options),
        keras.layers.DepthwiseConv2D(**options),
        keras.layers.Conv1D(FILTERS, 3, groups=2),
        keras.layers.Dense(3),
        keras.layers.ReLU(),
    ]
    planes = np.random.default_rng(2).normal(size=(2, CHANNELS, *SIZE)).astype(np.float32)
    x = _place(planes, data_format)
    before = [layer(x).detach().numpy() for layer in grouped]
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    for layer in (*grouped, *others):
        fast_groups.split_groups(layer)
    monkeypatch.undo()
    for layer, wanted in zip(grouped, before, strict=True):
        assert _is_split(layer)
        assert "convolution_op" not in layer.get_config()
        _assert_close(layer(x).detach().numpy(), wanted)
    assert not any("convolution_op" in vars(layer) for layer in others)


def test_groups_stay_together_on_torch() -> None:
    layer = keras.layers.Conv2D(FILTERS, 3, groups=2)
    fast.quicken(layer)
    assert not _is_split(layer)
    assert "convolution_op" not in vars(layer)


# --- files


def test_saved_configuration_is_keras_own(folder: Path, results: dict[str, Any]) -> None:
    """Written on each backend, of which two have the faster operation in place."""
    assert set(results) == set(BACKENDS)
    for name in ("written.keras", "written-tensorflow.keras", "written-jax.keras"):
        with zipfile.ZipFile(folder / name) as archive:
            text = archive.read("config.json").decode()
        assert "keras_alexnet" not in text
        assert "convolution_op" not in text
        layers = {layer["name"]: layer for layer in json.loads(text)["config"]["layers"]}
        grouped = layers["grouped"]
        assert (grouped["module"], grouped["class_name"]) == ("keras.layers", "Conv2D")
        assert grouped["registered_name"] is None
        assert grouped["config"]["groups"] == 2


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_loads_with_keras_alone(
    results: dict[str, tuple[Arrays, Any]], written: keras.Model, images: np.ndarray, backend: str
) -> None:
    """Stock Keras computes with its own operation what ours computes group by group."""
    arrays, facts = results[backend]
    assert facts["imported"] is False
    assert facts["plain is split"] is False
    wanted = written.predict(images, verbose=0)
    assert wanted.std() > 0.01
    _assert_close(arrays["plain"], wanted)
    _assert_close(arrays["ours"], wanted)


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_loads_what_another_backend_wrote(
    results: dict[str, tuple[Arrays, Any]],
    folder: Path,
    written: keras.Model,
    images: np.ndarray,
    backend: str,
) -> None:
    assert backend in results
    model = keras.saving.load_model(folder / f"written-{backend}.keras", safe_mode=True)
    for got, wanted in zip(model.get_weights(), written.get_weights(), strict=True):
        np.testing.assert_array_equal(got, wanted)
    # The same weights, backend and layers: kernels of stock ones lie otherwise in memory, and some
    # processors then add in another order.
    outputs = fast.quicken(model).predict(images, verbose=0)
    np.testing.assert_array_equal(outputs, written.predict(images, verbose=0))
