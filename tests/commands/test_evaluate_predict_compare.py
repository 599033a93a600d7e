"""`keras-alexnet evaluate`, `predict` and `compare`: formats, errors, exit codes, bad files."""

import contextlib
import csv
import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.classifiers import digits_file, linear, lookup, record_of
from helpers.project import ROOT
from helpers.runs import make_run
from PIL import Image

from keras_alexnet.data.examples import Arrays
from keras_alexnet.data.sources.registry import SOURCES, open_data
from keras_alexnet.models.record import save_model
from keras_alexnet.specs.preprocessing import Preprocessing

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def digits() -> Arrays:
    test = open_data("digits").test
    assert isinstance(test, Arrays)
    return test


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits_file(tmp_path_factory.mktemp("model") / "digits.keras")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, digits: Arrays) -> Path:
    """Ten digits as files, one of each; a folder deeper, a text, a hidden file."""
    folder = tmp_path_factory.mktemp("photos")
    for digit in range(10):
        index = np.flatnonzero(digits.labels == digit)[0]
        Image.fromarray(digits.images[index, ..., 0]).save(folder / f"{digit}.png")
    (folder / "deep").mkdir()
    (folder / "deep" / "a.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_text("no image")
    return folder


# evaluate


def test_evaluate_as_json(run_cli: Run, model: Path, tmp_path: Path) -> None:
    code, out, err = run_cli(
        "evaluate", model, "--data", "digits", "--format", "json",
        "--output", "out.json", "--confusion", "confusion.png",
    )  # fmt: skip
    assert (code, err) == (0, "")
    content = json.loads(out)
    assert content == json.loads((tmp_path / "out.json").read_text())
    assert (content["model"], content["data"], content["part"]) == (str(model), "digits", "test")
    assert (content["images"], content["views"], content["skipped"]) == (360, "center", {})
    assert content["top5"] > content["top1"] > 0.9
    assert np.trace(content["confusion"]) == round(content["top1"] * 360)
    assert [row["name"] for row in content["per_class"]] == content["classes"]
    wrong = round((1 - content["top1"]) * 360)
    assert len(content["mistakes"]) == min(wrong, 20) > 0
    assert sum(part["images"] for part in content["calibration"]["bins"]) == 360
    assert Image.open("confusion.png").width > 500
    assert len(list(tmp_path.iterdir())) == 2


def test_evaluate_as_tables(run_cli: Run, model: Path) -> None:
    arguments = ("evaluate", model, "--data", "digits", "--batch-size", "50")
    _, out, _ = run_cli(*arguments, "--format", "json")
    content = json.loads(out)
    code, out, _ = run_cli(*arguments)
    assert code == 0
    assert out.startswith("digits.keras on the test part of digits, views: center\n")
    total = next(line.split() for line in out.splitlines() if line.split()[:1] == ["all"])
    assert total[1:5] == [
        "360", f"{content['loss']:.4f}", f"{100 * content['top1']:.2f}",
        f"{100 * content['top5']:.2f}",
    ]  # fmt: skip
    assert total[-1] == f"{content['macro_f1']:.4f}"
    assert "accuracy of a class: its recall" in out
    assert f"expected calibration error {content['calibration']['ece']:.4f}: " in out
    _, out, _ = run_cli(*arguments, "--format", "csv")
    *rows, last = csv.DictReader(io.StringIO(out))
    assert [row["name"] for row in rows] == [str(n) for n in range(10)]
    assert float(last["loss"]) == content["loss"]
    assert float(rows[3]["f1"]) == content["per_class"][3]["f1"]
    _, out, _ = run_cli(*arguments, "--format", "markdown", "--part", "train", "--views", "mirror")
    lines = [line for line in out.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 10 + 1
    assert lines[-1].startswith("| all | 1,437 |")


def test_evaluate_names_what_it_left_out(run_cli: Run, model: Path, photos: Path) -> None:
    rows = ["path,label,split"]
    rows += [f"{photos}/{digit}.png,{digit},val" for digit in range(10)]
    rows += [f"{photos}/notes.txt,0,val"]
    Path("data.csv").write_text("\n".join(rows))
    code, out, err = run_cli("evaluate", model, "--data", "data.csv")
    assert code == 0
    assert err == "warning: 1 of 11 images could not be read and were left out\n"
    assert "on the val part of data" in out
    assert f"left out {photos}/notes.txt: " in out
    code, out, _ = run_cli(
        "evaluate", model, "--data", "csv", "--data-dir", "data.csv", "--format", "json"
    )
    content = json.loads(out)
    assert content["images"] == 10
    assert list(content["skipped"]) == [f"{photos}/notes.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.keras", "--data", "digits"), "none.keras: no such file"),
        (("text.keras", "--data", "digits"), "text.keras: not a .keras archive, or truncated ("),
        ((".", "--data", "digits"), ".: a folder, not a .keras file"),
        (
            ("MODEL", "--data", "digit"),
            f"'digit' is neither a kind of data ({', '.join(SOURCES)}) nor a folder or CSV file",
        ),
        (("MODEL", "--data", "folder"), "data of the kind folder need a place: give it with"),
        (("MODEL", "--data", "empty"), "empty: no class folders; images are expected as"),
        (
            ("MODEL", "--data", "digits", "--part", "val"),
            "digits has no val part; it has train, te",
        ),
        (
            ("MODEL", "--data", "digits", "--views", "ten-crop"),
            "ten-crop needs images larger than the 8 x 8 pixels that the model takes, but they are",
        ),
        (
            ("MODEL", "--data", "digits", "--output", "missing/out.json"),
            "cannot write missing/out.json: there is no folder missing",
        ),
        (
            ("MODEL", "--data", "digits", "--confusion", "matrix.gif"),
            "cannot draw matrix.gif: its suffix must be one of .svg, .png, .pdf",
        ),
        (
            ("MODEL", "--data", "digits", "--backend", "theano"),
            "unknown backend 'theano'; Keras has tensorflow, torch, jax",
        ),
        (
            ("MODEL", "--data", "digits", "--resize-size", "7"),
            "images whose short side is resized to 7 pixels leave no room for the crop of 8 x 8",
        ),
        (
            ("MODEL", "--data", "digits", "--backend", "jax"),
            "backend 'jax' was asked for, but Keras runs on torch in this process",
        ),
        (("two.keras", "--data", "digits"), "the model has 2 classes, the data have 10, which"),
        (("bare.keras", "--data", "digits"), "bare.keras: it was saved without a record of its"),
    ],
)
def test_evaluate_mistakes(
    run_cli: Run, model: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "text.keras").write_text("text")
    (tmp_path / "empty").mkdir()
    if "two.keras" in arguments:
        two = linear((8, 8, 1), 2)
        record = record_of(two, Preprocessing(8, (8, 8), (0.0,), (1.0,), "L", 1.0))
        save_model(two, tmp_path / "two.keras", record)
    if "bare.keras" in arguments:
        lookup(10).save(tmp_path / "bare.keras")
    before = sorted(tmp_path.iterdir())
    code, out, err = run_cli("evaluate", *(model if a == "MODEL" else a for a in arguments))
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


# predict


def _table(out: str) -> dict[str, list[str]]:
    """File -> its lines."""
    found: dict[str, list[str]] = {}
    for line in out.splitlines():
        if line.startswith("  "):
            found[next(reversed(found))].append(line)
        else:
            found[line] = []
    return found


def test_predict_as_a_table(run_cli: Run, model: Path, photos: Path) -> None:
    code, out, err = run_cli("predict", model, photos / "3.png", photos / "7.png", "--top", "2")
    assert (code, err) == (0, "")
    table = _table(out)
    assert list(table) == [f"{photos}/3.png", f"{photos}/7.png"]
    for digit, lines in zip("37", table.values(), strict=True):
        assert len(lines) == 2
        percent, unit, name = lines[0].split()
        assert (unit, name) == ("%", digit)
        assert 50 < float(percent) <= 100


def test_predict_a_folder_as_json(run_cli: Run, model: Path, photos: Path) -> None:
    code, out, _ = run_cli("predict", model, photos, "--format", "json", "--batch-size", "4")
    assert code == 0
    answers = json.loads(out)
    assert len(answers) == 11
    assert [Path(a["file"]).name for a in answers] == [*(f"{n}.png" for n in range(10)), "a.png"]
    for answer, digit in zip(answers, [*range(10), 0], strict=True):
        best = answer["predictions"]
        assert (best[0]["class"], best[0]["name"]) == (digit, str(digit))
        probabilities = [guess["probability"] for guess in best]
        assert len(best) == 5
        assert probabilities == sorted(probabilities, reverse=True)
    code, out, _ = run_cli("predict", model, photos, "--no-recursive", "--format", "json")
    assert len(json.loads(out)) == 10
    code, out, _ = run_cli("predict", model, photos / "1.png", "--top", "99", "--format", "json")
    assert sum(g["probability"] for g in json.loads(out)[0]["predictions"]) == pytest.approx(1)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_a_bad_file_does_not_stop_it(
    run_cli: Run, model: Path, photos: Path, batch_size: int
) -> None:
    names = ["notes.txt", "1.png", "notes.txt", "2.png", "3.png", "notes.txt"]
    paths = [photos / name for name in names]
    options = ("--batch-size", batch_size, "--top", 1)
    code, out, err = run_cli("predict", model, *paths, *options, "--format", "csv")
    assert (code, err) == (1, "warning: 3 of 6 images could not be read\n")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [Path(row["file"]).name for row in rows] == names
    assert [row["name"] for row in rows] == ["", "1", "", "2", "3", ""]
    assert "image" in rows[0]["error"]
    assert rows[1] == {
        "file": str(paths[1]), "rank": "1", "class": "1", "name": "1",
        "probability": rows[1]["probability"], "error": "",
    }  # fmt: skip
    code, out, _ = run_cli("predict", model, *paths, *options, "--format", "json")
    assert code == 1
    assert ["error" in answer for answer in json.loads(out)] == [n == "notes.txt" for n in names]
    code, out, _ = run_cli("predict", model, *paths, *options)
    assert code == 1
    assert out.count(f"{photos}/notes.txt: ") == 3


def test_nothing_but_bad_files(run_cli: Run, model: Path, photos: Path) -> None:
    code, out, _ = run_cli("predict", model, photos / "notes.txt", "--format", "json")
    assert code == 1
    (answer,) = json.loads(out)
    assert set(answer) == {"file", "error"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.keras", "x.png"), "none.keras: no such file"),
        (("MODEL", "x.png"), "x.png: no such image file or folder"),
        (("MODEL", "empty"), "empty: no image files in this folder"),
        (("MODEL", "outer", "--no-recursive"), "outer: no image files in this folder"),
        (("MODEL", "outer", "--backend", "jax"), "backend 'jax' was asked for, but Keras runs on"),
    ],
)
def test_predict_mistakes(
    run_cli: Run, model: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / "outer" / "inner" / "x.png")
    code, out, err = run_cli("predict", *(model if a == "MODEL" else a for a in arguments))
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


def test_names_that_are_no_text(run_cli: Run, model: Path, photos: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(b"\xff.png")
    (tmp_path / odd).write_bytes((photos / "5.png").read_bytes())
    for format_ in ("table", "csv", "json"):
        code, out, _ = run_cli("predict", model, odd, "--top", 1, "--format", format_)
        assert code == 0
        # A program finds the bytes again in what JSON holds.
        assert (r"\udcff.png" if format_ == "json" else r"\xff.png") in out


def test_another_backend_and_progress_on_a_terminal(
    run_cli: Run, model: Path, photos: Path
) -> None:
    """The bar is on stderr; what stdout gets is the same as without it."""
    leader, follower = pty.openpty()
    arguments = ("predict", str(model), str(photos), "--format", "json")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "80"}
    child = subprocess.Popen(
        [sys.executable, "-m", "keras_alexnet", *arguments, "--backend", "jax"],
        env=environment,  # its KERAS_BACKEND is torch
        stdout=subprocess.PIPE,
        stderr=follower,
        text=True,
    )
    os.close(follower)
    assert child.stdout
    there = json.loads(child.stdout.read())
    assert child.wait(60) == 0
    child.stdout.close()
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal ends on Linux
        while chunk := os.read(leader, 65536):
            shown += chunk
    os.close(leader)
    assert b"predict" in shown
    assert b"/11" in shown
    here = json.loads(run_cli(*arguments)[1])
    assert [answer["file"] for answer in there] == [answer["file"] for answer in here]
    for one, other in zip(there, here, strict=True):
        best = [answer["predictions"][0] for answer in (one, other)]
        assert best[0]["name"] == best[1]["name"]
        assert best[0]["probability"] == pytest.approx(best[1]["probability"], rel=1e-5)


# compare


def test_compare(run_cli: Run, tmp_path: Path) -> None:
    make_run(tmp_path / "one")
    make_run(tmp_path / "two", finished=False)
    code, out, err = run_cli("compare", "one", "two", "--format", "json", "--plot", "plot.png")
    assert (code, err) == (0, "")
    records = json.loads(out)
    assert [record["run"] for record in records] == ["one", "two"]
    assert records[0]["test_accuracy"] == 0.8125
    assert Image.open("plot.png").width > 1000
    code, out, _ = run_cli("compare", "one", "two", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (rows[0]["seconds"], rows[1]["test_loss"]) == ("3725.4", "")
    assert rows[1]["note"] == "unfinished: 3 of 4 epochs"
    arguments = ["--format", "markdown", "--columns", "test_accuracy, note", "--html", "a.html"]
    code, out, _ = run_cli("compare", "two", "one", *arguments, "--sort", "test_accuracy")
    assert out.splitlines()[0] == "| run | test % | note |"
    assert [line[:5] for line in out.splitlines()[2:]] == ["| one", "| two"]
    assert Path("a.html").is_file()
    code, out, _ = run_cli("compare", "one")
    assert " 1:02:05 " in out


def test_compare_mistakes(run_cli: Run, tmp_path: Path) -> None:
    make_run(tmp_path / "one")
    (tmp_path / "empty").mkdir()
    for arguments, message in {
        ("one", "none", "nowhere"): "none: no such folder; nowhere: no such folder",
        ("empty",): "empty: not the folder of a run (no config.json in it)",
        ("one", "--plot", "plot.txt"): "cannot draw plot.txt: its suffix must be one of",
        ("one", "--html", "no/a.html"): "cannot write no/a.html",
        ("one", "--columns", "speed"): "no column 'speed'; there are run, model",
        ("one", "--sort", "speed"): "no column 'speed'; there are run, model",
    }.items():
        code, out, err = run_cli("compare", *arguments)
        assert (code, out) == (2, "")
        assert err.startswith(f"error: {message}")


def test_no_framework_is_imported(run_python: Callable[..., Any], tmp_path: Path) -> None:
    make_run(tmp_path / "one")
    code = """
import sys
from keras_alexnet.commands import app
for arguments in (["compare", "one"], ["--help"], ["evaluate", "--help"],
                  ["evaluate", "none.keras", "--data", "digits"]):
    sys.argv = ["keras-alexnet", *arguments]
    try:
        app.main()
    except SystemExit:
        pass
packages = {name.partition(".")[0] for name in sys.modules}
print(sorted(packages & {"keras", "tensorflow", "torch", "jax", "matplotlib", "sklearn", "scipy"}))
"""
    assert run_python(code, cwd=tmp_path).stdout.splitlines()[-1] == "[]"
