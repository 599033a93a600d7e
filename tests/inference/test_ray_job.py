"""Predictions by Ray: those of one process, in files that are complete, each photo once."""

import csv
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.devices import processes_with
from helpers.project import ROOT

import keras_alexnet
from keras_alexnet.data.examples import DataSet, unlabelled
from keras_alexnet.data.packed.packer import Packing, pack_data
from keras_alexnet.errors import ConfigurationError, DataError
from keras_alexnet.inference.guesses import Answer, Guess
from keras_alexnet.inference.ray_parts import PredictionParts
from porting.checks.inputs import sample_photos

ANSWERS = [
    Answer(Path("a.jpg"), [Guess(3, "cat", 0.75), Guess(1, "dog", 0.25)]),
    Answer(Path("b\udcff.jpg"), [], "damaged image"),
]


def test_a_part_holds_what_is_known(tmp_path: Path) -> None:
    parts = PredictionParts(tmp_path / "new" / "out", {"top": 2})
    assert parts.done() == set()
    parts.write(ANSWERS[:1])
    parts.write(ANSWERS[:1])
    (part,) = parts.path.iterdir()
    assert pq.read_table(part).to_pylist() == [
        {
            "file": "a.jpg",
            "classes": [3, 1],
            "labels": ["cat", "dog"],
            "probabilities": [0.75, 0.25],
            "error": None,
        }
    ]
    parts.write([Answer(Path("c.jpg"), [], "damaged image")])
    assert parts.done() == {"a.jpg", "c.jpg"}


def test_other_predictions_are_not_mixed_in(tmp_path: Path) -> None:
    PredictionParts(tmp_path, {"model_sha256": "1", "top": 5}).write(ANSWERS[:1])
    with pytest.raises(ConfigurationError, match="differ in model_sha256; name another folder"):
        PredictionParts(tmp_path, {"model_sha256": "2", "top": 5}).done()


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    parts = PredictionParts(tmp_path, {})
    parts.write(ANSWERS[:1])
    (part,) = tmp_path.iterdir()
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(DataError, match=rf"{part.name} is damaged .*; remove it"):
        parts.done()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(ConfigurationError, match=r"--output .*out: File exists"):
        PredictionParts(tmp_path / "out", {})


# The command


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "lenet5.keras"
    keras_alexnet.create_model("lenet5", include_preprocessing=True).save(path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 40 photos, the tenth of which is none."""
    folder = tmp_path_factory.mktemp("photos")
    sources = sample_photos()
    for number in range(40):
        (folder / f"{number:02}.jpg").symlink_to(sources[number % len(sources)])
    (folder / "10.jpg").unlink()
    (folder / "10.jpg").write_bytes(b"no image")
    return folder


def predict(*arguments: object, **options: Any) -> Any:
    code = "from keras_alexnet.commands.app import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "predict", *map(str, arguments), "--backend", "torch"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(process: Any, code: int) -> tuple[str, str]:
    out, err = process.communicate(timeout=200)
    assert process.returncode == code, out + err
    return out, err


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    found = pa.concat_tables([pq.read_table(p) for p in folder.glob("part-*")]).to_pylist()
    assert len({row["file"] for row in found}) == len(found)
    return {row["file"]: row for row in found}


@pytest.mark.slow  # Ray starts nine processes
def test_a_job_predicts_what_one_process_does(model: Path, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    job = predict(model, photos, "--output", output, "--workers", 2, "--batch-size", 4)
    alone = predict(model, photos, "--format", "csv", "--batch-size", 4)
    table, _ = finish(alone, 1)
    out, err = finish(job, 1)
    assert "39 images predicted" in out
    assert "warning: 1 of 40 images could not be read" in err
    found = rows(output)
    assert len(found) == 40
    wanted: dict[str, list[dict[str, str]]] = {}
    for row in csv.DictReader(io.StringIO(table)):
        wanted.setdefault(row["file"], []).append(row)
    assert found.keys() == wanted.keys()
    for file, row in found.items():
        if row["error"] is None:
            assert row["classes"] == [int(r["class"]) for r in wanted[file]]
            probabilities = [float(r["probability"]) for r in wanted[file]]
            assert row["probabilities"] == pytest.approx(probabilities, rel=1e-5)
        else:
            assert row["error"] == wanted[file][0]["error"]
    assert len(list(output.iterdir())) >= 8


@pytest.fixture(scope="module")
def packed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the photos that can be read, packed as pixels in two parts."""
    files = unlabelled(sorted(photos.iterdir()))
    data = DataSet(
        "photos", ("photo",), files.subset(np.arange(30)), files.subset(np.arange(30, 40))
    )
    folder = tmp_path_factory.mktemp("data") / "packed"
    pack_data(data, folder, Packing("raw", shards=3))  # type: ignore[arg-type]
    return folder


def test_packed_images_are_predicted_as_their_files_are(
    model: Path, photos: Path, packed: Path
) -> None:
    answers = []
    for place, code in ((photos, 1), (packed, 0)):
        table, _ = finish(predict(model, place, "--format", "csv"), code)
        found = [row for row in csv.DictReader(io.StringIO(table)) if not row["error"]]
        answers.append(sorted((Path(r["file"]).name, int(r["rank"]), r["class"]) for r in found))
    assert answers[0] == answers[1]
    assert len(answers[0]) == 39 * 5
    _, err = finish(predict(model, photos, packed), 2)
    assert err == f"error: {packed} are packed data: name them alone\n"


@pytest.mark.slow
def test_a_job_predicts_packed_images(model: Path, packed: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    out, _ = finish(predict(model, packed, "--output", output, "--workers", 2), 0)
    assert "39 images predicted" in out
    table, _ = finish(predict(model, packed, "--format", "csv"), 0)
    first = {
        row["file"]: int(row["class"])
        for row in csv.DictReader(io.StringIO(table))
        if row["rank"] == "1"
    }
    assert {file: row["classes"][0] for file, row in rows(output).items()} == first
    out, _ = finish(predict(model, packed, "--output", output), 0)
    assert out == "39 of 39 images are done already\n"


@pytest.mark.slow
@pytest.mark.parametrize("who", ["a worker", "the command"])
def test_what_is_written_outlives_a_kill(
    who: str, model: Path, photos: Path, tmp_path: Path
) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(60):
        (many / f"{number}").symlink_to(photos)
    folders = sorted(many.iterdir())
    output = tmp_path / "out"
    options = ("--output", output, "--workers", 2, "--batch-size", 4)
    job = predict(model, *folders, *options, start_new_session=True)
    end = time.monotonic() + 120
    while not list(output.glob("part-*")):
        assert time.monotonic() < end
        assert job.poll() is None
        time.sleep(0.05)
    if who == "a worker":
        workers = [pid for pid in processes_with("ray::Map") if os.getsid(pid) == job.pid]
        assert workers
        os.kill(workers[0], signal.SIGKILL)
        out, err = finish(job, 1)
        assert "2,340 images predicted" in out, out + err
    else:
        os.killpg(job.pid, signal.SIGINT)
        job.communicate(timeout=100)
        assert job.returncode != 0
        done = len(rows(output))
        kept = {part: part.stat().st_mtime_ns for part in output.glob("part-*")}
        out, _ = finish(predict(model, *folders, *options), 1)
        assert f"{done:,} of 2,400 images are done already" in out
        assert {part: part.stat().st_mtime_ns for part in kept} == kept
    assert len(rows(output)) == 2400
    assert not [p for p in output.iterdir() if not p.name.startswith("part-")]


# A host on which torch cannot be loaded.
LACK = "libcudart.so.12: cannot open shared object file"


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["one", "all"])
def test_a_host_that_cannot_compute(
    broken: str, model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(f"raise ImportError({LACK!r})")
    damage = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    good = {"PYTHONPATH": str(ROOT)}
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = cluster_utils.Cluster()
    try:
        for number in range(2):
            is_bad = broken == "all" or number == 1
            cluster.add_node(num_cpus=4, env_vars=damage if is_bad else good)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        job = predict(
            model, photos, "--output", tmp_path / "out", "--workers", 2, "--batch-size", 4
        )
        if broken == "one":
            out, err = finish(job, 1)
            assert "39 images predicted" in out
            assert len(rows(tmp_path / "out")) == 40
            assert re.search(
                r"warning: \d parts? failed on \S+ and go to whoever is free: .*libcud", err
            )
        else:
            _, err = finish(job, 2)
            assert err.splitlines()[-1] == f"error: ImportError: {LACK}"
            assert "Traceback" not in err
    finally:
        cluster.shutdown()


def test_photos_of_other_file_systems(model: Path, photos: Path, tmp_path: Path) -> None:
    """Everything that fsspec knows is a URL; files are one of its kinds."""
    url = f"file://{photos}"
    table, _ = finish(predict(model, f"{url}/10.jpg", url, "--format", "csv"), 1)
    first, *others = csv.DictReader(io.StringIO(table))
    assert first["file"] == f"{url}/10.jpg"
    assert first["error"] == "not an image that Pillow can read"
    names = dict.fromkeys(row["file"] for row in others)
    assert list(names) == [f"{url}/{number:02}.jpg" for number in range(40)]
    assert sum(not row["error"] for row in others) == 39 * 5
    _, err = finish(predict(model, f"{url}/none"), 2)
    assert err == f"error: {url}/none: no such image file or folder\n"
    _, err = finish(predict(model, "abc://bucket"), 2)
    assert err.startswith("error: abc://bucket: cannot be opened (")


def test_workers_are_for_jobs(model: Path, photos: Path) -> None:
    _, err = finish(predict(model, photos, "--workers", 2), 2)
    assert err == "error: --workers is for large jobs: give --output, a folder, too\n"
