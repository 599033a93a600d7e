"""The command line: what it writes, what it prints, its exit codes and its error texts."""

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.project import ROOT, TWINS

import keras_alexnet
from porting import read_checkpoint, write_checkpoint
from porting.commands import app as cli
from porting.torch_side.seeded import seeded_state_dict

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a command in this process, in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["porting", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        captured = capsys.readouterr()
        return int(exit_.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GoogLeNet checkpoint with seven classes and auxiliary heads."""
    path = tmp_path_factory.mktemp("checkpoint") / "mine.pth"
    write_checkpoint(path, seeded_state_dict("googlenet", seed=3, classes=7, aux_heads=True))
    return path


@pytest.fixture(scope="module")
def alexnet_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "alexnet.safetensors"
    write_checkpoint(path, seeded_state_dict("alexnet", seed=3, classes=7))
    return path


@pytest.fixture(scope="module")
def lenet_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "lenet.npz"
    write_checkpoint(path, seeded_state_dict("lenet5", seed=3))
    return path


def test_convert_export_and_diff_close_the_circle(run: Run, checkpoint: Path) -> None:
    code, out, _ = run(
        "convert", "googlenet", "--source", checkpoint, "--output", "m.keras", "--aux-heads"
    )
    assert code == 0
    assert "transform_input is off" in out
    assert "wrote m.keras: googlenet, 7 classes" in out
    assert run("export", "m.keras", "--output", "back.pth")[0] == 0
    code, out, _ = run("diff", checkpoint, "back.pth")
    assert code == 0
    assert "364 tensors identical, 0 different" in out
    original, back = read_checkpoint(checkpoint).arrays, read_checkpoint("back.pth").arrays
    assert list(original) == list(back)
    assert all(original[key].tobytes() == back[key].tobytes() for key in original)
    assert sorted(p.name for p in Path().iterdir()) == ["back.pth", "m.keras"]


def test_the_file_tells_where_it_comes_from(run: Run, checkpoint: Path) -> None:
    names = [f"thing {i}" for i in range(7)]
    Path("names.txt").write_text("\n".join(names) + "\n")
    code, _, _ = run(
        *("convert", "googlenet", "--source", checkpoint, "--output", "m.keras"),
        *("--labels", "names.txt", "--preprocessing", "--transform-input"),
        *("--data-format", "channels_first", "--input-size", "96x64"),
    )
    assert code == 0
    record = keras_alexnet.read_record("m.keras")
    assert record is not None
    assert record["labels"] == names
    assert record["source"]["file"] == "mine.pth"
    assert len(record["source"]["sha256"]) == 64
    assert record["model"]["transform_input"] is True
    assert record["model"]["include_preprocessing"] is True
    assert record["model"]["input_shape"] == [3, 96, 64]
    assert record["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    assert record["versions"]["keras"]
    code, out, _ = run("inspect", "m.keras")
    assert code == 0
    assert "fits googlenet (7 classes)" in out
    assert "converted from mine.pth" in out


def test_inspect_shows_keys_shapes_dtypes_and_damage(run: Run) -> None:
    arrays = {"fc.weight": torch.tensor([[1.0, float("nan")]]), "n": torch.tensor(3)}
    torch.save({"state_dict": {f"module.{k}": v for k, v in arrays.items()}}, "odd.pt")
    code, out, _ = run("inspect", "odd.pt")
    assert code == 0
    for text in ("fc.weight", "1x2", "float32", "int64", "scalar"):
        assert text in out
    assert "taken from the entry 'state_dict'" in out
    assert "prefix 'module.' removed" in out
    assert "fits no known model" in out


def test_diff_names_what_differs(run: Run) -> None:
    a = {"same": np.ones(2, np.float32), "moved": np.ones(2, np.float32), "gone": np.zeros(1)}
    b = {"same": a["same"], "moved": np.array([1, 1.5], np.float32), "new": np.zeros(1)}
    b["reshaped"], a["reshaped"] = np.zeros(2), np.zeros(3)
    np.savez("a.npz", **a)
    np.savez("b.npz", **b)
    code, out, _ = run("diff", "a.npz", "b.npz")
    assert code == 1
    assert "1 tensors identical, 4 different" in out
    for text in ("only in A", "only in B", "other shape", "differs", "0.5"):
        assert text in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("convert alexnet --source no.pth --output m.keras", "no.pth: no such file"),
        ("convert alexnet --source folder/no --output m.keras", "no such file"),
        ("convert alexnt --source {file} --output m.keras", "Did you mean 'alexnet'?"),
        ("convert alexnet --source {file} --output m.keras", "fit googlenet (7 classes, with aux"),
        ("convert googlenet --source {file} --output m.h5", "must be named *.keras"),
        ("convert googlenet --source {file} --output no/m.keras", "there is no folder no"),
        ("convert googlenet --source {file} --output m.keras --classes 9", "has 7 classes, not 9"),
        ("convert googlenet --source {file} --output m.keras --data-format nchw", "channels_last"),
        ("convert googlenet --source {file} --output m.keras --dtype floaty", "policy such as"),
        ("convert googlenet --source {file} --output m.keras --dtype int32", "got 'int32'"),
        ("convert googlenet --source {file} --output m.keras --input-size 14", "at least 15 x 15"),
        ("convert googlenet --source {file} --output m.keras --input-size big", "neither N nor"),
        (
            "convert googlenet --source {file} --output m.keras --labels no.txt",
            "no.txt: no such file",
        ),
        ("convert alexnet --source {alex} --output m.keras --transform-input", "knows no transf"),
        ("convert alexnet --source {alex} --output m.keras --aux-heads", "no auxiliary heads"),
        ("inspect no.pth", "no such file"),
        ("inspect no.keras", "no.keras: no such file"),
        ("inspect {root}/README.md", "unknown kind of weights file"),
        ("export no.keras --output w.pth", "no such file"),
        ("export no.keras --output w.bin", "known: .pth, .pt, .safetensors, .npz"),
        ("check alexnet --source no.pth", "no.pth: no such file"),
        ("check alexnet --backends mxnet", "unknown backend 'mxnet'"),
        ("check alexnet --data-formats nchw", "unknown data format 'nchw'"),
        ("check alexnet --sizes 62", "alexnet needs images of at least 63 x 63 pixels"),
        ("check alexnet --sizes a", "neither N nor HEIGHTxWIDTH"),
        ("check alexnet_paper --sizes 224,256", "has other weights for 256x256 than for 224x224"),
        ("check googlenet_caffe --sizes 97,64", "with auxiliary heads needs images of at least 79"),
        ("check lenet5 --reference net.py", "is not of the form FILE.py:FUNCTION"),
        ("check lenet5 --reference no.py:build", "no.py: no such Python file"),
        ("convert alexnet_wide --source {alex} --output m.keras", "fit alexnet (7 classes)"),
        ("convert lenet5 --source IMAGENET1K_V1 --output m.keras", "has no weights to download"),
        (
            "convert lenet5 --source {lenet} --output m.keras --input-size 40",
            "images of another size",
        ),
        ("seed lenet5 --output w.npz --input-size 11", "needs images of at least 12 x 12 pixels"),
        ("check alexnet --images no.jpg", "no.jpg: no such image file or folder"),
        ("check alexnet --images {root}/porting", "porting: no image files in this folder"),
        ("check alexnet --report no/r.html", "there is no folder no"),
        ("check alexnet --source {alex} --candidate no.keras", "no.keras: no such file"),
        ("seed alexnet --output w.bin", "unknown kind of weights file"),
        ("seed alexnet --output w.pth --statistics no.json", "no statistics of alexnet in it"),
        ("diff {file} no.npz", "no.npz: no such file"),
    ],
)
def test_a_mistake_gets_one_message_and_leaves_nothing(
    run: Run,
    checkpoint: Path,
    alexnet_checkpoint: Path,
    lenet_checkpoint: Path,
    arguments: str,
    message: str,
) -> None:
    files = {"file": checkpoint, "alex": alexnet_checkpoint, "lenet": lenet_checkpoint}
    filled = arguments.format(root=ROOT, **files)
    code, _, err = run(*filled.split())
    assert code == 2
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err
    assert not list(Path().iterdir())


def test_unknown_weights_names_are_listed(run: Run) -> None:
    code, _, err = run("convert", "alexnet", "--source", "IMAGENET22K", "--output", "m.keras")
    assert code == 2
    assert "Known names: IMAGENET1K_V1, DEFAULT" in err


def test_labels_must_match_the_classes(run: Run, checkpoint: Path) -> None:
    Path("names.txt").write_text("one\ntwo\n")
    code, _, err = run(
        *("convert", "googlenet", "--source", checkpoint, "--output", "m.keras"),
        *("--labels", "names.txt"),
    )
    assert code == 2
    assert "2 labels were given for 7 classes" in err


def test_nan_weights_are_refused(run: Run, checkpoint: Path) -> None:
    arrays = dict(read_checkpoint(checkpoint).arrays)
    arrays["fc.bias"] = np.full(7, np.nan, np.float32)
    write_checkpoint("nan.npz", arrays)
    code, _, err = run("convert", "googlenet", "--source", "nan.npz", "--output", "m.keras")
    assert code == 2
    assert "not finite: fc.bias holds 7 NaN or infinite values" in err
    assert not Path("m.keras").exists()


def test_an_image_that_is_none_fails_the_check(run: Run, alexnet_checkpoint: Path) -> None:
    Path("photo.jpg").write_text("no pixels")
    code, _, err = run("check", "alexnet", "--source", alexnet_checkpoint, "--images", "photo.jpg")
    assert code == 2
    assert "photo.jpg: not an image that Pillow can read" in err


@pytest.mark.slow
def test_check_writes_report_and_json(run: Run) -> None:
    code, out, _ = run(
        *("check", "lenet5", "--sizes", "32x32", "--reference", TWINS),
        *("--backends", "torch", "--report", "r.html", "--json", "r.json"),
    )
    assert code == 0, out
    assert "passed" in out
    assert "against twins.py" in out
    content = json.loads(Path("r.json").read_text())
    assert content["passed"] is True
    page = Path("r.html").read_text()
    assert page.count("<svg") == 1
    assert page.count("data:image/jpeg;base64,") == 2
    assert "china.jpg" in page
    # Self-contained: nothing is fetched when the page is opened.
    assert 'src="http' not in page
    assert "<link" not in page
    assert "<script" not in page


def converting(source: Path, output: Path) -> list[str]:
    """Return the command that converts an AlexNet in a process of its own."""
    files = ["--source", str(source), "--output", str(output)]
    return [sys.executable, "-m", "porting", "convert", "alexnet", *files]


@pytest.mark.parametrize(
    "how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_an_interrupted_convert_leaves_no_file(
    alexnet_checkpoint: Path, tmp_path: Path, how: signal.Signals
) -> None:
    output = tmp_path / "m.keras"
    process = subprocess.Popen(
        converting(alexnet_checkpoint, output),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        # Until the weights are being written: into a folder, after imports that swallow signals.
        deadline = time.monotonic() + 90
        while not any(path.is_dir() for path in tmp_path.iterdir()):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(how)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode != 0
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def run_on_a_full_disk(command: list[str], room: int) -> "subprocess.CompletedProcess[str]":
    """Run a command in which writing a file beyond `room` bytes fails like on a full disk."""

    def limit_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    return subprocess.run(
        command,
        cwd=ROOT,
        preexec_fn=limit_files,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_full_disk_keeps_the_old_file(alexnet_checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.keras"
    output.write_bytes(b"the old model")
    done = run_on_a_full_disk(converting(alexnet_checkpoint, output), 10_000_000)
    assert done.returncode == 2, done.stderr
    assert f"error: cannot write {output}" in done.stderr
    assert "Traceback" not in done.stderr
    assert output.read_bytes() == b"the old model"
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.slow
def test_no_room_to_unpack_a_model(run: Run, lenet_checkpoint: Path, tmp_path: Path) -> None:
    model, output = tmp_path / "m.keras", tmp_path / "w.npz"
    code, _, _ = run("convert", "lenet5", "--source", lenet_checkpoint, "--output", model)
    assert code == 0
    command = [sys.executable, "-m", "porting", "export", str(model), "--output", str(output)]
    done = run_on_a_full_disk(command, 100_000)
    assert done.returncode == 2, done.stderr
    assert f"error: {model}: no room to unpack it in" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [model]
