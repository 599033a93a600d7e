"""Metrics against scikit-learn's and against sums by hand."""

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
from helpers.classifiers import (
    digits_file,
    lookup,
    lookup_examples,
    lookup_preprocessing,
    record_of,
    softmax,
)
from PIL import Image

from keras_alexnet import create_model
from keras_alexnet.data.examples import Examples, Files
from keras_alexnet.data.sources.registry import open_data
from keras_alexnet.errors import DataError
from keras_alexnet.inference.analysis import ClassResult
from keras_alexnet.inference.evaluation import Evaluation, evaluate
from keras_alexnet.inference.predictor import Predictor
from keras_alexnet.models.initialization import weights_will_follow
from keras_alexnet.models.record import save_model
from keras_alexnet.specs import SPECS
from porting import load_state_dict

NAMES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")


def _predictor(classes: int, **options: Any) -> Predictor:
    return Predictor(lookup(classes), lookup_preprocessing(classes), normalized=True, **options)


def _evaluate(pixels: Any, labels: Any, **options: Any) -> Evaluation:
    classes = len(pixels[0])
    return evaluate(
        _predictor(classes, **options), lookup_examples(pixels, labels), NAMES[:classes]
    )


@pytest.fixture(scope="module")
def random_data() -> tuple[np.ndarray, np.ndarray]:
    """Pixels (200, 7) and labels, of which more than chance are right; classes 5 and 6 are rare."""
    rng = np.random.default_rng(0)
    labels = rng.choice(7, 200, p=[0.3, 0.2, 0.2, 0.15, 0.1, 0.05, 0])
    pixels = rng.integers(0, 60, (200, 7))
    pixels[np.arange(200), labels] += 15
    return pixels, labels


@pytest.fixture(scope="module")
def result(random_data: tuple[np.ndarray, np.ndarray]) -> Evaluation:
    return _evaluate(*random_data, batch_size=64)


def test_numbers_are_those_of_scikit_learn(
    random_data: tuple[np.ndarray, np.ndarray], result: Evaluation
) -> None:
    pixels, labels = random_data
    probabilities = softmax(pixels * 0.1)
    best = probabilities.argmax(axis=1)
    every = list(range(7))
    assert 0.3 < result.top1 < 0.9
    assert result.top5 is not None
    assert result.top1 < result.top5 < 1
    assert result.loss == pytest.approx(
        sklearn.metrics.log_loss(labels, probabilities, labels=every), rel=1e-6
    )
    assert result.top1 == sklearn.metrics.accuracy_score(labels, best)
    assert result.top5 == pytest.approx(
        sklearn.metrics.top_k_accuracy_score(labels, probabilities, k=5, labels=every), abs=0.03
    )  # up to how it breaks ties
    assert result.macro_f1 == pytest.approx(
        sklearn.metrics.f1_score(labels, best, average="macro", zero_division=0)
    )
    np.testing.assert_array_equal(
        result.confusion, sklearn.metrics.confusion_matrix(labels, best, labels=every)
    )
    assert result.confusion.dtype == np.int64
    np.testing.assert_array_equal(result.predictions, best)
    np.testing.assert_allclose(result.confidences, probabilities.max(axis=1), rtol=1e-6)
    np.testing.assert_array_equal(result.labels, labels)
    np.testing.assert_array_equal(result.indices, np.arange(200))


def test_numbers_by_class_add_up(result: Evaluation) -> None:
    counts = np.array([row.images for row in result.per_class])
    assert counts.sum() == 200
    present = [row for row in result.per_class if row.images]
    assert [row.name for row in result.per_class] == list(NAMES)
    for key, total in (("loss", result.loss), ("accuracy", result.top1), ("top5", result.top5)):
        assert sum(row.images * getattr(row, key) for row in present) / 200 == pytest.approx(total)
    rows = sklearn.metrics.classification_report(
        result.labels, result.predictions, labels=range(7), output_dict=True, zero_division=np.nan
    )
    for index, row in enumerate(result.per_class):
        expected = rows[str(index)]
        assert row.images == expected["support"]
        for value, key in ((row.accuracy, "recall"), (row.precision, "precision")):
            wanted = None if math.isnan(expected[key]) else pytest.approx(expected[key])
            assert value == wanted


def test_a_small_case_by_hand() -> None:
    """Three classes: one right, one wrong, one without images, and no image called the third."""
    result = _evaluate([[20, 0, 0], [10, 0, 0]], [0, 1])
    losses = [math.log(1 + 2 * math.exp(-2)), 1 + math.log(1 + 2 * math.exp(-1))]
    assert result.loss == pytest.approx(sum(losses) / 2)
    assert (result.top1, result.top5) == (0.5, None)
    assert result.macro_f1 == pytest.approx((2 / 3 + 0) / 2)  # of the classes that occur
    assert result.confusion.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert result.per_class == (
        ClassResult("ant", 1, pytest.approx(losses[0]), 1.0, None, 0.5, pytest.approx(2 / 3)),
        ClassResult("bee", 1, pytest.approx(losses[1]), 0.0, None, None, 0.0),
        ClassResult("cat", 0, None, None, None, None, None),
    )


def test_a_model_that_cannot_decide_is_not_right() -> None:
    """Equal scores rank by index, so that a dead network has the accuracy of chance."""
    result = _evaluate(np.full((7, 7), 9), np.arange(7))
    assert result.top1 == pytest.approx(1 / 7)
    assert result.top5 == pytest.approx(5 / 7)
    assert result.loss == pytest.approx(math.log(7))


def test_top5_of_five_classes() -> None:
    assert _evaluate([[9, 0, 0, 0, 0]], [4]).top5 == 1
    assert _evaluate([[9, 0, 0, 0]], [3]).top5 is None


def test_json(result: Evaluation) -> None:
    content = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert content["loss"] == result.loss
    assert content["images"] == 200
    assert content["classes"] == list(NAMES)
    assert content["confusion"] == result.confusion.tolist()
    assert content["per_class"][6]["accuracy"] is None
    assert content["calibration"]["ece"] == result.calibration.ece
    assert sum(part["images"] for part in content["calibration"]["bins"]) == 200
    assert len(content["mistakes"]) == 20
    assert content["per_class"][0] == {
        "name": "ant",
        "images": 53,
        **{
            key: getattr(result.per_class[0], key)
            for key in ("loss", "accuracy", "top5", "precision", "f1")
        },
    }


def test_most_confident_mistakes(
    random_data: tuple[np.ndarray, np.ndarray], result: Evaluation
) -> None:
    pixels, labels = random_data
    probabilities = softmax(pixels * 0.1)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    confidences = probabilities.max(axis=1)
    expected = sorted(wrong, key=lambda i: -confidences[i])[:20]
    assert [mistake.index for mistake in result.mistakes] == expected
    for mistake in result.mistakes:
        assert (mistake.label, mistake.path) == (labels[mistake.index], None)
        assert mistake.prediction == probabilities[mistake.index].argmax()
        assert mistake.confidence == pytest.approx(confidences[mistake.index], rel=1e-6)


def test_progress() -> None:
    seen: list[int] = []
    examples = lookup_examples(np.zeros((10, 3)), np.zeros(10, int))
    evaluate(_predictor(3, batch_size=4), examples, NAMES[:3], on_batch=seen.append)
    assert seen == [4, 8, 10]


def _files(folder: Path, pixels: Any, labels: Any, damaged: tuple[int, ...]) -> Files:
    paths = []
    for number, row in enumerate(np.asarray(pixels, np.uint8)):
        paths.append(folder / f"{number}.png")
        Image.fromarray(row[None]).save(paths[-1])
        if number in damaged:
            paths[-1].write_bytes(b"no image")
    return Files(tuple(paths), np.asarray(labels, np.int64))


def test_unreadable_files_are_left_out(tmp_path: Path) -> None:
    pixels, labels = np.eye(4)[[0, 1, 2, 3, 0, 1]] * 90, [0, 1, 2, 3, 3, 1]
    files = _files(tmp_path, pixels, labels, damaged=(1, 3))
    result = evaluate(_predictor(4, batch_size=2), files, NAMES[:4])
    assert result.indices.tolist() == [0, 2, 4, 5]
    assert result.labels.tolist() == [0, 2, 3, 1]
    assert result.predictions.tolist() == [0, 2, 0, 1]
    assert result.top1 == 0.75
    assert list(result.skipped) == [files.paths[1], files.paths[3]]
    assert all("image" in reason for reason in result.skipped.values())
    (mistake,) = result.mistakes
    assert (mistake.index, mistake.path) == (4, str(files.paths[4]))
    assert (mistake.label, mistake.prediction) == (3, 0)
    assert list(result.to_json()["skipped"]) == [str(files.paths[1]), str(files.paths[3])]


def test_nothing_but_unreadable_files(tmp_path: Path) -> None:
    files = _files(tmp_path, np.zeros((2, 4)), [0, 0], damaged=(0, 1))
    with pytest.raises(DataError, match=r"none of 2 images can be read; the first: .*0\.png"):
        evaluate(_predictor(4), files, NAMES[:4])


# Whose classes


def test_the_same_names_in_another_order() -> None:
    predictor = _predictor(3, labels=("cat", "ant", "bee"))
    examples = lookup_examples([[90, 0, 0], [0, 90, 0], [0, 0, 90]], [2, 0, 1])
    result = evaluate(predictor, examples, ("ant", "bee", "cat"))
    assert result.top1 == 1
    assert result.predictions.tolist() == [2, 0, 1]


@pytest.mark.parametrize("padded", [False, True])
def test_numbers_are_matched_by_number_whatever_their_order(padded: bool) -> None:
    """Folders are sorted as text, the lines of a CSV file as numbers."""
    numbers = [f"{n:02}" if padded else str(n) for n in range(12)]
    as_text = tuple(sorted(map(str, range(12))))  # 0, 1, 10, 11, 2, …
    predictor = _predictor(12, labels=as_text)
    pixels = np.eye(12, dtype=np.uint8)[[as_text.index(str(n)) for n in range(12)]] * 90
    examples = lookup_examples(pixels, list(range(12)))
    assert evaluate(predictor, examples, tuple(numbers)).top1 == 1
    by_text = lookup_examples(np.eye(12, dtype=np.uint8) * 90, list(range(12)))
    assert evaluate(predictor, by_text, as_text).top1 == 1
    assert evaluate(_predictor(12, labels=tuple(numbers)), examples, as_text).top1 < 1


def test_numbers_in_no_order_of_their_own_are_no_positions() -> None:
    predictor = _predictor(3, labels=("0", "10", "2"))
    with pytest.raises(DataError, match="'ant' is none of '0', '10', '2'"):
        evaluate(predictor, lookup_examples([[90, 0, 0]], [0]), ("ant", "bee", "cat"))


def test_some_of_the_models_classes() -> None:
    """They are evaluated among all of them."""
    predictor = _predictor(4, labels=("dog", "cat", "ant", "bee"))
    examples = lookup_examples([[0, 0, 90, 0], [0, 90, 0, 0], [90, 0, 0, 0]], [0, 1, 1])
    result = evaluate(predictor, examples, ("ant", "cat"))
    assert result.classes == predictor.labels
    assert result.labels.tolist() == [2, 1, 1]
    assert result.predictions.tolist() == [2, 1, 0]
    assert result.top1 == pytest.approx(2 / 3)
    assert [c.images for c in result.per_class] == [0, 2, 1, 0]


def test_a_class_that_the_model_has_twice() -> None:
    predictor = _predictor(3, labels=("crane", "crane", "ant"))
    with pytest.raises(DataError, match="two classes 'crane'"):
        evaluate(predictor, lookup_examples([[90, 0, 0]], [1]), ("ant", "crane"))


@pytest.mark.parametrize("labels", [("ant", "bee", "cat"), ("0", "1", "2"), None])
def test_numbers_say_nothing_about_names(labels: Any) -> None:
    examples = lookup_examples([[90, 0, 0]], [0])
    for classes in (("0", "1", "2"), ("ant", "bee", "cat")):
        assert evaluate(_predictor(3, labels=labels), examples, classes).top1 == 1


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("ant", "cow"), "the model has 3 classes, the data have 2, which are not among them by"),
        (
            ("ant", "bee", "cow"),
            "the classes of the data are not those of the model: 'cow' is none of 'ant', 'bee', "
            "'cat'; evaluate it on data of the classes that it was trained for, or say which is "
            "which with --class-map",
        ),
    ],
)
def test_other_classes(classes: tuple[str, ...], message: str) -> None:
    examples: Examples = lookup_examples([[90, 0, 0]], [0])
    with pytest.raises(DataError, match=re.escape(message)):
        evaluate(_predictor(3, labels=("ant", "bee", "cat")), examples, classes)


def test_digits(tmp_path: Path) -> None:
    """From a file and embedded data: least squares know nine digits of ten."""
    data = open_data("digits")
    assert data.test is not None
    path = digits_file(tmp_path / "digits.keras")
    result = evaluate(Predictor.from_file(path), data.test, data.classes)
    assert result.top1 > 0.9
    assert result.loss < 0.6
    assert result.macro_f1 == pytest.approx(result.top1, abs=0.02)
    mirrored = evaluate(Predictor.from_file(path, views="mirror"), data.test, data.classes)
    assert mirrored.top1 < result.top1  # digits are no mirror images of themselves


@pytest.mark.slow
def test_real_weights_on_real_photos(shared_data: Path, tmp_path: Path) -> None:
    """BVLC's GoogLeNet (BGR, means, LRN) from its file: thousand classes, photos of any size."""
    folder = shared_data / "imagenet_val300"
    with (folder / "labels.tsv").open() as file:
        photos = list(csv.DictReader(file, delimiter="\t"))[::8]
    with np.load(shared_data / "bvlc_googlenet" / "bvlc_googlenet.npz") as archive:
        arrays = {key.replace("/", "."): archive[key] for key in archive.files}
    with (shared_data / "bvlc_googlenet" / "synset_words.txt").open() as file:
        names = tuple(line.strip().partition(" ")[2] for line in file)
    spec = SPECS["googlenet_caffe"]
    with weights_will_follow():
        model = create_model(spec.name)
    load_state_dict(model, arrays)
    # The photos are 227 x 227 already, so that only the crop remains.
    preprocessing = replace(spec.preprocessing, resize_size=227)
    record = record_of(model, preprocessing, included=False, labels=list(names))
    path = tmp_path / "googlenet.keras"
    save_model(model, path, record)
    files = Files(
        tuple(folder / "images" / photo["file"] for photo in photos),
        np.array([int(photo["class_index"]) for photo in photos]),
    )
    result = evaluate(Predictor.from_file(path, batch_size=16), files, names)
    assert result.top1 > 0.7
    assert result.top5 is not None
    assert result.top5 > 0.9
    assert result.loss < 1.2
    few = files.subset(np.arange(6))
    ten = evaluate(Predictor.from_file(path, batch_size=16, views="ten-crop"), few, names)
    assert ten.top1 >= 4 / 6
    assert ten.confidences != pytest.approx(result.confidences[:6], abs=1e-3)
