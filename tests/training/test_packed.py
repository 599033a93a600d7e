"""Runs on packed data: as on others, and without TensorFlow."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers.project import ROOT
from helpers.training import at_step, interrupt_at, moved_photos, rows, weights

from keras_alexnet.data.batches.training import TrainingBatches
from keras_alexnet.data.packed import blocks
from keras_alexnet.data.packed.index import Encoding
from keras_alexnet.data.packed.packer import Packing, pack_data
from keras_alexnet.data.sources.registry import find_data
from keras_alexnet.errors import DataError
from keras_alexnet.training.experiment import Experiment
from keras_alexnet.training.loop.progress import input_note
from keras_alexnet.training.run import resume_experiment, run_experiment


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    pack_data(
        find_data(str(moved_photos(tmp_path))),
        tmp_path / "packed",
        Packing(Encoding.RAW, short_side=30, shards=4),
    )
    return tmp_path / "packed"


def experiment(packed: Path) -> Experiment:
    return Experiment(
        data=str(packed), model="lenet5", epochs=2, batch_size=8, val_fraction=0.2,
        checkpoint_steps=4, learning_rate=0.05, backend=keras.backend.backend(),
    ).override(resize=32, crop="random", flip=0.5)  # fmt: skip


def test_interrupted_and_resumed_equals_uninterrupted(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_experiment(experiment(packed), output=tmp_path / "whole")
    interrupt_at(9, monkeypatch)
    assert run_experiment(experiment(packed), output=tmp_path / "parts") is None
    resume_experiment(tmp_path / "parts")
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    for mine, theirs in zip(weights(tmp_path / "parts"), weights(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_run_ends_where_its_shards_disappear(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 1)  # an image each
    monkeypatch.setattr(blocks, "WINDOW", 1)
    monkeypatch.setattr(blocks, "_KEPT", 2)
    run_experiment(experiment(packed), output=tmp_path / "whole")
    away = tmp_path / "away"
    at_step(6, lambda: packed.rename(away), monkeypatch)
    with pytest.raises(DataError, match=r"packed/train-0000\d-of-00004\.tfrecord: no such file$"):
        run_experiment(experiment(packed), output=tmp_path / "parts")
    away.rename(packed)
    resume_experiment(tmp_path / "parts")
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


DISAPPEARING = """
import sys
from pathlib import Path

import pytest
from helpers.project import ROOT
from helpers.training import at_step
from test_packed import experiment

from keras_alexnet.data.packed import blocks
from keras_alexnet.training.run import run_experiment

packed, output = map(Path, sys.argv[1:])
blocks.BLOCK, blocks.WINDOW, blocks._KEPT = 1, 1, 2
at_step(6, lambda: packed.rename(packed.with_name("away")), pytest.MonkeyPatch())
try:
    run_experiment(experiment(packed), output=output)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_tensorflow_tells_it_in_a_line(packed: Path, tmp_path: Path, run_python: Any) -> None:
    folders = os.pathsep.join(map(str, (ROOT / "tests", Path(__file__).parent)))
    done = run_python(
        DISAPPEARING, packed, tmp_path / "run", KERAS_BACKEND="tensorflow", PYTHONPATH=folders
    )
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"DataError .*/packed/train-0000\d-of-00004\.tfrecord: no such file", last)


def test_boxes_are_resized_on_a_gpu(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here by a processor in its place."""
    inputs = []

    class Noted(TrainingBatches):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            inputs.append(self.inputs)

    monkeypatch.setattr("keras_alexnet.training.preparation.TrainingBatches", Noted)
    monkeypatch.setattr("keras_alexnet.training.preparation.gpus", lambda: ["a GPU"])
    options = replace(experiment(packed), epochs=1).override(resize=None, crop="random-resized")
    summary = run_experiment(options, output=tmp_path / "run")
    assert summary is not None
    assert 0 < summary["val"]["loss"] < 3
    assert [list(each) for each in inputs] == [["image", "geometry"]]


def test_damaged_records_are_in_the_summary(packed: Path, tmp_path: Path) -> None:
    shard = packed / "train-00001-of-00004.tfrecord"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    summary = run_experiment(replace(experiment(packed), epochs=1), output=tmp_path / "run")
    assert summary is not None
    ((place, reason),) = summary["skipped"].items()
    assert Path(place).is_relative_to(shard)
    assert reason == "damaged record (its checksum is not the index')"


WITHOUT_TENSORFLOW = """
import contextlib, importlib.machinery, sys

find = importlib.machinery.PathFinder.find_spec

def without(name, *others):
    return None if name.partition(".")[0] == "tensorflow" else find(name, *others)

importlib.machinery.PathFinder.find_spec = without
from keras_alexnet.commands.app import main
output, *places = sys.argv[1:]
for place in places:
    sys.argv[1:] = (
        f"train --data {place} --output {place}-{output} --model lenet5 --epochs 1 --batch-size 8 "
        "--crop random-resized --flip 0.5"
    ).split()
    with contextlib.suppress(SystemExit):
        main()
"""


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_training_without_tensorflow(
    backend: str, packed: Path, tmp_path: Path, run_python: Any
) -> None:
    photos = tmp_path / "photos"
    run_python(WITHOUT_TENSORFLOW, "run", photos, packed, KERAS_BACKEND=backend)
    for folder in (photos, packed):
        summary = json.loads((tmp_path / f"{folder.name}-run" / "summary.json").read_text())
        assert summary["skipped"] == {}
        assert 0 < summary["val"]["loss"] < 3


def test_what_is_said_of_waiting_for_images() -> None:
    assert input_note(None, 10) is None
    assert input_note(0.9, 10) is None
    assert str(input_note(6.2, 10)).startswith("input bound: 62 % of the epoch's time went by")
