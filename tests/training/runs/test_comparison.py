"""The table of several runs: finished ones, unfinished ones, and folders that are none."""

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from helpers.pages import Page
from helpers.runs import damage, make_run

from keras_alexnet.core.tables import markdown
from keras_alexnet.errors import ConfigurationError, DataError
from keras_alexnet.training.presets import PRESETS
from keras_alexnet.training.runs.comparison import compare_runs, duration, read_runs, run_names
from keras_alexnet.training.runs.comparison_page import write_comparison
from keras_alexnet.training.runs.reader import read_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def test_a_finished_run(folder: Path) -> None:
    (record,) = compare_runs([read_run(folder)]).records
    assert record == {
        "run": "run",
        "model": "lenet5",
        "data": "digits",
        "train_loss": 1.0,
        "train_accuracy": 0.5,
        "val_loss": 1.5,
        "val_accuracy": 0.75,
        "test_loss": 1.25,
        "test_accuracy": 0.8125,
        "test_top5": None,
        "test_macro_f1": 0.7,
        "reported": None,
        "parameters": 61_706,
        "seconds": 3725.4,
        "test_seconds": None,
        "epochs": 4,
        "best_epoch": 2,
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "batch_size": 128,
        "augmentation": "none",
        "backend": "torch",
        "device": None,
        "note": "1 image skipped",
    }


def test_what_its_source_reported(folder: Path) -> None:
    run = replace(read_run(folder), preset="cifar100-study-1")
    (record,) = compare_runs([run], ["reported"]).records
    assert record == {"run": "run", "reported": str(PRESETS["cifar100-study-1"].reported)}
    assert "macro F1" in record["reported"]


def test_devices_and_augmentations(folder: Path) -> None:
    run = read_run(folder)
    on_gpu = replace(run, environment={**run.environment, "gpus": ["A"], "cpu": "B"})
    on_cpu = replace(on_gpu, experiment={**run.experiment, "device": "cpu"})
    augmentation = {"resize": 230, "crop": "random", "flip": 0.5, "gone": 1}
    newer = replace(run, experiment={**run.experiment, "augmentation": augmentation})
    del augmentation["gone"]
    known = replace(run, experiment={**run.experiment, "augmentation": dict(augmentation)})
    augmentation["gone"] = 1
    rows = compare_runs([on_gpu, on_cpu, newer, known], ["device", "augmentation"]).records
    assert [row["device"] for row in rows[:2]] == ["A", "B"]
    assert [row["augmentation"] for row in rows] == [
        *("none", "none", "unknown", "resize 230, random crop, flip 0.5")
    ]


def test_sorted_the_best_first(tmp_path: Path) -> None:
    runs = []
    for name, accuracy, loss in (("a", 0.5, 2.0), ("b", 0.75, 1.0), ("c", 0.25, 3.0)):
        run = read_run(make_run(tmp_path / name))
        assert run.summary is not None
        test = {"top1": accuracy, "loss": loss}
        runs.append(replace(run, summary={**run.summary, "test": test}))
    runs.insert(0, read_run(make_run(tmp_path / "begun", finished=False)))
    for sort in ("test_accuracy", "test_loss"):
        rows = compare_runs(runs, [sort], sort=sort).records
        assert [row["run"] for row in rows] == ["b", "a", "c", "begun"]
        assert list(rows[0]) == ["run", sort]
    assert [row["run"] for row in compare_runs(runs).records] == ["begun", "a", "b", "c"]


def test_the_page(tmp_path: Path) -> None:
    """The table, the curves of all, and links to the runs' own pages, from where it lies."""
    (tmp_path / "runs").mkdir()
    folders = [make_run(tmp_path / "runs" / name) for name in ("one", "two")]
    (folders[1] / "report.html").touch()
    runs = read_runs(folders)
    output = tmp_path / "pages" / "all.html"
    output.parent.mkdir()
    columns = ["test_accuracy", "augmentation"]
    assert write_comparison(runs, output, columns, sort="test_accuracy") == output.resolve()
    page = Page(output)
    assert page.tables["sortable"] == [
        ["run", "test %", "augmentation"],
        ["one", "81.25", "none"],
        ["two", "81.25", "none"],
    ]
    (picture,) = page.pictures.values()
    assert picture.width > 1000
    assert output.read_text().count("<a href=") == 1
    assert '<a href="../runs/two/report.html">two</a>' in output.read_text()


@pytest.mark.parametrize("arguments", [{"columns": ["speed"]}, {"sort": "speed"}])
def test_unknown_columns(folder: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="no column 'speed'; there are run, model, data"):
        compare_runs([read_run(folder)], **arguments)


def test_an_unfinished_run_shows_its_best_epoch(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run", finished=False))
    (record,) = compare_runs([run]).records
    assert record["note"] == "unfinished: 3 of 4 epochs"
    assert (record["best_epoch"], record["val_accuracy"], record["train_accuracy"]) == (
        2,
        0.75,
        0.5,
    )
    assert (record["seconds"], record["epochs"]) == (120, 3)
    assert record["test_loss"] is record["parameters"] is None


def test_a_run_without_validation_shows_its_last_epoch(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run", finished=False, accuracies=(None, None)))
    (record,) = compare_runs([run]).records
    assert (record["best_epoch"], record["val_accuracy"], record["train_accuracy"]) == (
        2,
        None,
        0.5,
    )


def test_a_run_without_an_epoch(tmp_path: Path) -> None:
    (record,) = compare_runs(
        [read_run(make_run(tmp_path / "run", finished=False, accuracies=()))]
    ).records
    assert record["note"] == "unfinished: 0 of 4 epochs"
    assert record["model"] == "lenet5"
    assert record["train_loss"] is record["best_epoch"] is record["seconds"] is None


def test_people_read_percents_and_times(tmp_path: Path, folder: Path) -> None:
    runs = read_runs([folder, make_run(tmp_path / "second", finished=False)])
    columns = ["train_loss", "val_accuracy", "test_accuracy", "parameters", "seconds", "note"]
    lines = markdown(compare_runs(runs, columns)).splitlines()
    assert lines[2:] == [
        "| run | 1.0000 | 75.00 | 81.25 | 61,706 | 1:02:05 | 1 image skipped |",
        "| second | 1.0000 | 75.00 | - | - | 2:00 | unfinished: 3 of 4 epochs |",
    ]


def test_runs_of_one_name_are_called_by_their_paths(tmp_path: Path) -> None:
    for parent in ("a", "b"):
        (tmp_path / parent).mkdir()
    folders = [make_run(tmp_path / name) for name in ("a/run", "b/run", "other")]
    names = run_names([read_run(path) for path in folders])
    assert names == [str(folders[0]), str(folders[1]), "other"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (3599, "59:59"), (36_000, "10:00:00")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_folder_of_runs(tmp_path: Path) -> None:
    """What lies beside them, such as a page, is none."""
    series, alone = tmp_path / "series", make_run(tmp_path / "alone")
    series.mkdir()
    runs = [make_run(series / name) for name in ("b", "a")]
    (series / "comparison.html").touch()
    (series / "notes").mkdir()
    assert [run.folder for run in read_runs([alone, series])] == [alone, *sorted(runs)]
    make_run(alone / "within")  # a run that holds another is itself meant
    assert [run.folder for run in read_runs([alone])] == [alone]


def test_all_problems_are_named(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    paths = [folder, tmp_path / "nowhere", tmp_path / "file", tmp_path / "empty"]
    with pytest.raises(DataError) as caught:
        read_runs(paths)
    assert str(caught.value) == (
        f"{paths[1]}: no such folder; {paths[2]}: a file, not the folder of a run; "
        f"{paths[3]}: not the folder of a run (no config.json in it)"
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{}", "config.json: damaged (it lacks 'experiment')"),
        ("config.json", '{"experiment": {', "config.json: damaged (Expecting"),
        ("summary.json", "[]", "summary.json: damaged (it holds no object)"),
        ("evaluation.json", "", "evaluation.json: damaged (Expecting value"),
        ("metrics.csv", "epoch,loss\n1,2\n", "metrics.csv: damaged (KeyError('learning_rate')"),
        ("metrics.csv", None, "metrics.csv: damaged (TypeError("),
    ],
)
def test_damaged_files(folder: Path, name: str, content: Any, message: str) -> None:
    if content is None:  # cut off in the middle of a line
        content = (folder / name).read_text()[:-30]
    damage(folder / name, content)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        read_run(folder)
    assert str(caught.value).startswith(str(folder / name))


def test_what_a_run_holds(folder: Path) -> None:
    run = read_run(str(folder))
    assert (run.name, run.preset, run.experiment["model"]) == ("run", "digits-lenet", "lenet5")
    assert run.environment["backend"] == "torch"
    assert [row["val_accuracy"] for row in run.rows] == [0.5, 0.75, 0.6]
    assert asdict(run)["summary"]["best_epoch"] == 2
    assert run.evaluation is not None
