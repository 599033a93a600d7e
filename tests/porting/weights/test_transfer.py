"""Weights into Keras models and out again: a checked bijection."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
import torch
from helpers.models import EACH, StateDict, meta_shapes, zeros
from helpers.small import SMALL
from hypothesis import given, settings, strategies as st

from keras_alexnet import AlexNet, GoogLeNet
from keras_alexnet.models.initialization import weights_will_follow
from keras_alexnet.specs import SPECS
from porting import load_state_dict, to_state_dict
from porting.checkpoints.files import as_tensors
from porting.conversion.provenance import counters_of
from porting.errors import TransferError
from porting.weights.recognition import architecture_of
from porting.weights.spec_tables import weight_map
from porting.weights.table import Carried, Put


def _with_counters(arrays: StateDict, seed: int = 0) -> StateDict:
    """The same weights with random counters of batches."""
    rng = np.random.default_rng(seed)
    return {
        key: np.array(rng.integers(1, 10**9), np.int64) if array.ndim == 0 else array
        for key, array in arrays.items()
    }


def _values(model: Any) -> dict[str, np.ndarray]:
    return {weight.path: weight.numpy().copy() for weight in model.weights}


def _assert_unchanged(model: Any, before: dict[str, np.ndarray]) -> None:
    changed = [key for key, value in _values(model).items() if not (value == before[key]).all()]
    assert not changed


@pytest.fixture(scope="module")
def googlenet() -> Any:
    """GoogLeNet with all heads; tests may change its weights."""
    with weights_will_follow():
        return GoogLeNet(input_shape=(64, 64, 3), aux_heads=True)


@pytest.fixture(scope="module")
def alexnet() -> Any:
    """AlexNet; tests may change its weights."""
    with weights_will_follow():
        return AlexNet(input_shape=(63, 63, 3))


@pytest.fixture(scope="module")
def small() -> Any:
    """GoogLeNet for 5 classes, without auxiliary heads."""
    keras.utils.set_random_seed(0)
    return GoogLeNet(**SMALL)


@pytest.fixture
def small_state(small: Any) -> Iterator[StateDict]:
    """A state_dict of `small` to damage; the model's weights are put back afterwards."""
    before = small.get_weights()
    yield to_state_dict(small, framework="numpy")
    small.set_weights(before)


# There and back


@EACH
def test_round_trip_is_byte_identical(
    name: str,
    request: pytest.FixtureRequest,
    state_dicts: Callable[[str], StateDict],
    nets: Callable[[str], Any],
) -> None:
    model = request.getfixturevalue(name)
    source = _with_counters(state_dicts(name))
    report = load_state_dict(model, as_tensors(source))
    assert report.architecture == name
    assert not report.ignored
    assert set(report.loaded) | set(report.carried) == set(source)
    assert len(report.carried) == {"alexnet": 0, "googlenet": 59}[name]

    back = to_state_dict(model)
    assert list(back) == list(nets(name).state_dict())
    for key, tensor in back.items():
        wanted = torch.from_numpy(np.array(source[key]))
        assert tensor.dtype == wanted.dtype, key
        assert tensor.shape == wanted.shape, key
        assert tensor.is_contiguous(), key
        assert tensor.numpy().tobytes() == source[key].tobytes(), key
    nets(name).load_state_dict(back, strict=True)

    arrays = to_state_dict(model, framework="numpy")
    assert list(arrays) == list(back)
    assert all(type(array) is np.ndarray for array in arrays.values())
    assert all(arrays[key].tobytes() == source[key].tobytes() for key in arrays)


def test_state_dicts_own_their_memory(small: Any) -> None:
    before = _values(small)
    for framework in ("torch", "numpy"):
        for value in to_state_dict(small, framework=framework).values():
            value[...] = 7
    _assert_unchanged(small, before)


def test_counters_are_zero_where_none_were_loaded(small: Any, small_state: StateDict) -> None:
    weights = {key: value for key, value in small_state.items() if value.ndim}
    report = load_state_dict(small, weights)
    assert report.carried == ()
    back = to_state_dict(small)
    counters = [value for key, value in back.items() if key.endswith("num_batches_tracked")]
    assert len(counters) == 57
    assert all(value.dtype == torch.int64 and value.item() == 0 for value in counters)


def test_counters_belong_to_a_model(small: Any, small_state: StateDict) -> None:
    other = GoogLeNet(**SMALL)
    source = _with_counters(small_state)
    load_state_dict(small, source)
    key = "conv1.bn.num_batches_tracked"
    assert counters_of(small)[key] == int(source[key]) > 0
    assert counters_of(other) == {}
    load_state_dict(small, small_state)
    assert counters_of(small)[key] == 0


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_data_format_does_not_matter(data_format: str, small_state: StateDict) -> None:
    shape = (32, 32, 3) if data_format == "channels_last" else (3, 32, 32)
    model = GoogLeNet(input_shape=shape, classes=5, data_format=data_format)
    load_state_dict(model, small_state)
    back = to_state_dict(model, framework="numpy")
    assert all(back[key].tobytes() == small_state[key].tobytes() for key in small_state)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_short_floats_are_widened_exactly(dtype: str, small: Any, small_state: StateDict) -> None:
    tensors = {
        key: value.to(getattr(torch, dtype)) if value.ndim else value
        for key, value in as_tensors(small_state).items()
    }
    load_state_dict(small, tensors)
    for key, value in to_state_dict(small).items():
        torch.testing.assert_close(value, tensors[key].to(value.dtype), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_the_bits(dtype: str, small_state: StateDict) -> None:
    model = GoogLeNet(**SMALL, dtype=dtype)
    load_state_dict(model, small_state)
    back = to_state_dict(model, framework="numpy")
    assert all(back[key].tobytes() == small_state[key].tobytes() for key in small_state)


def test_preprocessing_does_not_matter(small_state: StateDict) -> None:
    model = GoogLeNet(**SMALL, include_preprocessing=True, transform_input=True)
    load_state_dict(model, small_state)
    assert list(to_state_dict(model)) == list(small_state)


@settings(max_examples=5)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_variable_holds_its_key(small: Any, seed: int) -> None:
    """Each value is where an axis-by-axis reading of both layouts says it is."""
    rng = np.random.default_rng(seed)
    table = weight_map(SPECS["googlenet"], 5, aux_heads=False)
    arrays = {
        entry.key: rng.normal(size=entry.shape).astype(np.float32)
        for entry in table
        if isinstance(entry, Put)
    }
    load_state_dict(small, arrays)
    subscripts = {1: "o->o", 2: "oi->io", 4: "oihw->hwio"}
    for entry in table:
        if isinstance(entry, Carried):
            continue
        layer, _, variable = entry.variable.partition("/")
        value = next(w for w in small.get_layer(layer).weights if w.name == variable).numpy()
        np.testing.assert_array_equal(value, entry.to_keras(arrays[entry.key]))
        wanted = np.einsum(subscripts[len(entry.shape)], arrays[entry.key])
        np.testing.assert_array_equal(value, wanted, err_msg=entry.key)


def test_the_dense_layer_after_the_flatten_is_permuted(
    alexnet: Any, state_dicts: Callable[[str], StateDict]
) -> None:
    source = state_dicts("alexnet")
    load_state_dict(alexnet, source)
    got = alexnet.get_layer("classifier_1").kernel.numpy()
    torch_order = source["classifier.1.weight"].reshape(4096, 256, 6, 6)
    np.testing.assert_array_equal(got, np.einsum("ochw->hwco", torch_order).reshape(9216, 4096))
    assert not np.array_equal(got, source["classifier.1.weight"].T)
    # The square one after it passes any check of shapes.
    square = alexnet.get_layer("classifier_4").kernel.numpy()
    np.testing.assert_array_equal(square, source["classifier.4.weight"].T)


# Heads that one side lacks


def test_auxiliary_heads_that_the_model_lacks(small: Any, small_state: StateDict) -> None:
    with_heads = meta_shapes("googlenet", classes=5, aux_heads=True)
    heads = {key: shape for key, shape in with_heads.items() if key.startswith("aux")}
    report = load_state_dict(small, small_state | zeros(heads))
    assert set(report.ignored) == set(heads)
    assert not set(report.loaded) & set(heads)
    assert not set(report.carried) & set(heads)
    assert not [key for key in to_state_dict(small) if key.startswith("aux")]


def test_auxiliary_heads_that_the_file_lacks(googlenet: Any) -> None:
    with pytest.raises(TransferError, match=r"missing: aux1\.conv\.conv\.weight") as caught:
        load_state_dict(googlenet, zeros(meta_shapes("googlenet")))
    assert "The file has no auxiliary heads: build the model with aux_heads=False." in str(
        caught.value
    )


@pytest.mark.parametrize("pooling", [None, "avg"])
def test_model_without_top(pooling: str | None, small_state: StateDict) -> None:
    model = GoogLeNet(include_top=False, pooling=pooling)
    report = load_state_dict(model, small_state)
    assert report.ignored == ("fc.weight", "fc.bias")
    back = to_state_dict(model, framework="numpy")
    assert set(small_state) - set(back) == {"fc.weight", "fc.bias"}
    assert all(back[key].tobytes() == small_state[key].tobytes() for key in back)


def test_alexnet_without_top(state_dicts: Callable[[str], StateDict]) -> None:
    model = AlexNet(include_top=False)
    report = load_state_dict(model, state_dicts("alexnet"))
    assert report.ignored == tuple(
        f"classifier.{layer}.{part}" for layer in (1, 4, 6) for part in ("weight", "bias")
    )
    assert architecture_of(model).include_top is False


# Wrong input


def test_missing_and_unexpected_keys(small: Any, small_state: StateDict) -> None:
    before = _values(small)
    small_state["fc.wieght"] = small_state.pop("fc.weight")
    small_state["extra"] = np.zeros(3, np.float32)
    del small_state["conv1.bn.running_mean"]
    with pytest.raises(TransferError) as caught:
        load_state_dict(small, small_state)
    text = str(caught.value)
    assert text.startswith("the weights do not fit googlenet:")
    for line in (
        "missing: fc.weight",
        "missing: conv1.bn.running_mean",
        "unexpected: fc.wieght",
        "unexpected: extra",
    ):
        assert f"  {line}\n" in text
    assert "The keys and shapes fit none of the known models." in text
    _assert_unchanged(small, before)


def test_many_problems_are_counted(small: Any, small_state: StateDict) -> None:
    renamed = {f"net.{key}": value for key, value in small_state.items()}
    with pytest.raises(TransferError) as caught:
        load_state_dict(small, renamed)
    weights = sum(value.ndim > 0 for value in small_state.values())
    assert f"missing: {weights - 8} more, {weights} in all" in str(caught.value)
    assert f"unexpected: {len(renamed) - 8} more, {len(renamed)} in all" in str(caught.value)


def test_another_class_count(small: Any) -> None:
    before = _values(small)
    with pytest.raises(TransferError) as caught:
        load_state_dict(small, zeros(meta_shapes("googlenet", classes=7)))
    text = str(caught.value)
    assert "wrong shape: fc.weight is (7, 1024), wanted (5, 1024)" in text
    assert "wrong shape: fc.bias is (7,), wanted (5,)" in text
    assert "The file's head has 7 classes, the model 5: build the model with classes=7." in text
    _assert_unchanged(small, before)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(value: float, small: Any, small_state: StateDict) -> None:
    before = _values(small)
    damaged = small_state["inception4a.branch1.conv.weight"].copy()
    damaged.flat[[3, 10]] = value
    small_state["inception4a.branch1.conv.weight"] = damaged
    text = r"not finite: inception4a\.branch1\.conv\.weight holds 2 NaN or infinite values"
    with pytest.raises(TransferError, match=text):
        load_state_dict(small, small_state)
    _assert_unchanged(small, before)


def test_float64_that_float32_cannot_hold(small: Any, small_state: StateDict) -> None:
    """It would become infinite in the model."""
    before = _values(small)
    large = small_state["fc.bias"].astype(np.float64)
    large[2] = 1e300
    small_state["fc.bias"] = large
    with pytest.raises(TransferError, match=r"not finite: fc\.bias"):
        load_state_dict(small, small_state)
    _assert_unchanged(small, before)


def test_float64_is_rounded(small: Any, small_state: StateDict) -> None:
    wanted = {key: value.astype(np.float64) for key, value in small_state.items() if value.ndim}
    load_state_dict(small, wanted)
    back = to_state_dict(small, framework="numpy")
    assert all(back[key].tobytes() == small_state[key].tobytes() for key in wanted)


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "complex64"])
def test_wrong_dtype(dtype: str, small: Any, small_state: StateDict) -> None:
    before = _values(small)
    small_state["conv2.conv.weight"] = np.ones((64, 64, 1, 1), dtype)
    text = rf"wrong dtype: conv2\.conv\.weight is {dtype}, wanted floating point"
    with pytest.raises(TransferError, match=text):
        load_state_dict(small, small_state)
    _assert_unchanged(small, before)


def test_transposed_kernel(small: Any, small_state: StateDict) -> None:
    small_state["fc.weight"] = small_state["fc.weight"].T
    text = r"wrong shape: fc\.weight is \(1024, 5\), wanted \(5, 1024\)"
    with pytest.raises(TransferError, match=text):
        load_state_dict(small, small_state)


@pytest.mark.parametrize("counter", [np.array([3, 4]), np.array(2.5), np.array(-1)])
def test_counters_that_are_none(counter: np.ndarray, small: Any, small_state: StateDict) -> None:
    before = _values(small)
    small_state["fc.bias"] = small_state["fc.bias"] + 1
    small_state["conv1.bn.num_batches_tracked"] = counter
    with pytest.raises(TransferError, match=r"conv1\.bn\.num_batches_tracked"):
        load_state_dict(small, small_state)
    _assert_unchanged(small, before)


def test_all_problems_in_one_message(small: Any, small_state: StateDict) -> None:
    del small_state["conv1.conv.weight"]
    small_state["fc.bias"] = np.zeros(6, np.float32)
    small_state["conv1.bn.weight"] = np.zeros(64, np.int32)
    small_state["conv1.bn.bias"] = np.full(64, np.nan, np.float32)
    small_state["other"] = np.zeros(1, np.float32)
    with pytest.raises(TransferError) as caught:
        load_state_dict(small, small_state)
    for kind in ("missing", "wrong shape", "wrong dtype", "not finite", "unexpected"):
        assert str(caught.value).count(f"  {kind}: ") == 1


@pytest.mark.parametrize(
    ("name", "classes", "aux_heads", "title"),
    [
        ("alexnet", 1000, False, r"alexnet \(1000 classes\)"),
        ("alexnet", 17, False, r"alexnet \(17 classes\)"),
    ],
)
def test_another_architecture_is_named(
    name: str, classes: int, aux_heads: bool, title: str, small: Any
) -> None:
    before = _values(small)
    shapes = meta_shapes(name, classes=classes, aux_heads=aux_heads)
    with pytest.raises(TransferError, match=f"The keys and shapes fit {title}"):
        load_state_dict(small, zeros(shapes))
    _assert_unchanged(small, before)


def test_googlenet_into_alexnet_is_named(alexnet: Any) -> None:
    shapes = meta_shapes("googlenet", classes=12, aux_heads=True)
    text = r"The keys and shapes fit googlenet \(12 classes, with auxiliary heads\)"
    with pytest.raises(TransferError, match=text):
        load_state_dict(alexnet, zeros(shapes))


def _foreign() -> Any:
    image = keras.Input((4,))
    return keras.Model(image, keras.layers.Dense(2)(image), name="foreign")


@pytest.mark.parametrize("call", [architecture_of, to_state_dict, lambda m: load_state_dict(m, {})])
def test_foreign_model(call: Callable[[Any], Any]) -> None:
    text = (
        r"model 'foreign' is none of the known architectures \(alexnet, alexnet_lrn, .*\): its 2 "
        r"weights have other names or shapes\. Build it with keras_alexnet\.create_model"
    )
    with pytest.raises(TransferError, match=text):
        call(_foreign())


def test_extended_model_is_foreign(small: Any) -> None:
    """Weights that no key describes must not be lost silently on the way to torch."""
    more = keras.layers.Dense(3, name="more")(small.outputs[0])
    extended = keras.Model(small.inputs, more, name="extended")
    with pytest.raises(TransferError, match="model 'extended' is none of the known architectures"):
        to_state_dict(extended)


@pytest.mark.parametrize("framework", ["jax", "tensorflow", "", None])
def test_unknown_framework(framework: Any, small: Any) -> None:
    with pytest.raises(ValueError, match="framework must be 'torch' or 'numpy', got"):
        to_state_dict(small, framework=framework)


def test_architectures_are_recognised(googlenet: Any, alexnet: Any, small: Any) -> None:
    found = architecture_of(googlenet)
    assert (found.spec.name, found.classes, found.aux_heads) == ("googlenet", 1000, True)
    found = architecture_of(alexnet)
    assert (found.spec.name, found.classes, found.include_top) == ("alexnet", 1000, True)
    found = architecture_of(small)
    assert (found.spec.name, found.classes, found.aux_heads) == ("googlenet", 5, False)
