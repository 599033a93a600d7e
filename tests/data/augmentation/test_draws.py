"""The random numbers of an augmentation have the distributions of torchvision's transforms."""

import itertools

import numpy as np
import pytest
from scipy.stats import chisquare, ks_2samp, kstest

from keras_alexnet.data.augmentation.draws import colour_columns, crop_geometry, draw, resized_size
from keras_alexnet.data.augmentation.record import Augmentation
from keras_alexnet.errors import ConfigurationError, DataError

torch = pytest.importorskip("torch")
transforms = pytest.importorskip("torchvision.transforms")

COUNT = 20_000
# Of a test of equal distributions; the draws are seeded, so it either always fails or never.
UNLIKELY = 1e-3

EVERYTHING = Augmentation(
    crop="random-resized",
    flip=0.5,
    brightness=0.4,
    contrast=0.3,
    saturation=0.2,
    hue=0.1,
    grayscale=0.3,
    pca=0.1,
)


def columns(augmentation: Augmentation, count: int = COUNT, seed: int = 0) -> dict[str, np.ndarray]:
    drawn = draw(augmentation, count, np.random.default_rng(seed)).colours
    return dict(zip(colour_columns(augmentation), drawn.T, strict=True))


@pytest.mark.parametrize("augmentation", [Augmentation(), EVERYTHING])
def test_shapes_and_subsets(augmentation: Augmentation) -> None:
    draws = draw(augmentation, 7, np.random.default_rng(0))
    assert len(draws) == 7
    assert draws.position.shape == (7, 2)
    assert draws.attempts.shape == (7, 10 if augmentation is EVERYTHING else 0, 2)
    assert draws.colours.shape == (7, len(colour_columns(augmentation)))
    chosen = draws.take(np.array([4, 1]))
    assert len(chosen) == 2
    for name, values in vars(draws).items():
        assert values.dtype == np.float32, name
        np.testing.assert_array_equal(getattr(chosen, name), values[[4, 1]], err_msg=name)


def test_draws_follow_the_generator() -> None:
    first, again, other = (draw(EVERYTHING, 5, np.random.default_rng([3, e])) for e in (1, 1, 2))
    for name, values in vars(first).items():
        np.testing.assert_array_equal(values, getattr(again, name), err_msg=name)
    assert not np.array_equal(first.attempts, other.attempts)
    assert not np.array_equal(first.colours, other.colours)


@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [
        (375, 500, (0.08, 1.0), (3 / 4, 4 / 3)),
        (32, 32, (0.25, 1.0), (3 / 4, 4 / 3)),
        (40, 400, (0.3, 1.0), (3 / 4, 4 / 3)),  # mostly wider than any attempt
        (400, 40, (0.3, 1.0), (3 / 4, 4 / 3)),
        (60, 50, (0.9, 1.0), (0.5, 0.6)),
    ],
)
def test_random_resized_crops(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    augmentation = Augmentation(crop="random-resized", scale=scale, ratio=ratio)
    draws = draw(augmentation, COUNT, np.random.default_rng(0))
    ours = crop_geometry(augmentation, draws, height, width, (224, 224))
    torch.manual_seed(0)
    image = torch.zeros(1, height, width)
    theirs = np.array(
        [
            transforms.RandomResizedCrop.get_params(image, list(scale), list(ratio))
            for _ in range(COUNT // 4)
        ]
    )
    for name, a, b in zip(("top", "left", "height", "width"), ours.T, theirs.T, strict=False):
        assert (a == np.rint(a)).all(), name
        assert ks_2samp(a, b).pvalue > UNLIKELY, name
        spread = max(b.std(), 1e-9)
        assert abs(a.mean() - b.mean()) < 5 * spread / np.sqrt(len(b)), name
        assert abs(a.min() - b.min()) <= 0.05 * max(height, width), name
        assert abs(a.max() - b.max()) <= 0.05 * max(height, width), name
    assert (ours[:, 0] + ours[:, 2] <= height).all()
    assert (ours[:, 1] + ours[:, 3] <= width).all()


@pytest.mark.parametrize(("height", "width"), [(300, 10), (10, 300), (33, 10), (10, 33)])
def test_random_resized_crops_give_up_as_torchvision_does(height: int, width: int) -> None:
    scale, ratio = (1.0, 1.0), (3 / 4, 4 / 3)
    augmentation = Augmentation(crop="random-resized", scale=scale, ratio=ratio)
    draws = draw(augmentation, 1, np.random.default_rng(0))
    box = crop_geometry(augmentation, draws, height, width, (224, 224))[0, :4]
    image = torch.zeros(1, height, width)
    expected = transforms.RandomResizedCrop.get_params(image, list(scale), list(ratio))
    np.testing.assert_array_equal(box, expected)


@pytest.mark.parametrize(("resize", "padding"), [(None, 4), (36, 0), (40, 2)])
def test_random_crops_take_every_place_alike(resize: int | None, padding: int) -> None:
    augmentation = Augmentation(crop="random", resize=resize, padding=padding)
    draws = draw(augmentation, COUNT, np.random.default_rng(0))
    side = resize or 32
    boxes = crop_geometry(augmentation, draws, 32, 32, (30, 28)) * (side / 32)
    for start, want in zip(boxes.T[:2], (30, 28), strict=True):
        places = side + 2 * padding - want + 1  # torchvision.transforms.RandomCrop.get_params
        counts = np.bincount(np.rint(start + padding).astype(int), minlength=places)
        assert len(counts) == places
        assert chisquare(counts).pvalue > UNLIKELY


def test_random_crop_in_images_of_many_sizes() -> None:
    augmentation = Augmentation(crop="random", resize=40)
    heights, widths = np.array([50, 400, 41]), np.array([80, 300, 41])
    draws = draw(augmentation, 3, np.random.default_rng(0))
    together = crop_geometry(augmentation, draws, heights, widths, (40, 40))
    for i, (height, width) in enumerate(zip(heights, widths, strict=True)):
        alone = crop_geometry(augmentation, draws.take([i]), int(height), int(width), (40, 40))
        np.testing.assert_array_equal(together[i], alone[0])


def test_random_crop_larger_than_an_image() -> None:
    augmentation = Augmentation(crop="random", padding=4)
    draws = draw(augmentation, 2, np.random.default_rng(0))
    with pytest.raises(
        DataError, match=r"random crop of 41 pixels does not fit .* 32 pixels \(pad"
    ):
        crop_geometry(augmentation, draws, 32, 32, (41, 32))
    crop_geometry(augmentation, draws, 32, 32, (40, 32))


@pytest.mark.parametrize("seed", range(3))
def test_resized_size(seed: int) -> None:
    """Also where the long side is close to a whole number and would round up."""
    rng = np.random.default_rng(seed)
    for _ in range(200):
        height, width, resize = (int(n) for n in rng.integers(1, 600, 3))
        expected = transforms.functional._compute_resized_output_size((height, width), [resize])
        found = resized_size(Augmentation(resize=resize), height, width)
        assert found == tuple(expected), (height, width, resize)
    assert resized_size(Augmentation(), 5, 7) == (5, 7)
    assert resized_size(EVERYTHING, 5, 7) is None


def test_jitter_factors_and_order() -> None:
    drawn = columns(EVERYTHING)
    jitter = transforms.ColorJitter(0.4, 0.3, 0.2, 0.1)
    torch.manual_seed(0)
    ranges = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    theirs = [transforms.ColorJitter.get_params(*ranges) for _ in range(COUNT // 4)]
    names = ("brightness", "contrast", "saturation", "hue")
    for i, (name, (low, high)) in enumerate(zip(names, ranges, strict=True)):
        other = np.array([row[i + 1] for row in theirs])
        assert ks_2samp(drawn[name], other).pvalue > UNLIKELY, name
        assert drawn[name].min() >= np.float32(low), name
        assert drawn[name].max() <= np.float32(high), name
        np.testing.assert_allclose(drawn[name].mean(), (low + high) / 2, atol=0.01 * (high - low))
    ranks = np.stack([drawn[f"{name}_rank"] for name in names], axis=1)
    orders, counts = np.unique(ranks, axis=0, return_counts=True)
    assert sorted(map(tuple, orders)) == sorted(itertools.permutations(range(4)))
    assert chisquare(counts).pvalue > UNLIKELY


def test_jitters_in_use_only() -> None:
    drawn = columns(Augmentation(brightness=2.0, hue=0.5))
    assert list(drawn) == ["brightness", "hue", "brightness_rank", "hue_rank"]
    assert drawn["brightness"].min() >= 0  # torchvision cuts the range 1 - 2 at black
    assert drawn["brightness"].max() > 2.9
    assert 0.48 < drawn["hue_rank"].mean() < 0.52
    assert colour_columns(Augmentation()) == ()
    assert colour_columns(Augmentation(grayscale=0.1)) == ("grayscale",)


def test_flips_grayscale_and_principal_components() -> None:
    draws = draw(EVERYTHING, COUNT, np.random.default_rng(0))
    assert set(draws.flip) == {0, 1}
    assert abs(draws.flip.mean() - 0.5) < 5 * 0.5 / np.sqrt(COUNT)
    drawn = columns(EVERYTHING)
    assert set(drawn["grayscale"]) == {0, 1}
    assert abs(drawn["grayscale"].mean() - 0.3) < 5 * 0.46 / np.sqrt(COUNT)
    for i in (1, 2, 3):
        assert kstest(drawn[f"alpha_{i}"] / 0.1, "norm").pvalue > UNLIKELY
    for share in (0.0, 1.0):
        flips = draw(Augmentation(flip=share), 50, np.random.default_rng(0)).flip
        assert (flips == share).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"flip": 1.5}, r"flip must lie in \[0, 1\], got 1.5"),
        ({"hue": 0.6}, r"hue must lie in \[0, 0.5\]"),
        ({"hue": float("nan")}, r"hue must lie in \[0, 0.5\]"),
        ({"brightness": -0.1}, "brightness must lie in"),
        ({"crop": "middle"}, "crop must be 'center', 'random' or 'random-resized', got 'middle'"),
        ({"resize": 0}, "resize must be a number of pixels, got 0"),
        ({"padding": 4}, "padding needs crop='random', got 'center'"),
        ({"scale": (0.5, 0.1)}, r"scale must be a range \(low, high\) above 0"),
        ({"ratio": (0.0, 1.0)}, "ratio must be a range"),
    ],
)
def test_impossible_augmentations(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Augmentation(**fields)
