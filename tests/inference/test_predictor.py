"""Probabilities: preprocessing, views, the kinds of models, and files."""

import json
import math
import re
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torchvision
from helpers.classifiers import (
    GREY,
    PLAIN,
    linear,
    logits_of,
    lookup,
    lookup_examples,
    lookup_preprocessing,
    record_of,
    softmax,
)
from helpers.models import variant
from PIL import Image

from keras_alexnet import create_model
from keras_alexnet.data.examples import Arrays, Files
from keras_alexnet.data.preprocessing import resize_and_crop
from keras_alexnet.errors import ConfigurationError, ModelFileError
from keras_alexnet.inference.predictor import Predictor
from keras_alexnet.inference.views import Views, ten_crops
from keras_alexnet.models.interface import input_of
from keras_alexnet.models.record import MEMBER, save_model
from keras_alexnet.specs import SPECS
from keras_alexnet.specs.preprocessing import Preprocessing
from porting.tolerances import TOLERANCES

SMALL = Preprocessing(8, (8, 8), **PLAIN)
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)


def _examples(pixels: np.ndarray) -> Arrays:
    return Arrays(pixels, np.zeros(len(pixels), np.int64))


def _predict(predictor: Predictor, examples: Any) -> np.ndarray:
    batches = [predictor.probabilities(views) for views, _ in predictor.batches(examples)]
    return np.concatenate(batches)


@pytest.fixture
def model() -> Any:
    return linear((8, 8, 3), 4)


# Models


def test_probabilities_of_logits(model: Any) -> None:
    got = _predict(Predictor(model, SMALL, normalized=True), _examples(PIXELS))
    assert (got.dtype, got.shape) == (np.float64, (7, 4))
    np.testing.assert_allclose(got, softmax(logits_of(model, PIXELS)), rtol=1e-5)
    np.testing.assert_allclose(got.sum(axis=1), 1, rtol=1e-12)


def _with_layer(model: Any) -> Any:
    return keras.Model(model.input, keras.layers.Activation("softmax")(model.output))


def _with_softmax_layer(model: Any) -> Any:
    return keras.Model(model.input, keras.layers.Softmax()(model.output))


def _with_softmax_in_the_dense_layer(model: Any) -> Any:
    model.get_layer("classifier").activation = keras.activations.softmax
    return model


def _nested(model: Any) -> Any:
    image = keras.Input((8, 8, 3))
    return keras.Model(image, _with_layer(model)(image))


def _sequential(model: Any) -> Any:
    layers = [keras.layers.Flatten(), keras.layers.Dense(4), keras.layers.Softmax()]
    built = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    built.set_weights(model.get_weights())
    return built


@pytest.mark.parametrize(
    "build",
    [
        _with_layer,
        _with_softmax_layer,
        _with_softmax_in_the_dense_layer,
        _nested,
        _sequential,
    ],
)
def test_a_softmax_is_not_taken_twice(model: Any, build: Callable[[Any], Any]) -> None:
    wanted = softmax(logits_of(model, PIXELS))
    predictor = Predictor(build(model), SMALL, normalized=True)
    np.testing.assert_allclose(_predict(predictor, _examples(PIXELS)), wanted, rtol=1e-5)


def test_logits_keep_what_a_softmax_would_round_to_nothing() -> None:
    predictor = Predictor(lookup(2, scale=1.0), lookup_preprocessing(2), normalized=True)
    ((views, _),) = predictor.batches(lookup_examples([[255, 0]], [0]))
    logs = predictor.log_probabilities(views)
    np.testing.assert_allclose(logs, [[-math.exp(-255), -255.0]], atol=1e-12)
    with_softmax = Predictor(
        _with_layer(lookup(2, scale=1.0)), lookup_preprocessing(2), normalized=True
    )
    assert -100 < with_softmax.log_probabilities(views)[0, 1] < -80


def test_auxiliary_heads_are_left_out(model: Any) -> None:
    aux = keras.layers.Dense(4)(keras.layers.Flatten()(model.input))
    both = keras.Model(model.input, {"aux1": aux, "logits": model.output})
    got = _predict(Predictor(both, SMALL, normalized=True), _examples(PIXELS))
    np.testing.assert_allclose(got, softmax(logits_of(model, PIXELS)), rtol=1e-5)


def test_channels_first(model: Any) -> None:
    first = linear((8, 8, 3), 4, first=True)
    first.set_weights(model.get_weights())  # Flatten transposes
    got = _predict(Predictor(first, SMALL, normalized=True), _examples(PIXELS))
    np.testing.assert_allclose(got, softmax(logits_of(model, PIXELS)), rtol=1e-5)


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_normalisation_outside_of_the_model(model: Any, channels: str) -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    preprocessing = Preprocessing(8, (8, 8), mean, std, channels, 255.0)  # type: ignore[arg-type]
    got = _predict(Predictor(model, preprocessing, normalized=False), _examples(PIXELS))
    pixels = PIXELS if channels == "RGB" else PIXELS[..., ::-1]
    wanted = softmax(logits_of(model, (pixels / 255 - mean) / std))
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    inside = Predictor(model, preprocessing, normalized=True)
    wanted = softmax(logits_of(model, PIXELS))
    np.testing.assert_allclose(_predict(inside, _examples(PIXELS)), wanted, rtol=1e-5)


def test_batches_have_one_shape(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise JAX would compile a last, smaller batch anew."""
    predictor = Predictor(model, SMALL, normalized=True, batch_size=3)
    shapes = []
    compute = predictor._network.predict_on_batch
    monkeypatch.setattr(
        predictor._network, "predict_on_batch", lambda x: shapes.append(len(x)) or compute(x)
    )
    got = _predict(predictor, _examples(PIXELS))
    np.testing.assert_allclose(got, softmax(logits_of(model, PIXELS)), rtol=1e-5)
    assert shapes == [3, 3, 3]
    alone = Predictor(model, SMALL, normalized=True)
    assert len(_predict(alone, _examples(PIXELS[:1]))) == 1
    assert alone._rows == 1  # one photo costs no batch


# Views


def test_mirror(model: Any) -> None:
    got = _predict(Predictor(model, SMALL, normalized=True, views="mirror"), _examples(PIXELS))
    both = [softmax(logits_of(model, p)) for p in (PIXELS, PIXELS[:, :, ::-1])]
    np.testing.assert_allclose(got, np.mean(both, axis=0), rtol=1e-5)


@pytest.mark.parametrize("size", [(31, 20), (20, 33), (12, 12), (13, 12)])
def test_ten_crops_are_those_of_torchvision(size: tuple[int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8))
    preprocessing = Preprocessing(12, (8, 11), **PLAIN)
    resized = torchvision.transforms.Resize(12)(image)
    wanted = [np.asarray(crop) for crop in torchvision.transforms.TenCrop((8, 11))(resized)]
    got = ten_crops(image, preprocessing)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(got[4], resize_and_crop(image, preprocessing))


def test_ten_crop_averages_probabilities(model: Any, tmp_path: Path) -> None:
    paths = []
    for number, size in enumerate([(9, 15), (20, 10), (16, 16)]):
        image = Image.fromarray(RNG.integers(0, 256, (*size, 3), dtype=np.uint8))
        paths.append(tmp_path / f"{number}.png")
        image.save(paths[-1])
    preprocessing = replace(SMALL, resize_size=12)
    for batch_size in (64, 20, 3):
        predictor = Predictor(
            model, preprocessing, normalized=True, views="ten-crop", batch_size=batch_size
        )
        got = _predict(predictor, Files(tuple(paths), np.zeros(3, np.int64)))
        wanted = [
            softmax(logits_of(model, ten_crops(Image.open(path), preprocessing))).mean(axis=0)
            for path in paths
        ]
        np.testing.assert_allclose(got, wanted, rtol=1e-5)


def test_ten_crop_of_arrays(model: Any) -> None:
    preprocessing = replace(SMALL, resize_size=10)
    predictor = Predictor(model, preprocessing, normalized=True, views=Views.TEN_CROP)
    got = _predict(predictor, _examples(PIXELS))
    crops = [ten_crops(image, preprocessing) for image in PIXELS]
    wanted = [softmax(logits_of(model, crop)).mean(axis=0) for crop in crops]
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    grey = Preprocessing(10, (8, 8), **GREY)
    predictor = Predictor(linear((8, 8, 1), 2), grey, normalized=True, views=Views.TEN_CROP)
    assert _predict(predictor, _examples(PIXELS[..., :1])).shape == (7, 2)


def test_views_that_there_is_no_room_for(model: Any) -> None:
    predictor = Predictor(model, SMALL, normalized=True, views="ten-crop")
    with pytest.raises(
        ConfigurationError,
        match="ten-crop needs images larger than the 8 x 8 pixels that the model takes, but they "
        "are resized to 8 x 8",
    ):
        predictor.batches(_examples(PIXELS))
    narrow = replace(SMALL, resize_size=7)
    with pytest.raises(ConfigurationError, match="leave no room for the crop of 8 x 8"):
        Predictor(model, narrow, normalized=True)
    wide = replace(SMALL, resize_size=9, crop_size=(8, 10))
    with pytest.raises(ConfigurationError, match="ten-crop cuts 8 x 10 pixels out of images whose"):
        Predictor(model, wide, normalized=True, views="ten-crop")
    with pytest.raises(ValueError, match="'five' is not a valid Views"):
        Predictor(model, SMALL, normalized=True, views="five")


# Models that are none to predict with


def _outputs(outputs: Any) -> Any:
    image = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()(image)
    return keras.Model(image, outputs(image, flat), name="odd")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda image, flat: keras.layers.ReLU()(image), "odd gives no scores of classes: a"),
        (lambda image, flat: [flat, flat], "odd gives no scores of classes: a classifier's output"),
        (lambda image, flat: {"a": flat, "b": image}, "this model's is {'a': (None, 192), 'b': ("),
        (lambda image, flat: keras.layers.Dense(3, activation="sigmoid")(flat), "with 'sigmoid'"),
    ],
)
def test_no_classifiers(build: Any, message: str) -> None:
    with pytest.raises(ModelFileError, match=re.escape(message)):
        Predictor(_outputs(build), SMALL, normalized=True)


def test_other_mistakes(model: Any) -> None:
    with pytest.raises(ModelFileError, match=r"takes \(8, 8, 3\), not images of 1 channels \(L\)"):
        Predictor(model, Preprocessing(8, (8, 8), **GREY), normalized=True)
    with pytest.raises(ModelFileError, match="has 4 classes, but there are 2 labels"):
        Predictor(model, SMALL, normalized=True, labels=("a", "b"))
    images = [keras.Input((8, 8, 3)), keras.Input((8, 8, 3))]
    two = keras.Model(images, keras.layers.Flatten()(keras.layers.Add()(images)))
    with pytest.raises(ModelFileError, match="is no functional or sequential model of one image"):
        Predictor(two, SMALL, normalized=True)
    kernel, bias = model.get_layer("classifier").get_weights()
    model.get_layer("classifier").set_weights([kernel * np.nan, bias])
    with pytest.raises(ModelFileError, match="its outputs are not finite"):
        _predict(Predictor(model, SMALL, normalized=True), _examples(PIXELS))


# Files


def test_a_file_says_how_to_use_it(model: Any, tmp_path: Path) -> None:
    preprocessing = Preprocessing(9, (8, 8), (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), "BGR", 100.0)
    record = record_of(model, preprocessing, included=False, labels=["a", "b", "c", "d"])
    save_model(model, tmp_path / "model.keras", record)
    predictor = Predictor.from_file(tmp_path / "model.keras", batch_size=5, views="mirror")
    assert (predictor.preprocessing, predictor.labels) == (preprocessing, ("a", "b", "c", "d"))
    assert (predictor.batch_size, predictor.views, predictor.classes) == (5, Views.MIRROR, 4)
    here = Predictor(model, preprocessing, normalized=False, batch_size=5, views="mirror")
    got = [_predict(p, _examples(PIXELS)) for p in (predictor, here)]
    # The loaded model computes by faster layers.
    np.testing.assert_allclose(*got, rtol=TOLERANCES["logits"].limit)


def test_sizes_follow_the_model(tmp_path: Path) -> None:
    """A converted file of another input size has the record of its weights."""
    model = linear((32, 24, 3), 2)
    save_model(model, tmp_path / "model.keras", record_of(model, Preprocessing()))
    predictor = Predictor.from_file(tmp_path / "model.keras")
    assert (predictor.preprocessing.resize_size, predictor.preprocessing.crop_size) == (
        37,
        (32, 24),
    )


def test_a_file_without_a_record(small: Any, model: Any, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    ours = create_model("lenet5", include_preprocessing=True)
    ours.save(tmp_path / "ours.keras")
    predictor = Predictor.from_file(tmp_path / "ours.keras")
    assert predictor.preprocessing == SPECS["lenet5"].preprocessing
    assert predictor.labels is None
    small.save(tmp_path / "bare.keras")
    model.save(tmp_path / "foreign.keras")
    for name in ("bare", "foreign"):
        path = tmp_path / f"{name}.keras"
        with pytest.raises(ModelFileError, match="it was saved without a record of its") as caught:
            Predictor.from_file(path)
        assert str(caught.value).startswith(f"{path}: ")


def _replace_record(path: Path, content: Any) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[MEMBER] = json.dumps(content).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda r: r.pop("preprocessing"), "preprocessing is None; wanted: an object with resize"),
        (lambda r: r.pop("model"), "model.include_preprocessing is None; wanted: true or false"),
        (lambda r: r["model"].update(include_preprocessing="no"), "processing is 'no'; wanted: t"),
        (
            lambda r: r["preprocessing"].update(resize_mode="cubic"),
            "preprocessing is ['resize_mode']; wanted: fields among resize_size, crop_size, mean",
        ),
        (lambda r: r["preprocessing"].update(crop_size=8), "crop_size is 8; wanted: two whole num"),
        (lambda r: r["preprocessing"].update(crop_size=[8, 0]), "crop_size is [8, 0]; wanted: two"),
        (lambda r: r["preprocessing"].update(resize_size="9"), "resize_size is '9'; wanted: a who"),
        (lambda r: r["preprocessing"].update(channels=7), "channels is 7; wanted: one of RGB, BGR"),
        (lambda r: r["preprocessing"].update(channels="L"), "mean is [0.0, 0.0, 0.0]; wanted: 1 n"),
        (lambda r: r["preprocessing"].update(mean=[0, 0, math.nan]), "mean is [0, 0, nan]; wanted"),
        (lambda r: r["preprocessing"].update(std=[1, 1, 0]), "std is [1, 1, 0]; wanted: 3 numbers"),
        (lambda r: r["preprocessing"].update(scale=True), "scale is True; wanted: a number above"),
        (lambda r: r.update(labels=7), "labels is 7; wanted: a list of names, or null"),
    ],
)
def test_a_damaged_record(
    model: Any, tmp_path: Path, change: Callable[[Any], Any], found: str
) -> None:
    path = tmp_path / "model.keras"
    record = json.loads(json.dumps(record_of(model, SMALL)))
    save_model(model, path, record)
    change(record)
    _replace_record(path, {"format": 1, **record})
    with pytest.raises(ModelFileError, match=re.escape(found)) as caught:
        Predictor.from_file(path)
    assert str(caught.value).startswith(f"{path}: the file's record is damaged (")
    with pytest.raises(ModelFileError, match=re.escape(found)):
        input_of(model, record)


@pytest.mark.parametrize("name", SPECS)
def test_a_record_gives_the_preprocessing_back(name: str) -> None:
    wanted = SPECS[name].preprocessing
    values = json.loads(json.dumps(asdict(wanted)))
    assert Preprocessing.from_record(values) == wanted
    # A file from before there was a field has what was true then.
    del values["scale"]
    assert Preprocessing.from_record(values) == replace(wanted, scale=255.0)


def test_files_that_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "text.keras").write_text("text")
    for name, message in {
        "none.keras": "no such file",
        "text.keras": r"not a .keras archive, or truncated",
        "": "a folder, not a .keras file",
    }.items():
        with pytest.raises(ModelFileError, match=message):
            Predictor.from_file(tmp_path / name)


# Frameworks

CHILD = """
import sys
import numpy as np
from keras_alexnet.data.examples import Arrays
from keras_alexnet.inference.predictor import Predictor
folder = sys.argv[1]
images = np.load(f"{folder}/images.npy")
examples = Arrays(images, np.zeros(len(images), np.int64))
for name in ("first", "last"):
    predictor = Predictor.from_file(f"{folder}/{name}.keras", batch_size=4)
    batches = [predictor.probabilities(views) for views, _ in predictor.batches(examples)]
    np.save(f"{folder}/{name}.npy", np.concatenate(batches))
"""


@pytest.fixture(scope="module")
def lenets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """LeNet-5 in two files with the same weights, images, and this backend's probabilities."""
    folder = tmp_path_factory.mktemp("lenets")
    keras.utils.set_random_seed(0)
    last = create_model("lenet5", include_preprocessing=True, classifier_activation="softmax")
    first = variant(last, "lenet5", data_format="channels_first", input_shape=(1, 28, 28))
    preprocessing = SPECS["lenet5"].preprocessing
    save_model(last, folder / "last.keras", record_of(last, preprocessing))
    save_model(first, folder / "first.keras", record_of(first, preprocessing, included=False))
    images = RNG.integers(0, 256, (6, 28, 28, 1), dtype=np.uint8)
    np.save(folder / "images.npy", images)
    return folder, {
        name: _predict(Predictor.from_file(folder / f"{name}.keras"), _examples(images))
        for name in ("first", "last")
    }


def test_what_a_file_holds_makes_no_difference(
    lenets: tuple[Path, dict[str, np.ndarray]],
) -> None:
    _, here = lenets
    np.testing.assert_allclose(here["first"], here["last"], rtol=1e-5)


@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=pytest.mark.slow)])
def test_backends_agree(
    lenets: tuple[Path, dict[str, np.ndarray]], run_python: Any, backend: str
) -> None:
    folder, here = lenets
    run_python(CHILD, folder, KERAS_BACKEND=backend)
    for name, wanted in here.items():
        np.testing.assert_allclose(np.load(folder / f"{name}.npy"), wanted, rtol=1e-5)
