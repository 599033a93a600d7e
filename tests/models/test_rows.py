"""Rows as Keras layers against torch's functions: every size, both data formats."""

import keras
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings, strategies as st

from keras_alexnet.models.rows import Settings, apply_rows
from keras_alexnet.specs import SPECS
from keras_alexnet.specs.schema import (
    AdaptiveAvgPool,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Init,
    MaxPool,
    ReLU,
    Row,
)
from keras_alexnet.specs.shapes import pooled_size
from keras_alexnet.specs.shared import TORCH_INIT
from porting.weights import layouts

functional = torch.nn.functional

BOTH = pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
# Every square, and rectangles of which one side is odd and the other even.
SIZES = [(n, n) for n in range(3, 65)] + [(3, 64), (17, 40), (40, 17), (63, 8), (64, 3), (5, 6)]

MAX_POOLS = [
    pytest.param(MaxPool("pool", 3, 2, ceil=True), id="3-2-ceil"),
    pytest.param(MaxPool("pool", 2, 2, ceil=True), id="2-2-ceil"),
    pytest.param(MaxPool("pool", 3, 2), id="3-2-floor"),
    pytest.param(MaxPool("pool", 2, 2), id="2-2-floor"),
    pytest.param(MaxPool("pool", 3, 1, padding=1), id="3-1-padded"),
    pytest.param(MaxPool("pool", 3, 2, padding=1), id="3-2-padded"),
]
CONVS = [
    pytest.param(Conv("conv", 4, kernel=11, stride=4, padding=2), id="11-4-p2"),
    pytest.param(Conv("conv", 4, kernel=7, stride=2, padding=3, bias=False), id="7-2-p3"),
    pytest.param(Conv("conv", 4, kernel=5, padding=2), id="5-1-p2"),
    pytest.param(Conv("conv", 4, kernel=3, padding=1), id="3-1-p1"),
    pytest.param(Conv("conv", 4, kernel=1, bias=False), id="1-1"),
]


def _settings(data_format: str, init: Init = TORCH_INIT) -> Settings:
    return Settings(data_format, None, classes=7, dropout_rate=0.5, init=init)


def _place(images: np.ndarray, data_format: str) -> np.ndarray:
    """(N, C, H, W) in a data format."""
    first = data_format == "channels_first"
    return images if first else np.ascontiguousarray(layouts.nchw_to_nhwc(images))


def _planes(x: object, data_format: str) -> np.ndarray:
    """A batch of maps in a data format as (N, C, H, W)."""
    array = keras.ops.convert_to_numpy(x)
    return array if data_format == "channels_first" else layouts.nhwc_to_nchw(array)


def _eager(row: Row, images: np.ndarray, data_format: str) -> np.ndarray:
    """Run one row on images (N, C, H, W) of a known size."""
    x = keras.ops.convert_to_tensor(_place(images, data_format))
    return _planes(apply_rows((row,), x, _settings(data_format), {}), data_format)


def _model(row: Row, channels: int, data_format: str) -> keras.Model:
    """Build one row for images of unknown size."""
    first = data_format == "channels_first"
    image = keras.Input((channels, None, None) if first else (None, None, channels))
    return keras.Model(image, apply_rows((row,), image, _settings(data_format), {}))


def _max_pool(row: MaxPool, images: np.ndarray) -> np.ndarray:
    return functional.max_pool2d(
        torch.from_numpy(images), row.size, row.stride, row.padding, ceil_mode=row.ceil
    ).numpy()


def _maps(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Maps as they come out of a ReLU: not negative, with zeros."""
    return np.maximum(rng.normal(size=(2, 3, *size)), 0).astype(np.float32)


@BOTH
@pytest.mark.parametrize("row", MAX_POOLS)
def test_max_pool_is_bit_exact(row: MaxPool, data_format: str) -> None:
    rng = np.random.default_rng(0)
    for size in SIZES:
        images = _maps(rng, size)
        got, wanted = _eager(row, images, data_format), _max_pool(row, images)
        np.testing.assert_array_equal(got, wanted, err_msg=f"size {size}")


@BOTH
@pytest.mark.parametrize("row", MAX_POOLS)
def test_max_pool_of_unknown_size(row: MaxPool, data_format: str) -> None:
    """The padding must not depend on a size that is known only when images arrive."""
    model = _model(row, 3, data_format)
    rng = np.random.default_rng(1)
    for size in SIZES[::3]:
        images = _maps(rng, size)
        got = _planes(model(_place(images, data_format)), data_format)
        np.testing.assert_array_equal(got, _max_pool(row, images), err_msg=f"size {size}")


@pytest.mark.parametrize("row", MAX_POOLS)
def test_max_pool_of_the_smallest_maps(row: MaxPool) -> None:
    for size in ((2, 2), (2, 3), (3, 2)):
        images = _maps(np.random.default_rng(2), size)
        if row == MaxPool("pool", 3, 2) and 2 in size:
            with pytest.raises(RuntimeError, match="Output size is too small"):
                _max_pool(row, images)
            continue
        got = _eager(row, images, "channels_last")
        np.testing.assert_array_equal(got, _max_pool(row, images), err_msg=f"size {size}")


@pytest.mark.parametrize("size", [10, 11])
def test_floor_and_ceil_differ_where_they_should(size: int) -> None:
    """On even sizes 3/2 pooling has a window more in ceil mode; the comparison above sees it."""
    images = _maps(np.random.default_rng(3), (size, size))
    floor = _eager(MaxPool("pool", 3, 2), images, "channels_last")
    ceil = _eager(MaxPool("pool", 3, 2, ceil=True), images, "channels_last")
    assert (floor.shape == ceil.shape) == (size % 2 == 1)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (MaxPool("pool", 4, 2, ceil=True), "ceil-mode pooling .* is not covered"),
        (MaxPool("pool", 3, 3, ceil=True), "ceil-mode pooling .* is not covered"),
        (MaxPool("pool", 3, 1, ceil=True), "ceil-mode pooling .* is not covered"),
        (MaxPool("pool", 3, 2, padding=1, ceil=True), "ceil-mode pooling .* is not covered"),
    ],
)
def test_uncovered_pools_are_refused(row: MaxPool, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        _eager(row, np.zeros((1, 1, 9, 9), np.float32), "channels_last")


@BOTH
@pytest.mark.parametrize("row", CONVS)
def test_conv_pads_like_torch(row: Conv, data_format: str) -> None:
    rng = np.random.default_rng(4)
    model = _model(row, 3, data_format)
    kernel = rng.normal(size=(row.filters, 3, row.kernel, row.kernel)).astype(np.float32)
    bias = rng.normal(size=row.filters).astype(np.float32) if row.bias else None
    weights = [layouts.conv_to_keras(kernel)] + ([] if bias is None else [bias])
    model.get_layer("conv").set_weights(weights)
    tried = 0
    for size in SIZES:
        if min(size) + 2 * row.padding < row.kernel:
            continue  # torch has no output there
        images = rng.normal(size=(2, 3, *size)).astype(np.float32)
        wanted = functional.conv2d(
            torch.from_numpy(images),
            torch.from_numpy(kernel),
            None if bias is None else torch.from_numpy(bias),
            row.stride,
            row.padding,
        ).numpy()
        batch = _place(images, data_format)
        got = _planes(model(batch), data_format)
        assert got.shape == wanted.shape, size
        assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max(), size
        tried += 1
    assert tried >= 55


@pytest.mark.parametrize("row", CONVS)
def test_conv_promises_its_shape(row: Conv) -> None:
    """Keras computes shapes by rules of its own before it sees an image."""
    model = _model(row, 3, "channels_last")
    for size in [(11, 11), (12, 13), (31, 64), (63, 62)]:
        kernel = torch.zeros(row.filters, 3, row.kernel, row.kernel)
        wanted = functional.conv2d(
            torch.zeros(1, 3, *size), kernel, None, row.stride, row.padding
        ).shape
        assert model.compute_output_shape((1, *size, 3)) == (1, *wanted[2:], row.filters)


@BOTH
@pytest.mark.parametrize("target", [6, 4, 1])
def test_adaptive_average_pool_of_known_size(target: int, data_format: str) -> None:
    """Sizes below the target repeat pixels, multiples have equal windows, others overlap."""
    rng = np.random.default_rng(5)
    row = AdaptiveAvgPool("pool", target)
    sizes = [(n, n) for n in range(1, 21)]
    sizes += [(1, 6), (6, 1), (1, 13), (13, 1), (2, 7), (12, 18), (6, 12), (12, 7), (20, 3)]
    for size in sizes:
        images = rng.normal(size=(2, 3, *size)).astype(np.float32)
        wanted = functional.adaptive_avg_pool2d(torch.from_numpy(images), target).numpy()
        got = _eager(row, images, data_format)
        assert got.shape == wanted.shape, size
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6, err_msg=f"size {size}")


@BOTH
@pytest.mark.parametrize("target", [6, 4, 1])
def test_adaptive_average_pool_of_unknown_size(target: int, data_format: str) -> None:
    model = _model(AdaptiveAvgPool("pool", target), 3, data_format)
    rng = np.random.default_rng(6)
    for size in [(n, n) for n in range(1, 21)] + [(1, 6), (13, 1), (2, 7), (12, 18)]:
        images = rng.normal(size=(2, 3, *size)).astype(np.float32)
        wanted = functional.adaptive_avg_pool2d(torch.from_numpy(images), target).numpy()
        got = _planes(model(_place(images, data_format)), data_format)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6, err_msg=f"size {size}")


@BOTH
def test_batch_norm_uses_its_statistics(data_format: str) -> None:
    rng = np.random.default_rng(7)
    model = _model(BatchNorm("bn", eps=1e-3), 5, data_format)
    gamma, beta, mean = rng.normal(size=(3, 5)).astype(np.float32)
    variance = rng.uniform(1e-4, 2, 5).astype(np.float32)
    model.get_layer("bn").set_weights([gamma, beta, mean, variance])
    images = rng.normal(size=(2, 5, 6, 7)).astype(np.float32)
    tensors = [torch.from_numpy(a) for a in (images, mean, variance, gamma, beta)]
    wanted = functional.batch_norm(*tensors, eps=1e-3).numpy()
    got = _planes(model(_place(images, data_format)), data_format)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


@BOTH
def test_batch_norm_momentum_is_torchs(data_format: str) -> None:
    """After a training step the running mean moves by torch's momentum, a tenth."""
    model = _model(BatchNorm("bn"), 5, data_format)
    images = np.random.default_rng(8).normal(3, 1, (4, 5, 6, 7)).astype(np.float32)
    model(_place(images, data_format), training=True)
    net = torch.nn.BatchNorm2d(5)
    net(torch.from_numpy(images))
    got = model.get_layer("bn").moving_mean.numpy()
    np.testing.assert_allclose(got, net.running_mean.numpy(), rtol=1e-5, atol=1e-6)


@BOTH
def test_flatten_is_channels_last(data_format: str) -> None:
    images = np.random.default_rng(9).normal(size=(2, 3, 4, 5)).astype(np.float32)
    x = keras.ops.convert_to_tensor(_place(images, data_format))
    got = apply_rows((Flatten("flatten"),), x, _settings(data_format), {})
    wanted = layouts.nchw_to_nhwc(images).reshape(2, -1)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(got), wanted)


@BOTH
def test_branches_are_concatenated_in_order(data_format: str) -> None:
    images = np.random.default_rng(10).normal(size=(2, 3, 4, 5)).astype(np.float32)
    x = keras.ops.convert_to_tensor(_place(images, data_format))
    outputs: dict[str, object] = {}
    row = Concat("cat", ((ReLU("a"),), (Dropout("b"), Dropout("c"))))
    got = _planes(apply_rows((row,), x, _settings(data_format), outputs), data_format)
    np.testing.assert_array_equal(got, np.concatenate([np.maximum(images, 0), images], axis=1))
    assert list(outputs) == ["a", "b", "c", "cat"]


def test_units_and_rates_come_from_the_settings() -> None:
    rows = (Dropout("own", 0.7), Dropout("shared"), Dense("classes", None), Dense("fixed", 3))
    image = keras.Input((4,))
    model = keras.Model(image, apply_rows(rows, image, _settings("channels_last"), {}))
    assert [model.get_layer(name).rate for name in ("own", "shared")] == [0.7, 0.5]
    assert [model.get_layer(name).units for name in ("classes", "fixed")] == [7, 3]


def _torch_pooled_size(size: int, row: MaxPool) -> int:
    image = torch.zeros(1, 1, size, size)
    try:
        pooled = functional.max_pool2d(image, row.size, row.stride, row.padding, ceil_mode=row.ceil)
    except RuntimeError as error:
        assert "too small" in str(error)  # noqa: PT017  (another error would be a mistake here)
        return 0
    return pooled.shape[-1]


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("ceil", [False, True], ids=["floor", "ceil"])
@pytest.mark.parametrize(("size", "stride"), [(3, 2), (2, 2), (3, 1), (3, 3), (2, 1)])
def test_pooled_size(size: int, stride: int, padding: int, ceil: bool) -> None:
    row = MaxPool("pool", size, stride, padding, ceil=ceil)
    for n in range(1, 65):
        assert pooled_size(n, row) == _torch_pooled_size(n, row), n


@settings(max_examples=300)
@given(
    n=st.integers(1, 30),
    size=st.integers(1, 7),
    stride=st.integers(1, 8),
    padding=st.integers(0, 3),
    ceil=st.booleans(),
)
def test_pooled_size_of_any_pool(n: int, size: int, stride: int, padding: int, ceil: bool) -> None:
    assume(2 * padding <= size)  # torch refuses more
    row = MaxPool("pool", size, stride, padding, ceil=ceil)
    assert pooled_size(n, row) == _torch_pooled_size(n, row)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_all_pools_of_the_specs_are_covered_here(spec: object) -> None:
    def pools(rows: tuple[Row, ...]) -> set[tuple[int, int, int, bool]]:
        found = set()
        for row in rows:
            if isinstance(row, MaxPool):
                found.add((row.size, row.stride, row.padding, row.ceil))
            for branch in getattr(row, "branches", ()):
                found |= pools(branch)
        return found

    tested = {
        (row.size, row.stride, row.padding, row.ceil)
        for row in (parameter.values[0] for parameter in MAX_POOLS)
    }
    assert pools(spec.body + spec.head) <= tested
