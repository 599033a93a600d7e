"""Mean, deviation and principal colours of images, and their cache."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_alexnet.data.examples import Arrays, Files
from keras_alexnet.data.statistics import channel_statistics, colour_components
from keras_alexnet.errors import ConfigurationError, DataError


def arrays(count: int = 600, channels: int = 3) -> Arrays:
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(count, 6, 5, 3)) @ np.array([[40, 30, 30], [0, 20, 5], [0, 0, 5]])
    images = np.clip(mixed + np.array([130, 120, 100]), 0, 255).astype(np.uint8)[..., :channels]
    return Arrays(images, np.zeros(count, np.int64))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Files, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, n, (n, 7, 3), np.uint8) for n in (9, 90, 200)]
    paths = tuple(tmp_path / f"{i}.png" for i in range(3))
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return Files(paths, np.zeros(3, np.int64)), images


@pytest.mark.parametrize("channels", [1, 3])
def test_mean_and_deviation(channels: int) -> None:
    examples = arrays(channels=channels)
    mean, std = channel_statistics(examples)
    pixels = examples.images.reshape(-1, channels) / 255
    np.testing.assert_allclose(mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std(axis=0), rtol=1e-12)
    assert mean.dtype == std.dtype == np.float64


def test_components() -> None:
    examples = arrays()
    values, vectors = colour_components(examples)
    covariance = np.cov((examples.images.reshape(-1, 3) / 255).T, bias=True)
    np.testing.assert_allclose(vectors @ np.diag(values) @ vectors.T, covariance, atol=1e-12)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-12)
    assert values[0] > values[1] > values[2] > 0
    assert (vectors[0] > 0).all()


def test_components_of_a_sample() -> None:
    examples = arrays()
    every, _ = colour_components(examples, sample=600)
    some, _ = colour_components(examples, sample=50, seed=1)
    again, _ = colour_components(examples, sample=50, seed=1)
    others, _ = colour_components(examples, sample=50, seed=2)
    np.testing.assert_array_equal(some, again)
    assert not np.array_equal(some, others)
    np.testing.assert_allclose(some, every, rtol=0.3)
    with pytest.raises(ConfigurationError, match="grey images have no principal colours"):
        colour_components(arrays(channels=1))


def test_files_weigh_by_their_pixels(files: tuple[Files, list[np.ndarray]]) -> None:
    examples, images = files
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]) / 255
    mean, std = channel_statistics(examples)
    np.testing.assert_allclose(mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std(axis=0), rtol=1e-12)
    values, _ = colour_components(examples)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(np.cov(pixels.T, bias=True))[::-1])


def test_grey_files(files: tuple[Files, list[np.ndarray]], tmp_path: Path) -> None:
    """Apart from the same files in colour."""
    examples, _ = files
    colour, _ = channel_statistics(examples, tmp_path / "cache")
    grey, _ = channel_statistics(examples, tmp_path / "cache", channels="L")
    np.testing.assert_allclose(grey, [colour @ [0.299, 0.587, 0.114]], atol=0.5 / 255)


def test_unreadable_files_are_named_and_left_out(files: tuple[Files, list[np.ndarray]]) -> None:
    examples, images = files
    examples.paths[0].write_bytes(b"no image")
    examples.paths[2].unlink()
    bad: dict[Path, str] = {}
    mean, _ = channel_statistics(examples, on_bad=bad.__setitem__)
    np.testing.assert_allclose(mean, (images[1] / 255).mean(axis=(0, 1)))
    assert list(bad) == [examples.paths[0], examples.paths[2]]
    assert list(bad.values()) == ["not an image that Pillow can read", "no such image file"]
    examples.paths[1].unlink()
    with pytest.raises(
        DataError, match=r"none of the 3 image files can be read; the first: .*0.png"
    ):
        channel_statistics(examples)


def test_cache_holds_both(tmp_path: Path) -> None:
    examples = arrays()
    cache = tmp_path / "new" / "folder"
    first = [*channel_statistics(examples, cache), *colour_components(examples, cache)]
    (path,) = cache.iterdir()
    assert path.name.startswith("statistics-")
    path.write_text(path.read_text().replace("0.", "1."))  # what is read from now on
    again = [*channel_statistics(examples, cache), *colour_components(examples, cache)]
    for before, after in zip(first, again, strict=True):
        assert before.shape == after.shape
        assert not np.array_equal(before, after)
    other = Arrays(examples.images[::-1], examples.labels)
    np.testing.assert_array_equal(channel_statistics(other, cache)[0], first[0])
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize(
    "damage",
    [
        *(b"", b"{", b"\xff\xfe", b"[1]", b'{"RGB channels": 3}', b'{"RGB channels": [[], []]}'),
        *(b'{"RGB channels": [["a"], [1]]}', b'{"RGB channels": [[NaN], [1]]}'),
        b'{"RGB channels": [[1], [2, [3]]]}',
    ],
)
def test_damaged_cache_is_written_anew(damage: bytes, tmp_path: Path) -> None:
    examples = arrays(20)
    expected = channel_statistics(examples, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage)
    np.testing.assert_array_equal(channel_statistics(examples, tmp_path), expected)
    assert path.read_bytes() == whole


def test_changed_file_is_measured_anew(
    files: tuple[Files, list[np.ndarray]], tmp_path: Path
) -> None:
    examples, _ = files
    before, _ = channel_statistics(examples, tmp_path / "cache")
    Image.fromarray(np.zeros((900, 7, 3), np.uint8)).save(examples.paths[0])
    after, _ = channel_statistics(examples, tmp_path / "cache")
    assert (after < before).all()


def test_cache_that_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    examples = arrays(20)
    found = channel_statistics(examples, blocked / "cache")
    np.testing.assert_array_equal(found, channel_statistics(examples))


@pytest.mark.slow
def test_cifar10(shared_data: Path, tmp_path: Path) -> None:
    """The constants that are quoted everywhere."""
    script = shared_data / "restore_cifar10.py"
    if not script.is_file():
        pytest.skip(f"no CIFAR-10: {script} does not exist")
    subprocess.run([sys.executable, script, tmp_path], check=True, capture_output=True)
    from keras_alexnet.data.sources.registry import open_data

    train = open_data("cifar10", tmp_path).train
    mean, std = channel_statistics(train)
    np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=5e-5)
    np.testing.assert_allclose(std, [0.2470, 0.2435, 0.2616], atol=5e-5)
    values, vectors = colour_components(train)
    np.testing.assert_allclose(values.sum(), (std**2).sum(), rtol=0.02)
    np.testing.assert_allclose(vectors[:, 0], 3**-0.5, atol=0.05)  # brightness
