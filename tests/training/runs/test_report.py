"""The HTML page of a run, and the pictures in it and beside it."""

import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.pages import Page
from helpers.runs import EVALUATION, damage, epoch_row, make_run, read_json
from PIL import Image

from keras_alexnet.core.files import write_json
from keras_alexnet.data.examples import Arrays, DataSet
from keras_alexnet.data.survey.results import DataSurvey, to_json
from keras_alexnet.data.survey.survey import count_data, survey_data
from keras_alexnet.errors import ConfigurationError, DataError, MissingDependencyError
from keras_alexnet.inference.analysis import calibration, confused_pairs
from keras_alexnet.training.presets import PRESETS
from keras_alexnet.training.runs import plots
from keras_alexnet.training.runs.report import write_run_report

MISTAKE = EVALUATION["mistakes"][0]


def test_a_finished_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "my run")
    path = write_run_report(folder)
    assert path == (folder / "report.html").resolve()
    page = Page(path)
    assert set(page.pictures) == {
        "loss, accuracy and learning rate by epoch",
        "images with predicted and right classes",
        "cat, taken for <b>owl</b>",
        "dog, taken for cat",
        "confusion matrix",
        "reliability diagram",
    }
    assert page.pictures["confusion matrix"].width > 400
    text = page.words
    assert "my run: lenet5 on digits" in text
    assert "61,706 parameters. 4 epochs in 1:02:05, the best is epoch 2." in text
    assert page.tables[""][1:4] == [
        ["train", "1.0000", "50.00", "-", "-", "augmented"],
        ["val", "1.5000", "75.00", "100.00", "0.4000", "center"],
        ["test", "1.2500", "81.25", "-", "0.7000", "mirror"],
    ]
    assert "Classes of the test images" in text
    assert "/photos/<script>.jpg damaged image" in text
    assert page.tags.count("script") == 1  # the page's own: names are text, not markup
    assert f"keras-alexnet evaluate '{folder}/best.keras' --data digits --views mirror" in text
    assert "--resume" not in text
    assert "learning_rate 0.01" in text
    assert "train --preset 'digits lenet'" in text
    assert "keras 3.15.1" in text


def test_what_the_network_saw(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    Image.fromarray(np.zeros((9, 8, 3), np.uint8)).save(folder / "examples.png")
    name = "training images with their classes, and as the network sees them"
    Image.fromarray(np.zeros((5, 4, 3), np.uint8)).save(folder / "filters.png")
    pictures = Page(write_run_report(folder)).pictures
    assert pictures[name].size == (8, 9)
    assert pictures["the kernels of the first convolution"].size == (4, 5)


def test_what_a_run_answers(tmp_path: Path) -> None:
    page = Page(write_run_report(make_run(tmp_path / "run")))
    text = page.words
    assert page.tables["sortable mistakes"][1:] == [
        ["", "<b>owl</b>", "cat", "97.50", "9"],
        ["", "cat", "dog", "75.00", "0"],
    ]
    picture = page.pictures["cat, taken for <b>owl</b>"]
    assert (picture.size, picture.getpixel((0, 0))) == ((5, 4), 9)
    assert page.tables["sortable pairs"][1:] == [
        ["cat", "<b>owl</b>", "2", "25.00", "0"],
        ["dog", "cat", "1", "12.50", "0"],
    ]
    assert [row[0] for row in page.tables["sortable classes"][1:]] == ["cat", "dog", "<b>owl</b>"]
    assert page.tables["sortable classes"][3] == ["<b>owl</b>", "0", "-", "-", "-", "-", "0.5000"]
    assert "Worst classes class accuracy (%) images cat 75.00 8 Best" in text
    assert "Best classes class accuracy (%) images dog 87.50 8 Confusion" in text
    assert "worst class cat 75.00 % of 8" in text
    assert "most confused cat → <b>owl</b> 2 times, 25.00 % of its class" in text
    assert "The model is 87.50 % sure on average." in text
    assert "calibration error is 0.0625" in text
    assert page.tables["bins"][1:] == [
        ["0.000 to 0.500", "0", "-", "-"],
        ["0.500 to 1.000", "16", "87.50", "81.25"],
    ]
    assert page.tables["used"] == [
        ["dropout", "none"],
        ["views of a val image", "center: one"],
        ["views of a test image", "mirror: the mean of 2"],
    ]
    assert "Reached and reported" not in text  # of no known preset


def make_data(looked: bool, classes: int = 3) -> DataSurvey:
    """What a run of two parts writes of its data, made up."""
    names = tuple(f"<i>{n}</i>" for n in range(classes))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4 * classes, 40, 48, 3), np.uint8)
    train = Arrays(images, np.arange(4 * classes) % classes)
    data = DataSet("mine", names, train, test=Arrays(images[:2], np.array([0, 2])))
    survey = survey_data(data) if looked else count_data(data)
    return replace(survey, left_out=(Path("/photos/notes.txt"),))


def test_what_the_data_hold(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    write_json(folder / "data.json", to_json(make_data(looked=True)))
    page = Page(write_run_report(folder))
    assert page.tables["parts"][0][4:7] == ["height x width", "pixels", "mean"]
    assert [row[:6] for row in page.tables["parts"][1:]] == [
        ["train", "12", "4", "4", "40x48", "RGB"],
        ["test", "2", "0", "1", "40x48", "RGB"],
    ]
    assert page.tables["sortable counts"] == [
        ["class", "train", "test"],
        ["<i>0</i>", "4", "1"],
        ["<i>1</i>", "4", "0"],
        ["<i>2</i>", "4", "1"],
    ]
    assert "1 file left out, not named like images: /photos/notes.txt" in page.words
    leak = "leak: test has 2 images the same as one of train (1 of another class): test 0 = train 0"
    assert leak in page.words
    assert "1 could not be read and was left out: /photos/<script>.jpg" in page.words
    assert "only counted" not in page.words


def test_data_that_were_only_counted(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    config = read_json(folder / "config.json")
    config["experiment"] |= {"data": "my photos", "data_dir": None}
    write_json(folder / "config.json", config)
    write_json(folder / "data.json", to_json(make_data(looked=False, classes=40)))
    page = Page(write_run_report(folder))
    assert page.tables["parts"] == [
        ["part", "images", "smallest class", "largest class"],
        ["train", "160", "4", "4"],
        ["test", "2", "0", "1"],
    ]
    assert len(page.tables["sortable counts"]) == 41
    assert "<details><summary>Images of 40 classes" in (folder / "report.html").read_text()
    assert "train --survey looks at those of a run before it begins, " in page.words
    assert "keras-alexnet data 'my photos' at any time" in page.words
    assert "leak" not in page.words
    assert "1 file left out" in page.words


def test_pictures_that_were_drawn_a_moment_ago(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    names = {
        "learning_curves.png": "loss, accuracy and learning rate by epoch",
        "confusion_matrix.png": "confusion matrix",
        "reliability.png": "reliability diagram",
    }
    for width, name in enumerate(names, 3):
        Image.fromarray(np.zeros((5, width, 3), np.uint8)).save(folder / name)
    shown = Page(write_run_report(folder, drawn=True)).pictures
    assert [shown[alt].size for alt in names.values()] == [(3, 5), (4, 5), (5, 5)]
    drawn = Page(write_run_report(folder)).pictures  # they may be older than the numbers
    assert all(drawn[alt].width > 300 for alt in names.values())


def test_reached_against_reported(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    lab = PRESETS["cifar10-lab-alexnet-lrn"].experiment
    changed = lab.override(epochs=4, flip=0.25, device="cpu", data_dir=tmp_path)
    config = {"preset": "cifar10-lab-alexnet-lrn", "experiment": changed.to_json()}
    write_json(folder / "config.json", config)
    page = Page(write_run_report(folder))
    assert page.tables["reported"][1:] == [
        ["loss (nats)", "1.2500", "0.6008", "+0.6492"],
        ["accuracy (%)", "81.25", "80.29", "+0.96"],
        ["minutes", "62.1", "26.2", "+35.9"],
    ]
    assert (
        "Other than the preset's experiment: epochs 4 instead of 10, flip 0.25 instead of 0.5."
        in (page.words)
    )
    assert "reported accuracy 80.29 %" in page.words


def test_a_run_from_before(tmp_path: Path) -> None:
    """Its evaluation knows neither calibration nor mistakes, its summary no views."""
    folder = make_run(tmp_path / "run")
    for name, later in (("evaluation", ("calibration", "mistakes")), ("summary", ("views",))):
        content = read_json(folder / f"{name}.json")
        kept = {key: value for key, value in content.items() if key not in later}
        write_json(folder / f"{name}.json", kept)
    page = Page(write_run_report(folder))
    assert "sortable mistakes" not in page.tables
    assert "alibration" not in page.words
    assert page.tables["sortable pairs"][1][:2] == ["cat", "<b>owl</b>"]
    assert ["test", "1.2500", "81.25", "-", "0.7000", "-"] in page.tables[""]


def test_many_classes_are_folded_away(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    content = read_json(folder / "evaluation.json")
    (row, *_), names = content["per_class"], [f"class {n}" for n in range(100)]
    content["per_class"] = [row | {"name": n, "accuracy": i / 100} for i, n in enumerate(names)]
    content["classes"], content["confusion"] = names, _confusion(100).tolist()
    write_json(folder / "evaluation.json", content)
    page = Page(write_run_report(folder))
    assert len(page.tables["sortable classes"]) == 101
    assert "<details open" not in (folder / "report.html").read_text()
    assert "Worst classes class accuracy (%) images class 0 0.00 8 class 1 1.00 8" in page.words
    assert "Best classes class accuracy (%) images class 99 99.00 8 class 98 98.00 8" in page.words


@pytest.mark.parametrize("accuracies", [(0.5, 0.75), (None,), ()])
def test_an_unfinished_run(tmp_path: Path, accuracies: tuple[float | None, ...]) -> None:
    folder = make_run(tmp_path / "run", finished=False, accuracies=accuracies)
    page = Page(write_run_report(folder))
    text = page.words
    assert f"unfinished: {len(accuracies)} of 4 epochs" in text
    assert len(page.pictures) == bool(accuracies)
    assert f"keras-alexnet train --resume {folder}" in text
    assert "keras-alexnet evaluate" not in text
    assert "None" not in text


def test_it_replaces_the_page_of_an_earlier_time(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", finished=False)
    write_run_report(folder)
    (folder / "report.html").chmod(0o644)
    make_run(tmp_path / "other")
    for name in ("summary.json", "evaluation.json"):
        (folder / name).write_bytes((tmp_path / "other" / name).read_bytes())
    assert "unfinished" not in Page(write_run_report(folder)).words
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        write_run_report(tmp_path / "nowhere")
    folder = make_run(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "jinja2", None)
        with pytest.raises(MissingDependencyError, match="pip install jinja2 matplotlib"):
            write_run_report(folder)
    write_json(folder / "data.json", {"name": "mine"})
    with pytest.raises(DataError, match=r"data\.json: damaged \(KeyError\('classes'\)\); move it"):
        write_run_report(folder)
    (folder / "data.json").unlink()
    damage(folder / "evaluation.json", '{"confusion": 1}')
    with pytest.raises(DataError, match=r"evaluation\.json: damaged \(it lacks 'classes'\)"):
        write_run_report(folder)
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("classes", [1, 2, 3], "1 is no name"),
        ("confusion", [[1, 2]], "it is no table of 3 x 3 whole numbers"),
        ("per_class", [{"name": "cat"}], "it lacks 'images'"),
        ("per_class", 3, "'int' object is not iterable"),
        ("calibration", {"bins": []}, "it lacks 'ece'"),
        ("calibration", {"ece": "low", "bins": []}, "ece is 'low'"),
        ("calibration", {"ece": 0.5, "bins": [{"low": 0.0}]}, "it lacks 'high'"),
        ("calibration", [0.5], "'list' object is not a mapping"),
        ("mistakes", [{"index": 1}], "it lacks 'path'"),
        ("mistakes", [MISTAKE | {"confidence": None}], "confidence is None"),
        ("mistakes", [MISTAKE | {"label": 3}], "class 3 of 3"),
        ("mistakes", [MISTAKE | {"picture": 7}], "a picture is no text"),
    ],
)
def test_results_that_were_changed(tmp_path: Path, key: str, value: Any, problem: str) -> None:
    folder = make_run(tmp_path / "run")
    write_json(folder / "evaluation.json", read_json(folder / "evaluation.json") | {key: value})
    with pytest.raises(DataError) as caught:
        write_run_report(folder)
    way = (
        f"; take {key!r} out for a report without it" if key in ("calibration", "mistakes") else ""
    )
    path = folder / "evaluation.json"
    assert str(caught.value) == f"{path}: damaged (of {key!r}: {problem}){way}"
    if way:
        content = read_json(path)
        del content[key]
        write_json(path, content)
        write_run_report(folder)


# Pictures

ROWS = [epoch_row(n, 0.2 * n) for n in range(1, 5)]


def _confusion(classes: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 9, (classes, classes))


def _draw(picture: str, target: Any = None) -> plots.Picture:
    images = np.random.default_rng(0).integers(0, 256, (13, 8, 9, 3), dtype=np.uint8)
    labels, guesses = np.arange(13) % 3, np.arange(13) % 2
    match picture:
        case "curves":
            return plots.learning_curves(ROWS, target)
        case "confusion":
            return plots.confusion_matrix(_confusion(3), ("a $x$ b", "b" * 99, "c"), target)
        case "reliability":
            sure = np.random.default_rng(0).uniform(0.2, 1, 500)
            return plots.reliability_diagram(calibration(sure, sure > 0.5), target)
        case "samples":
            names = ("a", "$b$", "c")
            return plots.sample_predictions(images, labels, guesses, labels / 3, names, target)
        case "comparison":
            results = [{"val_accuracy": 0.5, "test_accuracy": 0.5}, {"val_accuracy": None}]
            return plots.compare_curves(("a", "b $x$"), (ROWS, []), results, target)
        case _:
            raise ValueError(picture)


@pytest.mark.parametrize("picture", ["curves", "confusion", "reliability", "samples", "comparison"])
def test_pictures(tmp_path: Path, picture: str) -> None:
    _draw(picture, tmp_path / "picture.png")
    image = np.asarray(Image.open(tmp_path / "picture.png").convert("RGB"))
    assert min(image.shape[:2]) > 300
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20
    assert len(list(tmp_path.iterdir())) == 1
    shown = _draw(picture)._repr_png_()  # in a notebook
    assert (np.asarray(Image.open(io.BytesIO(shown)).convert("RGB")) == image).all()


def test_pictures_as_svg_hold_their_words(tmp_path: Path) -> None:
    import matplotlib as mpl

    with mpl.rc_context({"svg.fonttype": "none"}):
        _draw("samples", tmp_path / "samples.svg")
        _draw("confusion", tmp_path / "confusion.svg")
    samples = (tmp_path / "samples.svg").read_text()
    assert samples.count("is $b$") == 2
    assert samples.count("is c") == 4
    confusion = (tmp_path / "confusion.svg").read_text()
    assert "a $x$ b" in confusion
    assert "bbbbbb…" in confusion


@pytest.mark.parametrize("classes", [100, 1000])
def test_confused_pairs_of_many_classes_are_named(classes: int) -> None:
    confusion = _confusion(classes)
    confusion[7, 3], confusion[2, 90] = 600, 400
    names = [f"name {n}" for n in range(classes)]
    figure = plots.confusion_matrix(confusion, names).figure
    lines = figure.get_supxlabel().split("\n")
    assert len(lines) == 10
    share = 100 * 600 / confusion[7].sum()
    assert lines[0] == f"1  name 7 taken for name 3: 600 ({share:.0f} %)"
    assert lines[1].startswith("2  name 2 taken for name 90: 400 (")
    rings = [line.get_xydata()[0].tolist() for line in figure.axes[0].lines]
    assert rings == [[pair.prediction, pair.label] for pair in confused_pairs(confusion, 10)]
    assert [text.get_text() for text in figure.axes[0].texts] == [str(n) for n in range(1, 11)]


def _lines(axes: Any) -> dict[str, tuple[list[float], list[float]]]:
    """The lines of axes by label, and their x and y."""
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines
    }


def test_learning_curves_show_their_epochs() -> None:
    rows = [dict(row) for row in ROWS]
    rows[0]["val_loss"] = None
    rows[3] |= {"clean_accuracy": 0.9, "test_loss": 1.25}
    loss, accuracy, rate = plots.learning_curves(rows).figure.axes
    assert _lines(loss) == {
        "training": ([1, 2, 3, 4], [2.0, 1.0, 2.0 / 3, 0.5]),
        "validation": ([2, 3, 4], [1.5] * 3),
        "test": ([4], [1.25]),
    }
    found = _lines(accuracy)
    assert found["training"] == ([1, 2, 3, 4], [25, 50, 75, 100])
    assert found["validation"][1] == pytest.approx([20, 40, 60, 80])
    assert found["training, not augmented"] == ([4], [90])
    (only,) = _lines(rate).values()
    assert only == ([1, 2, 3, 4], [0.1, 0.05, 0.1 / 3, 0.025])
    assert loss.get_ylim()[0] == rate.get_ylim()[0] == loss.get_xlim()[0] == 0
    names = [text.get_text() for text in loss.get_legend().get_texts()]
    assert names == ["training", "validation", "test"]


def test_a_confusion_matrix_shows_its_shares() -> None:
    confusion = np.array([[3, 1, 0], [0, 0, 0], [1, 1, 2]])
    axes = plots.confusion_matrix(confusion, ("cat", "dog", "owl")).figure.axes[0]
    shares = [[0.75, 0.25, 0], [0, 0, 0], [0.25, 0.25, 0.5]]
    np.testing.assert_array_equal(axes.images[0].get_array(), shares)
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == ["cat", "dog", "owl"]
    assert {text.get_position(): text.get_text() for text in axes.texts} == {
        (column, row): str(confusion[row, column]) for row, column in np.argwhere(confusion)
    }
    assert axes.get_title() == "8 images, 62.50 % right"


def _images(figure: Any) -> list[tuple[str, np.ndarray]]:
    """The pictures of a grid in their order, and what is written above each."""
    return [(a.get_title(), np.asarray(a.images[0].get_array())) for a in figure.axes if a.images]


def test_sample_predictions_show_images_and_classes() -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 4, 5, 3), np.uint8)
    sure = [0.5, 0.25, 1, 0, 0.126, 0.9, 0.7]
    guesses = [0, 1, 1, 0, 1, 0, 1]
    figure = plots.sample_predictions(images, [0] * 7, guesses, sure, ("cat", "dog")).figure
    shown = _images(figure)
    assert [title for title, _ in shown] == [
        *("cat (50 %)", "dog (25 %)\nis cat", "dog (100 %)\nis cat", "cat (0 %)"),
        *("dog (13 %)\nis cat", "cat (90 %)", "dog (70 %)\nis cat"),
    ]
    for (_, drawn), image in zip(shown, images, strict=True):
        np.testing.assert_array_equal(drawn, image)


def test_a_grid_shows_each_image_above_what_is_seen_of_it() -> None:
    rng = np.random.default_rng(0)
    originals = [rng.integers(0, 256, (4 + n, 5, 1), np.uint8) for n in range(6)]
    seen = rng.integers(0, 256, (6, 3, 3, 3), np.uint8)
    names = [f"class {n}" for n in range(6)]
    shown = _images(plots.example_grid(originals, names, seen=seen).figure)
    assert [title for title, _ in shown] == [*names[:5], *[""] * 5, names[5], ""]
    order = [*originals[:5], *seen[:5], originals[5], seen[5]]
    for (_, drawn), image in zip(shown, order, strict=True):
        np.testing.assert_array_equal(drawn, image.squeeze(-1) if image.shape[-1] == 1 else image)
    alone = plots.example_grid(originals, names).figure
    assert [title for title, _ in _images(alone)] == names


def test_runs_side_by_side_show_their_results() -> None:
    results = [
        {"train_accuracy": 1.0, "val_accuracy": 0.5, "test_accuracy": 0.375},
        {"val_accuracy": 0.25},
    ]
    figure = plots.compare_curves(("one", "two"), (ROWS, ROWS[:2]), results).figure
    loss, accuracy, bars = figure.axes
    assert [_lines(loss)[name] for name in ("one", "two")] == [
        ([1, 2, 3, 4], [1.5] * 4),
        ([1, 2], [1.5] * 2),
    ]
    assert [len(line.get_ydata()) for line in accuracy.lines] == [4, 4, 2, 2]
    assert _lines(accuracy)["two"][1] == pytest.approx([20, 40])
    widths = {part.get_label(): [bar.get_width() for bar in part] for part in bars.containers}
    assert widths == {"train": [100, 0], "val": [50, 25], "test": [37.5, 0]}
    assert [label.get_text() for label in bars.get_yticklabels()] == ["one", "two"]
    texts = [text.get_text() for text in bars.texts]
    assert texts == ["100.0", "", "50.0", "25.0", "37.5", ""]


def test_reliability_diagram_shows_its_bins() -> None:
    found = calibration(np.array([0.55, 0.65, 0.95, 0.95]), np.array([1, 0, 1, 0], bool), 10)
    figure = plots.reliability_diagram(found).figure
    above, below = figure.axes
    accuracies, gaps = above.containers
    assert [bar.get_x() for bar in accuracies] == pytest.approx([0.5, 0.6, 0.9])
    assert [bar.get_height() for bar in accuracies] == [1, 0, 0.5]
    tops = [bar.get_y() + bar.get_height() for bar in gaps]
    assert tops == pytest.approx([0.55, 0.65, 0.95])
    assert [bar.get_height() for bar in below.patches] == [1, 1, 2]
    assert above.get_title() == f"expected calibration error {found.ece:.4f}"


def test_grey_images_and_many_classes(tmp_path: Path) -> None:
    grey = np.zeros((1, 8, 8, 1), np.uint8)
    plots.sample_predictions(grey, [0], [0], [1.0], ["a"], tmp_path / "grey.png")
    plots.confusion_matrix(_confusion(120), [str(n) for n in range(120)], tmp_path / "many.png")
    plots.confusion_matrix(np.zeros((2, 2), int), ["a", "b"], tmp_path / "none.png")
    assert Image.open(tmp_path / "many.png").width > 1000


def test_rows_without_some_columns() -> None:
    buffer = io.BytesIO()
    plots.learning_curves([{"epoch": 1, "train_loss": 1.0}], buffer)
    assert buffer.getvalue().startswith(b"\x89PNG")


def test_picture_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot draw .*curves\.gif: its suffix must be"):
        _draw("curves", tmp_path / "curves.gif")
    with pytest.raises(ConfigurationError, match="there is no folder"):
        _draw("curves", tmp_path / "no" / "curves.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match="pip install jinja2 matplotlib"):
        _draw("curves", tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())


def test_no_global_figures() -> None:
    _draw("curves", io.BytesIO())
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
