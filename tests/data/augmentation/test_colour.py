"""Colours change as torchvision's transforms change them."""

from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from keras_alexnet.data.augmentation.array_ops import tensorflow_ops
from keras_alexnet.data.augmentation.colour import recolour
from keras_alexnet.data.augmentation.draws import colour_columns, crop_geometry, draw
from keras_alexnet.data.augmentation.record import Augmentation
from keras_alexnet.data.augmentation.resample import resample
from keras_alexnet.errors import ConfigurationError

torch = pytest.importorskip("torch")
transforms = pytest.importorskip("torchvision.transforms")
F = transforms.functional

# Of 255: float32 operations in another order, on values of 0..255 instead of 0..1.
ROUNDING = 2e-3

OPERATIONS = {
    "brightness": F.adjust_brightness,
    "contrast": F.adjust_contrast,
    "saturation": F.adjust_saturation,
    "hue": F.adjust_hue,
}


@pytest.fixture(params=["torch", "tensorflow"])
def ops(request: pytest.FixtureRequest) -> Any:
    return keras.ops if request.param == "torch" else tensorflow_ops()


def photos(count: int, side: int = 16) -> np.ndarray:
    """Colours of all kinds: noise, equal channels, black, white, and pure ones."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (count, side, side, 3)).astype(np.float32)
    images[:, :2] = images[:, :2, :, :1]
    images[:, 2:4] = rng.choice([0.0, 255.0], images[:, 2:4].shape)
    return images


def apply(
    augmentation: Augmentation, images: np.ndarray, colours: np.ndarray, ops: Any, pca: Any = None
) -> np.ndarray:
    tensors = map(ops.convert_to_tensor, (images, colours.astype(np.float32)))
    out = np.asarray(recolour(*tensors, augmentation, ops=ops, pca=pca))
    assert out.dtype == np.float32
    return out


def torchvision(operation: Any, image: np.ndarray, *arguments: float) -> np.ndarray:
    planes = torch.from_numpy(image / 255).permute(2, 0, 1)
    return operation(planes, *arguments).permute(1, 2, 0).numpy() * 255


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.7])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_one_blend(name: str, factor: float, ops: Any) -> None:
    images = photos(2)
    found = apply(Augmentation(**{name: 1.0}), images, np.array([[factor, 0]] * 2), ops)
    for image, ours in zip(images, found, strict=True):
        expected = torchvision(OPERATIONS[name], image, factor)
        np.testing.assert_allclose(ours, expected, atol=ROUNDING, rtol=0)
    if factor == 1:
        np.testing.assert_array_equal(found, images)


@pytest.mark.parametrize("turns", [-0.5, -0.21, 0.0, 0.1, 1 / 3, 0.5])
def test_hue(turns: float, ops: Any) -> None:
    images = photos(2)
    found = apply(Augmentation(hue=0.5), images, np.array([[turns, 0]] * 2), ops)
    for image, ours in zip(images, found, strict=True):
        expected = torchvision(F.adjust_hue, image, turns)
        np.testing.assert_allclose(ours, expected, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize(
    "names",
    [tuple(OPERATIONS), ("brightness", "contrast", "saturation"), ("contrast", "hue")],
)
def test_jitter_in_each_images_own_order(names: tuple[str, ...], ops: Any) -> None:
    augmentation = Augmentation(**dict.fromkeys(names, 0.5), grayscale=0.3)
    count = 40
    images = photos(count)
    colours = draw(augmentation, count, np.random.default_rng(0)).colours
    found = apply(augmentation, images, colours, ops)
    columns = dict(zip(colour_columns(augmentation), colours.T, strict=True))
    for i, image in enumerate(images):
        expected = image
        for name in sorted(names, key=lambda name: columns[f"{name}_rank"][i]):
            expected = torchvision(OPERATIONS[name], expected, float(columns[name][i]))
        if columns["grayscale"][i]:
            expected = torchvision(F.rgb_to_grayscale, expected, 3)
        np.testing.assert_allclose(found[i], expected, atol=5 * ROUNDING, rtol=0)


def test_grayscale_of_pillow(ops: Any) -> None:
    images = photos(1)
    found = apply(Augmentation(grayscale=1.0), images, np.ones((1, 1)), ops)[0]
    assert (found == found[..., :1]).all()
    expected = Image.fromarray(images[0].astype(np.uint8)).convert("L")
    assert np.abs(found[..., 0] - np.asarray(expected)).max() < 0.55  # Pillow rounds


def test_principal_components(ops: Any) -> None:
    """Krizhevsky et al. 2012, section 4.1: p alpha lambda is added to the pixels of an image."""
    rng = np.random.default_rng(0)
    values, vectors = np.array([0.2175, 0.0188, 0.0045]), np.linalg.qr(rng.normal(size=(3, 3)))[0]
    augmentation = Augmentation(pca=0.1)
    alphas = draw(augmentation, 5, rng).colours
    images = photos(5)
    found = apply(augmentation, images, alphas, ops, (values, vectors))
    for image, alpha, ours in zip(images, alphas, found, strict=True):
        expected = image + 255 * (vectors @ (alpha * values))
        np.testing.assert_allclose(ours, expected, atol=ROUNDING, rtol=0)


def test_many_draws_average_as_torchvisions() -> None:
    """The mean and the spread of one image over all its augmentations."""
    image = photos(1, 32)[0].astype(np.uint8)
    count = 1500
    parameters = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(**parameters),
            transforms.RandomGrayscale(0.3),
        ]
    )
    torch.manual_seed(0)
    planes = torch.from_numpy(image).permute(2, 0, 1) / 255
    theirs = np.stack([transform(planes).permute(1, 2, 0).numpy() * 255 for _ in range(count)])

    augmentation = Augmentation(crop="random", padding=4, flip=0.5, grayscale=0.3, **parameters)
    draws = draw(augmentation, count, np.random.default_rng(0))
    geometry = crop_geometry(augmentation, draws, 32, 32, (32, 32))
    images = np.broadcast_to(image, (count, *image.shape)).copy()
    ops = keras.ops
    ours = resample(ops.convert_to_tensor(images), geometry, (32, 32), whole=(32, 32), ops=ops)
    ours = apply(augmentation, np.asarray(ours), draws.colours, ops)
    assert ours.min() >= 0
    assert ours.max() <= 255
    noise = np.sqrt(2 * theirs.var(axis=0) / count)
    z = (ours.mean(axis=0) - theirs.mean(axis=0)) / noise  # (32, 32, 3), nearly normal
    assert np.abs(z).max() < 5
    assert abs(z.mean()) < 0.5  # pixels move together, so their mean spreads like a few of them
    np.testing.assert_allclose(ours.std(axis=0), theirs.std(axis=0), rtol=0.15)
    np.testing.assert_allclose(ours.std(axis=0).mean(), theirs.std(axis=0).mean(), rtol=0.02)


def test_grey_images_and_missing_components(ops: Any) -> None:
    grey = np.zeros((1, 4, 4, 1), np.float32)
    with pytest.raises(ConfigurationError, match=r"grey images have no colours.*1 channel"):
        apply(Augmentation(brightness=0.1), grey, np.ones((1, 2)), ops)
    with pytest.raises(ConfigurationError, match="needs the principal components"):
        apply(Augmentation(pca=0.1), photos(1), np.ones((1, 3)), ops)
