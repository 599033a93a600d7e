"""Packing: what is in the shards, in which order, and what survives an accident."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
from helpers.photos import photo, photo_files
from PIL import Image

from keras_alexnet.data.batches.evaluation import EvaluationBatches
from keras_alexnet.data.decoding import decode_image
from keras_alexnet.data.examples import Arrays, DataSet, Files
from keras_alexnet.data.packed.examples import read_packed
from keras_alexnet.data.packed.index import Encoding
from keras_alexnet.data.packed.packer import LOCK, Packing, pack_data
from keras_alexnet.data.preprocessing import IMAGENET
from keras_alexnet.data.sources.registry import find_data, open_data
from keras_alexnet.errors import ConfigurationError, DataError

RAW = Packing(Encoding.RAW, shards=3)
JPEG = Packing(shards=3)


def data_of(files: Files, *, val: int = 6) -> DataSet:
    """A data set whose last files are for validation; each image is a class of its own."""
    order = np.arange(len(files))
    return DataSet(
        "photos",
        tuple(f"class {n}" for n in order),
        train=files.subset(order[:-val]),
        val=files.subset(order[-val:]),
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


@pytest.mark.parametrize("packing", [RAW, JPEG], ids=["raw", "jpeg"])
def test_every_image_comes_back_with_its_label(packing: Packing, tmp_path: Path) -> None:
    files = photo_files(tmp_path)
    data = data_of(files)
    pack_data(data, tmp_path / "packed", packing)
    found = find_data(str(tmp_path / "packed"))
    assert found.name == "photos"
    assert found.classes == data.classes
    assert found.parts().keys() == {"train", "val"}
    for part, examples in found.parts().items():
        assert set(examples.labels) == set(data.parts()[part].labels)
        for index, label in enumerate(examples.labels):
            source = files.paths[label]
            assert examples.place(index).name == source.name  # type: ignore[union-attr]
            pixels = examples.pixels(index)  # type: ignore[union-attr]
            if packing is RAW or (source.suffix == ".jpg" and label % 3 == 0):
                np.testing.assert_array_equal(pixels, decode_image(source))
            else:  # encoded again
                steps = np.abs(pixels.astype(int) - decode_image(source))
                assert steps.mean() < 4
    np.testing.assert_array_equal(found.val.labels, data.val.labels)  # type: ignore[union-attr]
    assert (np.diff(found.train.labels) < 0).any()  # type: ignore[union-attr]


def test_plain_jpeg_files_are_kept_byte_by_byte(tmp_path: Path) -> None:
    files = photo_files(tmp_path, count=8, kinds=("jpg",))
    pack_data(data_of(files, val=2), tmp_path / "packed", JPEG)
    train = read_packed(tmp_path / "packed").train
    for index, label in enumerate(train.labels):  # type: ignore[union-attr]
        assert train.content(index) == files.paths[label].read_bytes()  # type: ignore[union-attr]


def test_turned_and_grey_images(tmp_path: Path) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    upright = photo(60, 50)
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "phone.jpg", exif=tags)
    upright.convert("L").save(tmp_path / "grey.jpg")
    files = Files((tmp_path / "phone.jpg", tmp_path / "grey.jpg"), np.arange(2))
    for packing in (RAW, JPEG):
        output = tmp_path / packing.encode
        pack_data(DataSet("two", ("a", "b"), val=files), output, packing)
        val = read_packed(output).val
        turned, grey = (val.pixels(index) for index in range(2))  # type: ignore[union-attr]
        assert np.abs(turned.astype(int) - np.asarray(upright)).mean() < 12
        np.testing.assert_array_equal(grey, decode_image(files.paths[1]))
        luma = val.pixels(1, "L")  # type: ignore[union-attr]
        np.testing.assert_array_equal(luma, decode_image(files.paths[1], "L"))


def test_reduced_images_evaluate_as_the_originals_do(tmp_path: Path) -> None:
    """The first half of an evaluation was done at packing, by the same rule."""
    paths = []
    for index, size in enumerate([(300, 420), (411, 263), (280, 280), (200, 340)]):
        paths.append(tmp_path / f"{index}.png")
        photo(*size, seed=index).save(paths[-1])
    files = Files(tuple(paths), np.arange(4))
    packing = Packing(Encoding.RAW, short_side=256)
    pack_data(DataSet("large", tuple("abcd"), val=files), tmp_path / "packed", packing)
    val = read_packed(tmp_path / "packed").val
    assert val is not None
    sizes = [val.pixels(index).shape[:2] for index in range(4)]  # type: ignore[union-attr]
    assert sizes == [(256, 358), (400, 256), (256, 256), (200, 340)]
    (wanted, _), (found, _) = (
        next(iter(EvaluationBatches(examples, IMAGENET, batch_size=4))) for examples in (files, val)
    )
    np.testing.assert_array_equal(found, wanted)


def test_images_in_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = Arrays(rng.integers(0, 256, (10, 12, 8, 1), np.uint8), np.arange(10))
    digits = DataSet("tiny", tuple("0123456789"), test=arrays)
    pack_data(digits, tmp_path / "packed", RAW)
    test = open_data("packed", tmp_path / "packed").test
    for index in range(10):
        pixels = test.pixels(index, "L")  # type: ignore[union-attr]
        np.testing.assert_array_equal(pixels, arrays.images[index])


def test_tensorflow_reads_the_shards(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    files = photo_files(tmp_path)
    outcome = pack_data(data_of(files), tmp_path / "packed", RAW)
    shards = [tmp_path / "packed" / shard.file for shard in outcome.index.shards]
    text, number = tf.io.FixedLenFeature((), tf.string), tf.io.FixedLenFeature((), tf.int64)
    features = {
        **{f"image/{name}": text for name in ("encoded", "format", "filename")},
        **{f"image/{name}": number for name in ("class/label", "height", "width")},
    }
    seen = []
    for record in tf.data.TFRecordDataset(list(map(str, shards))):
        found = tf.io.parse_single_example(record, features)
        label = int(found["image/class/label"])
        seen.append(label)
        assert found["image/format"].numpy() == b"raw"
        assert found["image/filename"].numpy().endswith(files.paths[label].name.encode())
        shape = int(found["image/height"]), int(found["image/width"]), 3
        pixels = np.frombuffer(found["image/encoded"].numpy(), np.uint8).reshape(shape)
        np.testing.assert_array_equal(pixels, decode_image(files.paths[label]))
    assert sorted(seen) == list(range(21))


def test_unreadable_images_are_named(tmp_path: Path) -> None:
    files = photo_files(tmp_path)
    files.paths[2].write_bytes(b"hello")
    files.paths[18].unlink()
    index = pack_data(data_of(files), tmp_path / "packed", JPEG).index
    reasons = {Path(name).name: (name[:5], why) for name, why in index.unreadable.items()}
    assert reasons == {
        "02.jpg": ("train", "not an image that Pillow can read"),
        "18.jpg": ("val/" + tmp_path.name[0], "no such image file"),
    }
    found = read_packed(tmp_path / "packed")
    assert {part: len(examples) for part, examples in found.parts().items()} == {
        "train": 14,
        "val": 5,
    }


def test_a_part_without_a_readable_image(tmp_path: Path) -> None:
    files = photo_files(tmp_path)
    for path in files.paths[-6:]:
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"no image of the part val can be read; one is val/.*15\."):
        pack_data(data_of(files), tmp_path / "packed", JPEG)
    with pytest.raises(DataError, match=r"no such file: these are no packed data, or not all"):
        find_data(str(tmp_path / "packed"))


# What goes wrong


def test_packing_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    files = photo_files(tmp_path)
    pack_data(data_of(files), tmp_path / "whole", RAW)
    done = []

    def stop(count: int) -> None:
        done.append(count)
        if count == 8:  # in the second shard
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_data(data_of(files), tmp_path / "packed", RAW, advance=stop)
    left = contents(tmp_path / "packed")
    assert {name for name in left if name.endswith(".tfrecord")} == {
        "train-00000-of-00003.tfrecord"
    }
    outcome = pack_data(data_of(files), tmp_path / "packed", RAW)
    assert outcome.found == 1
    assert contents(tmp_path / "packed") == contents(tmp_path / "whole")
    again = pack_data(data_of(files), tmp_path / "packed", RAW)
    assert again.found == len(again.index.shards) == 4


def test_a_damaged_shard_is_packed_again(tmp_path: Path) -> None:
    files = photo_files(tmp_path)
    pack_data(data_of(files), tmp_path / "packed", RAW)
    whole = contents(tmp_path / "packed")
    (tmp_path / "packed" / "train-00001-of-00003.tfrecord").unlink()
    assert pack_data(data_of(files), tmp_path / "packed", RAW).found == 0
    assert contents(tmp_path / "packed") == whole


@pytest.mark.parametrize("change", ["packing", "data"])
def test_a_folder_of_other_packed_data(change: str, tmp_path: Path) -> None:
    files = photo_files(tmp_path)
    pack_data(data_of(files), tmp_path / "packed", RAW)
    before = contents(tmp_path / "packed")
    data = data_of(files, val=7 if change == "data" else 6)
    packing = JPEG if change == "packing" else RAW
    with pytest.raises(ConfigurationError, match="other data were packed into this folder, or in"):
        pack_data(data, tmp_path / "packed", packing)
    assert contents(tmp_path / "packed") == before


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    files = photo_files(tmp_path)
    with pytest.raises(ConfigurationError, match=r"holds other files, such as 00\.jpg"):
        pack_data(data_of(files), tmp_path, RAW)
    with pytest.raises(ConfigurationError, match=r"cannot write .*00\.jpg: File exists"):
        pack_data(data_of(files), files.paths[0], RAW)


def test_two_packers_of_one_folder(tmp_path: Path) -> None:
    (tmp_path / "packed").mkdir()
    with (
        filelock.FileLock(tmp_path / "packed" / LOCK),
        pytest.raises(ConfigurationError, match="another process is packing into this folder"),
    ):
        pack_data(data_of(photo_files(tmp_path)), tmp_path / "packed", RAW)


def test_a_full_disk(tmp_path: Path) -> None:
    files = photo_files(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        text = r"cannot write .*train-00000-of-00003\.tfrecord: File too large"
        with pytest.raises(ConfigurationError, match=text):
            pack_data(data_of(files), tmp_path / "packed", RAW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert contents(tmp_path / "packed").keys() <= {LOCK, "packing.json"}
    assert pack_data(data_of(files), tmp_path / "packed", RAW).found == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"encode": "png"}, "encode must be 'jpeg' or 'raw', got 'png'"),
        ({"quality": 0}, "quality must lie between 1 and 100, got 0"),
        ({"short_side": 0}, "short_side must lie between 1 and 65500, got 0"),
        ({"shards": 0}, "shards must lie between 1 and 100000, got 0"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        Packing(**options)


def killed_packings(folder: Path, kills: int) -> None:
    """Pack in processes that are killed at random moments, until one ends by itself."""
    photos = folder / "photos"
    for index in range(120):
        path = photos / "train" / f"{index % 3}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(90, 100, seed=index).save(path)
    command = [sys.executable, "-m", "keras_alexnet", "pack", str(photos), "--short-side", "64"]
    command += ["--shards", "40", "--output"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([*command, str(folder / "whole")], check=True, env=environment)
    rng = np.random.default_rng(0)
    partly = 0
    for number in range(kills):
        output = folder / f"killed-{number}"
        process = subprocess.Popen([*command, str(output)], env=environment)
        most = rng.integers(0, 38)
        while len(list(output.glob("[!.]*.tfrecord"))) <= most and process.poll() is None:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.005))
        process.kill()
        process.wait()
        partly += 0 < len(list(output.glob("[!.]*.tfrecord"))) < 40
        subprocess.run([*command, str(output)], check=True, env=environment)
        assert contents(output) == contents(folder / "whole")
    assert partly


def test_killed_while_packing(tmp_path: Path) -> None:
    killed_packings(tmp_path, 3)


@pytest.mark.slow
def test_killed_while_packing_at_twenty_moments(tmp_path: Path) -> None:
    killed_packings(tmp_path, 20)


# The command


def test_the_command(tmp_path: Path, run_python: Any) -> None:
    for index in range(8):
        path = tmp_path / "photos" / ("cat" if index % 2 else "dog") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(40, 50, seed=index).save(path)
    (tmp_path / "photos" / "cat" / "bad.png").write_bytes(b"")
    (tmp_path / "photos" / "cat" / "notes.txt").write_text("no image")

    def run(*arguments: object) -> Any:
        code = "import sys; from keras_alexnet.commands.app import main; main()"
        return run_python(code, "pack", tmp_path / "photos", *arguments, check=False)

    output = tmp_path / "packed"
    first = run("--output", output, "--shards", 2, "--encode", "raw")
    assert first.returncode == 0, first.stderr
    said = first.stdout.splitlines()
    assert said[0].endswith("packed: 8 train; 2 shards, 0.0 MB")
    assert said[1] == "left out train/cat/bad.png: not an image that Pillow can read"
    assert said[2].startswith("1 file left out, not named like images: ")
    again = run("--output", output, "--shards", 2, "--encode", "raw")
    assert again.stdout.splitlines()[0].endswith("; 2 of them were there already")
    other = run("--output", output, "--shards", 3)
    assert other.returncode == 2
    assert other.stderr.startswith("error: ")
    assert len(other.stderr.splitlines()) == 1
    index = json.loads((output / "index.json").read_text())
    assert index["packing"]["encode"] == "raw"
    assert index["unreadable"] == {"train/cat/bad.png": "not an image that Pillow can read"}
