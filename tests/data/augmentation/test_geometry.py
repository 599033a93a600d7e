"""Crops, resizes and flips give the pixels of torchvision's transforms."""

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from keras_alexnet.data.augmentation import resample as module
from keras_alexnet.data.augmentation.array_ops import tensorflow_ops
from keras_alexnet.data.augmentation.draws import Draws, crop_geometry, draw, resized_size
from keras_alexnet.data.augmentation.record import Augmentation
from keras_alexnet.data.augmentation.resample import resample
from keras_alexnet.data.preprocessing import resize_and_crop
from keras_alexnet.specs.preprocessing import Preprocessing

torch = pytest.importorskip("torch")
F = pytest.importorskip("torchvision.transforms").functional

# Of 255: rounding of a few float32 operations, and of box edges that are no binary fractions.
ROUNDING = 2e-3


@pytest.fixture(params=["torch", "tensorflow"])
def ops(request: pytest.FixtureRequest) -> Any:
    return keras.ops if request.param == "torch" else tensorflow_ops()


def photos(count: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, height, width, channels), np.uint8)


def apply(
    augmentation: Augmentation,
    images: np.ndarray,
    draws: Draws,
    size: tuple[int, int],
    ops: Any,
    fused: bool = False,
) -> np.ndarray:
    geometry = crop_geometry(augmentation, draws, *images.shape[1:3], size)
    whole = resized_size(augmentation, *images.shape[1:3])
    tensors = map(ops.convert_to_tensor, (images, geometry))
    out = np.asarray(resample(*tensors, size, whole=whole, ops=ops, fused=fused))
    assert out.dtype == np.float32
    assert out.shape == (len(images), *size, images.shape[3])
    return out


def planes(image: np.ndarray) -> Any:
    return torch.from_numpy(image).permute(2, 0, 1).float()


def pixels(planes: Any) -> np.ndarray:
    return planes.permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(90, 150, (40, 48)), (32, 32, (96, 112)), (60, 30, (45, 45)), (17, 23, (41, 37))],
)
def test_random_resized_crops(height: int, width: int, size: tuple[int, int], ops: Any) -> None:
    augmentation = Augmentation(crop="random-resized", flip=0.5)
    images = photos(6, height, width)
    draws = draw(augmentation, 6, np.random.default_rng(0))
    found = apply(augmentation, images, draws, size, ops)
    boxes = crop_geometry(augmentation, draws, height, width, size).astype(int)
    for image, (top, left, tall, wide, flip), ours in zip(images, boxes, found, strict=True):
        expected = F.resized_crop(planes(image), top, left, tall, wide, list(size), antialias=True)
        expected = F.hflip(expected) if flip else expected
        np.testing.assert_allclose(ours, pixels(expected), atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize(
    ("height", "width", "resize", "size"),
    [
        (90, 150, 44, (40, 44)),
        (32, 32, 80, (64, 64)),
        (50, 41, 44, (40, 37)),
        (32, 32, 71, (71, 71)),
    ],
)
def test_resize_then_random_crop(
    height: int, width: int, resize: int, size: tuple[int, int], padding: int, ops: Any
) -> None:
    """The filter sees the pixels around the crop."""
    augmentation = Augmentation(resize=resize, crop="random", padding=padding, flip=0.5)
    images = photos(5, height, width)
    draws = draw(augmentation, 5, np.random.default_rng(0))
    found = apply(augmentation, images, draws, size, ops)
    for i, image in enumerate(images):
        whole = F.pad(F.resize(planes(image), [resize], antialias=True), [padding])
        places = [n - want + 1 for n, want in zip(whole.shape[1:], size, strict=True)]
        top, left = (int(p * n) for p, n in zip(draws.position[i], places, strict=True))
        expected = F.crop(whole, top, left, *size)
        expected = F.hflip(expected) if draws.flip[i] else expected
        np.testing.assert_allclose(found[i], pixels(expected), atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("size", [(20, 20), (21, 18), (40, 40), (19, 37), (27, 26)])
@pytest.mark.parametrize("resize", [None, 23, 40])
def test_center_crops(resize: int | None, size: tuple[int, int], ops: Any) -> None:
    """Smaller and larger than the image, with odd margins."""
    augmentation = Augmentation(resize=resize)
    images = photos(1, 27, 26)
    draws = draw(augmentation, 1, np.random.default_rng(0))
    found = apply(augmentation, images, draws, size, ops)[0]
    whole = planes(images[0])
    whole = whole if resize is None else F.resize(whole, [resize], antialias=True)
    expected = pixels(F.center_crop(whole, list(size)))
    np.testing.assert_allclose(found, expected, atol=0 if resize is None else ROUNDING, rtol=0)


def test_padded_crops_of_the_same_size_are_exact(ops: Any) -> None:
    augmentation = Augmentation(crop="random", padding=4, flip=0.5)
    images = photos(40, 32, 32, channels=1)
    draws = draw(augmentation, 40, np.random.default_rng(0))
    found = apply(augmentation, images, draws, (32, 32), ops)
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    for i in range(40):
        top, left = (draws.position[i] * 9).astype(int)
        expected = padded[i, top : top + 32, left : left + 32]
        expected = expected[:, ::-1] if draws.flip[i] else expected
        np.testing.assert_array_equal(found[i], expected)


@pytest.mark.parametrize(("height", "width"), [(64, 80), (301, 207)])
def test_training_and_evaluation_see_the_same_crop(height: int, width: int) -> None:
    """Pillow rounds to bytes twice, after the columns and after the rows."""
    image = photos(1, height, width)
    augmentation = Augmentation(resize=72)
    draws = draw(augmentation, 1, np.random.default_rng(0))
    found = apply(augmentation, image, draws, (64, 64), keras.ops)[0]
    preprocessing = Preprocessing(resize_size=72, crop_size=(64, 64))
    expected = resize_and_crop(image[0], preprocessing).astype(np.float32)
    assert np.abs(found - expected).max() <= 1.001


@settings(max_examples=40)
@given(
    side=st.integers(8, 200),
    want=st.sampled_from([16, 24, 48, 60, 64, 96, 160]),
    resize=st.none() | st.integers(100, 180),
    seed=st.integers(0, 99),
)
def test_blocks_change_nothing(side: int, want: int, resize: int | None, seed: int) -> None:
    """The matrix in blocks gives what the whole matrix gives."""
    augmentation = Augmentation(
        flip=0.5, crop="random-resized" if resize is None else "center", resize=resize
    )
    images = photos(2, side, side + 5, channels=1)
    draws = draw(augmentation, 2, np.random.default_rng(seed))
    blocks = apply(augmentation, images, draws, (want, want), keras.ops)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SMALLEST_BLOCK", 1000)
        whole = apply(augmentation, images, draws, (want, want), keras.ops)
    np.testing.assert_allclose(blocks, whole, atol=ROUNDING, rtol=0)


@settings(max_examples=40)
@given(
    side=st.integers(3, 200),
    want=st.sampled_from([16, 24, 48, 61, 96, 160]),
    resize=st.none() | st.integers(8, 180),
    padding=st.sampled_from([0, 40]),
    seed=st.integers(0, 99),
)
def test_sums_of_rows_change_nothing(
    side: int, want: int, resize: int | None, padding: int, seed: int
) -> None:
    """What XLA fuses gives what the matrix gives, black margins and single rows included."""
    crop = "random-resized" if resize is None else "random" if resize >= want else "center"
    augmentation = Augmentation(
        flip=0.5, crop=crop, resize=resize, padding=padding if crop == "random" else 0
    )
    images = photos(2, side, side + 5, channels=1)
    draws = draw(augmentation, 2, np.random.default_rng(seed))
    fused, matrix = (
        apply(augmentation, images, draws, (want, want), keras.ops, fused=fused)
        for fused in (True, False)
    )
    np.testing.assert_allclose(fused, matrix, atol=ROUNDING, rtol=0)


def test_sizes_that_tensorflow_learns_later() -> None:
    import tensorflow as tf

    augmentation = Augmentation(crop="random-resized", flip=0.5)
    images = photos(3, 40, 64)
    draws = draw(augmentation, 3, np.random.default_rng(0))
    ops = tensorflow_ops()
    expected = apply(augmentation, images, draws, (96, 96), ops)
    geometry = crop_geometry(augmentation, draws, 40, 64, (96, 96))
    for shape in ([None, 40, 64, 3], [None, None, None, 3]):

        @tf.function(input_signature=[tf.TensorSpec(shape, tf.uint8), tf.TensorSpec([None, 5])])
        def run(images: Any, geometry: Any) -> Any:
            return resample(images, geometry, (96, 96), whole=None, ops=ops)

        found = run(images, geometry)
        np.testing.assert_allclose(found, expected, atol=ROUNDING, rtol=0, err_msg=str(shape))
