"""The distribution of new weights, against torch, torchvision, Keras and the published rules.

All draws are seeded. The limits are such that the right distributions would fail with a few seeds
in a thousand; the negative controls show which wrong ones do fail.
"""

import functools
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import torch
import torchvision
from scipy import stats

from keras_alexnet import create_model, load_model
from keras_alexnet.models.initialization import (
    built_on,
    initializers,
    nothing_drawn,
    weights_will_follow,
)
from keras_alexnet.models.rows import Settings, apply_rows
from keras_alexnet.specs import SPECS
from keras_alexnet.specs.schema import (
    DATA_FORMATS,
    Conv,
    Dense,
    Init,
    ModelSpec,
    Normal,
    Row,
    Uniform,
    keras_name,
)
from keras_alexnet.specs.shapes import min_size, trace
from keras_alexnet.specs.shared import TORCH_INIT

# Of the Kolmogorov-Smirnov tests, of which there are about a thousand here.
P_VALUE = 1e-6
# Deviations of a mean or a standard deviation: one in 10**6 by chance.
SIGMAS = 5
# Largest samples for the Kolmogorov-Smirnov tests, which sort, and for means and deviations.
SORTED = 20_000
SUMMED = 1_000_000
CLASSES = 10


class Drawn(NamedTuple):
    """New weights of one layer; the kernel in Keras' layout."""

    kernel: np.ndarray
    bias: np.ndarray | None


Weights = dict[str, Drawn]
Draw = Callable[[str], Weights]


def _weights(model: keras.Model) -> Weights:
    weights = {}
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            arrays = [keras.ops.convert_to_numpy(weight) for weight in layer.weights]
            weights[layer.name] = Drawn(arrays[0], arrays[1] if layer.use_bias else None)
    return weights


def _smallest(name: str, seed: int = 0) -> keras.Model:
    """The network for its smallest images, with all heads."""
    spec = SPECS[name]
    keras.utils.set_random_seed(seed)
    size = min_size(spec, aux_heads=bool(spec.aux))
    shape = (size, size, spec.channels)
    return create_model(name, input_shape=shape, classes=CLASSES, aux_heads=bool(spec.aux))


@pytest.fixture(scope="module")
def drawn() -> Draw:
    """Name of a model -> name of a layer -> its new weights."""
    return functools.cache(lambda name: _weights(_smallest(name)))


def _subset(values: np.ndarray, most: int) -> np.ndarray:
    """Numbers at equal distances."""
    flat = values.ravel()
    return flat[:: -(-flat.size // most)].astype(np.float64)


def _largest(values: np.ndarray) -> float:
    return float(max(values.max(), -values.min()))


def _assert_drawn_from(values: np.ndarray, distribution: Any) -> None:
    """Range, mean, deviation and shape of a sample from a symmetric distribution around 0."""
    high = distribution.support()[1]
    if np.isfinite(high):
        assert _largest(values) <= high * (1 + 1e-6), "beyond the bound"
        # The largest of n uniform numbers stays below 1 - 14 / n once in 10**6.
        assert _largest(values) >= high * (1 - 14 / values.size), "short of the bound"
    some = _subset(values, SUMMED)
    std, kurtosis = distribution.std(), 3 + float(distribution.stats(moments="k"))
    assert abs(some.mean()) <= SIGMAS * std / some.size**0.5, "mean"
    spread = ((kurtosis - 1) / (4 * some.size)) ** 0.5
    assert abs(some.std() / std - 1) <= SIGMAS * spread, "deviation"
    result = stats.kstest(_subset(values, SORTED), distribution.cdf, method="asymp")
    assert result.pvalue >= P_VALUE, f"p = {result.pvalue:.1e}"


def _assert_alike(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Two samples of one distribution: deviations and shape."""
    pair = [_subset(values, SUMMED) for values in (ours, theirs)]
    spread = sum(0.5 / values.size for values in pair) ** 0.5  # of normal ones; uniform have less
    ratio = pair[0].std() / pair[1].std()
    assert abs(ratio - 1) <= SIGMAS * spread, f"deviations' ratio {ratio:.4f}"
    pair = [_subset(values, SORTED) for values in (ours, theirs)]
    result = stats.ks_2samp(*pair, method="asymp")
    assert result.pvalue >= P_VALUE, f"p = {result.pvalue:.1e}"


def _uniform(bound: float) -> Any:
    return stats.uniform(-bound, 2 * bound)


def _distribution(kernel: Normal | Uniform, fan_in: int, fan_out: int) -> Any:
    if isinstance(kernel, Normal):
        return stats.norm(0, kernel.std)
    fan = {"fan_in": fan_in, "fan_avg": (fan_in + fan_out) / 2}[kernel.mode]
    return _uniform((3 * kernel.scale / fan) ** 0.5)


class Layer(NamedTuple):
    """What the spec says of one convolution or dense layer."""

    name: str
    init: Init
    shape: tuple[int, ...]
    fan_in: int
    fan_out: int
    has_bias: bool


def _layers(spec: ModelSpec) -> Iterator[Layer]:
    """Walk the convolutions and dense layers of `_smallest`, by arithmetic alone."""
    size = min_size(spec, aux_heads=bool(spec.aux))
    for row, before, after in trace(spec, classes=CLASSES, size=(size, size)):
        if isinstance(row, Conv):
            shape = (row.kernel, row.kernel, before[0] // row.groups, row.filters)
            has_bias = row.bias
        elif isinstance(row, Dense):
            shape, has_bias = (before[0], after[0]), True
        else:
            continue
        pixels = int(np.prod(shape[:-2]))
        yield Layer(
            keras_name(row.name),
            row.init or spec.init,
            shape,
            shape[-2] * pixels,
            shape[-1] * pixels,
            has_bias,
        )


@pytest.mark.parametrize("name", SPECS)
def test_every_weight_follows_its_spec(drawn: Draw, name: str) -> None:
    weights = drawn(name)
    layers = list(_layers(SPECS[name]))
    assert {layer.name for layer in layers} == set(weights)
    relative = []  # biases in units of their bound
    for layer in layers:
        kernel, bias = weights[layer.name]
        assert kernel.shape == layer.shape
        try:
            distribution = _distribution(layer.init.kernel, layer.fan_in, layer.fan_out)
            _assert_drawn_from(kernel, distribution)
        except AssertionError as error:
            raise AssertionError(f"{layer.name}: {error}") from error
        assert (bias is not None) == layer.has_bias
        if bias is None:
            continue
        assert bias.shape == layer.shape[-1:]
        if layer.init.bias is None:
            relative.append(bias * layer.fan_in**0.5)
        else:
            np.testing.assert_array_equal(bias, np.float32(layer.init.bias), layer.name)
    if relative:
        _assert_drawn_from(np.concatenate(relative), _uniform(1))


@pytest.mark.parametrize("data_format", DATA_FORMATS)
def test_format_leaves_the_distribution_alone(data_format: str) -> None:
    """Channels first: the fan-in must not be read off the wrong axis."""
    settings = Settings(data_format, None, CLASSES, 0.5, TORCH_INIT)
    last = data_format == "channels_last"
    image = keras.Input((9, 11, 24) if last else (24, 9, 11))
    keras.utils.set_random_seed(1)
    model = keras.Model(image, apply_rows((Conv("conv", 64, 3, groups=2),), image, settings, {}))
    (kernel, bias), bound = _weights(model)["conv"], (12 * 9) ** -0.5
    _assert_drawn_from(kernel, _uniform(bound))
    _assert_drawn_from(bias, _uniform(bound))


# --- PyTorch


def _units(name: str, net: torch.nn.Module) -> list[tuple[str, Drawn]]:
    """Convolutions and dense layers of a torch network under the names of the Keras model."""
    units = []
    for path, module in net.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            bias = None if module.bias is None else module.bias.detach().numpy()
            units.append((keras_name(path), Drawn(module.weight.detach().numpy(), bias)))
    assert len(units) > 7, name
    return units


def _compare(weights: Weights, units: list[tuple[str, Drawn]]) -> None:
    assert {name for name, _ in units} == set(weights)
    ours, theirs = [], []
    for name, (kernel, bias) in units:
        assert kernel.size == weights[name].kernel.size
        _assert_alike(weights[name].kernel, kernel)
        assert (bias is None) == (weights[name].bias is None)
        if bias is not None:
            scale = (kernel.size / len(kernel)) ** 0.5
            ours.append(weights[name].bias * scale)
            theirs.append(bias * scale)
    # Single biases are few; in units of 1/sqrt(fan-in) they are of one distribution.
    _assert_alike(np.concatenate(ours), np.concatenate(theirs))
    for biases in (ours, theirs):
        assert 0.99 < _largest(np.concatenate(biases)) <= 1 + 1e-6


def test_alexnet_is_torchvisions(drawn: Draw) -> None:
    torch.manual_seed(0)
    net = torchvision.models.alexnet(num_classes=CLASSES)
    units = _units("alexnet", net)
    _compare(drawn("alexnet"), units)
    for name, (kernel, _) in units:
        bound = (kernel.size / len(kernel)) ** -0.5
        for values in (kernel, drawn("alexnet")[name].kernel):
            assert bound * (1 - 14 / values.size) <= _largest(values) <= bound * (1 + 1e-6)


def test_googlenet_is_torchvisions(drawn: Draw) -> None:
    """Truncated at 200 deviations, which is a normal distribution; biases of PyTorch's default."""
    torch.manual_seed(0)
    net = torchvision.models.googlenet(num_classes=CLASSES, aux_logits=True, init_weights=True)
    weights = drawn("googlenet")
    _compare(weights, _units("googlenet", net))
    every = np.concatenate([kernel.ravel() for kernel, _ in weights.values()])
    assert 0.045 < _largest(every) < 0.07  # not cut off at two deviations
    biased = [name for name, (_, bias) in weights.items() if bias is not None]
    assert sorted(biased) == ["aux1_fc1", "aux1_fc2", "aux2_fc1", "aux2_fc2", "fc"]


@pytest.mark.parametrize(
    ("row", "module"),
    [
        (Conv("x", 96, 11, stride=4, padding=2), lambda: torch.nn.Conv2d(24, 96, 11)),
        (Conv("x", 256, 5, groups=2), lambda: torch.nn.Conv2d(24, 256, 5, groups=2)),
        (Conv("x", 256, 5, groups=8), lambda: torch.nn.Conv2d(24, 256, 5, groups=8)),
        (Conv("x", 512, 1), lambda: torch.nn.Conv2d(24, 512, 1)),
        (Dense("x", 512), lambda: torch.nn.Linear(24, 512)),
    ],
    ids=["conv", "two groups", "eight groups", "1x1", "dense"],
)
def test_default_is_torchs(row: Row, module: Callable[[], torch.nn.Module]) -> None:
    image = keras.Input((24,) if isinstance(row, Dense) else (16, 16, 24))
    keras.utils.set_random_seed(2)
    settings = Settings("channels_last", None, CLASSES, 0.5, TORCH_INIT)
    ours = _weights(keras.Model(image, apply_rows((row,), image, settings, {})))["x"]
    torch.manual_seed(2)
    theirs = module()
    _assert_alike(ours.kernel, theirs.weight.detach().numpy())
    _assert_alike(ours.bias, theirs.bias.detach().numpy())
    for mine, other in ((ours.kernel, theirs.weight), (ours.bias, theirs.bias)):
        ratio = _largest(mine) / _largest(other.detach().numpy())
        assert abs(ratio - 1) <= 14 / mine.size


# --- papers and Caffe


def test_alexnet_of_the_paper(drawn: Draw) -> None:
    """Section 5: deviation .01; biases 1 in convolutions 2, 4, 5 and the hidden dense layers."""
    biases = {
        "features_0": 0.0,
        "features_4": 1.0,
        "features_8": 0.0,
        "features_10": 1.0,
        "features_12": 1.0,
        "classifier_1": 1.0,
        "classifier_4": 1.0,
        "classifier_6": 0.0,
    }
    weights = drawn("alexnet_paper")
    assert list(weights) == list(biases)
    for name, (kernel, bias) in weights.items():
        _assert_drawn_from(kernel, stats.norm(0, 0.01))
        np.testing.assert_array_equal(bias, np.full(bias.shape, biases[name], np.float32), name)


def test_alexnet_of_caffe(drawn: Draw) -> None:
    """models/bvlc_alexnet/train_val.prototxt: `weight_filler` and `bias_filler` of each layer."""
    fillers = {
        "conv1": (0.01, 0.0),
        "conv2": (0.01, 0.1),
        "conv3": (0.01, 0.0),
        "conv4": (0.01, 0.1),
        "conv5": (0.01, 0.1),
        "fc6": (0.005, 0.1),
        "fc7": (0.005, 0.1),
        "fc8": (0.01, 0.0),
    }
    weights = drawn("alexnet_caffe")
    assert list(weights) == list(fillers)
    for name, (std, value) in fillers.items():
        kernel, bias = weights[name]
        _assert_drawn_from(kernel, stats.norm(0, std))
        np.testing.assert_array_equal(bias, np.full(bias.shape, value, np.float32), name)


@pytest.mark.parametrize("name", ["googlenet_caffe", "googlenet_paper"])
def test_googlenet_of_caffe(drawn: Draw, name: str) -> None:
    """models/bvlc_googlenet/train_val.prototxt.

    The filler "xavier" is uniform within sqrt(3 / fan-in); the biases are .2, but 0 in the three
    classifiers. The paper names no distribution; its model is drawn as Caffe's.
    """
    weights = drawn(name)
    assert len(weights) == 57 + 2 * 3 + 1
    classifiers = [layer for layer, (kernel, _) in weights.items() if kernel.shape[-1] == CLASSES]
    assert len(classifiers) == 3
    for layer, (kernel, bias) in weights.items():
        fan_in = kernel.size // kernel.shape[-1]
        _assert_drawn_from(kernel, _uniform((3 / fan_in) ** 0.5))
        value = 0.0 if layer in classifiers else 0.2
        np.testing.assert_array_equal(bias, np.full(bias.shape, value, np.float32), layer)


# --- Keras


def test_alexnet_keras_is_keras_default(drawn: Draw) -> None:
    """Against stock layers of the same shapes: Glorot-uniform and zeros."""
    keras.utils.set_random_seed(3)
    weights = drawn("alexnet_keras")
    assert len(weights) == 8
    for name, (kernel, bias) in weights.items():
        if kernel.ndim == 4:
            stock: Any = keras.layers.Conv2D(kernel.shape[-1], kernel.shape[0])
            stock.build((None, 32, 32, kernel.shape[2]))
        else:
            stock = keras.layers.Dense(kernel.shape[-1])
            stock.build((None, kernel.shape[0]))
        theirs = [keras.ops.convert_to_numpy(weight) for weight in stock.get_weights()]
        assert kernel.shape == theirs[0].shape, name
        _assert_alike(kernel, theirs[0])
        ratio = _largest(kernel) / _largest(theirs[0])
        assert abs(ratio - 1) <= 14 / kernel.size, name
        np.testing.assert_array_equal(bias, theirs[1], name)
        assert not bias.any()


# --- the checks themselves


def _sample(distribution: Any, size: int = 1500) -> np.ndarray:
    return distribution.rvs(size, random_state=np.random.default_rng(0))


BOUND = 100**-0.5
WRONG = {
    "normal for uniform": (stats.norm(0, BOUND / 3**0.5), _uniform(BOUND)),
    "uniform for normal": (_uniform(0.01 * 3**0.5), stats.norm(0, 0.01)),
    "truncated at two deviations": (stats.truncnorm(-2, 2, 0, 0.01), stats.norm(0, 0.01)),
    "fan-in of the whole kernel": (_uniform(200**-0.5), _uniform(BOUND)),
    "fan-out": (_uniform(120**-0.5), _uniform(BOUND)),
    "a bound 3 % beyond": (_uniform(1.03 * BOUND), _uniform(BOUND)),
    "a bound 3 % short": (_uniform(0.97 * BOUND), _uniform(BOUND)),
    "one side only": (stats.uniform(0, BOUND), _uniform(BOUND)),
    "half the deviation": (stats.norm(0, 0.005), stats.norm(0, 0.01)),
    "zeros": (stats.uniform(0, 1e-12), stats.norm(0, 0.01)),
}


@pytest.mark.parametrize(("got", "wanted"), WRONG.values(), ids=WRONG)
def test_wrong_distributions_are_seen(got: Any, wanted: Any) -> None:
    """With fewer numbers than all kernels have but LeNet-5's first."""
    _assert_drawn_from(_sample(wanted), wanted)
    with pytest.raises(AssertionError):
        _assert_drawn_from(_sample(got), wanted)


@pytest.mark.parametrize("key", ["normal for uniform", "fan-in of the whole kernel"])
def test_wrong_samples_are_seen(key: str) -> None:
    got, wanted = WRONG[key]
    ours, theirs = _sample(got, SORTED), _sample(wanted, SORTED)
    _assert_alike(theirs[::2], theirs[1::2])
    with pytest.raises(AssertionError):
        _assert_alike(ours, theirs)


# --- seeds


@pytest.mark.parametrize("name", ["lenet5", "googlenet_lab"])
def test_seed_decides(drawn: Draw, name: str) -> None:
    first, again, other = drawn(name), _weights(_smallest(name)), _weights(_smallest(name, seed=1))
    for layer, (kernel, bias) in first.items():
        np.testing.assert_array_equal(again[layer].kernel, kernel)
        np.testing.assert_array_equal(again[layer].bias, bias)
        assert (other[layer].kernel != kernel).mean() > 0.99
        assert (other[layer].bias != bias).any()


def test_layers_of_one_shape_differ(drawn: Draw) -> None:
    """No two layers share a seed."""
    for name in ("googlenet", "alexnet"):
        seen: dict[tuple[int, ...], list[np.ndarray]] = {}
        for kernel, _ in drawn(name).values():
            for other in seen.setdefault(kernel.shape, []):
                assert (kernel != other).mean() > 0.99
            seen[kernel.shape].append(kernel)
        if name == "googlenet":
            assert sum(len(kernels) > 1 for kernels in seen.values()) > 5


def test_kernel_and_bias_are_drawn_apart() -> None:
    keras.utils.set_random_seed(4)
    drawn = initializers(TORCH_INIT, fan_in=12)
    kernel, bias = (
        keras.ops.convert_to_numpy(drawn[f"{part}_initializer"]((12, 12)))
        for part in ("kernel", "bias")
    )
    assert (kernel != bias).mean() > 0.99


# --- weights that follow


def _configurations(model: keras.Model) -> dict[str, Any]:
    """Initialisers in the configuration, layer by layer, without their seeds."""

    def plain(initializer: Any) -> Any:
        config = dict(initializer["config"])
        config.pop("seed", None)
        return initializer["class_name"], config

    return {
        layer["name"]: tuple(
            plain(layer["config"][f"{part}_initializer"]) for part in ("kernel", "bias")
        )
        for layer in model.get_config()["layers"]
        if "kernel_initializer" in layer["config"]
    }


@pytest.mark.parametrize("name", ["lenet5", "googlenet", "alexnet_caffe"])
def test_weights_that_follow_are_zeros(drawn: Draw, name: str) -> None:
    with weights_will_follow():
        model = _smallest(name)
    weights = _weights(model)
    assert {layer: kernel.shape for layer, (kernel, _) in weights.items()} == {
        layer: kernel.shape for layer, (kernel, _) in drawn(name).items()
    }
    for kernel, bias in weights.values():
        assert not kernel.any()
        assert bias is None or not bias.any()
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            assert layer.gamma.numpy().all()  # not concerned


def test_configuration_keeps_its_initialisers(tmp_path: Path) -> None:
    """In memory, in a file and in what is built from it."""
    ordinary = _smallest("lenet5")
    with weights_will_follow():
        model = _smallest("lenet5")
    configurations = _configurations(model)
    assert configurations == _configurations(ordinary)
    (kernel, scaling), bias = configurations["features_0"]
    assert kernel == "VarianceScaling"
    wanted = {"scale": 1 / 3, "mode": "fan_in", "distribution": "uniform"}
    assert {key: scaling[key] for key in wanted} == wanted
    assert bias == ("RandomUniform", {"minval": -1 / 5, "maxval": 1 / 5})
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        saved = json.loads(archive.read("config.json"))["config"]["layers"]
    names = {
        layer["name"]: layer["config"]["kernel_initializer"]["class_name"]
        for layer in saved
        if "kernel_initializer" in layer["config"]
    }
    assert names == dict.fromkeys(configurations, "VarianceScaling")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert _configurations(loaded) == configurations
    assert not any(kernel.any() for kernel, _ in _weights(loaded).values())
    keras.utils.set_random_seed(5)
    renewed = _weights(keras.models.clone_model(model))
    for layer in _layers(SPECS["lenet5"]):
        _assert_drawn_from(renewed[layer.name].kernel, _uniform(layer.fan_in**-0.5))


def test_initialisers_come_back_where_building_fails() -> None:
    layer = keras.layers.Conv2D(1, 3, kernel_initializer="ones", bias_initializer="ones")
    with weights_will_follow(), pytest.raises(ValueError, match="kernel"):
        built_on(layer, np.zeros((1, 2, 2, 1), "float32"))
    assert isinstance(layer.kernel_initializer, keras.initializers.Ones)
    assert isinstance(layer.bias_initializer, keras.initializers.Ones)


def test_block_ends_even_by_an_error() -> None:
    def nested_failure() -> None:
        with weights_will_follow():
            with weights_will_follow():
                pass
            assert not _weights(_smallest("lenet5"))["features_0"].kernel.any()
            raise KeyError("anything")

    with pytest.raises(KeyError, match="anything"):
        nested_failure()
    assert _weights(_smallest("lenet5"))["features_0"].kernel.all()


KINDS = ("RandomNormal", "TruncatedNormal", "GlorotUniform", "HeNormal", "Orthogonal")


@pytest.mark.parametrize("name", KINDS)
def test_nothing_is_drawn_for_a_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = getattr(keras.initializers, name)
    x = keras.Input((4,))
    layer = keras.layers.Dense(3, kernel_initializer=kind(seed=1), name="dense")
    model = keras.Model(x, layer(x))
    model.save(tmp_path / "a.keras")
    owner = next(each for each in kind.__mro__ if "__call__" in vars(each))

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("drawn")

    with monkeypatch.context() as patch:
        patch.setattr(owner, "__call__", refuse)
        loaded = load_model(tmp_path / "a.keras")
        assert owner.__call__ is refuse
    for mine, theirs in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
    initializer = loaded.get_layer("dense").kernel_initializer
    assert (type(initializer), initializer.get_config()) == (kind, {**kind(seed=1).get_config()})
    assert np.any(keras.ops.convert_to_numpy(initializer((4, 3))))  # it draws again


def test_other_threads_go_on_drawing() -> None:
    draw = keras.initializers.GlorotUniform(seed=0)
    found: list[Any] = []
    with nothing_drawn():
        mine = draw((2, 2))
        thread = threading.Thread(target=lambda: found.append(draw((2, 2))))
        thread.start()
        thread.join()
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(mine), 0)
    assert np.all(keras.ops.convert_to_numpy(found[0]))


def test_drawing_comes_back_after_an_error() -> None:
    stock = keras.initializers.VarianceScaling.__call__
    with pytest.raises(ZeroDivisionError), nothing_drawn():
        raise ZeroDivisionError
    assert keras.initializers.VarianceScaling.__call__ is stock
