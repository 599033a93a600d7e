"""Profiles against published totals, torch's own counter and gradients."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from keras_alexnet.errors import ConfigurationError
from keras_alexnet.specs import SPECS
from keras_alexnet.specs.schema import (
    AdaptiveAvgPool,
    AvgPool,
    Concat,
    Conv,
    Flatten,
    MaxPool,
    ModelSpec,
    Row,
    keras_name,
)
from keras_alexnet.specs.shapes import conv_padding, min_size
from keras_alexnet.summary.costs import DEFINITIONS, Cost
from keras_alexnet.summary.profile import LayerProfile, Profile, profile

ALL = pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))
EACH = pytest.mark.parametrize("name", ["alexnet", "googlenet"])


def _row(network: Profile, name: str) -> LayerProfile:
    return next(row for row in network.rows if row.name == name)


def test_the_cifar_report_s_totals() -> None:
    totals = profile(SPECS["alexnet_cifar"]).totals
    assert totals.parameters == 14_869_598
    assert totals.flops == 228_743_360
    assert totals.madd == 456_637_750
    assert f"{totals.memory / 2**20:.2f}" == "2.69"


@pytest.mark.parametrize(
    ("name", "arguments", "parameters"),
    [
        ("alexnet", {}, 61_100_840),
        ("alexnet", {"classes": 10}, 57_044_810),
        ("googlenet", {}, 6_624_904),
        ("googlenet", {"aux_heads": True}, 13_004_888),
        ("googlenet_lab", {"aux_heads": True}, 10_635_134),
        ("googlenet_paper", {}, 6_998_552),
        ("alexnet_cifar", {}, 14_869_598),
        ("alexnet_keras", {}, 58_322_314),
        ("alexnet_wide", {}, 58_322_314),
    ],
)
def test_published_parameters(name: str, arguments: Any, parameters: int) -> None:
    assert profile(SPECS[name], **arguments).totals.parameters == parameters


def test_the_keras_report_s_parameters_and_maps() -> None:
    rows = profile(SPECS["alexnet_keras"]).rows
    assert [row.cost.parameters for row in rows if row.cost.parameters] == [
        34_944, 614_656, 885_120, 1_327_488, 884_992, 37_752_832, 16_781_312, 40_970,
    ]  # fmt: skip
    maps = [row.output[1] for row in rows if row.kind in ("Conv", "MaxPool")]
    assert maps == [56, 27, 27, 13, 13, 13, 13, 6]


@EACH
def test_macs_are_those_that_torchvision_publishes(name: str) -> None:
    weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    network = profile(SPECS[name])
    assert round(network.totals.macs / 1e9, 3) == weights.meta["_ops"]
    assert network.totals.parameters == weights.meta["num_params"]


@EACH
@pytest.mark.parametrize("size", [(224, 224), (193, 251)])
def test_every_layer_against_torch(name: str, size: tuple[int, int]) -> None:
    """Operations by torch's counter, parameters by the modules, sizes by what flows."""
    with torch.device("meta"):
        options = {"aux_logits": True, "init_weights": False} if name == "googlenet" else {}
        net = getattr(torchvision.models, name)(weights=None, **options)
        images = torch.zeros(2, 3, *size)
    outputs: dict[str, tuple[int, ...]] = {}
    for path, module in net.named_modules():
        module.register_forward_hook(
            lambda _module, _inputs, output, path=path: outputs.__setitem__(path, output)
        )
    with FlopCounterMode(display=False) as counter:
        net(images)  # in training mode, in which the auxiliary heads run
    counts = counter.get_flop_counts()
    spec = SPECS[name]
    network = profile(spec, size=size, aux_heads=bool(spec.aux))
    assert counter.get_total_flops() == 2 * 2 * network.totals.macs
    compared = 0
    modules = dict(net.named_modules())
    for path, module in modules.items():
        if list(module.children()) or path not in outputs:
            continue
        compared += 1
        found = [row for row in network.rows if row.name == keras_name(path)]
        if not found:  # the ReLU of torchvision's heads and blocks has other names
            assert not list(module.parameters())
            continue
        row = found[0]
        assert row.output == tuple(outputs[path].shape[1:])
        assert row.cost.parameters == sum(p.numel() for p in module.parameters())
        operations = sum(counts.get(f"{type(net).__name__}.{path}", {}).values())
        assert 2 * 2 * row.cost.macs == operations
    assert compared > 15


@ALL
def test_receptive_fields_and_strides_by_gradient(spec: ModelSpec) -> None:
    """Along one axis: which pixels have a gradient, with windows of ones for all layers."""
    length = 2400
    pixels = torch.ones(1, 1, length, dtype=torch.float64, requires_grad=True)
    outputs: dict[str, torch.Tensor] = {}

    def run(rows: Sequence[Row], x: torch.Tensor) -> torch.Tensor:
        for row in rows:
            match row:
                case Conv(kernel=window, stride=stride):
                    x = slide(x, window, stride, conv_padding(x.shape[-1], row))
                case MaxPool(size=window, stride=stride, padding=padding):
                    x = slide(x, window, stride, (padding, padding))
                case AvgPool(size=window, stride=stride):
                    x = slide(x, window, stride, (0, 0))
                case Concat(branches=branches):
                    x = torch.stack([run(branch, x) for branch in branches]).sum(0)
                case AdaptiveAvgPool() | Flatten():
                    return x
            outputs[keras_name(row.name)] = x
        return x

    def slide(x: torch.Tensor, window: int, stride: int, padding: tuple[int, int]) -> torch.Tensor:
        ones = torch.ones(1, 1, window, dtype=x.dtype)
        return F.conv1d(F.pad(x, padding), ones, stride=stride)

    run(spec.body, pixels)
    for aux in spec.aux:
        run(aux.rows, outputs[keras_name(aux.reads)])

    def seen(output: torch.Tensor, place: int) -> tuple[int, int]:
        (gradient,) = torch.autograd.grad(output[0, 0, place], pixels, retain_graph=True)
        touched = gradient[0, 0].nonzero()
        return int(touched.min()), int(touched.max())

    network = profile(spec, size=(length, length), aux_heads=bool(spec.aux))
    rows = {row.name: row for row in network.rows}
    for name, output in outputs.items():
        middle = output.shape[-1] // 2
        first, last = seen(output, middle)
        assert rows[name].receptive_field == last - first + 1, name
        assert rows[name].jump == seen(output, middle + 1)[0] - first, name
    assert len(outputs) >= 6


def test_known_receptive_fields() -> None:
    alexnet = profile(SPECS["alexnet"])
    fields = [row.receptive_field for row in alexnet.rows if row.kind in ("Conv", "MaxPool")]
    assert fields == [11, 19, 51, 67, 99, 131, 163, 195]
    # 6 x 6 to 6 x 6 changes nothing; 13 x 13 to 6 x 6 needs windows of 3 with uneven steps.
    assert (_row(alexnet, "avgpool").receptive_field, _row(alexnet, "avgpool").jump) == (195, 32)
    larger = _row(profile(SPECS["alexnet"], size=(448, 448)), "avgpool")
    assert (larger.receptive_field, larger.jump) == (195 + 2 * 32, None)
    wider = _row(profile(SPECS["alexnet"], size=(224, 448)), "avgpool")
    assert (wider.receptive_field, wider.jump) == (195 + 2 * 32, None)
    assert _row(alexnet, "classifier_1").receptive_field is None
    assert _row(profile(SPECS["googlenet"]), "avgpool").receptive_field is None


def test_padding_in_effect() -> None:
    conv1 = _row(profile(SPECS["alexnet_keras"]), "conv1")
    assert (conv1.kernel, conv1.stride, conv1.padding) == (11, 4, ((3, 4), (3, 4)))
    conv1 = _row(profile(SPECS["alexnet_keras"], size=(227, 224)), "conv1")
    assert conv1.padding == ((4, 4), (3, 4))
    assert _row(profile(SPECS["alexnet"]), "features_0").padding == ((2, 2), (2, 2))
    # 112 to 56 with 3 / 2 needs a row more; 113 to 56 does not.
    size = (224, 226)
    assert _row(profile(SPECS["googlenet"], size=size), "maxpool1").padding == ((0, 1), (0, 0))


@pytest.mark.parametrize("name", ["googlenet", "googlenet_lab", "alexnet_keras"])
def test_pooling_with_the_padding_in_effect_is_torch_s(name: str) -> None:
    """Windows laid over the padded map, without ceil mode, give torch's result."""
    spec = SPECS[name]
    pools = {keras_name(row.name): row for row in spec.body if isinstance(row, MaxPool)}
    for size in range(min_size(spec) + 80, min_size(spec) + 90):
        for row in profile(spec, size=(size, size + 3)).rows:
            if row.name not in pools:
                continue
            pool = pools[row.name]
            x = torch.rand(1, 1, *row.input[1:])
            expected = F.max_pool2d(x, pool.size, pool.stride, pool.padding, ceil_mode=pool.ceil)
            (top, bottom), (left, right) = row.padding or ((0, 0), (0, 0))
            padded = F.pad(x, (left, right, top, bottom), value=-torch.inf)
            torch.testing.assert_close(F.max_pool2d(padded, pool.size, pool.stride), expected)
            assert row.output[1:] == tuple(expected.shape[2:])


@ALL
def test_rows_belong_together(spec: ModelSpec) -> None:
    network = profile(spec, aux_heads=bool(spec.aux))
    names = [row.name for row in network.rows]
    assert len(set(names)) == len(names)
    costs = [row.cost for row in network.rows]
    for field in dataclasses.fields(Cost):
        values = [getattr(cost, field.name) for cost in costs]
        assert min(values) >= 0
        assert sum(values) == getattr(network.totals, field.name)
    for row in network.rows:
        assert row.cost.bytes_written == row.cost.memory
        if row.kind in ("Conv", "Dense"):
            elements = torch.Size(row.input).numel() + row.cost.parameters
            assert row.cost.bytes_read == 4 * elements
        if row.kind == "Flatten":
            assert row.cost == Cost()
    assert {field.name for field in dataclasses.fields(Cost)} < set(DEFINITIONS)


def test_notes_name_what_torchstat_leaves_out() -> None:
    *_, note = profile(SPECS["alexnet_cifar"]).notes
    # 2048 + 2048 + 10 elements
    assert "BatchNorm of vectors 8,212 FLOPs and 16,424 MAdd" in note
    assert "Dropout 0 FLOPs and 0 MAdd (the identity at inference)" in note
    *_, note = profile(SPECS["lenet5"]).notes
    assert "Sigmoid 26,032 FLOPs and 26,032 MAdd" in note  # 4 * (4704 + 1600 + 120 + 84)
    *_, note = profile(SPECS["alexnet_paper"]).notes
    assert f"LRN {13 * (96 * 55 * 55 + 256 * 27 * 27):,} FLOPs" in note
    *_, note = profile(SPECS["googlenet"], aux_heads=True).notes
    # 1024 maps of 7 x 7 in one window; 14 to 4 in windows of 4.
    madd = 1024 * 49 + (512 + 528) * 16 * 16
    assert f"{1024 * 49 + (512 + 528) * 196:,} FLOPs and {madd:,} MAdd" in note
    assert profile(SPECS["lenet5"]).notes[0] == (
        "One image in float32: 0.06 MiB of activations, 0.24 MiB of parameters."
    )


@ALL
def test_the_smallest_size(spec: ModelSpec) -> None:
    for aux_heads in {False, bool(spec.aux)}:
        least = min_size(spec, aux_heads=aux_heads)
        profile(spec, size=(least, least), aux_heads=aux_heads)
        heads = " with auxiliary heads" if aux_heads else ""
        with pytest.raises(ConfigurationError) as caught:
            profile(spec, size=(least - 1, least + 40), aux_heads=aux_heads)
        assert str(caught.value) == (
            f"{spec.name}{heads} needs images of at least {least} x {least} pixels, as its feature "
            f"map vanishes below; got {least - 1} x {least + 40}"
        )


def test_other_mistakes() -> None:
    with pytest.raises(ConfigurationError, match="classes must be a positive integer, got 0"):
        profile(SPECS["alexnet"], classes=0)
    with pytest.raises(ConfigurationError, match="alexnet has no auxiliary heads"):
        profile(SPECS["alexnet"], aux_heads=True)
