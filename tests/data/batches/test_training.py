"""Training batches: the same images for a seed, wherever and from wherever they are made."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.photos import photo, photo_files
from PIL import Image

from keras_alexnet.data.augmentation.cropping import crop
from keras_alexnet.data.augmentation.draws import crop_geometry, resized_size
from keras_alexnet.data.augmentation.layer import Augment
from keras_alexnet.data.augmentation.record import Augmentation
from keras_alexnet.data.batches.plan import BatchSettings
from keras_alexnet.data.batches.training import TrainingBatches
from keras_alexnet.data.decoding import decode_image
from keras_alexnet.data.examples import Arrays, Examples, Files
from keras_alexnet.errors import ConfigurationError, DataError
from porting.checks.inputs import sample_photos

PCA = (np.array([0.2, 0.02, 0.004]), np.eye(3))
COLOURS = {"brightness": 0.4, "contrast": 0.3, "saturation": 0.2, "hue": 0.1, "pca": 0.1}
PHOTOS = sample_photos()
RANDOM_RESIZED = Augmentation(crop="random-resized", flip=0.5)

Batch = tuple[dict[str, np.ndarray], np.ndarray]


def arrays(count: int = 23, height: int = 32, width: int = 36, channels: int = 3) -> Arrays:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, height, width, channels), np.uint8)
    return Arrays(images, np.arange(count))


def make(examples: Examples, augmentation: Augmentation, **options: Any) -> TrainingBatches:
    options = {"batch_size": 4, "seed": 1, "framework": "torch", "size": (24, 28)} | options
    framework = options.pop("framework")
    settings = BatchSettings(augmentation, pca=PCA, **options)
    return TrainingBatches(examples, settings, framework=framework)


def read(batches: TrainingBatches, epoch: int = 0, start: int = 0) -> list[Batch]:
    return list(batches.epoch(epoch, start))


def joined(batches: list[Batch]) -> tuple[np.ndarray, np.ndarray]:
    images, labels = zip(*((inputs["image"], labels) for inputs, labels in batches), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def assert_same(found: list[Batch], wanted: list[Batch]) -> None:
    assert len(found) == len(wanted)
    for (inputs, labels), (other, other_labels) in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(labels, other_labels)
        assert inputs.keys() == other.keys()
        for name, array in inputs.items():
            np.testing.assert_array_equal(array, other[name], err_msg=name)


# Order


@pytest.mark.parametrize("place", ["host", "device"])
def test_an_epoch_holds_every_example_once(place: str) -> None:
    batches = make(arrays(), Augmentation(flip=0.5), place=place, size=(32, 36))
    orders = []
    for epoch in range(3):
        found = read(batches, epoch)
        assert [len(labels) for _, labels in found] == [4] * 5 + [3]
        assert {labels.dtype for _, labels in found} == {np.dtype(np.int32)}
        orders.append(joined(found)[1])
        np.testing.assert_array_equal(np.sort(orders[-1]), np.arange(23))
    assert batches.steps == 6
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[1], orders[2])


def test_seed_and_epoch_decide_everything() -> None:
    first, second = (make(arrays(), RANDOM_RESIZED) for _ in range(2))
    assert_same(read(first, 5), read(second, 5))
    read(second, 0)
    assert_same(read(first, 5), read(second, 5))
    other, _ = joined(read(make(arrays(), RANDOM_RESIZED, seed=2), 5))
    assert not np.array_equal(joined(read(first, 5))[0], other)
    assert not np.array_equal(joined(read(first, 6))[0], joined(read(first, 5))[0])


def test_without_shuffling() -> None:
    batches = make(arrays(), RANDOM_RESIZED, shuffle=False)
    np.testing.assert_array_equal(joined(read(batches, 3))[1], np.arange(23))


@pytest.mark.parametrize("place", ["host", "device"])
def test_drop_remainder(place: str) -> None:
    whole = read(make(arrays(), RANDOM_RESIZED, place=place))
    batches = make(arrays(), RANDOM_RESIZED, place=place, drop_remainder=True)
    assert_same(read(batches), whole[:5])
    assert batches.steps == 5
    assert [batches.position(n) for n in range(6)] == [0, 4, 8, 12, 16, 23]


@pytest.mark.parametrize("place", ["host", "device"])
@pytest.mark.parametrize("done", [0, 1, 4, 6])
def test_the_rest_of_an_epoch(place: str, done: int) -> None:
    batches = make(arrays(), RANDOM_RESIZED, place=place)
    whole = read(batches, 2)
    start = batches.position(done)
    assert start == min(4 * done, 23)
    assert_same(read(make(arrays(), RANDOM_RESIZED, place=place), 2, start), whole[done:])


# Arrays

AUGMENTATIONS = {
    "none": Augmentation(),
    "resize": Augmentation(resize=30, flip=0.5),
    "padded crop": Augmentation(crop="random", padding=4, flip=0.5),
    "resize and crop": Augmentation(resize=40, crop="random", flip=0.5),
    "random resized": RANDOM_RESIZED,
    "colours": Augmentation(crop="random", grayscale=0.3, **COLOURS),
}


@pytest.mark.parametrize("case", AUGMENTATIONS)
def test_host_and_device_agree(case: str) -> None:
    augmentation, size = AUGMENTATIONS[case], (24, 28)
    hosts = read(make(arrays(), augmentation))
    batches = make(arrays(), augmentation, place="device")
    layer = Augment(augmentation, size, data_format="channels_last", pca=PCA)
    for (host, labels), (device, other) in zip(hosts, read(batches), strict=True):
        np.testing.assert_array_equal(labels, other)
        computed = keras.ops.convert_to_numpy(layer(device))
        assert computed.std() > 20
        np.testing.assert_allclose(host["image"], computed, rtol=0, atol=2e-3)


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
@pytest.mark.parametrize("place", ["host", "device"])
@pytest.mark.parametrize("case", AUGMENTATIONS)
def test_inputs_describe_the_batches(case: str, place: str, framework: str) -> None:
    batches = make(arrays(), AUGMENTATIONS[case], place=place, framework=framework)
    epoch = batches.epoch(0)
    if framework == "tensorflow":
        inputs, labels = epoch.element_spec
        assert labels == tf.TensorSpec((None,), tf.int32)
        found = {name: (tuple(spec.shape[1:]), spec.dtype.name) for name, spec in inputs.items()}
    else:
        inputs, _ = next(iter(epoch))
        found = {name: (array.shape[1:], str(array.dtype)) for name, array in inputs.items()}
    assert found == batches.inputs
    assert set(found) - {"image"} <= ({"geometry", "colours"} if place == "device" else set())


@pytest.mark.parametrize("place", ["host", "device"])
def test_images_that_nothing_happens_to(place: str) -> None:
    examples = arrays()
    found = read(make(examples, Augmentation(), place=place, size=(32, 36)))
    assert all(inputs.keys() == {"image"} for inputs, _ in found)
    images, labels = joined(found)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, examples.images[labels])


def test_images_stay_bytes_until_something_makes_them_float() -> None:
    dtypes = {
        case: make(arrays(), augmentation).inputs["image"][1]
        for case, augmentation in AUGMENTATIONS.items()
    }
    assert {case for case, dtype in dtypes.items() if dtype == "uint8"} == {"none", "padded crop"}


def test_padded_crops_and_flips_are_exact() -> None:
    examples = arrays()
    images, labels = joined(read(make(examples, AUGMENTATIONS["padded crop"])))
    padded = np.pad(examples.images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    for image, label in zip(images, labels, strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(padded[label], (24, 28), (0, 1))
        windows = np.moveaxis(windows, 2, -1)  # (17, 17, 24, 28, 3)
        assert any((windows == view).all(axis=(2, 3, 4)).any() for view in (image, image[:, ::-1]))


def test_frameworks_see_the_same() -> None:
    augmentation = AUGMENTATIONS["colours"]
    for place in ("host", "device"):
        mine = read(make(arrays(), augmentation, place=place))
        for framework in ("jax", "tensorflow"):
            batches = make(arrays(), augmentation, place=place, framework=framework)
            epoch = batches.epoch(0)
            if framework == "tensorflow":
                assert isinstance(epoch, tf.data.Dataset)
                epoch = epoch.as_numpy_iterator()
            assert_same(list(epoch), mine)


def test_a_grey_network_sees_grey() -> None:
    examples = arrays()
    images, labels = joined(read(make(examples, Augmentation(), channels=1, size=(32, 36))))
    wanted = [np.asarray(Image.fromarray(examples.images[i]).convert("L")) for i in labels]
    np.testing.assert_array_equal(images[..., 0], wanted)
    with pytest.raises(DataError, match="the images are grey, but the network reads 3 channels"):
        make(arrays(channels=1), Augmentation())


def test_plans_are_not_kept() -> None:
    """`tf.numpy_function` keeps its functions for good; a plan of ImageNet has 160 MB."""
    batches = make(arrays(), RANDOM_RESIZED)
    read(batches, 0)
    first = weakref.ref(batches._epoch)
    read(batches, 1)
    gc.collect()
    assert first() is None


# Files


def by_torchvision(
    examples: Files, augmentation: Augmentation, size: tuple[int, int], seed: int
) -> np.ndarray:
    """What torchvision's transforms give for the boxes of epoch 0."""
    functional = pytest.importorskip("torchvision.transforms").functional
    plan = BatchSettings(augmentation, size, 1, seed=seed).plan(examples, epoch=0)
    images = []
    for position, index in enumerate(plan.order):
        image = Image.fromarray(decode_image(examples.paths[index]))
        draws = plan.draws.take(slice(position, position + 1))
        geometry = crop_geometry(augmentation, draws, image.height, image.width, size)[0]
        box, flip = geometry[:4].tolist(), geometry[4]
        whole = resized_size(augmentation, image.height, image.width)
        if whole is None:
            box = list(map(round, box))
            image = functional.resized_crop(
                image, *box, size, functional.InterpolationMode.BILINEAR
            )
        else:
            top, left = box[0] * whole[0] / image.height, box[1] * whole[1] / image.width
            image = functional.resize(image, whole, functional.InterpolationMode.BILINEAR)
            image = functional.crop(image, round(top), round(left), *size)
        images.append(np.asarray(functional.hflip(image) if flip else image))
    return np.stack(images)


@pytest.mark.parametrize(
    "augmentation",
    [
        RANDOM_RESIZED,
        Augmentation(resize=40, crop="random", flip=0.5),
        Augmentation(resize=60, crop="random", padding=6),
        Augmentation(resize=30, crop="center"),
        Augmentation(crop="random", flip=0.5),
    ],
    ids=["random resized", "resize and crop", "padded", "margins", "crop"],
)
def test_files_equal_torchvision(augmentation: Augmentation, tmp_path: Path) -> None:
    examples = photo_files(tmp_path)
    size = (36, 40)
    images, labels = joined(read(make(examples, augmentation, size=size)))
    assert images.dtype == np.uint8
    wanted = by_torchvision(examples, augmentation, size, seed=1)
    assert len(np.unique(labels)) == len(examples)
    steps = np.abs(images.astype(int) - wanted)
    if augmentation.crop == "random-resized":
        differences = steps.mean(axis=(1, 2, 3))
        assert np.median(differences) < 0.8
        assert differences.max() < 2
        return
    # Rational factors make ties, which rounding errors decide; Pillow rounds twice.
    assert steps.max() <= 2
    assert (steps > 0).mean() < 0.1


@pytest.mark.skipif(not PHOTOS, reason="scikit-learn's sample photos are missing")
@pytest.mark.parametrize(
    ("box", "limit"),
    [
        ((100, 100, 150, 150), 0.5),
        ((0, 0, 224, 224), 0.3),
        ((20, 60, 300, 260), 1.2),
        ((0, 30, 400, 320), 2.0),
    ],
)
def test_crops_of_photos(box: tuple[int, ...], limit: float) -> None:
    """Growing, as it is, shrinking; the limits are those that `crop` states."""
    functional = pytest.importorskip("torchvision.transforms").functional
    for flip in (False, True):
        for path in PHOTOS:
            got = crop(decode_image(path), np.array([*box, flip], np.float32), (224, 224), None)
            image = functional.resized_crop(
                Image.open(path), *box, [224, 224], functional.InterpolationMode.BILINEAR
            )
            wanted = np.asarray(functional.hflip(image) if flip else image).astype(int)
            assert np.abs(got - wanted).mean() < limit
            if max(box[2:]) <= 224:
                assert np.abs(got - wanted).max() <= 1


@pytest.mark.parametrize("shrink", [1.5, 2, 3.1])
def test_shrinking_does_not_alias(shrink: float) -> None:
    """Lines of a pixel turn into grey; taken pixel by pixel they would turn into broad bands."""
    side = round(64 * shrink)
    lines = np.zeros((side, side, 3), np.uint8)
    lines[:, ::2] = 255
    got = crop(lines, np.array([0, 0, side, side, 0], np.float32), (64, 64), None)[:, 2:-2]
    exact = Image.fromarray(lines).resize((64, 64), Image.Resampling.BILINEAR)
    assert abs(got.mean() - 127.5) < 3
    assert got.std() < 45
    assert np.asarray(exact)[:, 2:-2].std() < 45
    plain = tf.image.resize(lines, (64, 64)).numpy()[:, 2:-2]
    if shrink != 2:
        assert plain.std() > 1.4 * got.std()


def test_one_axis_shrinks_and_one_grows() -> None:
    lines = np.zeros((40, 96, 3), np.uint8)
    lines[:, ::2] = 255
    got = crop(lines, np.array([0, 0, 40, 96, 0], np.float32), (64, 64), None)[:, 2:-2]
    assert abs(got.mean() - 127.5) < 3
    assert got.std() < 45


@pytest.mark.parametrize("crop", ["random-resized", "random"])
def test_colours_of_files_on_host_and_device(crop: Any, tmp_path: Path) -> None:
    augmentation = Augmentation(resize=40, crop=crop, grayscale=0.3, **COLOURS)
    examples = photo_files(tmp_path)
    host = make(examples, augmentation)
    device = make(examples, augmentation, place="device")
    assert host.inputs == {"image": ((24, 28, 3), "float32")}
    assert device.inputs == {"image": ((24, 28, 3), "uint8"), "colours": ((12,), "float32")}
    layer = Augment(augmentation, (24, 28), data_format="channels_last", pca=PCA)
    for (mine, labels), (theirs, others) in zip(read(host), read(device), strict=True):
        np.testing.assert_array_equal(labels, others)
        assert {name: str(array.dtype) for name, array in theirs.items()} == {
            "image": "uint8",
            "colours": "float32",
        }
        computed = keras.ops.convert_to_numpy(layer(theirs))
        np.testing.assert_allclose(mine["image"], computed, rtol=0, atol=2e-3)


def test_files_in_grey(tmp_path: Path) -> None:
    examples = photo_files(tmp_path)
    augmentation = Augmentation(resize=50, crop="random")
    colours, labels = joined(read(make(examples, augmentation)))
    images, _ = joined(read(make(examples, augmentation, channels=1)))
    assert images.shape == (21, 24, 28, 1)
    luma = colours @ np.array([0.299, 0.587, 0.114])
    assert np.abs(images[..., 0] - luma).max() < 2
    assert len(labels) == 21


def test_cameras_are_held_upright(tmp_path: Path) -> None:
    upright = photo(60, 50)
    tags = Image.Exif()
    tags[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "phone.jpg", exif=tags)
    examples = Files((tmp_path / "phone.jpg",), np.zeros(1, np.int64))
    whole = Augmentation(crop="random-resized", scale=(1, 1), ratio=(50 / 60, 50 / 60))
    images, _ = joined(read(make(examples, whole, batch_size=1, size=(60, 50))))
    assert np.abs(images[0].astype(int) - np.asarray(upright)).mean() < 12
    wrong = np.asarray(upright.rotate(180)).astype(int)
    assert np.abs(images[0] - wrong).mean() > 30


# Bad files


def truncated(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def scrambled(content: bytes) -> bytes:
    """A JPEG whose header is fine, and whose Huffman tables are not."""
    place = content.index(b"\xff\xc4")
    return content[: place + 5] + bytes(40) + content[place + 45 :]


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (truncated, "damaged image (image file is truncated"),
    "scrambled": (scrambled, "damaged image (broken data stream"),
    "text": (lambda _: b"hello", "not an image that Pillow can read"),
    "empty": (lambda _: b"", "not an image that Pillow can read"),
}


def damage(examples: Files, places: dict[int, str]) -> dict[Path, str]:
    """Damage files at the places; return what should be said about them."""
    reasons = {}
    for index, kind in places.items():
        path = examples.paths[index]
        if kind == "missing":
            path.unlink()
            reasons[path] = "no such image file"
        else:
            change, reasons[path] = DAMAGE[kind]
            path.write_bytes(change(path.read_bytes()))
    return reasons


SOME = {0: "truncated", 6: "scrambled", 7: "missing", 8: "text", 13: "empty", 20: "truncated"}
BOTH = pytest.mark.parametrize(
    "augmentation",
    [RANDOM_RESIZED, Augmentation(resize=40, crop="random")],
    ids=["cut then resized", "resized then cut"],
)


@BOTH
def test_bad_files_are_named_and_left_out(augmentation: Augmentation, tmp_path: Path) -> None:
    examples = photo_files(tmp_path, kinds=("jpg",))
    reasons = damage(examples, SOME)
    good = np.setdiff1d(np.arange(21), list(SOME))
    runs = []
    for _ in range(2):
        batches = make(examples, augmentation, shuffle=False)
        found = read(batches)
        assert [len(labels) for _, labels in found] == [4, 4, 4, 3]
        np.testing.assert_array_equal(joined(found)[1], good)
        assert list(batches.skipped) == list(reasons)
        for path, reason in reasons.items():
            assert batches.skipped[path].startswith(reason)
        assert [batches.position(n) for n in range(5)] == [0, 5, 12, 17, 21]
        runs.append(found)
    assert_same(*runs)
    # Nobody takes their place: each image is that of its label, with its own random numbers.
    alone = make(examples, augmentation, shuffle=False, batch_size=1)
    for mine, wanted in zip(joined(runs[0]), joined(read(alone)), strict=True):
        np.testing.assert_array_equal(mine, wanted)


@BOTH
@pytest.mark.parametrize("drop_remainder", [False, True])
def test_the_rest_of_an_epoch_with_bad_files(
    augmentation: Augmentation, drop_remainder: bool, tmp_path: Path
) -> None:
    examples = photo_files(tmp_path, kinds=("jpg", "png"))
    damage(examples, dict.fromkeys((0, 1, 5, 9, 10, 11, 17), "text"))
    options = {"drop_remainder": drop_remainder, "batch_size": 3}
    batches = make(examples, augmentation, **options)
    whole = read(batches, 4)
    assert len(whole) == (4 if drop_remainder else 5)
    ends = [batches.position(n) for n in range(len(whole) + 1)]
    assert ends[0] == 0
    assert ends[-1] == 21
    for done, start in enumerate(ends):
        again = make(examples, augmentation, **options)
        assert_same(read(again, 4, start), whole[done:])
        assert [again.position(n) for n in range(len(whole) + 1 - done)] == ends[done:]


def test_a_last_batch_of_nothing_but_bad_photo_files(tmp_path: Path) -> None:
    examples = photo_files(tmp_path, count=8, kinds=("jpg",))
    damage(examples, dict.fromkeys((4, 5, 6, 7), "truncated"))
    batches = make(examples, RANDOM_RESIZED, shuffle=False)
    assert len(read(batches)) == 1
    assert batches.position(1) == 8
    assert len(batches.skipped) == 4
    assert read(batches, 0, 8) == []


def test_nothing_but_bad_photo_files(tmp_path: Path) -> None:
    examples = photo_files(tmp_path, count=5, kinds=("jpg",))
    damage(examples, dict.fromkeys(range(5), "truncated"))
    text = r"none of 5 images can be used; the first that cannot: .*truncated"
    with pytest.raises(DataError, match=text):
        make(examples, RANDOM_RESIZED).epoch(0)


def test_too_few_good_files_for_a_batch(tmp_path: Path) -> None:
    examples = photo_files(tmp_path, count=5, kinds=("jpg",))
    damage(examples, dict.fromkeys(range(3), "text"))
    with pytest.raises(DataError, match="only 2, fewer than the batch_size 4, of 5 images"):
        make(examples, RANDOM_RESIZED, drop_remainder=True).epoch(0)
    assert len(read(make(examples, RANDOM_RESIZED))) == 1


def test_images_smaller_than_their_crop(tmp_path: Path) -> None:
    examples = photo_files(tmp_path, count=6)
    photo(20, 90).save(examples.paths[2])
    batches = make(examples, Augmentation(crop="random"))
    assert len(joined(read(batches))[1]) == 5
    assert "random crop of 24 pixels does not fit" in batches.skipped[examples.paths[2]]
    with pytest.raises(DataError, match="random crop of 40 pixels does not fit into an image"):
        make(arrays(), Augmentation(crop="random"), size=(40, 40))


# Arguments


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": 512}, "batch_size 512 is larger than the 23 training examples; make it 23"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"place": "gpu"}, "place must be 'host' or 'device', got 'gpu'"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        make(arrays(), Augmentation(), **options)


def test_wrong_places_and_missing_components() -> None:
    batches = make(arrays(), Augmentation(), size=(32, 36))
    for start in (-1, 24):
        with pytest.raises(ConfigurationError, match="23 examples cannot begin at position"):
            batches.epoch(0, start)
    with pytest.raises(ConfigurationError, match="grey images have no colours"):
        make(arrays(channels=1), Augmentation(hue=0.1), channels=1)
    settings = BatchSettings(Augmentation(pca=0.1), (32, 36), batch_size=4)
    with pytest.raises(ConfigurationError, match="needs the principal components"):
        TrainingBatches(arrays(), settings, framework="torch")


WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = None  # as Python marks what cannot be imported
from pathlib import Path
import numpy as np
from keras_alexnet.data.augmentation.record import Augmentation
from keras_alexnet.data.batches.plan import BatchSettings
from keras_alexnet.data.batches.training import TrainingBatches
from keras_alexnet.data.examples import Arrays, Files
from keras_alexnet.errors import MissingDependencyError

def make(examples, place, **options):
    augmentation = Augmentation(crop="random-resized", flip=.5, **options)
    settings = BatchSettings(augmentation, (8, 8), batch_size=2, place=place)
    return TrainingBatches(examples, settings, framework="torch")

arrays = Arrays(np.zeros((5, 8, 8, 3), np.uint8), np.arange(5))
files = Files((Path(sys.argv[1]),) * 5, np.arange(5))
for examples in (arrays, files):
    for options in ({}, {"hue": .1}):
        batches = make(examples, "device", **options).epoch(0)
        print(sorted(int(label) for _, labels in batches for label in labels))
make(files, "host")
for examples, options in ((arrays, {}), (files, {"hue": .1})):
    try:
        make(examples, "host", **options)
    except MissingDependencyError as error:
        print(error)
"""


def test_without_tensorflow(run_python: Any, tmp_path: Path) -> None:
    photo(60, 50).save(tmp_path / "a.jpg")
    result = run_python(WITHOUT_TENSORFLOW, tmp_path / "a.jpg", KERAS_BACKEND="torch")
    lines = result.stdout.splitlines()
    assert lines[:4] == ["[0, 1, 2, 3, 4]"] * 4
    for line in lines[4:]:
        assert line.startswith("tensorflow is needed here and is not installed")
        assert "on the device that needs no TensorFlow (--augment-on device)" in line
    assert len(lines) == 6
