"""The HTML page of a run, and the pictures in it and beside it."""

import base64
import html.parser
import io
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.runs import damage, epoch_row, make_run
from PIL import Image

from keras_alexnet.errors import ConfigurationError, DataError, MissingDependencyError
from keras_alexnet.training.runs import plots
from keras_alexnet.training.runs.report import write_run_report


class _Page(html.parser.HTMLParser):
    """Text, tags and pictures of a page; fails on tags that do not close."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.pictures: dict[str, Image.Image] = {}
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "img":
            values = dict(attrs)
            kind, _, content = (values["src"] or "").partition(",")
            assert kind == "data:image/png;base64"
            picture = Image.open(io.BytesIO(base64.b64decode(content)))
            self.pictures[values["alt"] or ""] = picture
        elif tag not in ("meta", "link"):
            self.open.append(tag)
            self.text += " "

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def _words(text: str) -> str:
    return " ".join(text.split())


def test_a_finished_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "my run")
    path = write_run_report(folder)
    assert path == (folder / "report.html").resolve()
    source = path.read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", source), "the page is not self-contained"
    page = _Page(path)
    assert set(page.pictures) == {
        "loss, accuracy and learning rate by epoch",
        "images with predicted and right classes",
        "confusion matrix",
    }
    assert page.pictures["confusion matrix"].width > 400
    text = _words(page.text)
    assert "my run: lenet5 on digits" in text
    assert "61,706 parameters. 4 epochs in 1:02:05, the best is epoch 2." in text
    assert "train 1.0000 50.00 - - val 1.5000 75.00 100.00 0.4000 test 1.2500 81.25 - 0.7" in text
    assert "Classes of the test images" in text
    assert "<b>owl</b> 0 - - - - 0.5000" in text  # the name is text, not markup
    assert "/photos/<script>.jpg damaged image" in text
    assert "script" not in page.tags
    assert f"keras-alexnet evaluate '{folder}/best.keras' --data digits --views mirror" in text
    assert "--resume" not in text
    assert "learning_rate 0.01" in text
    assert "train --preset 'digits lenet'" in text
    assert "keras 3.15.1" in text


@pytest.mark.parametrize("accuracies", [(0.5, 0.75), (None,), ()])
def test_an_unfinished_run(tmp_path: Path, accuracies: tuple[float | None, ...]) -> None:
    folder = make_run(tmp_path / "run", finished=False, accuracies=accuracies)
    page = _Page(write_run_report(folder))
    text = _words(page.text)
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
    assert "unfinished" not in _Page(write_run_report(folder)).text
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


def _draw(picture: str, target: Any) -> None:
    images = np.random.default_rng(0).integers(0, 256, (13, 8, 9, 3), dtype=np.uint8)
    labels, guesses = np.arange(13) % 3, np.arange(13) % 2
    match picture:
        case "curves":
            plots.learning_curves(ROWS, target)
        case "confusion":
            plots.confusion_matrix(_confusion(3), ("a $x$ b", "b" * 99, "c"), target)
        case "samples":
            plots.sample_predictions(images, labels, guesses, labels / 3, ("a", "$b$", "c"), target)
        case "comparison":
            results = [{"val_accuracy": 0.5, "test_accuracy": 0.5}, {"val_accuracy": None}]
            plots.compare_curves(("a", "b $x$"), (ROWS, []), results, target)


@pytest.mark.parametrize("picture", ["curves", "confusion", "samples", "comparison"])
def test_pictures(tmp_path: Path, picture: str) -> None:
    _draw(picture, tmp_path / "picture.png")
    image = np.asarray(Image.open(tmp_path / "picture.png").convert("RGB"))
    assert min(image.shape[:2]) > 300
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20
    assert len(list(tmp_path.iterdir())) == 1


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
