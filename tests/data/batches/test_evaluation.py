"""Images for evaluation: the pixels of torchvision's transforms, in their order."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_alexnet.data.batches.evaluation import EvaluationBatches
from keras_alexnet.data.examples import Arrays, Files
from keras_alexnet.data.preprocessing import load_images, resize_and_crop
from keras_alexnet.errors import ConfigurationError, DataError
from keras_alexnet.specs.preprocessing import Preprocessing

SMALL = Preprocessing(resize_size=40, crop_size=(32, 36))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """23 photos of different sizes, which take different times."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    paths = []
    for index in range(23):
        height, width = rng.integers(20, 400, 2)
        path = folder / f"{index:02}.{'jpg' if index % 2 else 'png'}"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(path)
        paths.append(path)
    return Files(tuple(paths), np.arange(23))


def with_bad(files: Files, tmp_path: Path, *places: int) -> Files:
    paths = list(files.paths)
    for place in places:
        paths[place] = tmp_path / f"bad{place}.jpg"
        content = files.paths[1].read_bytes()
        paths[place].write_bytes(content[: len(content) // 2])
    return Files(tuple(paths), files.labels)


def test_bit_exact_and_in_order(files: Files) -> None:
    batches = EvaluationBatches(files, SMALL, batch_size=5)
    images, indices = zip(*batches, strict=True)
    assert [len(part) for part in images] == [5, 5, 5, 5, 3]
    assert len(batches) == 23
    np.testing.assert_array_equal(np.concatenate(indices), np.arange(23))
    assert indices[0].dtype == np.int64
    np.testing.assert_array_equal(np.concatenate(images), load_images(files.paths, SMALL))
    assert batches.skipped == {}


def test_unreadable_files_are_skipped_and_named(files: Files, tmp_path: Path) -> None:
    broken = with_bad(files, tmp_path, 0, 7, 8, 22)
    batches = EvaluationBatches(broken, SMALL, batch_size=6)
    good = np.setdiff1d(np.arange(23), [0, 7, 8, 22])
    for _ in range(2):
        images, indices = zip(*batches, strict=True)
        assert [len(part) for part in images] == [6, 6, 6, 1]
        np.testing.assert_array_equal(np.concatenate(indices), good)
        wanted = load_images([files.paths[i] for i in good], SMALL)
        np.testing.assert_array_equal(np.concatenate(images), wanted)
        assert [path.name for path in batches.skipped] == [f"bad{i}.jpg" for i in (0, 7, 8, 22)]
        assert all("truncated" in reason for reason in batches.skipped.values())


def test_nothing_readable(files: Files, tmp_path: Path) -> None:
    batches = EvaluationBatches(with_bad(files, tmp_path, *range(23)), SMALL, batch_size=4)
    assert list(batches) == []
    assert len(batches.skipped) == 23


def test_a_phone_photo_is_held_upright_by_every_way_in(tmp_path: Path) -> None:
    upright = np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)
    tags = Image.Exif()
    tags[0x0112] = 6
    path = tmp_path / "phone.png"
    Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90).save(path, exif=tags)
    files = Files((path,), np.zeros(1, np.int64))
    ((images, _),) = EvaluationBatches(files, SMALL, batch_size=1)
    np.testing.assert_array_equal(images[0], resize_and_crop(upright, SMALL))
    np.testing.assert_array_equal(images, load_images([path], SMALL))


def arrays(height: int, width: int, channels: int = 3) -> Arrays:
    rng = np.random.default_rng(1)
    return Arrays(rng.integers(0, 256, (11, height, width, channels), np.uint8), np.arange(11))


@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_of_the_right_size_are_passed_through(channels: int) -> None:
    examples = arrays(32, 40, channels)
    fitting = Preprocessing(32, (32, 40), channels="L" if channels == 1 else "BGR")
    found = list(EvaluationBatches(examples, fitting, batch_size=4))
    assert all(np.shares_memory(images, examples.images) for images, _ in found)
    np.testing.assert_array_equal(np.concatenate([part for part, _ in found]), examples.images)
    np.testing.assert_array_equal(np.concatenate([part for _, part in found]), np.arange(11))


@pytest.mark.parametrize("preprocessing", [SMALL, replace(SMALL, channels="L")])
def test_other_arrays_are_resized_and_cropped(preprocessing: Preprocessing) -> None:
    examples = arrays(28, 30)
    found = list(EvaluationBatches(examples, preprocessing, batch_size=4))
    wanted = [resize_and_crop(image, preprocessing) for image in examples.images]
    np.testing.assert_array_equal(np.concatenate([part for part, _ in found]), wanted)


def test_grey_arrays(files: Files) -> None:
    grey = replace(SMALL, channels="L")
    ((images, _),) = EvaluationBatches(arrays(28, 30, 1), grey, batch_size=11)
    assert images.shape == (11, 32, 36, 1)
    with pytest.raises(DataError, match="the images are grey, but the network reads RGB"):
        EvaluationBatches(arrays(28, 30, 1), SMALL, batch_size=4)
    images, _ = next(iter(EvaluationBatches(files, grey, batch_size=3)))
    np.testing.assert_array_equal(images, load_images(files.paths[:3], grey))


def test_other_preparations(files: Files) -> None:
    def corners(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
        pixels = resize_and_crop(image, preprocessing)
        return np.stack([pixels[:8, :8], pixels[-8:, -8:]])

    images, _ = next(iter(EvaluationBatches(files, SMALL, batch_size=5, prepare=corners)))
    assert images.shape == (5, 2, 8, 8, 3)
    fitting = Preprocessing(32, (32, 32))
    images, _ = next(
        iter(EvaluationBatches(arrays(32, 32), fitting, batch_size=5, prepare=corners))
    )
    assert images.shape == (5, 2, 8, 8, 3)


def test_no_threads_are_left_behind(files: Files) -> None:
    before = threading.active_count()
    iterator = iter(EvaluationBatches(files, SMALL, batch_size=2))
    next(iterator)
    iterator.close()
    end = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_batch_size_is_checked(files: Files) -> None:
    with pytest.raises(ConfigurationError, match="batch_size must be at least 1, got 0"):
        EvaluationBatches(files, SMALL, batch_size=0)
