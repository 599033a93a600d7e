"""The table of several runs: finished ones, unfinished ones, and folders that are none."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from helpers.runs import damage, make_run

from keras_alexnet.core.tables import markdown
from keras_alexnet.errors import DataError
from keras_alexnet.training.runs.comparison import compare, duration, read_runs, run_names
from keras_alexnet.training.runs.reader import read_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def test_a_finished_run(folder: Path) -> None:
    (record,) = compare([read_run(folder)]).records
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
        "parameters": 61_706,
        "seconds": 3725.4,
        "epochs": 4,
        "best_epoch": 2,
        "note": "1 image skipped",
    }


def test_an_unfinished_run_shows_its_best_epoch(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run", finished=False))
    (record,) = compare([run]).records
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
    (record,) = compare([run]).records
    assert (record["best_epoch"], record["val_accuracy"], record["train_accuracy"]) == (
        2,
        None,
        0.5,
    )


def test_a_run_without_an_epoch(tmp_path: Path) -> None:
    (record,) = compare(
        [read_run(make_run(tmp_path / "run", finished=False, accuracies=()))]
    ).records
    assert record["note"] == "unfinished: 0 of 4 epochs"
    assert record["model"] == "lenet5"
    assert record["train_loss"] is record["best_epoch"] is record["seconds"] is None


def test_people_read_percents_and_times(tmp_path: Path, folder: Path) -> None:
    runs = read_runs([folder, make_run(tmp_path / "second", finished=False)])
    lines = markdown(compare(runs)).splitlines()
    assert lines[2] == (
        "| run | lenet5 | digits | 1.0000 | 50.00 | 1.5000 | 75.00 | 1.2500 | 81.25 | 61,706 "
        "| 1:02:05 | 4 | 2 | 1 image skipped |"
    )
    assert lines[3] == (
        "| second | lenet5 | digits | 1.0000 | 50.00 | 1.5000 | 75.00 | - | - | - "
        "| 2:00 | 3 | 2 | unfinished: 3 of 4 epochs |"
    )


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
