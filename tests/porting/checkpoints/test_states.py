"""Checkpoints as training scripts write them: company, wrappers, averages, whole models, parts."""

import argparse
import datetime
import enum
import json
import pathlib
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.project import ROOT, RunPython
from torch import nn
from torch.nn.utils import prune

from porting import read_checkpoint
from porting.conversion.sources import open_source
from porting.errors import CheckpointError, TransferError
from porting.torch_side.seeded import seeded_state_dict


class Colour(enum.Enum):
    RED = 1


class Config(dict[str, Any]):
    """A configuration object of a user's own."""

    def __init__(self) -> None:
        self.depth = 3
        self["width"] = 4


@pytest.fixture(scope="module")
def lenet() -> dict[str, torch.Tensor]:
    return {
        key: torch.from_numpy(value) for key, value in seeded_state_dict("lenet5", seed=0).items()
    }


def saved(content: Any, tmp_path: Path, *, legacy: bool = False) -> Path:
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    return tmp_path / "w.pth"


def assert_equals(path: Path, wanted: dict[str, torch.Tensor], **options: Any) -> tuple[str, ...]:
    """The file is the LeNet; return what is said of it."""
    opened = open_source("lenet5", path, **options)
    assert opened.checkpoint.arrays.keys() == wanted.keys()
    for key, tensor in wanted.items():
        np.testing.assert_array_equal(opened.checkpoint.arrays[key], tensor.numpy(), strict=True)
    return opened.checkpoint.notes


@pytest.mark.parametrize("legacy", [False, True])
def test_harmless_company_does_not_matter(
    lenet: dict[str, torch.Tensor], legacy: bool, tmp_path: Path
) -> None:
    company = {
        "args": argparse.Namespace(model="x", lr=0.1, out=pathlib.Path("runs")),
        "best": np.float64(0.7),
        "curve": np.arange(3.0),
        "words": np.array(["a", "b"]),
        "path": pathlib.PurePosixPath("a/b"),
        "when": datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
        "seen": defaultdict(int, a=1),
        "counts": Counter("aab"),
        "parts": {1, 2},
        "colour": Colour.RED,
        "config": Config(),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
        "size": torch.Size([1, 2]),
        "dtype": torch.float16,
        "rng": torch.get_rng_state(),
        "epoch": 3,
    }
    path = saved({**company, "model": lenet}, tmp_path, legacy=legacy)
    assert assert_equals(path, lenet) == ("taken from the entry 'model'",)


def test_torch_is_not_needed(
    lenet: dict[str, torch.Tensor], tmp_path: Path, run_python: RunPython
) -> None:
    path = saved({"state_dict": lenet}, tmp_path)
    code = """
import json, sys
sys.modules["torch"] = None
from porting.checkpoints.files import read_checkpoint
print(json.dumps({k: float(v.sum()) for k, v in read_checkpoint(sys.argv[1]).arrays.items()}))
"""
    sums = json.loads(run_python(code, path).stdout)
    for key, tensor in lenet.items():
        assert sums[key] == pytest.approx(float(tensor.sum()), rel=1e-4, abs=1e-4)


def test_numbers_in_a_mapping_are_no_weights(
    lenet: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """Neither beside the tensors themselves, nor beside an entry of an unusual name."""
    metrics = {"accuracy": np.float64(0.7), "loss": torch.tensor(0.1)}
    notes = assert_equals(saved({**lenet, "metrics": metrics}, tmp_path), lenet)
    assert "left out, as they are no tensors: metrics" in notes
    notes = assert_equals(saved({"generator": lenet, "metrics": metrics}, tmp_path), lenet)
    assert notes == ("taken from the entry 'generator'",)
    moments = {"mean": torch.ones(3), "std": torch.ones(3)}
    assert_equals(saved({"model": lenet, **moments}, tmp_path), lenet)


def prefixed(state: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    return {change(key): value for key, value in state.items()}


WRAPPED: dict[str, Callable[[str], str]] = {
    # PyTorch's own ImageNet example wraps the features of AlexNet alone.
    "features alone": lambda key: key.replace("features.", "features.module."),
    "compiled classifier": lambda key: key.replace("classifier.", "classifier._orig_mod."),
    "compiled and parallel": lambda key: f"_orig_mod.module.{key}",
    "lightning": lambda key: f"model.{key}",
    "an attribute of one's own": lambda key: f"net.backbone.{key}",
    "lightning of a wrapped one": lambda key: f"model.module.{key}",
    "fsdp": lambda key: f"_fsdp_wrapped_module.{key}",
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_prefixes_stand_anywhere(kind: str, lenet: dict[str, torch.Tensor], tmp_path: Path) -> None:
    assert_equals(saved(prefixed(lenet, WRAPPED[kind]), tmp_path), lenet)


@pytest.mark.parametrize(
    ("change", "stranger"),
    [
        (lambda key: f"model.{key}", "criterion.weight"),
        (lambda key: f"module.{key}", "n_averaged"),
    ],
    ids=["lightning", "averaged"],
)
def test_strangers_are_named_and_left_out(
    change: Callable[[str], str], stranger: str, lenet: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    state = {**prefixed(lenet, change), stranger: torch.tensor(3)}
    notes = assert_equals(saved({"state_dict": state}, tmp_path), lenet)
    assert f"left out, as they lie outside of the network: {stranger}" in notes


def test_a_stranger_within_the_network_is_none(
    lenet: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """Of another architecture nothing is left out in silence."""
    path = saved({**lenet, "features.9.weight": torch.ones(2)}, tmp_path)
    with pytest.raises(TransferError, match=r"unexpected.*features\.9\.weight"):
        open_source("lenet5", path)


def test_averages_beside_the_weights(lenet: dict[str, torch.Tensor], tmp_path: Path) -> None:
    average = {key: value + 1 for key, value in lenet.items()}
    wrapped = prefixed(average, lambda key: f"module.{key}") | {"n_averaged": torch.tensor(9)}
    path = saved({"model": lenet, "model_ema": wrapped, "epoch": 1}, tmp_path)
    notes = assert_equals(path, lenet)
    assert "it has averages in 'model_ema' too: --which ema" in notes
    assert_equals(path, lenet, which="model")
    for which in ("ema", "model_ema"):
        notes = assert_equals(path, average, which=which)
        assert notes[0] == "taken from the entry 'model_ema'"
    with pytest.raises(CheckpointError, match="no weights called 'swa'; it has 'model', 'mod"):
        open_source("lenet5", path, which="swa")


def test_averages_under_a_prefix(lenet: dict[str, torch.Tensor], tmp_path: Path) -> None:
    average = {key: value + 1 for key, value in lenet.items()}
    state = prefixed(lenet, lambda key: f"model.{key}")
    state |= prefixed(average, lambda key: f"ema_model.{key}")
    path = saved({"state_dict": state}, tmp_path)
    assert_equals(path, lenet)
    assert_equals(path, average, which="ema")
    assert_equals(path, average, which="ema_model")


def test_two_networks_must_be_told_apart(lenet: dict[str, torch.Tensor], tmp_path: Path) -> None:
    teacher = {key: value + 1 for key, value in lenet.items()}
    both = prefixed(lenet, lambda key: f"student.{key}")
    both |= prefixed(teacher, lambda key: f"teacher.{key}")
    path = saved(both, tmp_path)
    with pytest.raises(CheckpointError, match="under the prefixes student, teacher; choose one"):
        open_source("lenet5", path)
    assert_equals(path, teacher, which="teacher")
    path = saved({"student": lenet, "teacher": teacher}, tmp_path)
    with pytest.raises(CheckpointError, match="several models, 'student', 'teacher'; choose one"):
        open_source("lenet5", path)
    assert_equals(path, lenet, which="student")


class Part(nn.Module):
    """With a buffer that is saved and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("kept", torch.arange(3.0))
        self.register_buffer("passing", torch.ones(1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.linear(x)) * self.kept[:2] * self.passing


@pytest.mark.parametrize("entry", [None, "model"])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_whole_models(legacy: bool, entry: str | None, tmp_path: Path) -> None:
    """`torch.save(model)`: its class is not even imported."""
    model = nn.Sequential(Part(), nn.ReLU(), Part()).eval()
    path = saved(model if entry is None else {entry: model, "epoch": 1}, tmp_path, legacy=legacy)
    checkpoint = read_checkpoint(path)
    wanted = model.state_dict()
    assert list(checkpoint.arrays) == list(wanted)
    for key, tensor in wanted.items():
        np.testing.assert_array_equal(checkpoint.arrays[key], tensor.numpy(), strict=True)
    said = "taken out of a whole model" if entry is None else "taken from the entry 'model'"
    assert said in checkpoint.notes[0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["trace", "script"])
def test_torchscript(how: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.Linear(5, 2)).eval()
    model[1].running_mean.fill_(3)
    made = (
        torch.jit.trace(model, torch.ones(1, 3, 6, 6))
        if how == "trace"
        else torch.jit.script(model)
    )
    made.save(tmp_path / "w.pt")
    arrays = read_checkpoint(tmp_path / "w.pt").arrays
    wanted = made.state_dict()
    assert arrays.keys() == wanted.keys()
    for key, tensor in wanted.items():
        np.testing.assert_array_equal(arrays[key], tensor.detach().numpy(), strict=True)


DTYPES = [
    "float64",
    "float16",
    "bfloat16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
    "complex64",
]


@pytest.mark.parametrize("legacy", [False, True])
def test_views_and_dtypes(legacy: bool, tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "whole": base,
        "column": base[:, 2],
        "transposed": base.t(),
        "offset": base[1:, 3:],
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "parameter": nn.Parameter(base[0]),
        **{str(kind): torch.arange(6).to(getattr(torch, kind)) for kind in DTYPES},
    }
    if not legacy:
        tensors["uint16"] = torch.arange(6).to(torch.uint16)
    arrays = read_checkpoint(saved(OrderedDict(tensors), tmp_path, legacy=legacy)).arrays
    for key, tensor in tensors.items():
        wanted = tensor.detach()
        wanted = wanted.float() if wanted.dtype is torch.bfloat16 else wanted
        np.testing.assert_array_equal(arrays[key], wanted.numpy(), strict=True)


def test_counters_as_floats_and_biases_with_axes_of_one(tmp_path: Path) -> None:
    state = dict(seeded_state_dict("alexnet_bn_cifar100", seed=0, classes=3))
    wanted = dict(state)
    counters = [key for key in state if key.endswith("num_batches_tracked")]
    assert counters
    for key in counters:
        state[key] = np.array(7.0, np.float32)
        wanted[key] = np.array(7)
    bias = next(key for key in state if key.endswith("bias"))
    state[bias] = state[bias].reshape(1, 1, 1, -1)
    path = saved({key: torch.from_numpy(value) for key, value in state.items()}, tmp_path)
    checkpoint = open_source("alexnet_bn_cifar100", path).checkpoint
    for key, array in wanted.items():
        np.testing.assert_array_equal(checkpoint.arrays[key], array, strict=True)
    assert f"axes of length 1 left out of {bias}" in checkpoint.notes


def reparametrized(kind: str) -> tuple[nn.Module, nn.Module]:
    """A layer as training keeps it, and one of the same function with a plain weight."""
    torch.manual_seed(0)
    layer, plain = nn.Conv2d(3, 4, 3).double(), nn.Conv2d(3, 4, 3).double()
    utils = nn.utils
    match kind:
        case "pruned":
            prune.random_unstructured(layer, "weight", 0.5)
        case "weight norm, old":
            utils.weight_norm(layer)
            layer.weight_g.data *= 2
        case "weight norm":
            utils.parametrizations.weight_norm(layer)
            layer.parametrizations.weight.original0.data *= 2
        case "spectral norm, old":
            utils.spectral_norm(layer)
        case "spectral norm":
            utils.parametrizations.spectral_norm(layer)
    layer(torch.ones(1, 3, 5, 5, dtype=torch.float64))
    layer.eval()
    layer(torch.ones(1, 3, 5, 5, dtype=torch.float64))
    plain.weight.data, plain.bias.data = layer.weight.detach().clone(), layer.bias.detach().clone()
    return layer, plain


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "kind", ["pruned", "weight norm, old", "weight norm", "spectral norm, old", "spectral norm"]
)
def test_tensors_in_parts_are_computed(kind: str, tmp_path: Path) -> None:
    layer, plain = reparametrized(kind)
    state = prefixed(layer.state_dict(), lambda key: f"features.0.{key}")
    checkpoint = read_checkpoint(saved(state, tmp_path))
    assert checkpoint.arrays.keys() == {"features.0.weight", "features.0.bias"}
    for name in ("weight", "bias"):
        np.testing.assert_allclose(
            checkpoint.arrays[f"features.0.{name}"],
            getattr(plain, name).detach().numpy(),
            rtol=1e-14,
            atol=1e-16,
        )
    (note,) = checkpoint.notes
    assert note == f"{kind.removesuffix(', old')}: 1 tensor computed, features.0.weight"


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("layer.lora_A.weight", "belongs to a LoRA adapter.*merge_and_unload"),
        ("fc._packed_params._packed_params", "belongs to a quantised network: save the float"),
        ("fc.zero_point", "belongs to a quantised network"),
        ("fc.parametrizations.weight.0.base", "part of a parametrisation that is not known"),
    ],
)
def test_what_is_no_network_is_refused_by_name(key: str, text: str, tmp_path: Path) -> None:
    path = saved({"a.weight": torch.ones(2), key: torch.ones(2)}, tmp_path)
    with pytest.raises(CheckpointError, match=text):
        read_checkpoint(path)


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_tensor_is_refused_by_name(tmp_path: Path) -> None:
    quantised = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    with pytest.raises(CheckpointError, match=r"w is a torch tensor .*_rebuild_qtensor"):
        read_checkpoint(saved({"w": quantised}, tmp_path))


def test_what_a_checkpoint_calls_its_architecture(
    lenet: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    for content, wanted in (
        ({"arch": "lenet5"}, "lenet5"),
        ({"args": argparse.Namespace(arch="x")}, "x"),
        ({"hyper_parameters": {"model": "y"}}, "y"),
        ({}, None),
    ):
        path = saved({"state_dict": lenet, **content}, tmp_path)
        assert read_checkpoint(path).architecture == wanted


def test_real_cases_by_name() -> None:
    folder = ROOT.parent / "shared" / "cases" / "checkpoints"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    wanted = dict(np.load(folder / "expect.npz"))
    for path in sorted(folder.glob("*.pth")):
        arrays = open_source("lenet5", path).checkpoint.arrays
        assert arrays.keys() == wanted.keys(), path
        for key, array in wanted.items():
            np.testing.assert_array_equal(arrays[key], array, err_msg=f"{path}: {key}")
