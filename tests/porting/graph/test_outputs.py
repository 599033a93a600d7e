"""Networks that return other things than logits: maps, several outputs, for images of any size."""

import json
from collections import OrderedDict, namedtuple
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from helpers.graphs import Function, converted, filled, images
from helpers.models import BOTH
from helpers.project import RunPython
from torch import nn
from torchvision.models import resnet
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation import deeplabv3, fcn

import porting
from porting.checkpoints.files import to_numpy
from porting.conversion.networks import largest_gap, outputs_of, relative_gap
from porting.errors import GraphError
from porting.graph.reader import read
from porting.torch_side.liveliness import liven
from porting.torch_side.reference_nets import named_results

CLASSES = 5
Named = namedtuple("Named", "first second")


def small_backbone() -> nn.Module:
    net = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], width_per_group=64)
    return IntermediateLayerGetter(net, {"layer2": "aux", "layer4": "out"})


def segmentation(kind: str, *, aux: bool = True) -> nn.Module:
    """Torchvision's own heads on a small backbone, with lively weights."""
    torch.manual_seed(0)
    heads = {
        "fcn": lambda: (fcn.FCN, fcn.FCNHead(512, CLASSES)),
        "deeplabv3": lambda: (
            deeplabv3.DeepLabV3,
            deeplabv3.DeepLabHead(512, CLASSES, (2, 4, 6)),
        ),
    }
    kind_of, head = heads[kind]()
    net = kind_of(small_backbone(), head, fcn.FCNHead(128, CLASSES) if aux else None).eval()
    liven(net, images(2, 3, 64, 64), seed=0)
    return net


def wanted(module: nn.Module, x: torch.Tensor) -> dict[str, np.ndarray]:
    with torch.no_grad():
        results = named_results(module(x))
    return {name: to_numpy(value) for name, value in results.items()}


@BOTH
@pytest.mark.parametrize("kind", ["fcn", "deeplabv3"])
def test_segmentation_returns_torchs_maps_by_their_names(kind: str, data_format: str) -> None:
    module, x = segmentation(kind), images(3, 3, 64, 96, seed=1)
    built = converted(module, images(2, 3, 64, 96), data_format)
    shape = (None, 64, 96, CLASSES) if data_format == "channels_last" else (None, CLASSES, 64, 96)
    assert {name: output.shape for name, output in built.model.output.items()} == {
        "out": shape,
        "aux": shape,
    }
    found = outputs_of(built, x.numpy())
    assert list(found) == ["out", "aux"]
    assert largest_gap(found, wanted(module, x)) <= 1e-5
    kinds = [type(operation).__name__ for operation in built.model.operations]
    assert "Transpose" not in kinds


@BOTH
@pytest.mark.parametrize("kind", ["fcn", "deeplabv3"])
def test_segmentation_of_images_of_any_size(kind: str, data_format: str) -> None:
    module = segmentation(kind)
    built = filled(module, read(module, images(2, 3, 64, 64), any_size=True), data_format)
    assert built.model.input_shape.count(None) == 3
    for shape in ((64, 64), (61, 83), (97, 50)):
        x = images(2, 3, *shape, seed=2)
        assert largest_gap(outputs_of(built, x.numpy()), wanted(module, x)) <= 1e-5, shape


def test_a_single_output_of_a_dict_keeps_its_name() -> None:
    model = porting.from_torch(segmentation("fcn", aux=False), images(2, 3, 64, 64))
    assert list(model.output) == ["out"]


def resized(**options: Any) -> nn.Module:
    """Maps of an eighth of the image, resized to a half of it and to all of it."""
    down = nn.Conv2d(3, 4, 3, 2, 1)

    def function(x: torch.Tensor) -> torch.Tensor:
        half = down(x)
        small = F.avg_pool2d(half, 4)
        return F.interpolate(F.interpolate(small, half.shape[2:], **options) + half, x.shape[2:])

    module = Function(function)
    module.down = down
    return module


@BOTH
@pytest.mark.parametrize(
    "options",
    [
        {"mode": "nearest"},
        {"mode": "nearest-exact"},
        {"mode": "bilinear"},
        {"mode": "bilinear", "align_corners": True},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_resizes_to_sizes_that_only_the_images_tell(
    options: dict[str, Any], data_format: str
) -> None:
    torch.manual_seed(0)
    module = resized(**options)
    built = filled(module, read(module, images(2, 3, 32, 32), any_size=True), data_format)
    for shape in ((32, 32), (37, 50), (64, 9)):
        x = images(2, 3, *shape, seed=3)
        assert largest_gap(outputs_of(built, x.numpy()), wanted(module, x)) <= 3e-6, shape


@BOTH
def test_a_whole_factor_of_a_size_that_only_the_images_tell(data_format: str) -> None:
    module = Function(
        lambda x: F.interpolate(F.relu(x), scale_factor=2, mode="bilinear", align_corners=False)
    )
    built = filled(module, read(module, images(2, 3, 8, 8), any_size=True), data_format)
    x = images(2, 3, 7, 11)
    assert largest_gap(outputs_of(built, x.numpy()), wanted(module, x)) <= 3e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "bicubic", "scale_factor": 2}, "upsample_bicubic2d of maps whose size only"),
        ({"mode": "bilinear", "scale_factor": 1.5}, "nothing that was computed before has as many"),
    ],
)
def test_a_size_that_nothing_tells_is_refused(options: dict[str, Any], message: str) -> None:
    module = Function(lambda x: F.interpolate(F.relu(x), **options))
    with pytest.raises(GraphError, match=message):
        filled(module, read(module, images(2, 3, 8, 8), any_size=True))


def test_images_too_small_to_tell_what_larger_ones_need_are_refused() -> None:
    """Of maps of one row torch.export takes the resize for a repetition, of larger images too."""
    module = segmentation("fcn")
    with pytest.raises(GraphError, match=r"holds up to a length of 32 alone.*larger ones"):
        read(module, images(2, 3, 32, 32), any_size=True)
    read(module, images(2, 3, 32, 32))


class Features(nn.Module):
    """Maps of several sizes, and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, 2, 1)
        self.second = nn.Conv2d(4, 6, 3, 2, 1)

    def forward(self, x: torch.Tensor) -> list[Any]:
        """Compute them."""
        small = self.first(x)
        smaller = self.second(small.relu())
        return [small, (smaller, smaller.mean((2, 3))), small.permute(0, 2, 3, 1)]


@BOTH
def test_a_list_of_features(data_format: str) -> None:
    """Maps come in the data format, whatever else is returned as torch has it."""
    torch.manual_seed(0)
    module, x = Features(), images(2, 3, 16, 12)
    built = converted(module, x, data_format)
    found = outputs_of(built, x.numpy())
    assert list(found) == ["output0", "output1_0", "output1_1", "output2"]
    assert largest_gap(found, wanted(module, x)) <= 1e-6
    last = data_format == "channels_last"
    shapes = {name: tuple(output.shape[1:]) for name, output in built.model.output.items()}
    assert shapes == {
        "output0": (8, 6, 4) if last else (4, 8, 6),
        "output1_0": (4, 3, 6) if last else (6, 4, 3),
        "output1_1": (6,),
        "output2": (8, 6, 4),
    }


@pytest.mark.parametrize(
    ("result", "names"),
    [
        (torch.zeros(2, 3), ["logits"]),
        ([torch.zeros(2, 3), None, torch.ones(2)], ["logits", "output2"]),
        ((torch.zeros(2, 3, 1, 1), torch.ones(2)), ["output0", "output1"]),
        (OrderedDict(aux=torch.ones(2), logits=torch.zeros(2)), ["logits", "aux"]),
        ({"out": torch.zeros(2), "aux": {"low": torch.ones(2), 3: 5}}, ["out", "aux_low"]),
        (Named(torch.zeros(2), [torch.ones(2)]), ["first", "second_0"]),
        (None, []),
    ],
)
def test_names_of_results(result: Any, names: list[str]) -> None:
    assert list(named_results(result)) == names


def test_outputs_of_the_same_name_are_refused() -> None:
    with pytest.raises(GraphError, match="two have the same name: a_b, a_b"):
        named_results({"a_b": torch.zeros(2), "a": {"b": torch.zeros(2)}})


def test_the_proof_compares_every_output(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = Features(), images(2, 3, 16, 12)
    right = outputs_of

    def wrong(*arguments: Any) -> dict[str, np.ndarray]:
        found = right(*arguments)
        return found | {"output2": found["output2"] * np.float32(1.001)}

    monkeypatch.setattr("porting.conversion.networks.outputs_of", wrong)
    with pytest.raises(GraphError, match=r"output2 differ from torch's by 1\.0e-03"):
        porting.from_torch(module, x)


def test_another_shape_and_what_is_no_number_are_no_agreement() -> None:
    ones, wrong = np.ones((2, 3)), np.full((2, 3), np.nan)
    assert relative_gap(ones, np.ones((2, 1))) == float("inf")
    assert largest_gap({"a": ones, "b": wrong}, {"a": ones, "b": ones}) == float("inf")
    assert largest_gap({"a": ones, "b": ones}, {"a": ones, "b": ones}) == 0


def test_several_outputs_survive_the_file(tmp_path: Path) -> None:
    module, x = segmentation("fcn"), images(2, 3, 64, 64)
    model = porting.from_torch(module, x)
    model.save(tmp_path / "a.keras")
    again = keras.saving.load_model(tmp_path / "a.keras")
    assert list(again.output) == ["out", "aux"]
    placed = x.permute(0, 2, 3, 1).numpy()
    first, second = (m.predict_on_batch(placed)["out"] for m in (model, again))
    np.testing.assert_array_equal(first, second)


CHILD = """
import json, sys
import keras, numpy as np
folder, gaps = sys.argv[1], {}
for name, wanted in np.load(f"{folder}/wanted.npz").items():
    kind, size, output = name.split("/")
    model = keras.saving.load_model(f"{folder}/{kind}.keras")
    found = model(np.load(f"{folder}/{size}.npy"), training=False)
    found = np.asarray(found[output] if isinstance(found, dict) else found)
    gaps[name] = float(np.abs(found.transpose(0, 3, 1, 2) - wanted).max() / np.abs(wanted).max())
print(json.dumps(gaps))
"""


@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=pytest.mark.slow)])
def test_odd_sizes_elsewhere(backend: str, tmp_path: Path, run_python: RunPython) -> None:
    """By plain Keras, one file for images of any size."""
    torch.manual_seed(0)
    modules = {
        "deeplabv3": segmentation("deeplabv3", aux=False),
        "nearest": resized(mode="nearest"),
        "exact": resized(mode="nearest-exact"),
        "corners": resized(mode="bilinear", align_corners=True),
    }
    results = {}
    for kind, module in modules.items():
        built = filled(module, read(module, images(2, 3, 64, 64), any_size=True))
        built.model.save(tmp_path / f"{kind}.keras")
        for height, width in ((61, 83), (130, 45)):
            x = images(2, 3, height, width)
            np.save(tmp_path / f"{height}.npy", x.permute(0, 2, 3, 1).contiguous().numpy())
            for name, maps in wanted(module, x).items():
                results[f"{kind}/{height}/{name}"] = maps
    np.savez(tmp_path / "wanted.npz", **results)
    done = run_python(
        CHILD, tmp_path, on_path=False, KERAS_BACKEND=backend, CUDA_VISIBLE_DEVICES=""
    )
    gaps = json.loads(done.stdout.splitlines()[-1])
    assert len(gaps) == len(results) == 2 * len(modules)
    assert {name: gap for name, gap in gaps.items() if gap > 1e-5} == {}
