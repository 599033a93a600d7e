"""Local response normalisation against torch's, on every backend, and its files.

One child process per backend does all work on the shared cases; the tests read what it wrote.
"""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from hypothesis import example, given, strategies as st

import keras_alexnet
from keras_alexnet import LocalResponseNormalization
from keras_alexnet.core.backend import BACKENDS
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.lrn import lrn_from_caffe, lrn_from_tensorflow, lrn_to_tensorflow
from keras_alexnet.specs import SPECS
from keras_alexnet.specs.schema import DATA_FORMATS

Case = dict[str, Any]
Arrays = dict[str, np.ndarray]

EACH = pytest.mark.parametrize("backend", BACKENDS)
BOTH = pytest.mark.parametrize("data_format", DATA_FORMATS)

# The sum has at most 9 terms of one sign, the power and the products add a few roundings: each
# value is within 10 units of 2**-24 of the exact one. Measured: 4.
VALUE = 10 * 2**-24
# The gradient is a difference, so it is as exact as its largest element. Measured: 2.3 of 2**-24.
GRADIENT = 20 * 2**-24
# The same two in units of 2**-53, with the reference's own roundings. Measured: 5e-16.
FLOAT64 = 1e-14
# Central differences with a step of 1e-5 are wrong by about its square and by 2**-53 / 1e-5.
# Measured: 5e-11.
NUMERICAL = 1e-9


def _cases() -> list[Case]:
    """Every size in both formats; the rest runs through its values at other periods."""
    return [
        {
            "size": size,
            "data_format": data_format,
            "channels": (1, 3, 4, 7, 12)[number % 5],
            "spatial": ((5,), (3, 4), (2, 3, 2))[number % 3],
            "beta": (0.5, 0.75, 1.0, 0.6)[number // 2 % 4],
            "k": (1.0, 2.0)[number // 3 % 2],
            # Both add about 1 to k.
            "alpha": (1e-4, 1.0)[number // 4 % 2],
            "scale": (100.0, 1.0)[number // 4 % 2],
        }
        for number, (size, data_format) in enumerate(product(range(1, 10), DATA_FORMATS))
    ]


CASES = _cases()
NUMBERS = pytest.mark.parametrize("number", range(len(CASES)))
EAGER = (0, 11)  # JAX compiles each operation of these by itself
# Each size once, both formats, all four exponents.
IN_FLOAT64 = [number for number in range(len(CASES)) if number % 4 in (0, 3)]
# Sizes 2, 4, 5 and 7, all four exponents.
DIFFERENCES = (2, 7, 9, 12)
# depth_radius, bias, alpha, beta
TENSORFLOW_LRN = [(2, 1.0, 2e-5, 0.75), (5, 1.0, 1.0, 0.5), (1, 2.0, 0.3, 1.0), (0, 1.0, 1.0, 0.6)]
# What the training below leaves of the loss. Measured: 0.003 to 0.05.
LEARNED = 0.5

# One thread as in this process; XLA's optimiser takes longer than anything it would speed up here.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
CHILD = """
import json, os, sys
from pathlib import Path
import numpy as np

folder = Path(sys.argv[1])
backend = os.environ["KERAS_BACKEND"]
job = json.loads((folder / "job.json").read_text())
cases = job["cases"]
given = dict(np.load(folder / "given.npz"))
arrays, facts = {}, {}

# Three ways to load the file of the torch process, of which each needs a fresh process.
file = folder / "written-parent.keras"
name = "keras_alexnet>LocalResponseNormalization"
if backend == "tensorflow":
    import keras_alexnet
    facts["keras before"] = "keras" in sys.modules
    model = keras_alexnet.load_model(file)
    import keras
else:
    import keras
    facts["registered before"] = keras.saving.get_registered_object(name) is not None
    if backend == "jax":
        try:
            keras.saving.load_model(file, safe_mode=True)
            facts["without us"] = "loaded"
        except Exception as error:
            facts["without us"] = str(error)
    import keras_alexnet
    facts["registered behind"] = keras.saving.get_registered_object(name) is not None
    model = keras.saving.load_model(file, safe_mode=True)
facts["layer"] = type(model.get_layer("norm")).__name__
arrays["loaded"] = model.predict(given["images"], verbose=0)
model.save(folder / f"written-{backend}.keras")

from keras import ops
from keras_alexnet import LocalResponseNormalization
from keras_alexnet.lrn import lrn_from_tensorflow

PARAMETERS = ("size", "alpha", "beta", "k", "data_format")


def make(case, dtype="float32"):
    return LocalResponseNormalization(**{key: case[key] for key in PARAMETERS}, dtype=dtype)


def differentiate(layer, x, upstream, compiled):
    if backend == "tensorflow":
        import tensorflow as tf

        def run(x, upstream):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x)
            return y, tape.gradient(y, x, upstream)

        run = tf.function(run) if compiled else run
        y, gradient = run(tf.constant(x), tf.constant(upstream))
    elif backend == "jax":
        import jax

        def run(x, upstream):
            y, pull = jax.vjp(layer, x)
            return y, pull(upstream)[0]

        run = jax.jit(run) if compiled else run
        y, gradient = run(jax.numpy.asarray(x), jax.numpy.asarray(upstream))
    else:
        import torch

        x = torch.from_numpy(x).requires_grad_()
        y = layer(x)
        (gradient,) = torch.autograd.grad(y, x, torch.from_numpy(upstream))
    return ops.convert_to_numpy(y), ops.convert_to_numpy(gradient)


def differentiate_all(label, dtype, compiled, numbers):
    for number in numbers:
        x, upstream = (given[f"{number}/{key}"].astype(dtype) for key in ("x", "upstream"))
        y, gradient = differentiate(make(cases[number], dtype), x, upstream, compiled)
        arrays[f"{number}/{label}/y"], arrays[f"{number}/{label}/gradient"] = y, gradient


differentiate_all("eager", "float32", False, job["eager"])
differentiate_all("compiled", "float32", True, range(len(cases)))

for data_format in ("channels_last", "channels_first"):
    last = data_format == "channels_last"
    image = keras.Input((None, None, 6) if last else (6, None, None))
    layer = LocalResponseNormalization(4, alpha=1.0, k=2.0, data_format=data_format)
    model = keras.Model(image, layer(image))
    facts[f"symbolic {data_format}"] = list(model.output.shape)
    for index in range(2):
        batch = given[f"unknown {index}"]
        batch = batch if last else np.ascontiguousarray(np.moveaxis(batch, -1, 1))
        if index == 0:
            y = ops.stop_gradient(model(batch))
            arrays[f"unknown {index} {data_format} call"] = ops.convert_to_numpy(y)
        arrays[f"unknown {index} {data_format} predict"] = model.predict(batch, verbose=0)
    x = given["uneven"]
    y = ops.convert_to_numpy(layer(x if last else np.ascontiguousarray(np.moveaxis(x, -1, 1))))
    arrays[f"uneven {data_format}"] = y if last else np.moveaxis(y, 1, -1)

for policy in ("mixed_float16", "mixed_bfloat16"):
    half = policy.removeprefix("mixed_")
    parameters = {"alpha": 1e-4, "k": 2.0}
    x = ops.cast(given["large"], half)
    y = LocalResponseNormalization(**parameters, dtype=policy)(given["large"])
    wide = LocalResponseNormalization(**parameters, dtype="float32")(ops.cast(x, "float32"))
    facts[policy] = keras.backend.standardize_dtype(y.dtype)
    for key, value in {"x": x, "y": y, "rounded": ops.cast(wide, half)}.items():
        arrays[f"{policy} {key}"] = ops.convert_to_numpy(ops.cast(value, "float32"))

keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.Input((6, 6, 2)),
        keras.layers.Conv2D(6, 3, activation="relu"),
        LocalResponseNormalization(5, alpha=1.0),
        keras.layers.Flatten(),
        keras.layers.Dense(1),
    ]
)
before = ops.convert_to_numpy(model.layers[0].kernel).copy()
model.compile(keras.optimizers.SGD(0.1), "mse")
history = model.fit(given["train x"], given["train y"], batch_size=8, epochs=8, verbose=0)
facts["losses"] = history.history["loss"]
facts["moved"] = float(abs(ops.convert_to_numpy(model.layers[0].kernel) - before).max())

if backend == "tensorflow":
    import tensorflow as tf

    for index, (radius, bias, alpha, beta) in enumerate(job["tensorflow"]):
        theirs = {"depth_radius": radius, "bias": bias, "alpha": alpha, "beta": beta}
        x = tf.constant(given["tensorflow"])
        arrays[f"tensorflow {index} wanted"] = tf.nn.local_response_normalization(x, **theirs)
        layer = LocalResponseNormalization(**lrn_from_tensorflow(**theirs))
        arrays[f"tensorflow {index} got"] = layer(x)

from porting.checks.precision import float64_allowed

with float64_allowed(backend):
    differentiate_all("float64", "float64", True, job["float64"])
    for number in job["differences"]:
        # Every channel of a single pixel moved up and down: one batch, one call.
        case = {**cases[number], "data_format": "channels_last"}
        x = given[f"{number}/x"].astype("float64")
        x = x if cases[number]["data_format"] == "channels_last" else np.moveaxis(x, 1, -1)
        x = x.reshape(-1, x.shape[-1])[:1]
        upstream = np.random.default_rng(number).normal(size=x.shape)
        layer = make(case, "float64")
        step = 1e-5 * case["scale"]
        steps = step * np.eye(x.shape[-1])
        moved = ops.convert_to_numpy(layer(np.concatenate([x + steps, x - steps])))
        up, down = np.split(moved, 2)
        arrays[f"{number}/numerical"] = (up - down) @ upstream[0] / (2 * step)
        arrays[f"{number}/analytical"] = differentiate(layer, x, upstream, True)[1][0]

    layer = LocalResponseNormalization(3, alpha=1.0, data_format="channels_last", dtype="float64")
    x = given["twice"].astype("float64")
    if backend == "tensorflow":
        x = tf.constant(x)
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = ops.sum(ops.square(layer(x)))
            penalty = ops.sum(ops.square(inner.gradient(loss, x)))
        second = outer.gradient(penalty, x)
    elif backend == "jax":
        import jax

        first = jax.grad(lambda x: ops.sum(ops.square(layer(x))))
        second = jax.jit(jax.grad(lambda x: ops.sum(ops.square(first(x)))))(x)
    else:
        import torch

        x = torch.from_numpy(x).requires_grad_()
        loss = layer(x).square().sum()
        (first,) = torch.autograd.grad(loss, x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
    arrays["twice"] = ops.convert_to_numpy(second)

np.savez(folder / f"{backend}.npz", **arrays)
(folder / f"{backend}.json").write_text(json.dumps(facts))
"""


def _layer(case: Case, dtype: str = "float32") -> LocalResponseNormalization:
    names = ("size", "alpha", "beta", "k", "data_format")
    return LocalResponseNormalization(**{name: case[name] for name in names}, dtype=dtype)


def _shape(case: Case, batch: int = 2) -> tuple[int, ...]:
    if case["data_format"] == "channels_last":
        return (batch, *case["spatial"], case["channels"])
    return (batch, case["channels"], *case["spatial"])


def _torch_lrn(case: Case, x: np.ndarray, upstream: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Output and gradient of torch's function in float64."""
    channels = -1 if case["data_format"] == "channels_last" else 1
    planes = torch.from_numpy(np.moveaxis(x, channels, 1).astype(np.float64)).requires_grad_()
    y = torch.nn.functional.local_response_norm(
        planes, case["size"], case["alpha"], case["beta"], case["k"]
    )
    (gradient,) = torch.autograd.grad(
        y, planes, torch.from_numpy(np.moveaxis(upstream, channels, 1))
    )
    return tuple(np.moveaxis(a.numpy(), 1, channels) for a in (y.detach(), gradient))


def _numpy_lrn(
    x: np.ndarray, size: int, alpha: float, beta: float = 0.75, k: float = 1.0
) -> np.ndarray:
    """The formula of the docstring in float64, channels last, channel by channel."""
    x = x.astype(np.float64)
    y = np.empty_like(x)
    for c in range(x.shape[-1]):
        window = x[..., max(c - size // 2, 0) : c + (size - 1) // 2 + 1]
        y[..., c] = x[..., c] / (k + alpha / size * np.square(window).sum(-1)) ** beta
    return y


def _assert_relative(got: np.ndarray, wanted: np.ndarray, limit: float) -> None:
    """Each element within `limit` of its own size."""
    assert got.shape == wanted.shape
    gap = np.abs(got - wanted) / np.maximum(np.abs(wanted), np.finfo(np.float32).tiny)
    assert gap.max() <= limit, f"{gap.max():.2e} relative"


def _assert_of_scale(got: np.ndarray, wanted: np.ndarray, limit: float) -> None:
    """Each element within `limit` of the largest one's size."""
    assert got.shape == wanted.shape
    gap = np.abs(got - wanted).max() / np.abs(wanted).max()
    assert gap <= limit, f"{gap:.2e} of the scale"


def _small_model() -> keras.Model:
    image = keras.Input((7, 6, 3))
    x = keras.layers.Conv2D(8, 3, name="conv", data_format="channels_last")(image)
    norm = LocalResponseNormalization(
        4, alpha=0.5, beta=0.6, k=2.0, data_format="channels_last", name="norm"
    )
    return keras.Model(image, keras.layers.Flatten()(norm(x)))


@pytest.fixture(scope="module")
def given_arrays() -> Arrays:
    """What the children work on."""
    rng = np.random.default_rng(0)
    arrays: Arrays = {}
    for number, case in enumerate(CASES):
        arrays[f"{number}/x"] = (case["scale"] * rng.normal(size=_shape(case))).astype(np.float32)
        arrays[f"{number}/upstream"] = rng.normal(size=_shape(case)).astype(np.float32)
    arrays["twice"] = rng.normal(size=(3, 5)).astype(np.float32)
    arrays["images"] = rng.normal(size=(3, 7, 6, 3)).astype(np.float32)
    arrays["unknown 0"] = rng.normal(size=(1, 4, 5, 6)).astype(np.float32)
    arrays["unknown 1"] = rng.normal(size=(3, 7, 1, 6)).astype(np.float32)
    arrays["uneven"] = rng.uniform(1, 2, (1, 2, 3, 6)).astype(np.float32)
    arrays["uneven"][..., 2] *= 1e4
    arrays["large"] = rng.uniform(-600, 600, (2, 3, 4, 7)).astype(np.float32)
    arrays["train x"] = rng.normal(size=(32, 6, 6, 2)).astype(np.float32)
    arrays["train y"] = arrays["train x"].mean(axis=(1, 2, 3))[:, None] * 12
    arrays["tensorflow"] = rng.normal(size=(2, 3, 4, 12)).astype(np.float32)
    return arrays


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, given_arrays: Arrays) -> Path:
    """Folder with the children's input."""
    folder = tmp_path_factory.mktemp("lrn")
    np.savez(folder / "given.npz", **given_arrays)
    job = {
        "cases": CASES,
        "eager": EAGER,
        "float64": IN_FLOAT64,
        "differences": DIFFERENCES,
        "tensorflow": TENSORFLOW_LRN,
    }
    (folder / "job.json").write_text(json.dumps(job))
    keras.utils.set_random_seed(1)
    model = _small_model()
    model.save(folder / "written-parent.keras")
    np.save(folder / "outputs.npy", model.predict(given_arrays["images"], verbose=0))
    return folder


@pytest.fixture(scope="module")
def children(folder: Path, run_python: Callable[..., Any]) -> dict[str, tuple[Arrays, Case]]:
    """Backend -> arrays and facts of its child."""

    def run(backend: str) -> tuple[Arrays, Case]:
        run_python(CHILD, folder, KERAS_BACKEND=backend, **ENVIRONMENT)
        with np.load(folder / f"{backend}.npz") as arrays:
            return dict(arrays), json.loads((folder / f"{backend}.json").read_text())

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(BACKENDS, pool.map(run, BACKENDS), strict=True))


def test_the_cases_hold_what_they_should() -> None:
    assert {(case["size"], case["data_format"]) for case in CASES} == {
        *product(range(1, 10), DATA_FORMATS)
    }
    for key, count in {"beta": 4, "k": 2, "alpha": 2, "channels": 5, "spatial": 3}.items():
        assert len({case[key] for case in CASES}) == count
    assert {case["size"] % 2 for case in CASES if case["size"] > case["channels"]} == {0, 1}
    assert {case["data_format"] for case in CASES if case["channels"] > case["size"] > 1} == {
        *DATA_FORMATS
    }


@pytest.mark.slow
@NUMBERS
@EACH
def test_values_and_gradients(
    children: dict[str, tuple[Arrays, Case]], given_arrays: Arrays, backend: str, number: int
) -> None:
    arrays, _ = children[backend]
    x = given_arrays[f"{number}/x"]
    y, gradient = _torch_lrn(CASES[number], x, given_arrays[f"{number}/upstream"].astype(float))
    assert np.abs(y / x).min() < 0.8  # it does normalise
    modes = [mode for mode in ("eager", "compiled") if f"{number}/{mode}/y" in arrays]
    for mode in modes:
        assert arrays[f"{number}/{mode}/y"].dtype == np.float32
        _assert_relative(arrays[f"{number}/{mode}/y"], y, VALUE)
        _assert_of_scale(arrays[f"{number}/{mode}/gradient"], gradient, GRADIENT)
    assert "compiled" in modes
    assert ("eager" in modes) == (number in EAGER)


@pytest.mark.slow
@pytest.mark.parametrize("number", IN_FLOAT64)
@EACH
def test_values_and_gradients_in_float64(
    children: dict[str, tuple[Arrays, Case]], given_arrays: Arrays, backend: str, number: int
) -> None:
    arrays, _ = children[backend]
    x, upstream = (given_arrays[f"{number}/{key}"].astype(float) for key in ("x", "upstream"))
    y, gradient = _torch_lrn(CASES[number], x, upstream)
    assert arrays[f"{number}/float64/y"].dtype == np.float64
    _assert_relative(arrays[f"{number}/float64/y"], y, FLOAT64)
    _assert_of_scale(arrays[f"{number}/float64/gradient"], gradient, FLOAT64)


@pytest.mark.slow
@EACH
def test_gradient_against_differences(
    children: dict[str, tuple[Arrays, Case]], backend: str
) -> None:
    """The gradient is written by hand; this compares it with the layer's own values."""
    arrays, _ = children[backend]
    assert [CASES[number]["size"] for number in DIFFERENCES] == [2, 4, 5, 7]
    assert len({CASES[number]["beta"] for number in DIFFERENCES}) == 4
    for number in DIFFERENCES:
        wanted = arrays[f"{number}/numerical"]
        _assert_of_scale(arrays[f"{number}/analytical"], wanted, NUMERICAL)


@pytest.mark.slow
@EACH
def test_second_derivative(
    children: dict[str, tuple[Arrays, Case]], given_arrays: Arrays, backend: str
) -> None:
    """What a gradient penalty needs: no intermediate result may pass for a constant."""
    x = torch.from_numpy(given_arrays["twice"].astype(float)[..., None]).requires_grad_()
    y = torch.nn.functional.local_response_norm(x, 3, alpha=1.0, beta=0.75, k=1.0)
    (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    _assert_of_scale(children[backend][0]["twice"], second.numpy()[..., 0], FLOAT64)


@st.composite
def _any_case(draw: st.DrawFn) -> Case:
    scale = draw(st.sampled_from([0.0, 1.0, 100.0]))
    return {
        "size": draw(st.integers(1, 12)),
        "data_format": draw(st.sampled_from(DATA_FORMATS)),
        "channels": draw(st.integers(1, 14)),
        "spatial": tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))),
        "beta": draw(st.sampled_from([0.5, 0.75, 1.0]) | st.floats(0, 2)),
        "k": draw(st.floats(0.5, 4)),
        "alpha": draw(st.sampled_from([1e-4, 1.0]) | st.floats(0, 2)),
        "scale": scale,
    }


@given(case=_any_case(), seed=st.integers(0, 99))
def test_any_shape_and_parameters(case: Case, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = (case["scale"] * rng.normal(size=_shape(case))).astype(np.float32)
    upstream = rng.normal(size=x.shape).astype(np.float32)
    wanted, wanted_gradient = _torch_lrn(case, x, upstream.astype(float))
    tensor = torch.from_numpy(x).requires_grad_()
    y = _layer(case)(tensor)
    (gradient,) = torch.autograd.grad(y, tensor, torch.from_numpy(upstream))
    # Up to 12 terms and an exponent of up to 2: twice the roundings of the cases above.
    _assert_relative(y.detach().numpy(), wanted, 2 * VALUE)
    # The gradient is upstream * factor less something; where they cancel, both terms' roundings
    # stay.
    factor = np.divide(wanted, x, out=np.full(x.shape, case["k"] ** -case["beta"]), where=x != 0)
    gap = np.abs(gradient.numpy() - wanted_gradient).max()
    assert gap <= 2 * GRADIENT * np.abs(upstream * factor).max()


def test_without_pixels() -> None:
    """Vectors (N, C) in both formats, which torch refuses."""
    x = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    for data_format in DATA_FORMATS:
        y = LocalResponseNormalization(4, alpha=1.0, data_format=data_format)(x)
        _assert_relative(y.numpy(), _numpy_lrn(x, 4, 1.0), VALUE)


@BOTH
def test_empty_batch(data_format: str) -> None:
    shape = (0, 3, 4, 5) if data_format == "channels_last" else (0, 5, 3, 4)
    y = LocalResponseNormalization(3, data_format=data_format)(torch.zeros(shape))
    assert tuple(y.shape) == shape


def test_the_window_of_an_even_size_reaches_further_down() -> None:
    x = np.zeros((1, 5), np.float32)
    x[0, 2] = 1
    probe = torch.full((1, 5), 1e-3) + torch.from_numpy(x)
    y = LocalResponseNormalization(2, alpha=2.0, beta=1.0, data_format="channels_last")(probe)
    smaller = (y / probe).numpy()[0] < 0.9
    # Channel c sees c - 1 and c, so that channel 2 is seen by 2 and 3.
    assert smaller.tolist() == [False, False, True, True, False]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["call", "predict"])
@BOTH
@EACH
def test_unknown_sizes(
    children: dict[str, tuple[Arrays, Case]],
    given_arrays: Arrays,
    backend: str,
    data_format: str,
    way: str,
) -> None:
    arrays, facts = children[backend]
    last = data_format == "channels_last"
    assert facts[f"symbolic {data_format}"] == (
        [None, None, None, 6] if last else [None, 6, None, None]
    )
    for index in {"call": (0,), "predict": (0, 1)}[way]:
        got = arrays[f"unknown {index} {data_format} {way}"]
        wanted = _numpy_lrn(given_arrays[f"unknown {index}"], 4, 1.0, k=2.0)
        _assert_relative(got if last else np.moveaxis(got, 1, -1), wanted, VALUE)


@pytest.mark.slow
@BOTH
@EACH
def test_uneven_channels_do_not_cancel(
    children: dict[str, tuple[Arrays, Case]],
    given_arrays: Arrays,
    backend: str,
    data_format: str,
) -> None:
    """Squares of 1e8 beside ones of 1: a running sum would leave nothing of the ones."""
    x = given_arrays["uneven"]
    assert x[..., 2].min() > 1000 * np.delete(x, 2, axis=-1).max()
    wanted = _numpy_lrn(x, 4, 1.0, k=2.0)
    _assert_relative(children[backend][0][f"uneven {data_format}"], wanted, VALUE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "bits"), [("mixed_float16", 11), ("mixed_bfloat16", 8)], ids=["float16", "bfloat16"]
)
@EACH
def test_mixed_precision(
    children: dict[str, tuple[Arrays, Case]], backend: str, policy: str, bits: int
) -> None:
    arrays, facts = children[backend]
    x, y, rounded = (arrays[f"{policy} {key}"] for key in ("x", "y", "rounded"))
    assert facts[policy] == policy.removeprefix("mixed_")
    assert np.square(x).max() > 3e5  # 65504 is float16's largest number
    np.testing.assert_array_equal(y, rounded)
    # Half a unit in the last place, and float32's own roundings.
    _assert_relative(y, _numpy_lrn(x, 5, 1e-4, k=2.0), 2.0**-bits + VALUE)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_gradient_is_finite(given_arrays: Arrays, policy: str) -> None:
    dtype = getattr(torch, policy.removeprefix("mixed_"))
    half = torch.from_numpy(given_arrays["large"]).to(dtype)
    case = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0, "data_format": "channels_last"}
    upstream = torch.ones(half.shape, dtype=dtype)
    half.requires_grad_()
    (gradient,) = torch.autograd.grad(_layer(case, policy)(half), half, upstream)
    wanted = _torch_lrn(case, half.detach().float().numpy(), upstream.double().numpy())[1]
    assert gradient.dtype == dtype
    # Two roundings to a half type: of the output's gradient (1 is exact) and of the result.
    _assert_of_scale(gradient.double().numpy(), wanted, torch.finfo(dtype).eps)


@pytest.mark.slow
@EACH
def test_training(children: dict[str, tuple[Arrays, Case]], backend: str) -> None:
    _, facts = children[backend]
    losses = facts["losses"]
    assert len(losses) == 8
    assert losses[-1] < LEARNED * losses[0], losses
    assert facts["moved"] > 1e-3  # the gradient passed the normalisation


# --- files


@pytest.mark.slow
@EACH
def test_file_of_another_backend(
    children: dict[str, tuple[Arrays, Case]], folder: Path, backend: str
) -> None:
    arrays, facts = children[backend]
    wanted = np.load(folder / "outputs.npy")
    assert wanted.std() > 0.1
    assert facts["layer"] == "LocalResponseNormalization"
    # float32 sums of 27 products in another order.
    _assert_of_scale(arrays["loaded"], wanted, 1e-6)


@pytest.mark.slow
@EACH
def test_file_for_another_backend(
    children: dict[str, tuple[Arrays, Case]], folder: Path, given_arrays: Arrays, backend: str
) -> None:
    assert children
    model = keras.saving.load_model(folder / f"written-{backend}.keras", safe_mode=True)
    # The same weights and the same backend as in the beginning.
    got = model.predict(given_arrays["images"], verbose=0)
    np.testing.assert_array_equal(got, np.load(folder / "outputs.npy"))


@pytest.mark.slow
def test_ways_to_load(children: dict[str, tuple[Arrays, Case]]) -> None:
    """`load_model` of ours alone; plain Keras once this package was imported, not before."""
    assert children["tensorflow"][1]["keras before"] is False
    for backend in ("torch", "jax"):
        assert children[backend][1]["registered before"] is False
        assert children[backend][1]["registered behind"] is True
    assert "LocalResponseNormalization" in children["jax"][1]["without us"]


def test_loads_in_this_process(folder: Path, given_arrays: Arrays) -> None:
    model = keras_alexnet.load_model(folder / "written-parent.keras")
    got = model.predict(given_arrays["images"], verbose=0)
    np.testing.assert_array_equal(got, np.load(folder / "outputs.npy"))


def test_config_holds_everything() -> None:
    layer = LocalResponseNormalization(
        np.int64(4),
        alpha=np.float32(0.5),
        beta=0.6,
        k=2,
        data_format="channels_first",
        name="norm",
        dtype="mixed_bfloat16",
    )
    config = layer.get_config()
    assert {type(config[key]) for key in ("size", "alpha", "k")} == {int, float}  # not NumPy's
    wanted = {"size": 4, "alpha": 0.5, "beta": 0.6, "k": 2.0, "data_format": "channels_first"}
    assert {key: config[key] for key in wanted} == wanted
    again = LocalResponseNormalization.from_config(config)
    assert again.get_config() == config
    assert (again.name, again.dtype_policy.name) == ("norm", "mixed_bfloat16")
    assert keras.layers.deserialize(keras.layers.serialize(layer)).get_config() == config


def test_data_format_follows_keras_when_built() -> None:
    """The file keeps it, so that a later change of the global setting changes no model."""
    before = keras.config.image_data_format()
    try:
        layers = {}
        for data_format in DATA_FORMATS:
            keras.config.set_image_data_format(data_format)
            layers[data_format] = LocalResponseNormalization()
    finally:
        keras.config.set_image_data_format(before)
    for data_format, layer in layers.items():
        again = LocalResponseNormalization.from_config(layer.get_config())
        assert layer.data_format == again.data_format == data_format


def test_defaults_are_torchs() -> None:
    layer, theirs = LocalResponseNormalization(5), torch.nn.LocalResponseNorm(5)
    for name in ("size", "alpha", "beta", "k"):
        assert getattr(layer, name) == getattr(theirs, name)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"size": 0}, "size must be a positive integer, got 0"),
        ({"size": -3}, "size must be a positive integer, got -3"),
        ({"size": 2.5}, "size must be a positive integer, got 2.5"),
        ({"size": "5"}, "size must be a positive integer, got '5'"),
        ({"alpha": float("nan")}, "alpha must be a finite number, got nan"),
        ({"alpha": float("inf")}, "alpha must be a finite number, got inf"),
        ({"beta": None}, "beta must be a finite number, got None"),
        ({"k": "x"}, "k must be a finite number, got 'x'"),
        (
            {"data_format": "nchw"},
            "data_format must be 'channels_last', 'channels_first' or None, got 'nchw'",
        ),
    ],
)
def test_wrong_arguments(arguments: Case, text: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        LocalResponseNormalization(**arguments)
    assert str(error.value) == text


@BOTH
def test_exports(data_format: str) -> None:
    """The program that `torch.export` writes has no layer of ours and takes any batch."""
    last = data_format == "channels_last"
    image = keras.Input((None, None, 5) if last else (5, None, None))
    layer = LocalResponseNormalization(3, alpha=1.0, data_format=data_format)
    model = keras.Model(image, layer(image)).eval()
    example = torch.randn(2, 6, 7, 5, generator=torch.Generator().manual_seed(0))
    example = example if last else example.movedim(-1, 1).contiguous()
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    program = torch.export.export(
        model, (example,), dynamic_shapes=((batch,),), strict=False
    ).module()
    larger = torch.cat([example, 2 * example])
    for images in (example, larger):
        torch.testing.assert_close(program(images), model(images), rtol=0, atol=0)


# --- parameters of other frameworks


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(TENSORFLOW_LRN)))
def test_parameters_of_tensorflow(
    children: dict[str, tuple[Arrays, Case]], given_arrays: Arrays, index: int
) -> None:
    arrays, _ = children["tensorflow"]
    wanted = arrays[f"tensorflow {index} wanted"]
    assert np.abs(wanted - given_arrays["tensorflow"]).max() > 1e-5
    # Both are float32, and TensorFlow's power is another. Measured: 3e-7.
    _assert_relative(arrays[f"tensorflow {index} got"], wanted, 2e-6)


def test_defaults_of_tensorflow() -> None:
    assert lrn_from_tensorflow() == {"size": 11, "alpha": 11.0, "beta": 0.5, "k": 1.0}


@given(
    radius=st.integers(0, 50),
    bias=st.floats(0.1, 10),
    alpha=st.floats(1e-6, 10),
    beta=st.floats(0.1, 2),
)
@example(radius=2, bias=1.0, alpha=2e-5, beta=0.75)
def test_tensorflow_and_back(radius: int, bias: float, alpha: float, beta: float) -> None:
    theirs = {"depth_radius": radius, "bias": bias, "alpha": alpha, "beta": beta}
    ours = lrn_from_tensorflow(**theirs)
    assert ours["size"] == 2 * radius + 1
    # A product and a division may round.
    assert lrn_to_tensorflow(**ours) == pytest.approx(theirs, rel=1e-15)


@pytest.mark.parametrize("size", [2, 4, 100])
def test_tensorflow_has_no_even_windows(size: int) -> None:
    text = f"TensorFlow's window has a centre, so its size is odd; got {size}"
    with pytest.raises(ValueError, match=text):
        lrn_to_tensorflow(size=size, alpha=1e-4, beta=0.75, k=1.0)


def test_defaults_of_caffe() -> None:
    """caffe.proto, message LRNParameter."""
    assert lrn_from_caffe() == {"size": 5, "alpha": 1.0, "beta": 0.75, "k": 1.0}
    assert lrn_from_caffe(local_size=3, alpha=5e-5, norm_region="ACROSS_CHANNELS") == {
        "size": 3,
        "alpha": 5e-5,
        "beta": 0.75,
        "k": 1.0,
    }


def test_caffe_within_channels_is_refused() -> None:
    text = "norm_region must be ACROSS_CHANNELS, got WITHIN_CHANNEL"
    with pytest.raises(ValueError, match=text):
        lrn_from_caffe(norm_region="WITHIN_CHANNEL")


def test_parameters_of_bvlc() -> None:
    """bvlc_alexnet in TensorFlow's terms and in Caffe's (its train_val.prototxt) is one."""
    wanted = lrn_from_caffe(local_size=5, alpha=1e-4, beta=0.75)
    assert lrn_from_tensorflow(depth_radius=2, bias=1.0, alpha=2e-5, beta=0.75) == pytest.approx(
        wanted, rel=1e-15
    )
    assert wanted == {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 1.0}
    rows = {row.name: row for row in SPECS["alexnet_caffe"].body}
    for name in ("norm1", "norm2"):
        row = rows[name]
        got = {"size": row.size, "alpha": row.alpha, "beta": row.beta, "k": row.k}
        assert got == pytest.approx(wanted, rel=1e-15)
