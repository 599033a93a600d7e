"""Runs from the command to the report: what they leave behind."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.pages import Page
from helpers.training import SMALL, Run, moved_photos, rows, weights
from PIL import Image

from keras_alexnet.core.machine import gpus
from keras_alexnet.data.batches.evaluation import EvaluationBatches
from keras_alexnet.data.sources.registry import open_data
from keras_alexnet.errors import ConfigurationError, ModelFileError, TrainingError
from keras_alexnet.models.record import read_record
from keras_alexnet.models.weights import load_model
from keras_alexnet.training import precision
from keras_alexnet.training.experiment import Experiment
from keras_alexnet.training.preparation import prepare
from keras_alexnet.training.run import run_experiment
from keras_alexnet.training.runs.reader import read_run


def test_a_plateau_lowers_the_learning_rate(run: Run) -> None:
    """At a rate that changes nothing no loss is lower than the first."""
    rate = 1e-20
    plateau = {"schedule": "plateau", "patience": 0, "gamma": 0.5, "warmup_epochs": 0.0}
    folder = run(learning_rate=rate, epochs=4, val_fraction=0.2, survey=False, **plateau)
    found = rows(folder)
    data = read_run(folder).data
    assert data is not None
    assert not data.looked
    losses = {row["val_loss"] for row in found}
    rates = [float(row["learning_rate"]) / rate for row in found]
    assert len(losses) == 1
    np.testing.assert_allclose(rates, [1, 1, 0.5, 0.25], rtol=1e-6)


def test_a_run_leaves_everything_behind(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run()
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "best.keras",
        "checkpoint.safetensors",
        "config.json",
        "data.json",
        "confusion_matrix.png",
        "environment.json",
        "evaluation.json",
        "examples.png",
        "filters.png",
        "learning_curves.png",
        "log.txt",
        "metrics.csv",
        "per_class.csv",
        "predictions.csv",
        "predictions.png",
        "reliability.png",
        "report.html",
        "summary.json",
    }
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert not any(name.startswith(".") for name in names)
    config = json.loads((folder / "config.json").read_text())
    assert Experiment.from_json(config["experiment"]) == SMALL
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["parameters"] == 61_706
    assert summary["images"] == {"train": 288, "val": 32, "test": 100}
    assert summary["best_epoch"] in (1, 2, 3)
    assert summary["skipped"] == {}
    data = read_run(folder).data
    assert data is not None
    assert {part: found.sizes for part, found in data.parts.items()} == {
        "train": {(8, 8): 288},
        "val": {(8, 8): 32},
        "test": {(8, 8): 100},
    }
    table = rows(folder)
    assert [row["epoch"] for row in table] == ["1", "2", "3"]
    assert float(table[2]["train_loss"]) < float(table[0]["train_loss"])
    best = table[summary["best_epoch"] - 1]
    assert summary["val"]["top1"] == float(best["val_accuracy"])
    record = read_record(folder / "best.keras")
    assert record["labels"] == [str(n) for n in range(10)]
    assert record["model"]["include_preprocessing"] is True
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["backend"] == SMALL.backend
    assert environment["versions"]["keras"] == keras.__version__
    assert "epoch 3/3: loss" in capsys.readouterr().out
    assert "epoch 3/3: loss" in (folder / "log.txt").read_text()


def test_its_report_shows_the_most_confident_mistakes(run: Run) -> None:
    folder = run(epochs=1)
    with (folder / "predictions.csv").open(newline="") as file:
        answers = list(csv.DictReader(file))
    evaluation = json.loads((folder / "evaluation.json").read_text())
    wrong = [row for row in answers if row["label"] != row["prediction"]]
    assert len(answers) == 100
    assert len(wrong) == round(100 * (1 - evaluation["top1"])) > 0
    wrong.sort(key=lambda row: -float(row["confidence"]))
    page = Page(folder / "report.html")
    assert page.tables["sortable mistakes"][1:] == [
        ["", row["prediction"], row["label"], f"{100 * float(row['confidence']):.2f}", row["index"]]
        for row in wrong[:20]
    ]
    # The picture is the example's, resized to what the network sees.
    prepared = prepare(SMALL, folder)
    ((images, _),) = EvaluationBatches(prepared.data.test, prepared.preprocessing, batch_size=100)
    shown = {f"{r['label']}, taken for {r['prediction']}": int(r["index"]) for r in wrong[:20]}
    for words, index in shown.items():  # of the same words, the page's last picture
        picture = np.asarray(page.pictures[words], int)
        assert np.abs(picture - images[index, ..., 0]).mean() < 8  # it is a JPEG


@pytest.mark.slow
def test_same_seed_same_numbers(run: Run) -> None:
    first, second, other = run("a"), run("b"), run("c", seed=1)
    assert rows(first) == rows(second)
    for mine, theirs in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert rows(first) != rows(other)


def test_loss_that_is_not_finite_stops_the_run(run: Run, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the loss is nan: training has diverged.*--clip-norm"):
        run(optimizer="sgd", learning_rate=1e38)
    assert "diverged" in (tmp_path / "run" / "log.txt").read_text()
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_files_with_a_damaged_one(run: Run, tmp_path: Path) -> None:
    digits = open_data("digits").parts()["train"]
    for number in range(80):
        folder = tmp_path / "photos" / f"digit {digits.labels[number]}"
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(digits.images[number, ..., 0]).resize((40, 36))
        image.save(folder / f"{number}.jpg")
    bad = folder / "0 truncated.jpg"
    bad.write_bytes((folder / f"{number}.jpg").read_bytes()[:300])
    changes = {
        "data": str(tmp_path / "photos"),
        "crop": "random-resized",
        "resize": None,
        "train_limit": None,
        "val_fraction": 0.25,
        "batch_size": 16,
        "epochs": 2,
    }
    folder = run(**changes)
    summary = json.loads((folder / "summary.json").read_text())
    assert list(summary["skipped"]) == [str(bad)]
    log = (folder / "log.txt").read_text()
    assert f"skipped {bad}: " in log
    assert re.search(rf"(train|val): 1 image cannot be read, .*: {bad}\n", log)
    assert len(rows(folder)) == 2
    assert read_record(folder / "best.keras")["labels"] == [f"digit {n}" for n in range(10)]


def test_nothing_is_overwritten_or_left_behind(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "mine.txt").write_text("keep")
    with pytest.raises(ConfigurationError, match=r"exists already and is not empty.*--resume"):
        run()
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    with pytest.raises(ConfigurationError, match="is a file, not a folder"):
        run_experiment(SMALL, output=folder / "mine.txt")
    with pytest.raises(ConfigurationError, match="batch_size 512 is larger than"):
        run("other", batch_size=512)
    assert not (tmp_path / "other").exists()


def test_a_folder_that_was_there_before_stays(run: Run, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(ConfigurationError):
        run(data=str(tmp_path / "nowhere"))
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.slow
def test_final_views_where_nothing_is_left_to_test(tmp_path: Path) -> None:
    """Without a test part the validation part is what the final views are for."""
    folder = tmp_path / "run"
    experiment = Experiment(
        data=str(moved_photos(tmp_path)), model="lenet5", epochs=1, batch_size=8, input_size=28,
        backend=keras.backend.backend(), val_fraction=0.4, eval_resize=34, views="ten-crop",
    )  # fmt: skip
    run_experiment(experiment, output=folder)
    summary = json.loads((folder / "summary.json").read_text())
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["part"] == "val"
    assert evaluation["views"] == "ten-crop"
    for name in ("loss", "top1", "macro_f1"):
        assert summary["val"][name] == evaluation[name]
    centre = float(rows(folder)[0]["val_loss"])
    assert centre != summary["val"]["loss"]
    assert f"validation: loss {evaluation['loss']:.4f}" in (folder / "log.txt").read_text()
    page = Page(folder / "report.html")
    assert ["views of a val image", "ten-crop: the mean of 10"] in page.tables["used"]
    validated = tmp_path / "validated"
    run_experiment(replace(experiment, val_views="ten-crop"), output=validated)
    assert float(rows(validated)[0]["val_loss"]) == evaluation["loss"]


def test_settings_are_those_that_applied(run: Run) -> None:
    page = (run(epochs=1, schedule="constant") / "report.html").read_text()
    settings = dict(re.findall(r"<div><span>(\w+)</span><b>(.*?)</b></div>", page))
    assert settings["optimizer"] == "adam"
    assert not settings.keys() & {"momentum", "nesterov", "gamma", "step_epochs", "patience"}
    assert settings["backend"] == SMALL.backend
    assert settings["dropout_rate"] == "0.0"
    assert float(settings["mean"]) > 0
    assert "-" not in settings.values()
    assert "1 epoch in" in page


def test_frozen_body_then_all(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    base = run("base", epochs=1)
    folder = run(
        "tuned",
        weights=base / "best.keras",
        epochs=2,
        freeze_epochs=1,
        keep_every=1,
        unfrozen_learning_rate=0.001,
    )
    out = capsys.readouterr().out
    assert "epoch 1: only the classifiers train, learning rate 0.003" in out
    assert "epoch 2: all layers train, learning rate 0.001" in out
    start_, frozen, tuned = (
        load_model(path)
        for path in (base / "best.keras", folder / "epoch-001.keras", folder / "epoch-002.keras")
    )
    changed = {
        layer.name: [
            any(
                np.any(np.array(a) != np.array(b))
                for a, b in zip(
                    model.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True
                )
            )
            for model in (frozen, tuned)
        ]
        for layer in start_.layers
        if layer.get_weights()
    }
    classifier = list(changed)[-1]
    assert {name for name, (first, _) in changed.items() if first} == {classifier}
    assert all(second for _, second in changed.values())


def test_weights_of_another_architecture_are_refused(run: Run, small_files: Path) -> None:
    with pytest.raises(ModelFileError, match=r"does not fit lenet5:\n  layer "):
        run(weights=small_files / "small.keras")


@pytest.mark.parametrize("slow", [False, True])
def test_mixed_precision_is_warned_against_where_slow_and_saved_as_float32(
    slow: bool, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = ("mixed_bfloat16",) if slow else ()
    monkeypatch.setattr(precision, "_SLOW_ON_CPU", {SMALL.backend: policies})
    folder = run(precision="mixed_bfloat16", epochs=1)
    warning = f"warning: {SMALL.backend} trains slower in mixed_bfloat16"
    warned = warning in (folder / "log.txt").read_text()
    assert warned == (slow and not gpus())
    model = load_model(folder / "best.keras")
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert all(np.isfinite(row).all() for row in weights(folder))
