import re

import keras
import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from porting.weights import layouts
from porting.weights.layouts import Transform

dimensions = st.integers(1, 5)
seeds = st.integers(0, 2**32 - 1)

_TESTED = {
    "flipped_depthwise_conv",
    *("vector", "conv", "transposed_conv", "depthwise_conv", "dense", "flat_dense", "heads"),
    *("from_heads", "rearranged"),
}


def _draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _assert_inverse(name: str, array: np.ndarray, *parameters: int) -> None:
    """Both ways back to the same bits, and no value lost or invented on the way."""
    transform = Transform(name, parameters)
    there = transform.to_keras(array)
    np.testing.assert_array_equal(transform.to_torch(there), array)
    np.testing.assert_array_equal(np.sort(there, axis=None), np.sort(array, axis=None))
    back = transform.to_torch(there)
    np.testing.assert_array_equal(transform.to_keras(back), there)


@given(st.lists(dimensions, min_size=1, max_size=4), st.data(), seeds)
def test_rearranged_inverse(parts: list[int], data: st.DataObject, seed: int) -> None:
    """Axes are taken apart, put into any order and merged, as NumPy does it."""
    order = data.draw(st.permutations(range(len(parts))))
    torch_shape, keras_shape = (int(np.prod(parts)),), (1, int(np.prod(parts)))
    array = _draw(seed, *torch_shape)
    transform = layouts.rearranged(parts, order, keras_shape, torch_shape)
    there = transform.to_keras(array)
    np.testing.assert_array_equal(there[0], array.reshape(parts).transpose(order).ravel())
    np.testing.assert_array_equal(transform.to_torch(there), array)


def test_rearranged_takes_any_batch() -> None:
    transform = layouts.rearranged([-1, 2, 3], [0, 2, 1], [-1, 6])
    x = _draw(0, 5, 2, 3)
    there = transform.to_keras(x)
    np.testing.assert_array_equal(there, x.transpose(0, 2, 1).reshape(5, 6))
    np.testing.assert_array_equal(transform.to_torch(there), x)


def test_every_transform_has_a_test() -> None:
    assert set(layouts.TRANSFORMS) == _TESTED


@given(o=dimensions, i=dimensions, h=dimensions, w=dimensions, seed=seeds)
def test_conv_inverse(o: int, i: int, h: int, w: int, seed: int) -> None:
    kernel = _draw(seed, o, i, h, w)
    _assert_inverse("conv", kernel)
    _assert_inverse("transposed_conv", kernel)
    assert layouts.conv_to_keras(kernel).shape == (h, w, i, o)
    assert layouts.conv_to_torch(_draw(seed, h, w, i, o)).shape == (o, i, h, w)


@given(o=dimensions, i=dimensions, seed=seeds)
def test_dense_inverse(o: int, i: int, seed: int) -> None:
    _assert_inverse("dense", _draw(seed, o, i))
    assert layouts.dense_to_keras(_draw(seed, o, i)).shape == (i, o)


@given(o=dimensions, c=dimensions, h=dimensions, w=dimensions, seed=seeds)
def test_flat_dense_inverse(o: int, c: int, h: int, w: int, seed: int) -> None:
    _assert_inverse("flat_dense", _draw(seed, o, c * h * w), c, h, w)
    keras_kernel = _draw(seed, h * w * c, o)
    torch_kernel = layouts.flat_dense_to_torch(keras_kernel, (c, h, w))
    assert torch_kernel.shape == (o, c * h * w)
    np.testing.assert_array_equal(
        layouts.flat_dense_to_keras(torch_kernel, (c, h, w)), keras_kernel
    )


@given(n=dimensions, seed=seeds)
def test_vector_is_left_alone(n: int, seed: int) -> None:
    _assert_inverse("vector", _draw(seed, n))
    array = _draw(seed, n)
    np.testing.assert_array_equal(Transform("vector").to_keras(array), array)


@given(n=dimensions, c=dimensions, h=dimensions, w=dimensions, seed=seeds)
def test_batches_of_maps(n: int, c: int, h: int, w: int, seed: int) -> None:
    batch = _draw(seed, n, c, h, w)
    last = layouts.nchw_to_nhwc(batch)
    assert last.shape == (n, h, w, c)
    np.testing.assert_array_equal(layouts.nhwc_to_nchw(last), batch)
    assert last[n - 1, h - 1, 0, c - 1] == batch[n - 1, c - 1, h - 1, 0]


@given(
    o=dimensions,
    i=dimensions,
    h=st.integers(1, 3),
    w=st.integers(1, 3),
    size=st.tuples(st.integers(3, 6), st.integers(3, 6)),
    data_format=st.sampled_from(["channels_last", "channels_first"]),
    seed=seeds,
)
def test_conv_computes_the_same(
    o: int, i: int, h: int, w: int, size: tuple[int, int], data_format: str, seed: int
) -> None:
    kernel, images = _draw(seed, o, i, h, w), _draw(seed + 1, 2, i, *size)
    wanted = torch.nn.functional.conv2d(torch.from_numpy(images), torch.from_numpy(kernel)).numpy()

    layer = keras.layers.Conv2D(o, (h, w), use_bias=False, data_format=data_format)
    first = data_format == "channels_first"
    batch = images if first else layouts.nchw_to_nhwc(images)
    layer.build(batch.shape)
    layer.set_weights([layouts.conv_to_keras(kernel)])
    got = keras.ops.convert_to_numpy(layer(np.ascontiguousarray(batch)))
    got = got if first else layouts.nhwc_to_nchw(got)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)

    # Once more without any framework: a valid convolution is a sum over windows.
    windows = np.lib.stride_tricks.sliding_window_view(layouts.nchw_to_nhwc(images), (h, w), (1, 2))
    plain = np.einsum("nyxihw,hwio->noyx", windows, layouts.conv_to_keras(kernel))
    np.testing.assert_allclose(plain, wanted, rtol=1e-5, atol=1e-5)


@given(n=dimensions, o=dimensions, i=dimensions, seed=seeds)
def test_dense_computes_the_same(n: int, o: int, i: int, seed: int) -> None:
    kernel, features = _draw(seed, o, i), _draw(seed + 1, n, i)
    wanted = torch.nn.functional.linear(torch.from_numpy(features), torch.from_numpy(kernel))
    layer = keras.layers.Dense(o, use_bias=False)
    layer.build(features.shape)
    layer.set_weights([layouts.dense_to_keras(kernel)])
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(layer(features)), wanted.numpy(), rtol=1e-5, atol=1e-5
    )


@given(n=dimensions, o=dimensions, c=dimensions, h=dimensions, w=dimensions, seed=seeds)
def test_flat_dense_computes_the_same(n: int, o: int, c: int, h: int, w: int, seed: int) -> None:
    kernel, maps = _draw(seed, o, c * h * w), _draw(seed + 1, n, c, h, w)
    wanted = maps.reshape(n, -1) @ kernel.T
    flat = layouts.nchw_to_nhwc(maps).reshape(n, -1)
    got = flat @ layouts.flat_dense_to_keras(kernel, (c, h, w))
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_flat_dense_is_not_the_plain_transpose() -> None:
    """Shapes alone would let a wrong order pass, so the values have to differ."""
    c, h, w = 8, 3, 3
    kernel, maps = _draw(0, 72, c * h * w), _draw(1, 4, c, h, w)
    wanted = maps.reshape(4, -1) @ kernel.T
    flat = layouts.nchw_to_nhwc(maps).reshape(4, -1)
    wrong = layouts.dense_to_keras(kernel)
    right = layouts.flat_dense_to_keras(kernel, (c, h, w))
    assert wrong.shape == right.shape == (72, 72)
    assert np.abs(flat @ wrong - wanted).max() > 0.5 * np.abs(wanted).max()
    np.testing.assert_allclose(flat @ right, wanted, rtol=1e-5, atol=1e-5)


def test_flat_dense_of_another_map_differs() -> None:
    kernel = _draw(0, 5, 2 * 3 * 4)
    right = layouts.flat_dense_to_keras(kernel, (2, 3, 4))
    wrong = layouts.flat_dense_to_keras(kernel, (4, 2, 3))
    assert right.shape == wrong.shape
    assert not np.array_equal(right, wrong)


def test_square_dense_kernel_is_transposed() -> None:
    kernel = _draw(0, 16, 16)
    converted = layouts.dense_to_keras(kernel)
    assert not np.array_equal(converted, kernel)
    assert converted[3, 7] == kernel[7, 3]


@pytest.mark.parametrize(
    ("name", "parameters", "text"),
    [
        ("flat_dense", (), "'flat_dense' takes 3 parameters, got ()"),
        ("conv", (3,), "'conv' takes 0 parameters, got (3,)"),
        ("convolution", (), "unknown transform 'convolution'; known: vector, conv, "),
    ],
)
def test_transforms_that_do_not_exist(name: str, parameters: tuple[int, ...], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        Transform(name, parameters)


def test_flat_dense_refuses_another_map() -> None:
    with pytest.raises(ValueError, match="reshape"):
        layouts.flat_dense_to_keras(np.zeros((4, 10)), (3, 2, 2))


@given(i=dimensions, m=dimensions, h=dimensions, w=dimensions, seed=seeds)
def test_depthwise_inverse(i: int, m: int, h: int, w: int, seed: int) -> None:
    _assert_inverse("depthwise_conv", _draw(seed, i * m, 1, h, w), i)
    _assert_inverse("flipped_depthwise_conv", _draw(seed, i, m, h, w))


@given(n=dimensions, d=dimensions, i=dimensions, seed=seeds)
def test_heads_inverse(n: int, d: int, i: int, seed: int) -> None:
    _assert_inverse("heads", _draw(seed, n * d, i), n)
    _assert_inverse("from_heads", _draw(seed, i, n * d), n)


def _planes(seed: int, *shape: int) -> tuple[np.ndarray, torch.Tensor]:
    array = _draw(seed, *shape)
    return array, torch.from_numpy(array)


def test_depthwise_convolutions_agree() -> None:
    theirs = torch.nn.Conv2d(3, 6, (3, 2), groups=3, bias=False)
    array, planes = _planes(0, 2, 3, 7, 8)
    layer = keras.layers.DepthwiseConv2D((3, 2), depth_multiplier=2, use_bias=False)
    maps = np.ascontiguousarray(layouts.nchw_to_nhwc(array))
    layer.build(maps.shape)
    kernel = Transform("depthwise_conv", (3,)).to_keras(theirs.weight.detach().numpy())
    layer.set_weights([kernel])
    wanted = layouts.nchw_to_nhwc(theirs(planes).detach().numpy())
    got = keras.ops.convert_to_numpy(layer(maps))
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    assert not np.allclose(got[..., ::-1], wanted, atol=1e-3)


def test_transposed_convolutions_agree() -> None:
    theirs = torch.nn.ConvTranspose2d(3, 5, (3, 2), stride=2, bias=False)
    array, planes = _planes(0, 2, 3, 4, 5)
    layer = keras.layers.Conv2DTranspose(5, (3, 2), strides=2, use_bias=False)
    maps = layouts.nchw_to_nhwc(array)
    layer.build(maps.shape)
    layer.set_weights([Transform("transposed_conv").to_keras(theirs.weight.detach().numpy())])
    wanted = layouts.nchw_to_nhwc(theirs(planes).detach().numpy())
    got = keras.ops.convert_to_numpy(layer(maps))
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_attention_heads_agree() -> None:
    """Torch's one kernel of queries, keys and values has three variables in Keras."""
    heads, size, width = 2, 3, 6
    theirs = torch.nn.MultiheadAttention(width, heads, bias=False, batch_first=True)
    array, tokens = _planes(0, 2, 5, width)
    layer = keras.layers.MultiHeadAttention(heads, size, use_bias=False)
    layer.build(array.shape, array.shape)
    parts = np.split(theirs.in_proj_weight.detach().numpy(), 3)
    onto, back = Transform("heads", (heads,)), Transform("from_heads", (heads,))
    query, key, value = map(onto.to_keras, parts)
    last = back.to_keras(theirs.out_proj.weight.detach().numpy())
    by_name = {"query": query, "key": key, "value": value, "attention_output": last}
    for variable in layer.weights:
        variable.assign(by_name[variable.path.split("/")[-2]])
    wanted = theirs(tokens, tokens, tokens)[0].detach().numpy()
    got = keras.ops.convert_to_numpy(layer(array, array))
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("transform", "shape"),
    [
        (Transform("conv"), (5, 4, 3, 2)),
        (Transform("transposed_conv"), (5, 4, 3, 2)),
        (Transform("depthwise_conv", (3,)), (6, 1, 3, 2)),
        (Transform("dense"), (5, 4)),
        (Transform("flat_dense", (2, 3, 4)), (5, 24)),
        (Transform("heads", (2,)), (6, 5)),
        (Transform("from_heads", (2,)), (5, 6)),
        (Transform("vector"), (5,)),
    ],
    ids=lambda value: value.name if isinstance(value, Transform) else "",
)
def test_only_blocks_of_the_first_axis_are_taken_apart(
    transform: Transform, shape: tuple[int, ...]
) -> None:
    """What `in_blocks` says holds: `assignment` writes such arrays slice by slice."""
    array = _draw(0, *shape)
    whole = transform.to_keras(array)
    if not transform.in_blocks:
        return
    for start in range(0, shape[0], 2):
        part = transform.to_keras(array[start : start + 2])
        np.testing.assert_array_equal(whole[..., start : start + 2], part)
