"""The HTML page of a run, and the pictures in it and beside it."""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.pages import Page
from helpers.runs import damage, epoch_row, make_run, read_json
from PIL import Image

from keras_alexnet.core.files import write_json
from keras_alexnet.errors import ConfigurationError, DataError, MissingDependencyError
from keras_alexnet.inference.analysis import calibration, confused_pairs
from keras_alexnet.training.presets import PRESETS
from keras_alexnet.training.runs import plots
from keras_alexnet.training.runs.report import write_run_report


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
    damage(folder / "evaluation.json", '{"confusion": 1}')
    with pytest.raises(DataError, match=r"evaluation\.json: damaged \(it lacks 'classes'\)"):
        write_run_report(folder)
    assert not (folder / "report.html").exists()


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
