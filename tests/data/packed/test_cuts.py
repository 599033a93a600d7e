"""Packed pixels of which the host only cuts boxes out: the device makes torchvision's crops."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from keras_alexnet.data.augmentation.draws import crop_geometry, largest_boxes
from keras_alexnet.data.augmentation.layer import Augment
from keras_alexnet.data.augmentation.record import Augmentation
from keras_alexnet.data.batches.plan import BatchSettings
from keras_alexnet.data.batches.shards import Shard
from keras_alexnet.data.batches.training import TrainingBatches
from keras_alexnet.data.examples import DataSet, Files
from keras_alexnet.data.packed.examples import Packed, read_packed
from keras_alexnet.data.packed.index import Encoding
from keras_alexnet.data.packed.packer import Packing, pack_data

COUNT, SIZE = 30, (32, 32)
CROP = Augmentation(crop="random-resized", flip=0.5)
SETTINGS = BatchSettings(CROP, SIZE, batch_size=8, seed=3, place="device", cuts_only=True)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return photos of many shapes, packed as pixels and as JPEG files."""
    folder, rng = tmp_path_factory.mktemp("cuts"), np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(COUNT)]
    for path in paths:
        coarse = rng.integers(0, 256, (5, 5, 3), np.uint8)
        height, width = rng.integers(20, 60, 2)
        Image.fromarray(coarse).resize((int(width), int(height)), Image.Resampling.BICUBIC).save(
            path
        )
    data = DataSet("photos", ("a",), Files(tuple(paths), np.zeros(COUNT, np.int64)))
    for encoding in Encoding:
        pack_data(data, folder / encoding, Packing(encoding, shards=2))
    return {encoding: folder / encoding for encoding in Encoding}


def train_of(folder: Path) -> Packed:
    train = read_packed(folder).train
    assert isinstance(train, Packed)
    return train


def seen(train: Packed, settings: BatchSettings) -> np.ndarray:
    """Return what the network sees in an epoch, float32 (N, h, w, C)."""
    framework: Any = keras.backend.backend()
    batches = TrainingBatches(train, settings, framework=framework)
    augment = Augment(settings.augmentation, settings.size, data_format="channels_last")
    found = []
    for inputs, *_ in batches.epoch(0):
        tensors = {name: keras.ops.convert_to_tensor(value) for name, value in inputs.items()}
        assert {n: tuple(t.shape[1:]) for n, t in tensors.items()} == {
            name: shape for name, (shape, _) in batches.inputs.items()
        }
        found.append(keras.ops.convert_to_numpy(augment(tensors)))
    return np.concatenate(found)


def test_the_device_makes_torchvisions_crops(packed: dict[str, Path]) -> None:
    train = train_of(packed["raw"])
    plan = SETTINGS.plan(train, epoch=0)
    wanted = []
    for place, index in enumerate(plan.order):
        pixels = train.pixels(index)
        sides = np.array(pixels.shape[:2])[:, None]
        ((top, left, height, width, flip),) = (
            crop_geometry(CROP, plan.draws.take(np.array([place])), *sides, SIZE)
            .round()
            .astype(int)
        )
        cut = Image.fromarray(pixels).crop((left, top, left + width, top + height))
        made = np.asarray(cut.resize(SIZE, Image.Resampling.BILINEAR))
        wanted.append(made[:, ::-1] if flip else made)
    found = seen(train, SETTINGS)
    assert found.shape == (COUNT, *SIZE, 3)
    # Pillow rounds between its two passes and behind them.
    assert np.abs(found - np.stack(wanted)).max() <= 1.01
    on_host = seen(train, replace(SETTINGS, cuts_only=False))
    assert 0.01 < np.abs(found - on_host).mean() < 2


def test_grey_networks(packed: dict[str, Path]) -> None:
    train = train_of(packed["raw"])
    grey = replace(SETTINGS, channels=1)
    found, on_host = seen(train, grey), seen(train, replace(grey, cuts_only=False))
    assert found.shape == (COUNT, *SIZE, 1)
    assert np.abs(found - on_host).mean() < 2


@pytest.mark.parametrize(
    ("encoding", "changes"),
    [
        ("jpeg", {}),
        ("raw", {"augmentation": replace(CROP, crop="center", resize=32)}),
        ("raw", {"place": "host"}),
        ("raw", {"size": (8, 8)}),  # boxes would be many times as large
    ],
)
def test_where_the_host_resizes(
    encoding: str, changes: dict[str, Any], packed: dict[str, Path]
) -> None:
    settings = replace(SETTINGS, **changes)
    batches = TrainingBatches(train_of(packed[encoding]), settings, framework="torch")
    assert batches.inputs == {"image": ((*settings.size, 3), "uint8")}


def test_a_share_with_a_damaged_image(packed: dict[str, Path], tmp_path: Path) -> None:
    for file in packed["raw"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    shard = next(tmp_path.glob("*.tfrecord"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    lost = 0
    for index in range(2):
        shared = replace(SETTINGS, shard=Shard(index, 2, 2))
        batches, whole = (
            TrainingBatches(train_of(folder), shared, framework="torch")
            for folder in (tmp_path, packed["raw"])
        )
        found, wanted = (list(each.epoch(0)) for each in (batches, whole))
        for ours, theirs in zip(found, wanted, strict=True):
            differ = (ours[0]["geometry"] != theirs[0]["geometry"]).any(axis=1)
            np.testing.assert_array_equal(ours[2] != theirs[2], differ)
            assert not ours[2][differ].any()
            lost += differ.sum()
        assert len(batches.skipped) == 0 or lost == 1
    assert lost == 1


def test_no_box_is_larger() -> None:
    rng = np.random.default_rng(1)
    sizes = rng.integers(5, 90, (4000, 2))
    for crop in (CROP, replace(CROP, scale=(0.3, 0.5), ratio=(0.2, 6.0))):
        settings = replace(SETTINGS, augmentation=crop)
        draws = settings.plan(_Sized(len(sizes)), epoch=0).draws  # type: ignore[arg-type]
        boxes = crop_geometry(crop, draws, *sizes.T, SIZE)[:, 2:4]
        assert (boxes.max(axis=0) <= largest_boxes(crop, sizes)).all()


class _Sized:
    """Examples of which only the number counts."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def order(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(self._count)
