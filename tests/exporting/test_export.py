"""`keras-alexnet export`: every format against its own runtime, refusals, nothing half-written."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers.classifiers import record_of
from helpers.project import ROOT
from PIL import Image

from keras_alexnet import LocalResponseNormalization, create_model
from keras_alexnet.data.sources.registry import open_data
from keras_alexnet.errors import ConfigurationError, ModelFileError
from keras_alexnet.exporting import export_child, verification
from keras_alexnet.exporting.children import run_job
from keras_alexnet.exporting.formats import FORMATS
from keras_alexnet.exporting.staging import publish
from keras_alexnet.exporting.verification import (
    LIMIT,
    VerificationError,
    compare,
    relative_difference,
    verify,
)
from keras_alexnet.models.initialization import weights_will_follow
from keras_alexnet.models.record import ModelInput, save_model
from keras_alexnet.specs import SPECS
from keras_alexnet.specs.preprocessing import Preprocessing
from porting import load_state_dict
from porting.tolerances import TOLERANCES
from porting.torch_side.seeded import seeded_state_dict

Run = Callable[..., tuple[int, str, str]]


def lacks(name: str, *, int8: bool = False) -> str:
    """What a format lacks here; empty if nothing."""
    entry = FORMATS[name]
    needed = [entry.backend, *entry.packages, entry.runtimes[0]]
    needed += entry.quantizers or () if int8 else ()
    missing = [package for package in needed if importlib.util.find_spec(package) is None]
    return f"{name} needs {', '.join(missing)}" if missing else ""


def needing(name: str, *, int8: bool = False, slow: bool = False) -> Any:
    reason = lacks(name, int8=int8)
    marks = [pytest.mark.skipif(bool(reason), reason=reason), *([pytest.mark.slow] * slow)]
    return pytest.param(name, marks=marks)


EVERY = pytest.mark.parametrize("name", [needing(name) for name in FORMATS])
needs_onnx = pytest.mark.skipif(bool(lacks("onnx")), reason=lacks("onnx"))


def save_network(path: Path, name: str, shape: tuple[int, int, int], **options: Any) -> Path:
    """Save a network of the family with its record, and with weights that let errors show.

    After Keras' initialisation GoogLeNet's logits are its last bias, whatever the image.
    """
    options = {"include_preprocessing": True} | options
    with weights_will_follow():
        model = create_model(name, input_shape=shape, classes=10, **options)
    size = shape[1:] if options.get("data_format") == "channels_first" else shape[:2]
    heads = bool(options.get("aux_heads"))
    weights = seeded_state_dict(name, classes=10, aux_heads=heads, size=size)
    load_state_dict(model, weights)
    record = {
        "model": {"name": name, "include_preprocessing": options["include_preprocessing"]},
        "preprocessing": asdict(SPECS[name].preprocessing.at_size(*size)),
    }
    save_model(model, path, record)
    return path


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_network(tmp_path_factory.mktemp("lenet") / "lenet.keras", "lenet5", (28, 28, 1))


@pytest.fixture(scope="module")
def branched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with what is hard to export: BGR, groups, LRN, layer norm, two outputs."""
    keras.utils.set_random_seed(0)
    preprocessing = Preprocessing(20, (17, 17), channels="BGR")
    image = keras.Input((17, 17, 3), name="image")
    x = keras.ops.flip(image, -1)
    x = keras.layers.Normalization(axis=None, mean=0.0, variance=255.0**2)(x)
    x = keras.layers.Normalization(axis=-1, mean=[0.4, 0.5, 0.6], variance=[0.04, 0.05, 0.06])(x)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = keras.layers.Conv2D(8, 3, groups=2, activation="relu")(x)
    x = LocalResponseNormalization(size=3, alpha=0.1)(x)
    x = keras.layers.LayerNormalization(epsilon=1e-6)(x)
    x = keras.layers.Activation("gelu")(x)
    aux = keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(x))
    x = keras.layers.MaxPooling2D(2)(x)
    logits = keras.layers.Dense(4)(keras.layers.Dropout(0.5)(keras.layers.Flatten()(x)))
    # In this order, so that exporters that sort and exporters that do not would differ.
    model = keras.Model(image, {"logits": logits, "aux1": aux}, name="branched")
    path = tmp_path_factory.mktemp("branched") / "branched.keras"
    record = {"model": {"include_preprocessing": True}, "preprocessing": asdict(preprocessing)}
    save_model(model, path, record)
    return path


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twelve digits."""
    folder = tmp_path_factory.mktemp("digits")
    test = open_data("digits").test
    assert test is not None
    for index in range(12):
        Image.fromarray(test.images[index, ..., 0]).save(folder / f"{index}.png")
    return folder


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def export(run_cli: Run, model: Path, name: str, *more: object) -> dict[str, Any]:
    """Export as `out...` into the present folder; return the report."""
    output = "out" + FORMATS[name].suffix
    code, out, err = run_cli(
        "export", model, "--format", name, "--output", output, "--json", "report.json", *more
    )
    assert (code, err) == (0, ""), err
    assert output in out
    assert f"{LIMIT:.0e}" in out
    report: dict[str, Any] = json.loads(Path("report.json").read_text())
    files = [path.name for path in FORMATS[name].members(Path(output))]
    assert names_in(Path.cwd()) == sorted([*files, "report.json"])
    return report


def int8_refusal(run_cli: Run, model: Path, name: str, images: Path) -> str:
    """Return the one line that refuses an export of a model to int8."""
    output = "out" + FORMATS[name].suffix
    code, out, err = run_cli(
        "export", model, "--format", name, "--output", output, "--quantize", "int8",
        "--calibration", images,
    )  # fmt: skip
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    return err


def test_the_limit_is_the_parity_tables() -> None:
    assert TOLERANCES["logits"].limit == LIMIT


# formats


@pytest.mark.parametrize(
    "name",
    [
        # Each takes ten seconds for its runtime: one stands for all.
        needing(name, slow=name != "onnx")
        for name in FORMATS
    ],
)
def test_exports_compute_what_the_model_does(run_cli: Run, branched: Path, name: str) -> None:
    report = export(run_cli, branched, name)
    verified = report["verified"]
    assert {check["output"] for check in verified["checks"]} == {"logits", "aux1"}
    assert all(0 <= check["difference"] <= LIMIT for check in verified["checks"])
    # Else agreement would say nothing.
    assert all(check["response"] > 0.01 for check in verified["checks"])
    assert verified["batches"] == [1, 3]
    assert verified["sets"] == ["noise", "photos"]
    assert (report["precision"], report["batch_size"]) == ("float32", "dynamic")
    assert report["backend"] == FORMATS[name].backend
    assert report["bytes"] > 0


@pytest.mark.slow
@needs_onnx
def test_a_fixed_batch_size_and_the_names_of_an_onnx_file(run_cli: Run, lenet: Path) -> None:
    import onnx

    report = export(run_cli, lenet, "onnx", "--batch-size", 2)
    assert (report["batch_size"], report["verified"]["batches"]) == (2, [2])
    graph = onnx.load("out.onnx").graph
    assert [value.name for value in (*graph.input, *graph.output)] == ["image", "logits"]
    shape = graph.input[0].type.tensor_type.shape
    assert [dim.dim_value for dim in shape.dim] == [2, 28, 28, 1]


def test_weights_that_one_onnx_file_cannot_hold_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = keras.Input((2,), name="image")
    model = keras.Model(image, keras.layers.Dense(3)(image), name="large")  # 36 bytes
    monkeypatch.setattr(export_child, "_ONNX_BYTES", 36)
    export_child._check_size(model)
    monkeypatch.setattr(export_child, "_ONNX_BYTES", 35)
    with pytest.raises(ModelFileError, match=r"large has .* GB of weights; an ONNX file holds"):
        export_child._check_size(model)


@pytest.mark.slow
@EVERY
@pytest.mark.parametrize(
    ("network", "shape", "options"),
    [
        ("lenet5", (28, 28, 1), {}),
        ("alexnet_cifar", (33, 37, 3), {}),
        ("googlenet", (97, 83, 3), {}),
        ("googlenet", (97, 83, 3), {"aux_heads": True, "include_preprocessing": False}),
        ("googlenet", (3, 97, 83), {"data_format": "channels_first"}),
        ("alexnet_caffe", (99, 83, 3), {}),
        ("alexnet_paper", (95, 79, 3), {}),
        ("googlenet_caffe", (97, 83, 3), {}),
    ],
)
def test_the_family_exports(
    run_cli: Run, tmp_path: Path, name: str, network: str, shape: Any, options: Any
) -> None:
    (tmp_path / "in").mkdir()
    model = save_network(tmp_path / "in" / "model.keras", network, shape, **options)
    output = tmp_path / "in" / f"out{FORMATS[name].suffix}"
    code, out, err = run_cli("export", model, "--format", name, "--output", output)
    if code and name == "saved_model" and options.get("data_format") == "channels_first":
        assert "only supports the NHWC tensor format" in err
        assert not output.exists()
        pytest.skip("this build of TensorFlow has no convolution of NCHW for CPUs")
    assert (code, err) == (0, ""), err
    assert "aux1" in out or not options.get("aux_heads")


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of an image, a smaller one and a vector, named against the order of the alphabet."""
    keras.utils.set_random_seed(1)
    inputs = [
        keras.Input((19, 17, 3), name="photo"),
        keras.Input((8, 9, 3), name="detail"),
        keras.Input((5,), name="age"),
    ]
    maps = [keras.layers.Conv2D(4, 3, activation="relu")(x) for x in inputs[:2]]
    pooled = [keras.layers.GlobalAveragePooling2D()(x) for x in maps]
    joined = keras.layers.Concatenate()([*pooled, inputs[2]])
    model = keras.Model(inputs, keras.layers.Dense(4)(joined), name="several")
    path = tmp_path_factory.mktemp("several") / "several.keras"
    preprocessing = Preprocessing(20, (19, 17))
    record = {"model": {"include_preprocessing": False}, "preprocessing": asdict(preprocessing)}
    save_model(model, path, record)
    return path


@pytest.mark.parametrize("name", [needing(n, slow=n != "onnx") for n in FORMATS])
def test_several_inputs(run_cli: Run, several: Path, name: str) -> None:
    report = export(run_cli, several, name)
    assert report["input_shapes"] == {"photo": [19, 17, 3], "detail": [8, 9, 3], "age": [5]}
    verified = report["verified"]
    assert (verified["batches"], verified["sets"]) == ([1, 3], ["noise", "photos"])
    assert all(check["response"] > 0.01 for check in verified["checks"])


@pytest.mark.slow
@pytest.mark.parametrize("name", [needing("openvino", int8=True)])
def test_int8_of_several_inputs_is_refused(
    run_cli: Run, several: Path, digits: Path, tmp_path: Path, name: str
) -> None:
    err = int8_refusal(run_cli, several, name, digits)
    assert "has 3 inputs (photo, detail, age); leave --quantize out" in err
    assert names_in(tmp_path) == []


# int8


@pytest.mark.slow
@pytest.mark.parametrize("name", [needing(n, int8=True) for n in ("tflite", "openvino")])
@pytest.mark.parametrize("batch_size", ["dynamic", "2"])
def test_int8_is_smaller_and_agrees(
    run_cli: Run, lenet: Path, digits: Path, name: str, batch_size: str
) -> None:
    report = export(
        run_cli, lenet, name, "--quantize", "int8", "--calibration", digits,
        "--calibration-images", "10", "--evaluation", digits, "--batch-size", batch_size,
    )  # fmt: skip
    found = report["quantized"]
    assert report["precision"] == "int8"
    assert (found["calibration"], found["evaluation"]) == (10, 12)
    assert found["bytes_after"] < found["bytes_before"] / 2
    assert report["bytes"] == found["bytes_after"]
    assert found["agreement"] >= 0.9
    assert min(found["rate_before"], found["rate_after"]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [needing("openvino", int8=True)])
def test_int8_exports_lrn(
    run_cli: Run, branched: Path, digits: Path, tmp_path: Path, name: str
) -> None:
    code, _, err = run_cli(
        "export", branched, "--format", name, "--output", "out.xml", "--quantize", "int8",
        "--calibration", digits,
    )  # fmt: skip
    assert code == 0, err
    import openvino

    model = openvino.Core().read_model(tmp_path / "out.xml")
    quantized = [op for op in model.get_ops() if op.get_type_name() == "FakeQuantize"]
    assert quantized


@pytest.mark.slow
@pytest.mark.parametrize("name", [needing("tflite", int8=True)])
def test_int8_refuses_lrn_where_nothing_can_be_spared(
    run_cli: Run, branched: Path, digits: Path, tmp_path: Path, name: str
) -> None:
    err = int8_refusal(run_cli, branched, name, digits)
    assert "named other classes than float32 where that was measured; use --format openvino" in err
    assert names_in(tmp_path) == []


# negative controls


@pytest.fixture(scope="module")
def exported(lenet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `lenet.onnx` and what the model computes, `samples.npz`."""
    folder = tmp_path_factory.mktemp("exported")
    job = {
        "model": str(lenet),
        "format": "onnx",
        "output": str(folder / "lenet.onnx"),
        "batch_size": None,
        "samples": str(folder / "samples.npz"),
    }
    answer = run_job("export_child", job, backend="torch")
    assert answer["outputs"] == ["logits"]
    assert ModelInput.from_json(answer["inputs"]["image"]).shape == (28, 28, 1)
    return folder


def verify_onnx(file: Path, exported: Path, scratch: Path) -> Any:
    return verify(FORMATS["onnx"], file, exported / "samples.npz", scratch, batch_size=None)


@needs_onnx
def test_tampered_weights_fail(exported: Path, tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    (check,) = verify_onnx(exported / "lenet.onnx", exported, tmp_path).checks
    assert check.difference <= LIMIT
    model = onnx.load(exported / "lenet.onnx")
    kernel = max(model.graph.initializer, key=lambda entry: len(entry.raw_data))
    values = numpy_helper.to_array(kernel).copy()
    values *= 1.0005
    kernel.CopyFrom(numpy_helper.from_array(values, kernel.name))
    onnx.save(model, tmp_path / "tampered.onnx")
    with pytest.raises(VerificationError, match=r"'logits' differs by .*e-0[45] .* limit is 1e-05"):
        verify_onnx(tmp_path / "tampered.onnx", exported, tmp_path)


@needs_onnx
def test_a_file_that_its_runtime_refuses_fails(exported: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes((exported / "lenet.onnx").read_bytes()[:1000])
    with pytest.raises(VerificationError, match="onnxruntime cannot run what was exported"):
        verify_onnx(damaged, exported, tmp_path)


@pytest.mark.slow
@needs_onnx
def test_a_difference_leaves_the_older_file(
    run_cli: Run, lenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "LIMIT", -1.0)
    (tmp_path / "out.onnx").write_text("older")
    code, out, err = run_cli("export", lenet, "--format", "onnx", "--output", "out.onnx")
    assert (code, out) == (1, "")
    assert "does not compute what the model does: output 'logits' differs by" in err
    assert "the limit is -1" in err
    assert len(err.splitlines()) == 1
    assert names_in(tmp_path) == ["out.onnx"]
    assert (tmp_path / "out.onnx").read_text() == "older"


def test_outputs_are_compared_by_name_and_shape() -> None:
    x = np.ones((3, 2))
    expected = {"noise/input": x, "noise/output/aux1": x, "noise/output/logits": 2 * x}
    good = {"noise/3/aux1": x, "noise/3/logits": 2 * x + 1e-6}
    checks, sets = compare(expected, good, [3])
    assert {c.output: round(c.difference, 9) for c in checks} == {"aux1": 0, "logits": 5e-7}
    assert sets == ("noise",)
    with pytest.raises(VerificationError, match="has the outputs aux1; the model has aux1, logits"):
        compare(expected, {"noise/3/aux1": x}, [3])
    with pytest.raises(VerificationError, match=r"'logits' is \(1, 2\) on noise in a batch of 3"):
        compare(expected, good | {"noise/3/logits": x[:1]}, [3])


def test_outputs_that_no_image_changes_are_weak_evidence() -> None:
    constant, varied = np.ones((3, 2)), np.ones((3, 2)) + np.eye(3, 2)
    for reference, weak in ((constant, True), (varied, False), (np.zeros((3, 2)), True)):
        expected = {"noise/input": constant, "noise/output/logits": reference}
        (check,), _ = compare(expected, {"noise/3/": reference}, [3])
        assert (check.difference, check.is_weak) == (0, weak)


@pytest.mark.slow
@needs_onnx
def test_a_model_that_ignores_the_image_is_warned_of(tmp_path: Path, run_cli: Run) -> None:
    image = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()(image)
    dense = keras.layers.Dense(2, kernel_initializer="zeros", bias_initializer="ones")
    model = keras.Model(image, dense(flat), name="dead")
    save_model(model, tmp_path / "m.keras", record_of(model, Preprocessing(8, (8, 8))))
    code, _, err = run_cli("export", tmp_path / "m.keras", "--format", "onnx")
    assert code == 0
    assert "warning: the model's output 'logits' hardly depends on the image" in err


@pytest.mark.parametrize(
    ("values", "reference", "difference"),
    [
        ([3, 1], [2, 1], 0.5),
        ([0, 1], [0, 1], 0),
        ([np.nan, 1], [1, 1], np.inf),
        ([np.inf, 1], [1, 1], np.inf),
    ],
)
def test_relative_difference(
    values: list[float], reference: list[float], difference: float
) -> None:
    assert relative_difference(np.array(values, float), np.array(reference, float)) == difference


def test_a_reference_of_zeros_allows_zeros_alone() -> None:
    assert relative_difference(np.zeros(2), np.zeros(2)) == 0
    assert relative_difference(np.full(2, 1e-9), np.zeros(2)) == np.inf


# nothing half-written


def test_publishing_replaces_all_or_none(tmp_path: Path) -> None:
    staged = tmp_path / "staged"
    staged.mkdir()
    for suffix in (".xml", ".bin"):
        (staged / f"a{suffix}").write_text("new")
        (tmp_path / f"a{suffix}").write_text("old")
    new, targets = [[f / "a.xml", f / "a.bin"] for f in (staged, tmp_path)]
    publish(new, targets, staged)
    assert [path.read_text() for path in targets] == ["new", "new"]
    # The second of the files to move is missing: the first is taken back, the old ones stay.
    (staged / "a.bin").write_text("newer")
    with pytest.raises(ConfigurationError, match="cannot write"):
        publish(new, targets, staged / "again")
    (staged / "again").mkdir()
    with pytest.raises(ConfigurationError, match=r"cannot write .*a\.xml"):
        publish(new, targets, staged / "again")
    assert [path.read_text() for path in targets] == ["new", "new"]
    assert (staged / "a.bin").read_text() == "newer"


@needs_onnx
def test_ctrl_c_leaves_nothing(lenet: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "keras_alexnet",
        "export",
        lenet,
        "--format",
        "onnx",
    ]
    process = subprocess.Popen(
        [*map(str, command), "--output", str(tmp_path / "out.onnx")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    end = time.monotonic() + 60
    while not names_in(tmp_path) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.5)
    assert process.poll() is None, process.communicate()[0]
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, b"")
    assert names_in(tmp_path) == []


# mistakes


@pytest.fixture
def files(tmp_path: Path, lenet: Path) -> Path:
    """Model `m.keras` and things that are in the way."""
    (tmp_path / "m.keras").symlink_to(lenet)
    (tmp_path / "text.keras").write_text("no archive")
    for folder in ("empty", "other", "x.onnx", "sm"):
        (tmp_path / folder).mkdir()
    (tmp_path / "other" / "diary.txt").write_text("mine")
    (tmp_path / "sm" / "saved_model.pb").write_text("older")
    (tmp_path / "file").write_text("mine")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("m.keras --format pdf", "unknown format 'pdf'; there are onnx, saved_model, tflite"),
        ("none.keras --format onnx", "none.keras: no such file"),
        ("none.h5 --format onnx", "none.h5: not a .keras file"),
        ("text.keras --format onnx", "text.keras: not a .keras archive"),
        ("m.keras --format onnx --output a.pb", "the suffix of onnx is .onnx; name the output"),
        ("m.keras --format saved_model --output a.onnx", "saved_model is a folder, whose name"),
        ("m.keras --format onnx --output gone/a.onnx", "there is no folder gone"),
        ("m.keras --format onnx --output x.onnx", "cannot write x.onnx: it is a folder"),
        ("m.keras --format saved_model --output file", "it is a file, and saved_model is a folder"),
        ("m.keras --format saved_model --output sm", "the folder exists; add --overwrite"),
        (
            "m.keras --format saved_model --output other --overwrite",
            "the folder holds no saved_model.pb",
        ),
        ("m.keras --format onnx --batch-size 0", "--batch-size '0' is neither"),
        ("m.keras --format onnx --batch-size many", "--batch-size 'many' is neither"),
        ("m.keras --format onnx --json gone/a.json", "there is no folder gone"),
        (
            "m.keras --format onnx --quantize int8 --calibration other",
            "--quantize int8 is for tflite and openvino; onnx has none",
        ),
        ("m.keras --format tflite --quantize int8", "needs --calibration FOLDER"),
        (
            "m.keras --format tflite --quantize int8 --calibration empty",
            "empty: no image files in this folder, which --calibration needs",
        ),
        (
            "m.keras --format tflite --quantize int8 --calibration gone",
            "gone: no such image file or folder",
        ),
        ("m.keras --format tflite --calibration other", "are for --quantize int8; add that"),
    ],
)
def test_mistakes_are_one_line(run_cli: Run, files: Path, arguments: str, message: str) -> None:
    name = arguments.split()[2]
    if reason := name in FORMATS and lacks(name):
        pytest.skip(reason)
    before = names_in(files)
    code, out, err = run_cli("export", *arguments.split())
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert names_in(files) == before


def test_missing_packages_are_named_with_the_pip_line(
    run_cli: Run, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from keras_alexnet.exporting import formats

    monkeypatch.setattr(formats, "installed", lambda package: package == "tensorflow")
    arguments = ("export", "m.keras", "--format", "openvino", "--quantize", "int8")
    code, _, err = run_cli(*arguments, "--calibration", "other")
    assert code == 2
    assert "openvino and checking the result needs openvino, nncf, not installed here" in err
    assert "pip install openvino nncf" in err


@pytest.mark.slow
def test_models_that_cannot_be_exported_say_why(tmp_path: Path, run_cli: Run) -> None:
    if reason := lacks("torch"):
        pytest.skip(reason)
    image = keras.Input((8, 8, 3))
    flat = keras.layers.Flatten()(image)
    layer = keras.layers.Dense(2, dtype="mixed_float16")
    model = keras.Model(image, layer(flat), name="half")
    save_model(model, tmp_path / "m.keras", record_of(model, Preprocessing(8, (8, 8))))
    code, out, err = run_cli("export", tmp_path / "m.keras", "--format", "torch")
    assert (code, out) == (2, "")
    assert err.strip().endswith("Build it with dtype='float32', set its weights, and save that")
    assert len(err.splitlines()) == 1
    assert names_in(tmp_path) == ["m.keras"]
