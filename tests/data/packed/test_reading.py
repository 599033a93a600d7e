"""Packed data as training reads them: in blocks, in an order of their own, whatever is damaged."""

import hashlib
import json
import shutil
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from keras_alexnet.data.augmentation.record import Augmentation
from keras_alexnet.data.batches.plan import BatchSettings
from keras_alexnet.data.batches.shards import WHOLE, Shard
from keras_alexnet.data.batches.training import TrainingBatches
from keras_alexnet.data.examples import Arrays, DataSet
from keras_alexnet.data.packed import blocks
from keras_alexnet.data.packed.examples import Packed, read_packed
from keras_alexnet.data.packed.index import INDEX, Encoding
from keras_alexnet.data.packed.packer import Packing, pack_data
from keras_alexnet.data.packed.records import HEAD, TAIL, example, record
from keras_alexnet.data.packed.storage import Storage
from keras_alexnet.data.sources.registry import find_data
from keras_alexnet.errors import ConfigurationError, DataError

CROP = Augmentation(crop="random-resized", flip=0.5)
COUNT = 200


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 images of 12 x 10, each of one colour and a class of its own, in 5 shards of raw ones."""
    colours = np.arange(COUNT, dtype=np.uint8)[:, None, None, None]
    images = np.broadcast_to(colours, (COUNT, 12, 10, 3)).copy()
    data = DataSet("colours", tuple(map(str, range(COUNT))), Arrays(images, np.arange(COUNT)))
    folder = tmp_path_factory.mktemp("packed") / "colours"
    pack_data(data, folder, Packing(Encoding.RAW, shards=5))
    return folder


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of five records, eight to a shard; windows of eight."""
    monkeypatch.setattr(blocks, "BLOCK", 2500)
    for module in ("keras_alexnet.data.packed.blocks", "keras_alexnet.data.packed.examples"):
        monkeypatch.setattr(f"{module}.WINDOW", 8)
    monkeypatch.setattr(blocks, "_KEPT", 32)


def train_of(folder: Path) -> Packed:
    train = read_packed(folder).train
    assert isinstance(train, Packed)
    return train


def batches_of(examples: Packed, *, shard: Shard = WHOLE, **options: Any) -> TrainingBatches:
    settings = BatchSettings(CROP, (8, 8), batch_size=8, seed=1, shard=shard, **options)
    return TrainingBatches(examples, settings, framework="torch")


def labels_of(batches: Any) -> np.ndarray:
    return np.concatenate([labels for _, labels, *_ in batches])


def test_an_epoch_holds_every_image_once_with_its_own_pixels(packed: Path) -> None:
    batches = batches_of(train_of(packed))
    orders = []
    for epoch in range(2):
        labels = []
        for inputs, found in batches.epoch(epoch):
            np.testing.assert_array_equal(
                inputs["image"], np.broadcast_to(found[:, None, None, None], (len(found), 8, 8, 3))
            )
            labels.append(found)
        orders.append(np.concatenate(labels))
        np.testing.assert_array_equal(np.sort(orders[-1]), np.arange(COUNT))
    assert not np.array_equal(*orders)
    again = labels_of(batches_of(train_of(packed)).epoch(1))
    np.testing.assert_array_equal(again, orders[1])


def test_an_order_mixes_blocks_and_reads_each_once(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Counter[tuple[Any, ...]]()
    plain = Storage.read

    def read(self: Storage, *place: Any) -> bytes:
        reads[place] += 1
        return plain(self, *place)

    examples = train_of(packed)
    monkeypatch.setattr(Storage, "read", read)
    order = labels_of(batches_of(examples).epoch(0))
    count = len(np.unique(examples._folder.blocks.of))
    assert count > 35
    # The first image is read once more, to see whether there is one of use.
    assert len(reads) == count
    assert set(reads.values()) == {1}
    assert len(examples._folder.blocks._kept) <= 32
    rows = np.argsort(examples.labels)[order]
    windows = np.split(examples._folder.blocks.of[rows], range(40, COUNT, 40))
    assert all(8 <= len(np.unique(window)) <= 18 for window in windows)
    jumps = np.abs(np.diff(rows))
    assert np.median(jumps) > 5


def test_blocks_are_read_ahead(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first image of a window has the whole next window read, by other threads."""
    seen = []
    plain = Storage.read

    def read(self: Storage, *place: Any) -> bytes:
        seen.append((place, threading.current_thread()))
        return plain(self, *place)

    examples = train_of(packed)
    monkeypatch.setattr(Storage, "read", read)
    order = examples.order(np.random.default_rng(0))
    examples.expect(order)
    examples.content(order[0])
    examples._folder.blocks._pool.shutdown()  # type: ignore[union-attr]
    assert len(seen) == 9
    assert all(thread is not threading.current_thread() for _, thread in seen)


@pytest.mark.parametrize("done", [0, 1, 13, 25])
def test_the_rest_of_an_epoch(done: int, packed: Path) -> None:
    batches = batches_of(train_of(packed))
    whole = list(batches.epoch(3))
    rest = list(batches_of(train_of(packed)).epoch(3, batches.position(done)))
    assert len(rest) == len(whole) - done
    for (inputs, labels), (wanted, others) in zip(rest, whole[done:], strict=True):
        np.testing.assert_array_equal(labels, others)
        np.testing.assert_array_equal(inputs["image"], wanted["image"])


def test_devices_share_the_batches(packed: Path) -> None:
    whole = list(batches_of(train_of(packed)).epoch(0))
    parts = [list(batches_of(train_of(packed), shard=Shard(i, 2, 4)).epoch(0)) for i in range(2)]
    for number, (inputs, labels) in enumerate(whole):
        shared = [part[number] for part in parts]
        np.testing.assert_array_equal(np.concatenate([s[1] for s in shared]), labels)
        images = np.concatenate([s[0]["image"] for s in shared])
        np.testing.assert_array_equal(images, inputs["image"])


def test_parts_of_packed_data(packed: Path, tmp_path: Path) -> None:
    images = np.zeros((200, 12, 10, 3), np.uint8)
    data = DataSet("halves", ("low", "high"), Arrays(images, np.arange(200) % 2))
    pack_data(data, tmp_path / "halves", Packing(Encoding.RAW, shards=5))
    divided = read_packed(tmp_path / "halves").with_validation(0.1, seed=0)
    counts = {part: np.bincount(part_.labels).tolist() for part, part_ in divided.parts().items()}
    assert counts == {"train": [90, 90], "val": [10, 10]}
    found = labels_of(batches_of(train_of(packed).subset(np.arange(0, COUNT, 3))).epoch(0))
    np.testing.assert_array_equal(np.sort(found), np.sort(train_of(packed).labels[::3]))


def test_a_place_of_another_file_system(packed: Path) -> None:
    memory = pytest.importorskip("fsspec").filesystem("memory")
    for path in packed.iterdir():
        memory.pipe_file(f"/colours/{path.name}", path.read_bytes())
    train = find_data("memory://colours").train
    assert isinstance(train, Packed)
    np.testing.assert_array_equal(
        labels_of(batches_of(train).epoch(0)), labels_of(batches_of(train_of(packed)).epoch(0))
    )
    with pytest.raises(
        DataError, match=r"memory://nowhere/index\.json: no such file: these are no"
    ):
        find_data("memory://nowhere")
    with pytest.raises(DataError, match=r"abc://bucket: cannot be opened \(.*abc"):
        find_data("abc://bucket")


# What is damaged


@pytest.fixture
def copied(packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "colours"))


SHARD = "train-00002-of-00005.tfrecord"


def changed(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("shard", [WHOLE, Shard(0, 1, 2)], ids=["one", "two devices"])
def test_damaged_records_are_named_and_left_out(shard: Shard, copied: Path) -> None:
    whole = labels_of(batches_of(train_of(copied), shard=shard).epoch(0))
    rows = train_of(copied)._folder.index.rows
    victims = [int(row["start"]) for row in rows[rows["shard"] == 2][[3, 20]]]
    labels = rows["label"][rows["shard"] == 2][[3, 20]]
    for start in victims:
        changed(copied / SHARD, start + 300)
    batches = batches_of(train_of(copied), shard=shard)
    found = list(batches.epoch(0))
    reason = "damaged record (its checksum is not the index')"
    assert {Path(path).name: why for path, why in batches.skipped.items()} == {
        str(label): reason for label in labels
    }
    assert all(path.parent.parent == copied / SHARD for path in batches.skipped)
    if shard == WHOLE:
        np.testing.assert_array_equal(labels_of(found), whole[~np.isin(whole, labels)])
    else:
        weights = np.concatenate([weights for *_, weights in found])
        np.testing.assert_array_equal(weights == 0, np.isin(labels_of(found), labels))


def truncate(folder: Path) -> None:
    (folder / SHARD).write_bytes((folder / SHARD).read_bytes()[:-100])


def swap(folder: Path) -> None:
    other = folder / "train-00003-of-00005.tfrecord"
    first, second = (folder / SHARD).read_bytes(), other.read_bytes()
    (folder / SHARD).write_bytes(second)
    other.write_bytes(first)


def reverse(folder: Path) -> None:
    """Put the records of a shard into another order, in which all have the same length."""
    content = (folder / SHARD).read_bytes()
    table = np.load(folder / "index.npy")
    rows = table[table["shard"] == 2]
    records = [
        content[row["start"] : row["start"] + HEAD + row["length"] + TAIL] for row in rows[::-1]
    ]
    (folder / SHARD).write_bytes(b"".join(records))


def edit(folder: Path, **changes: Any) -> None:
    path = folder / INDEX
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


ACCIDENTS = {
    "missing": (lambda folder: (folder / SHARD).unlink(), f"{SHARD}: no such file; the index was"),
    "truncated": (truncate, rf"{SHARD} has [\d,]+ bytes instead of [\d,]+; the index was written"),
    "swapped": (swap, rf"{SHARD} has .*, train-00003\S+ has [\d,]+ bytes instead of [\d,]+; the"),
    "reversed": (reverse, f"{SHARD} holds other records; the index was written with others"),
    "newer": (lambda folder: edit(folder, version=2), "an index of version 2, but this keras_alex"),
    "no index": (lambda folder: (folder / INDEX).unlink(), "no packed data, or not all of them"),
    "other index": (lambda folder: edit(folder, format="x"), "not an index of packed data"),
    "broken index": (lambda folder: (folder / INDEX).write_text("{"), "not an index of packed da"),
    "no shards": (lambda folder: edit(folder, shards=[]), "a damaged index .*count differently"),
    "no packing": (lambda folder: edit(folder, packing=None), "a damaged index"),
    "no classes": (lambda folder: edit(folder, classes=[]), "a damaged index .*leads nowhere"),
    "table": (lambda folder: changed(folder / "index.npy", 900), r"index\.npy: not the file that"),
    "no table": (lambda folder: (folder / "index.npy").unlink(), r"index\.npy: no such file"),
}


@pytest.mark.parametrize("accident", ACCIDENTS)
def test_folders_that_cannot_be_opened(accident: str, copied: Path) -> None:
    happen, text = ACCIDENTS[accident]
    happen(copied)
    with pytest.raises(DataError, match=text) as caught:
        find_data(str(copied))
    assert str(caught.value).startswith(str(copied))
    assert "\n" not in str(caught.value)


def test_a_table_that_leads_out_of_the_shards(copied: Path) -> None:
    """Whoever writes both files cannot make it read elsewhere."""
    table = np.load(copied / "index.npy")
    table["length"][7] = 2**31
    np.save(copied / "index.npy", table)
    files = json.loads((copied / INDEX).read_text())["files"]
    digest = hashlib.sha256((copied / "index.npy").read_bytes()).hexdigest()
    edit(copied, files=files | {"index.npy": digest})
    with pytest.raises(DataError, match="row 7 of its table leads nowhere"):
        read_packed(copied)


def test_a_shard_that_disappears_while_it_is_used(copied: Path) -> None:
    examples = train_of(copied)
    index = int(np.flatnonzero(examples._folder.index.rows["shard"] == 2)[0])
    hidden = (copied / SHARD).read_bytes()
    (copied / SHARD).unlink()
    with pytest.raises(DataError, match=rf"{SHARD}: no such file"):
        examples.content(index)
    (copied / SHARD).write_bytes(hidden)  # a network disk is there again
    assert examples.pixels(index).shape == (12, 10, 3)


def test_a_place_for_built_in_data(packed: Path) -> None:
    with pytest.raises(ConfigurationError, match="is a place already: leave out"):
        find_data(str(packed), packed)


# Records


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=5),
        st.binary(max_size=300) | st.integers(0, 2**63 - 1),
        min_size=1,
        max_size=5,
    )
)
def test_records_are_tensorflows(features: dict[str, bytes | int]) -> None:
    tf = pytest.importorskip("tensorflow")
    found = tf.train.Example.FromString(example(features))
    values = {
        name: feature.bytes_list.value[0]
        if feature.HasField("bytes_list")
        else feature.int64_list.value[0]
        for name, feature in found.features.feature.items()
    }
    assert values == features
    *_, last = features.values()
    if isinstance(last, bytes):
        assert example(features).endswith(last)


@given(st.lists(st.binary(max_size=300), max_size=4))
def test_files_of_records_are_tensorflows(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]
) -> None:
    tf = pytest.importorskip("tensorflow")
    path = tmp_path_factory.mktemp("records") / "file"
    path.write_bytes(b"".join(map(record, contents)))
    assert [found.numpy() for found in tf.data.TFRecordDataset(str(path))] == contents
