"""Who of several devices sees which examples: each once, with the mean of the whole batch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from keras_alexnet.data.augmentation.record import Augmentation
from keras_alexnet.data.batches.plan import BatchSettings
from keras_alexnet.data.batches.shards import WHOLE, Shard
from keras_alexnet.data.batches.training import TrainingBatches
from keras_alexnet.data.examples import Arrays, Examples, Files
from keras_alexnet.errors import ConfigurationError
from porting.checks.inputs import sample_photos

PHOTOS = sample_photos()
SIZE = (24, 28)

shapes = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 200))


def shares(processes: int, each: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    devices = processes * each
    return [Shard(index, processes, devices).share(count) for index in range(processes)]


@given(shapes)
def test_every_example_has_a_weight_in_one_place(shape: tuple[int, int, int]) -> None:
    processes, each, count = shape
    found = shares(processes, each, count)
    assert len({len(positions) for positions, _ in found}) == 1
    assert len(found[0][0]) % each == 0
    counted = np.concatenate([positions[weights > 0] for positions, weights in found])
    np.testing.assert_array_equal(counted, np.arange(count))


@given(shapes, st.integers(0, 2**32 - 1))
def test_the_mean_over_devices_is_the_mean_over_the_batch(
    shape: tuple[int, int, int], seed: int
) -> None:
    processes, each, count = shape
    losses = np.random.default_rng(seed).random(count)
    means = [
        (losses[positions] * weights).reshape(each, -1).mean(axis=1)
        for positions, weights in shares(processes, each, count)
    ]
    np.testing.assert_allclose(np.mean(means), losses.mean(), rtol=1e-6)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 100))
def test_processes_divide_a_batch_as_devices_of_one_do(
    processes: int, each: int, count: int
) -> None:
    (positions, weights), *_ = shares(1, processes * each, count)
    found = shares(processes, each, count)
    np.testing.assert_array_equal(np.concatenate([p for p, _ in found]), positions)
    np.testing.assert_array_equal(np.concatenate([w for _, w in found]), weights)


def test_nothing_is_weighted_where_a_batch_can_be_divided() -> None:
    positions, weights = Shard(1, 2, 4).share(8)
    np.testing.assert_array_equal(positions, [4, 5, 6, 7])
    np.testing.assert_array_equal(weights, np.ones(4, np.float32))


# Batches


def arrays(count: int = 23) -> Arrays:
    rng = np.random.default_rng(0)
    return Arrays(rng.integers(0, 256, (count, 32, 36, 3), np.uint8), np.arange(count))


def photos(count: int = 23) -> Files:
    return Files(tuple(PHOTOS[i % len(PHOTOS)] for i in range(count)), np.arange(count))


def read(
    examples: Examples, shard: Shard, augmentation: Augmentation, *, start: int = 0, **options: Any
) -> list[Any]:
    return list(make_batches(examples, shard, augmentation, **options).epoch(0, start))


def make_batches(
    examples: Examples, shard: Shard, augmentation: Augmentation, **options: Any
) -> TrainingBatches:
    settings = BatchSettings(augmentation, SIZE, batch_size=8, seed=1, shard=shard, **options)
    return TrainingBatches(examples, settings, framework="torch")


CROP = Augmentation(crop="random-resized", flip=0.5)
CASES = {
    "arrays, on the device": (arrays, CROP, "device"),
    "arrays, on the host": (arrays, CROP, "host"),
    "files, by TensorFlow": (photos, CROP, "host"),
    "files, by Pillow": (photos, Augmentation(resize=40, crop="random"), "host"),
}


@pytest.mark.parametrize("case", CASES)
def test_shares_together_are_the_batches_of_one_device(case: str) -> None:
    make, augmentation, place = CASES[case]
    examples = make()
    whole = read(examples, WHOLE, augmentation, place=place)
    parts = [read(examples, Shard(i, 2, 4), augmentation, place=place) for i in range(2)]
    assert [len(batch) for batch in whole] == [2] * 3
    for number, (inputs, labels) in enumerate(whole):
        shared = [part[number] for part in parts]
        counts = np.concatenate([weights for *_, weights in shared]) > 0
        np.testing.assert_array_equal(np.concatenate([s[1] for s in shared])[counts], labels)
        for name, values in inputs.items():
            found = np.concatenate([s[0][name] for s in shared])[counts]
            np.testing.assert_array_equal(found, values)
    # 23 examples are two batches of 8 and one of 7, of which each of four devices gets two.
    assert [len(weights) for *_, weights in parts[0]] == [4, 4, 4]
    assert float(sum(weights.sum() for part in parts for *_, weights in part)) == pytest.approx(24)


@pytest.mark.parametrize("case", CASES)
def test_an_epoch_goes_on_from_within(case: str) -> None:
    make, augmentation, place = CASES[case]
    shard = Shard(1, 2, 2)
    whole = read(make(), shard, augmentation, place=place)
    rest = read(make(), shard, augmentation, place=place, start=8)
    assert len(rest) == 2
    for (inputs, *others), (wanted, *theirs) in zip(rest, whole[1:], strict=True):
        np.testing.assert_array_equal(inputs["image"], wanted["image"])
        for mine, their in zip(others, theirs, strict=True):
            np.testing.assert_array_equal(mine, their)


@pytest.mark.parametrize("case", CASES)
def test_positions_count_the_examples_of_all(case: str) -> None:
    make, augmentation, place = CASES[case]
    batches = make_batches(make(), Shard(0, 2, 2), augmentation, place=place)
    list(batches.epoch(0))
    assert [batches.position(n) for n in range(4)] == [0, 8, 16, 23]
    assert list(batches.epoch(0, 23)) == []


@pytest.mark.parametrize("case", ["files, by TensorFlow", "files, by Pillow"])
def test_unreadable_files_have_no_weight_and_move_nobody(case: str, tmp_path: Path) -> None:
    make, augmentation, place = CASES[case]
    examples = make()
    # One that no decoder takes, and one whose header alone is whole.
    broken, cut = tmp_path / "broken.jpg", tmp_path / "cut.jpg"
    broken.write_bytes(b"no image")
    content = examples.paths[2].read_bytes()
    cut.write_bytes(content[: len(content) // 2] + b"\xff\xd9")
    paths = list(examples.paths)
    paths[1], paths[2] = broken, cut
    damaged = Files(tuple(paths), examples.labels)
    shard = Shard(0, 1, 2)
    batches = make_batches(damaged, shard, augmentation, place=place)
    found = list(batches.epoch(0))
    whole = read(examples, shard, augmentation, place=place)
    skipped = {paths.index(path) for path in batches.skipped}
    assert 1 in skipped
    for (inputs, labels, weights), (wanted, names, sizes) in zip(found, whole, strict=True):
        np.testing.assert_array_equal(labels, names)
        out = np.isin(labels, list(skipped))
        np.testing.assert_array_equal(weights[out], 0)
        np.testing.assert_array_equal(weights[~out], sizes[~out])
        usable = ~np.isin(labels, [1, 2])
        np.testing.assert_array_equal(inputs["image"][usable], wanted["image"][usable])
    assert not any(inputs["image"][labels == 1].any() for inputs, labels, _ in found)


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"batch_size 8 is that of all devices.*among 3"):
        read(arrays(), Shard(0, 1, 3), CROP)
