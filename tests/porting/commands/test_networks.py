"""Any torch network by the command line: converted, checked, exported, and its mistakes."""

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import porting
from keras_alexnet import Predictor
from keras_alexnet.benchmarking.plan import subject_of
from keras_alexnet.errors import ModelFileError
from porting.checkpoints.files import read_checkpoint, write_checkpoint
from porting.checks.coverage import Covered, from_json, to_json
from porting.commands.app import app
from porting.commands.coverage import notes
from porting.conversion import network, networks
from porting.conversion.networks import relative_gap
from porting.errors import GraphError, PortingError, TransferError, UsageError
from porting.torch_side.targets import Target, classes_of
from porting.training_checks.check import TrainingRequest, check_training

NET = """
import torch
from torch import nn

def build(classes: int = 5):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True), nn.Flatten(), nn.Linear(8 * 9 * 9, classes),
    )

class Branching(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))

class Sorting(nn.Module):
    def forward(self, x):
        return torch.cummax(x, 1)[0].mean((2, 3))

class Weightless(nn.Module):
    def forward(self, x):
        return x * 2

class Pixels(nn.Module):
    def __init__(self, classes: int = 4):
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3, 2, 1)
        self.head, self.low = nn.Conv2d(8, classes, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        maps = torch.relu(self.body(x))
        out = nn.functional.interpolate(self.head(maps), x.shape[-2:], mode="bilinear")
        return {"out": out, "aux": self.low(maps)}

class Two(nn.Module):
    def forward(self, x, y):
        return (x + y).mean((2, 3))

class Whole(nn.Module):
    # Numbers that are no floating point.
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(4, 3)

    def forward(self, x, word):
        return x.mean((2, 3)) + self.words(word.long())[:, 0]

class Patient(nn.Module):
    # A photo, a close-up of another size, and what is known of the patient.
    def __init__(self, classes: int = 4):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU())
        self.near = nn.Conv2d(1, 5, 3)
        self.table, self.gate = nn.Linear(4, 8), nn.Linear(8, 6)
        self.head = nn.Linear(6 + 5 + 8, classes)

    def forward(self, photo, close_up, patient):
        known = torch.tanh(self.table(patient))
        x = self.body(photo) * self.gate(known).sigmoid()[:, :, None, None]
        parts = [x.mean((2, 3)), self.near(close_up).amax((2, 3)), known]
        return self.head(torch.cat(parts, 1))

branching, sorting, weightless, pixels, two = Branching, Sorting, Weightless, Pixels, Two
whole, patient = Whole, Patient

def vector():
    return nn.Linear(4, 2)
"""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("net") / "net.py"
    file.write_text(NET)
    return str(file)


@pytest.fixture(scope="module")
def file(net: str) -> Path:
    """A converted network with weights of its own, beside them `mine.pth` and the record."""
    folder = Path(net).parent
    module = Target.parse(f"{net}:build").build(classes=3)  # type: ignore[union-attr]
    state = {key: value.numpy() for key, value in module.state_dict().items()}
    state["1.num_batches_tracked"] = np.array(7)
    write_checkpoint(folder / "mine.pth", state)
    arguments = ["convert", f"{net}:build", "--source", folder / "mine.pth"]
    arguments += ["--input-shape", "3x17x17", "--output", folder / "mine.keras"]
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    assert done.exit_code == 0, done.output
    assert "mine.keras: " in done.output.replace("\n", "")
    return folder / "mine.keras"


def test_the_file_is_plain_keras(file: Path, net: str) -> None:
    model = keras.saving.load_model(file)
    module = Target(f"{net}:build").build(classes=3)
    x = torch.randn(4, 3, 17, 17, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = module(x).numpy()
    found = model.predict_on_batch(np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy()))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_the_record_says_where_it_comes_from(file: Path) -> None:
    record = porting.load_model(file) and json.loads(json.dumps(_record(file)))
    assert record["model"]["target"] == "net.py:build"
    assert record["model"]["classes"] == 3
    assert record["source"]["file"] == "mine.pth"
    assert len(record["source"]["sha256"]) == 64
    assert record["num_batches_tracked"] == {"1.num_batches_tracked": 7}
    assert record["preprocessing"] is record["labels"] is None
    assert [row["key"] for row in record["counterpart"]["table"]][:2] == ["0.weight", "0.bias"]


def _record(file: Path) -> object:
    from keras_alexnet import read_record

    return read_record(file)


def test_the_way_back_is_byte_identical(file: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", str(file), "--output", str(tmp_path / "back.pth")])
    assert done.exit_code == 0, done.output
    back, source = (
        read_checkpoint(tmp_path / "back.pth"),
        read_checkpoint(file.with_name("mine.pth")),
    )
    assert list(back.arrays) == list(source.arrays)
    for key, array in source.arrays.items():
        assert back.arrays[key].tobytes() == array.tobytes(), key


def test_a_check_of_ones_own_network(file: Path, net: str, tmp_path: Path) -> None:
    """A process a framework, every layer and gradient; a wrong file is found out."""
    arguments = ["check", f"{net}:build", "--source", str(file.with_name("mine.pth"))]
    arguments += ["--input-shape", "3x17x17", "--backends", "torch", "--json"]
    done = CliRunner().invoke(app, [*arguments, str(tmp_path / "a.json")])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["passed"]
    for cell in found["cells"]:
        assert len(cell["gradients"]) == 6
        (first, *_) = cell["inputs"]
        assert [layer["name"] for layer in first["layers"]] == ["input", *"012335"]


@pytest.mark.parametrize("size", [["--input-shape", "3x18x24"], ["--input-size", "any"]])
def test_scores_of_pixels_there_and_back(size: list[str], net: str, tmp_path: Path) -> None:
    """Several outputs, by their names in torch; the head has as many classes as the weights."""
    module = Target(f"{net}:pixels").build(classes=6)
    torch.save(module.state_dict(), tmp_path / "mine.pth")
    arguments = ["convert", f"{net}:pixels", "--source", str(tmp_path / "mine.pth"), *size]
    done = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "mine.keras")])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "net.py:pixels, 6 classes, outputs out, aux; its outputs are torch's to" in said

    model = keras.saving.load_model(tmp_path / "mine.keras")
    x = torch.randn(3, 3, 18, 24, generator=torch.Generator().manual_seed(1))
    found = model.predict_on_batch(x.permute(0, 2, 3, 1).numpy())
    with torch.no_grad():
        wanted = module(x)
    for name, maps in wanted.items():
        assert relative_gap(found[name].transpose(0, 3, 1, 2), maps.numpy()) <= 1e-6, name

    done = CliRunner().invoke(
        app, ["export", str(tmp_path / "mine.keras"), "--output", str(tmp_path / "back.pth")]
    )
    assert done.exit_code == 0, done.output
    back = torch.load(tmp_path / "back.pth")
    assert all(torch.equal(back[key], value) for key, value in module.state_dict().items())


def test_a_check_of_scores_of_pixels(net: str, tmp_path: Path) -> None:
    request = porting.CheckRequest(
        f"{net}:pixels", images=[], input_shapes=[(3, 18, 24)], backends=["torch"]
    )
    result = porting.check(request, tmp_path)
    assert result.passed
    (found, *_) = result.cells[0].sets
    assert [output.name for output in found.logits] == ["out", "aux"]
    assert found.agreement.images == 18 * 24 * request.noise
    assert result.photos == ()
    assert {gradient.name for gradient in result.cells[0].gradients} >= {"body.weight"}


@pytest.mark.slow
def test_steps_of_training_with_scores_of_pixels(net: str, tmp_path: Path) -> None:
    request = TrainingRequest(f"{net}:pixels", size=(18, 24), backends=["torch"], steps=3)
    result = check_training(request, tmp_path)
    assert result.passed
    assert result.moved > 0
    (judged,) = (cell for cell in result.cells if cell.judged)
    assert {tensor.name for tensor in judged.tensors} >= {"body.weight", "head.bias", "low.weight"}


SHAPES = [(3, 18, 24), (1, 9, 9), (4,)]


def test_several_inputs_there_and_back(net: str, tmp_path: Path) -> None:
    shapes = ",".join("x".join(map(str, shape)) for shape in SHAPES)
    arguments = ["convert", f"{net}:patient", "--input-shape", shapes]
    done = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "mine.keras")])
    assert done.exit_code == 0, done.output
    model = keras.saving.load_model(tmp_path / "mine.keras")
    assert [each.name for each in model.inputs] == ["photo", "close_up", "patient"]
    assert _record(tmp_path / "mine.keras")["model"]["inputs"] == {  # type: ignore[index]
        "photo": [18, 24, 3],
        "close_up": [9, 9, 1],
        "patient": [4],
    }
    arguments = ["export", str(tmp_path / "mine.keras"), "--output", str(tmp_path / "back.pth")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    module = Target(f"{net}:patient").build()
    module.load_state_dict(torch.load(tmp_path / "back.pth"))
    given = [torch.randn(3, *s, generator=torch.Generator().manual_seed(1)) for s in SHAPES]
    with torch.no_grad():
        wanted = module(*given).numpy()
    placed = [x.permute(0, 2, 3, 1).numpy() if x.ndim == 4 else x.numpy() for x in given]
    assert relative_gap(model.predict_on_batch(placed), wanted) <= 1e-6
    with pytest.raises(ModelFileError, match=r"takes 3 inputs \(photo, close_up, patient\) where"):
        Predictor.from_file(tmp_path / "mine.keras")
    subject = subject_of(str(tmp_path / "mine.keras"))
    assert (subject.size, subject.channels, subject.classes) == ((18, 24), 3, 4)
    assert list(subject.inputs.values()) == [(18, 24, 3), (9, 9, 1), (4,)]


def test_a_check_of_several_inputs(net: str, tmp_path: Path) -> None:
    """The first one is photos and noise, the others noise."""
    request = porting.CheckRequest(f"{net}:patient", input_shapes=SHAPES, backends=["torch"])
    result = porting.check(request, tmp_path)
    assert result.passed
    assert all(found.layers for cell in result.cells for found in cell.sets)
    assert {gradient.name for gradient in result.cells[0].gradients} >= {"table.weight"}
    with pytest.raises(UsageError, match=r"reads 4 first; a check has photos and noise of 1 and 3"):
        porting.check(replace(request, model=f"{net}:vector", input_shapes=[(4,)]), tmp_path)


@pytest.mark.slow
def test_steps_of_training_with_several_inputs(net: str, tmp_path: Path) -> None:
    request = TrainingRequest(
        f"{net}:patient", input_shapes=SHAPES, backends=["torch"], steps=3, batch_size=4
    )
    assert check_training(request, tmp_path).passed


def test_a_check_takes_the_chosen_weights(net: str, tmp_path: Path) -> None:
    """Both sides get the averages of a file, which has no counters of batches."""
    target = Target.parse(f"{net}:build")
    assert target is not None
    state = target.build().state_dict()
    model = {key: value for key, value in state.items() if "num_batches" not in key}
    ema = {key: value + 0.5 for key, value in model.items()}
    torch.save({"model": model, "ema": ema}, tmp_path / "both.pth")
    request = porting.CheckRequest(
        target.text,
        tmp_path / "both.pth",
        which="ema",
        images=[],
        input_shapes=[(3, 17, 17)],
        backends=["torch"],
        data_formats=["channels_last"],
    )
    result = porting.check(request, tmp_path)
    assert result.passed


@pytest.mark.parametrize(
    ("function", "options", "text"),
    [
        ("branching", {}, r"DataDependent.*asks for the values of a tensor.*net.py:1\d: "),
        ("sorting", {}, r"cummax in the network itself \(net.py:\d+: return torch.cummax"),
        ("weightless", {}, "net.py:weightless has no weights, so there is nothing to convert"),
        ("pixels", {"labels": ["a"]}, "1 labels were given for 4 classes"),
        ("whole", {"shapes": [(3, 17, 17), (1,)]}, "(?s)to of int64 numbers.*embedding in module"),
        ("two", {}, r"Two cannot compute inputs of shape 3x17x17 .*missing 1 required"),
        ("gone", {}, "net.py has no function 'gone'"),
        ("build", {"shapes": [(3, 16, 16)]}, "cannot compute inputs of shape 3x16x16"),
        ("build", {"source": "gone.pth"}, "gone.pth: no such file"),
        ("build", {"include_preprocessing": True}, "nobody says how images"),
        ("build", {"labels": ["a"]}, "1 labels were given for 5 classes"),
    ],
)
def test_a_mistake_is_said_and_leaves_nothing(
    function: str,
    options: dict[str, object],
    text: str,
    net: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(network, "Workers", InThisProcess)
    given = {"source": None, "shapes": [(3, 17, 17)], **options}
    source = given.pop("source")
    target = Target.parse(f"{net}:{function}")
    assert target is not None
    with pytest.raises(PortingError, match=text):
        networks.convert_network(target, source, tmp_path / "a.keras", **given)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


class InThisProcess:
    """Workers without processes: a failed job ends one, and a new one takes seconds."""

    def __enter__(self) -> "InThisProcess":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def call(self, module: str, job: dict[str, Any], **_: object) -> object:
        """Do a job here."""
        return importlib.import_module(module).main(json.loads(json.dumps(job)))


def test_weights_that_do_not_fit(net: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "w.npz", {"0.weight": np.ones((8, 3, 5, 5), "f"), "x": np.ones(1)})
    target = Target.parse(f"{net}:build")
    assert target is not None
    with pytest.raises(TransferError) as caught:
        network.prepare(
            target, tmp_path / "w.npz", tmp_path, shapes=[(3, 17, 17)], workers=InThisProcess()
        )
    text = str(caught.value)
    assert "does not fit Sequential:" in text
    assert "missing: 0.bias" in text
    assert "wrong shape: 0.weight is (8, 3, 5, 5), wanted (8, 3, 3, 3)" in text
    assert "unexpected: x" in text


def test_a_child_may_be_called_module(tmp_path: Path) -> None:
    """As a wrapper's part is in other files; the file's keys are the network's own ones again."""
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "class Residual(nn.Module):\n"
        "    def __init__(self, module):\n"
        "        super().__init__()\n"
        "        self.module = module\n"
        "    def forward(self, x):\n"
        "        return x + self.module(x)\n"
        "def build():\n"
        "    return nn.Sequential(Residual(nn.Conv2d(3, 3, 1)), nn.Flatten(), nn.Linear(48, 2))\n"
    )
    target = Target.parse(f"{tmp_path / 'net.py'}:build")
    assert target is not None
    state = {key: value.numpy() for key, value in target.build().state_dict().items()}
    assert "0.module.weight" in state
    write_checkpoint(tmp_path / "w.safetensors", state)
    record = networks.convert_network(
        target, tmp_path / "w.safetensors", tmp_path / "m.keras", shapes=[(3, 4, 4)]
    )
    assert record["source"]["unused"] == []
    back = porting.to_state_dict(porting.load_model(tmp_path / "m.keras"), framework="numpy")
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[key], state[key]) for key in state)


def test_names_that_are_none() -> None:
    assert Target.parse("alexnet") is None
    for text in ("timms:resnet50", "net.py:", "keras:x"):
        with pytest.raises(UsageError, match=r"none of the known forms|not of the form"):
            Target.parse(text)
    with pytest.raises(UsageError, match=r"no network 'resnet19'. Did you mean 'resnet"):
        Target("torchvision:resnet19").build()
    with pytest.raises(UsageError, match="no such Python file"):
        Target.parse("gone.py:make")


def test_the_number_of_classes_is_the_weights() -> None:
    target = Target("torchvision:mobilenet_v3_small")
    with torch.device("meta"):
        states = (target.build(classes=classes).state_dict() for classes in (None, 12))
        own, shapes = ({k: tuple(v.shape) for k, v in state.items()} for state in states)
    assert classes_of(own, shapes) == 12
    assert classes_of(own, own) is None
    assert classes_of(own, shapes | {"features.0.0.weight": (16, 1, 3, 3)}) is None


def test_from_torch_refuses_what_it_cannot_prove(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object) -> dict[str, np.ndarray]:
        return {"logits": np.zeros((2, 4), np.float32)}

    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 4))
    monkeypatch.setattr(networks, "outputs_of", wrong)
    with pytest.raises(GraphError, match=r"logits differ from torch's by 1\.0e"):
        porting.from_torch(module, torch.zeros(1, 3, 4, 4))


def test_a_truncated_file(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "a.keras"
    copy.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ModelFileError, match=r"a\.keras"):
        porting.load_model(copy)


@pytest.mark.slow
def test_coverage_goes_on_and_says_what_is_wrong(net: str, tmp_path: Path) -> None:
    """A network of torchvision's, and one whose operation is unknown."""
    file = tmp_path / "coverage.json"
    options = ["--backends", "torch", "--data-formats", "channels_last", "--json", str(file)]
    done = CliRunner().invoke(app, ["coverage", "torchvision:squeezenet1_?", *options])
    assert done.exit_code == 0, done.output
    assert "2 of 2 networks" in done.output
    found = json.loads(file.read_text())["networks"]
    assert [each["target"] for each in found] == [
        f"torchvision:squeezenet1_{version}" for version in (0, 1)
    ]
    for each in found:
        assert each["round_trip"]
        assert 0 < each["worst"] <= 1e-5
        assert (each["parameters"], each["transposes"]) in ((1248424, 0), (1235496, 0))
    done = CliRunner().invoke(app, ["coverage", f"{net}:sorting", "--resume", *options])
    assert done.exit_code == 1
    assert "2 of 3 networks" in done.output
    assert "cummax" in done.output
    done = CliRunner().invoke(app, ["coverage", "torchvision:gone*", *options])
    assert isinstance(done.exception, UsageError)
    assert "no network like 'gone*'" in str(done.exception)


@pytest.mark.parametrize(
    ("failures", "passed"),
    [
        ({}, True),
        ({"tensorflow/channels_first": "NHWC alone"}, True),
        ({"tensorflow/channels_last": "Aborted"}, False),
        ({"tensorflow": "the process died"}, False),
    ],
)
def test_a_backend_that_could_not_compute_is_no_agreement(
    failures: dict[str, str], passed: bool
) -> None:
    gaps = {"torch/channels_last": 1e-7}
    found = Covered("torchvision:swin_t", gaps=gaps, failures=failures, round_trip=True)
    assert found.passed is passed


def test_what_is_no_number_is_no_agreement_in_any_format() -> None:
    gaps = {"torch/channels_last": 1e-7, "torch/channels_first": float("inf")}
    found = Covered("timm:x", gaps=gaps, round_trip=True)
    assert not found.passed
    assert from_json(json.loads(json.dumps(to_json([found]), allow_nan=False))) == [found]
    far = replace(found, gaps={"torch/channels_last": 1e-7, "jax/channels_last": 3e-5})
    assert (
        notes([far])[1] == "timm:x on jax/channels_last: logits are off by 3.0e-05 of their scale"
    )


def test_logits_that_are_alike_are_no_agreement() -> None:
    gaps = {"torch/channels_last": 1e-7}
    alive = Covered("timm:x", gaps=gaps, round_trip=True, spread=0.2)
    assert alive.passed
    dull = replace(alive, spread=0.001)
    assert not dull.passed
    assert "differ by only 1.0e-03 of their scale" in notes([dull])[1]


def test_a_network_that_hardly_sees_its_images_is_said(net: str, tmp_path: Path) -> None:
    file = tmp_path / "blind.py"
    file.write_text(
        "import torch\n"
        "def build():\n"
        "    head = torch.nn.Linear(3 * 8 * 8, 4)\n"
        "    torch.nn.init.zeros_(head.weight)\n"
        "    torch.nn.init.ones_(head.bias)\n"
        "    head.weight.data[0, 0] = 1e-4\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), head)\n"
    )
    arguments = ["convert", f"{file}:build", "--input-shape", "3x8x8"]
    done = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "a.keras")])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "for different images of noise differ by only" in said
