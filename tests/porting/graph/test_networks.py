"""Small networks of torchvision's families, through their graphs: values, names, ways back."""

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
import torch
from helpers.graphs import filled, images, output
from helpers.models import BOTH
from torch import nn
from torchvision import models
from torchvision.models import maxvit, mobilenetv3, swin_transformer, vision_transformer

import porting
from keras_alexnet import create_model, feature_extractor
from keras_alexnet.models.initialization import weights_will_follow
from porting.checkpoints.files import to_numpy
from porting.conversion.networks import outputs_of, prove
from porting.errors import GraphError
from porting.graph.builder import Built, build
from porting.graph.plan import Plan
from porting.graph.reader import read
from porting.graph.torch_child import Proof
from porting.tolerances import TOLERANCES
from porting.torch_side.liveliness import liven
from porting.torch_side.reference_nets import main_result
from porting.weights.transfer import counterpart_of, to_state_dict

CLASSES = 7


def swin(version: int) -> nn.Module:
    block = swin_transformer.SwinTransformerBlockV2 if version == 2 else None
    merging = swin_transformer.PatchMergingV2 if version == 2 else swin_transformer.PatchMerging
    return swin_transformer.SwinTransformer(
        [4, 4], 12, [2, 2], [3, 6], [4, 4], num_classes=CLASSES, block=block,
        downsample_layer=merging, stochastic_depth_prob=0.2,
    )  # fmt: skip


def mobile() -> nn.Module:
    """Squeeze-and-excitation, hardswish, hardsigmoid, a stride and no stride."""
    block = mobilenetv3.InvertedResidualConfig
    settings = [
        block(16, 3, 16, 16, True, "RE", 2, 1, 1.0),
        block(16, 5, 40, 24, True, "HS", 1, 1, 1.0),
        block(24, 5, 48, 24, False, "HS", 1, 2, 1.0),
    ]
    return mobilenetv3.MobileNetV3(settings, 64, num_classes=CLASSES)


def vit() -> nn.Module:
    return vision_transformer.VisionTransformer(32, 8, 2, 3, 24, 48, num_classes=CLASSES)


def max_vit() -> nn.Module:
    return maxvit.MaxVit(
        (64, 64), 8, 4, [8, 16], [1, 2], 4, stochastic_depth_prob=0.1, num_classes=CLASSES
    )


def convnext() -> nn.Module:
    block = models.convnext.CNBlockConfig
    return models.ConvNeXt([block(12, 24, 1), block(24, None, 2)], 0.3, num_classes=CLASSES)


def efficientnet() -> nn.Module:
    block = models.efficientnet.MBConvConfig
    settings = [block(1, 3, 1, 32, 16, 1, 1.0, 1.0), block(6, 5, 2, 16, 24, 2, 1.0, 1.0)]
    return models.EfficientNet(settings, 0.2, 0.2, num_classes=CLASSES, last_channel=64)


def densenet() -> nn.Module:
    return models.DenseNet(4, (2, 2), 8, num_classes=CLASSES)


def googlenet() -> nn.Module:
    return models.GoogLeNet(CLASSES, transform_input=True, init_weights=False)


def inception() -> nn.Module:
    return models.Inception3(CLASSES, init_weights=False)


def shuffle() -> nn.Module:
    return models.ShuffleNetV2([2, 2, 2], [8, 16, 16, 32, 64], num_classes=CLASSES)


def resnext() -> nn.Module:
    block = models.resnet.Bottleneck
    return models.ResNet(block, [1, 1, 1, 1], CLASSES, groups=4, width_per_group=4)


# Name -> what makes it, the size of its images, the most transposes in channels_last.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "resnext": (resnext, 61, 0),
    "densenet": (densenet, 45, 0),
    "googlenet": (googlenet, 61, 0),
    "inception_v3": (inception, 91, 0),
    "shufflenet_v2": (shuffle, 64, 8),
    "squeezenet": (lambda: models.squeezenet1_1(num_classes=CLASSES), 47, 0),
    "vgg": (lambda: models.vgg11_bn(num_classes=CLASSES), 33, 0),
    "mnasnet": (lambda: models.mnasnet0_5(num_classes=CLASSES), 48, 0),
    "mobilenet_v3": (mobile, 45, 0),
    "efficientnet": (efficientnet, 45, 0),
    "regnet": (lambda: models.regnet_y_400mf(num_classes=CLASSES), 40, 0),
    "convnext": (convnext, 40, 0),
    "vit": (vit, 32, 0),
    "swin": (lambda: swin(1), 44, 10),
    "swin_v2": (lambda: swin(2), 44, 12),
    "maxvit": (max_vit, 64, 30),
}


# Grouped convolutions and residuals, ceil pools, concatenation and auxiliary heads, shuffled
# channels, squeeze-and-excitation, attention: a fifth of the time of all.
QUICK = {"resnext", "googlenet", "shufflenet_v2", "mobilenet_v3", "vit"}


def _marked(name: str, *values: Any, **options: Any) -> Any:
    marks = [] if name in QUICK else [pytest.mark.slow]
    return pytest.param(*(values or (name,)), marks=marks, **options)


@dataclasses.dataclass
class Case:
    """One network with live weights, its plan, and what torch computes."""

    name: str
    module: nn.Module
    plan: Plan
    x: torch.Tensor
    arrays: dict[str, np.ndarray]

    def built(self, data_format: str = "channels_last") -> Built:
        return filled(self.module, self.plan, data_format)


@pytest.fixture(scope="module", params=map(_marked, NETWORKS))
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    make, size, _ = NETWORKS[request.param]
    torch.manual_seed(0)
    module, x = make().eval(), images(2, 3, size, size)
    liven(module, x, seed=0)
    arrays = {key: to_numpy(value) for key, value in module.state_dict().items()}
    yield Case(request.param, module, read(module, x), x, arrays)
    keras.backend.clear_session()


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@BOTH
def test_logits_are_torchs(case: Case, data_format: str) -> None:
    built = case.built(data_format)
    # Other images, and more of them, than the plan was made of.
    x = images(3, *case.x.shape[1:], seed=1)
    wanted = output(case.module, x)
    assert relative(outputs_of(built, x.numpy())["logits"], wanted) <= 1e-5
    # They differ between images, or nothing would be shown.
    assert np.ptp(wanted, axis=0).max() > 0.01 * np.abs(wanted).max()
    if data_format == "channels_last":
        kinds = [type(operation).__name__ for operation in built.model.operations]
        assert kinds.count("Transpose") <= NETWORKS[case.name][2]
        assert "Lambda" not in kinds


@BOTH
def test_modules_outputs_are_torchs(case: Case, data_format: str) -> None:
    """Every module's output, by forward hooks; copies, as some work in place."""
    built, seen = case.built(data_format), dict[str, np.ndarray]()
    pairs = built.counterpart.pairs
    hooks = [
        case.module.get_submodule(pair.module).register_forward_hook(
            lambda _m, _x, y, name=pair.module: seen.__setitem__(
                name, to_numpy(main_result(y)).copy()
            )
        )
        for pair in pairs
    ]
    output(case.module, case.x)
    for hook in hooks:
        hook.remove()
    made = {operation.name: operation for operation in built.model.operations}
    recorder = keras.Model(built.model.input, {p.module: made[p.layer].output for p in pairs})
    first = data_format == "channels_first"
    x = case.x if first else case.x.permute(0, 2, 3, 1)
    found = recorder.predict_on_batch(np.ascontiguousarray(x.numpy()))
    leaves = [n for n, m in case.module.named_modules() if n and not list(m.children())]
    assert len(pairs) > 0.3 * len(leaves)
    for pair in pairs:
        assert pair.transform is not None
        gap = relative(pair.transform.to_torch(np.asarray(found[pair.module])), seen[pair.module])
        assert gap <= TOLERANCES["layer"].limit, pair


def test_weights_go_back_byte_by_byte(case: Case) -> None:
    model = porting.from_torch(case.module, case.x)
    back = to_state_dict(model)
    assert list(back) == list(case.module.state_dict())
    for key, value in case.module.state_dict().items():
        assert back[key].dtype == value.dtype
        assert torch.equal(back[key], value), key
    state_dict = OrderedDict(back)
    state_dict._metadata = case.module.state_dict()._metadata  # MNASNet asks for it
    case.module.load_state_dict(state_dict, strict=True)
    trained = {key for key, _ in case.module.named_parameters()}
    held = {put.key for put in counterpart_of(model).puts}
    unused = {key for key in trained if key.startswith(("aux", "AuxLogits"))}
    assert trained - held == unused
    # What is trained in torch is trained in Keras.
    names = {put.variable for put in counterpart_of(model).puts if put.key in trained}
    assert {v.path for v in model.trainable_variables} == names


def test_training_in_keras_goes_back(case: Case) -> None:
    """After steps in Keras the logits in torch are the same."""
    built = case.built()
    model = built.model
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    model.compile(
        keras.optimizers.SGD(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    x = np.ascontiguousarray(case.x.permute(0, 2, 3, 1).numpy())
    before = model.predict_on_batch(x)
    model.train_on_batch(x, np.array([1, 3]))
    after = model.predict_on_batch(x)
    assert relative(after, before) > 1e-5
    variables = {f"{la.name}/{v.name}": v for la in model.layers for v in la.weights}
    state = case.module.state_dict()
    state |= {
        put.key: torch.from_numpy(put.to_torch(to_numpy(variables[put.variable].value)).copy())
        for put in built.counterpart.puts
    }
    twin = NETWORKS[case.name][0]().eval()
    twin.load_state_dict(state)
    assert relative(after, output(twin, case.x)) <= 1e-5


@BOTH
@pytest.mark.parametrize("name", map(_marked, ["resnext", "densenet", "mobilenet_v3", "googlenet"]))
def test_any_height_and_width(name: str, data_format: str) -> None:
    make, size, _ = NETWORKS[name]
    torch.manual_seed(0)
    module, x = make().eval(), images(2, 3, size, size)
    liven(module, x, seed=0)
    built = filled(module, read(module, x, any_size=True), data_format)
    height, width = built.model.input_shape[1:3] if data_format[-4:] == "last" else (None, None)
    assert (height, width) == (None, None)
    for shape in ((64, 64), (61, 83), (96, 50)):
        other = images(2, 3, *shape, seed=2)
        found = outputs_of(built, other.numpy())["logits"]
        assert relative(found, output(module, other)) <= 1e-5, shape


def test_a_size_that_the_code_fixes_stays_fixed() -> None:
    with pytest.raises(GraphError, match="code of VisionTransformer fixes the size of its images"):
        read(vit().eval(), images(2, 3, 32, 32), any_size=True)


def test_stages_are_features() -> None:
    torch.manual_seed(0)
    module, x = resnext().eval(), images(2, 3, 64, 64)
    model = porting.from_torch(module, x)
    found = feature_extractor(model, ["layer2", "layer3.0.conv1", "fc"])
    assert {name: tuple(value.shape) for name, value in found.output.items()} == {
        "layer2": (None, 8, 8, 512),
        "layer3.0.conv1": (None, 8, 8, 64),
        "fc": (None, CLASSES),
    }


def test_both_ways_give_the_same_googlenet() -> None:
    """The hand-written network is a witness of the one made of the graph."""
    torch.manual_seed(0)
    module, x = models.googlenet(init_weights=False).eval(), images(2, 3, 96, 96)
    liven(module, x, seed=0)
    with weights_will_follow():
        by_hand = create_model("googlenet", input_shape=(96, 96, 3), aux_heads=True)
    porting.load_state_dict(by_hand, module.state_dict())
    by_graph = porting.from_torch(module, x)
    placed = np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy())
    first = by_hand.predict_on_batch(placed)["logits"]
    second = by_graph.predict_on_batch(placed)
    assert relative(second, first) <= 2e-6


# What a wrong conversion would do is found by the proof.


def changed(plan: Plan, op: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Plan:
    """Return a plan in which every operation of a kind has other arguments."""
    nodes = tuple(
        dataclasses.replace(node, arguments={**node.arguments, **change(dict(node.arguments))})
        if node.op == op
        else node
        for node in plan.nodes
    )
    return dataclasses.replace(plan, nodes=nodes)


def renamed(plan: Plan, op: str, other: str) -> Plan:
    nodes = (dataclasses.replace(n, op=other) if n.op == op else n for n in plan.nodes)
    return dataclasses.replace(plan, nodes=tuple(nodes))


FAULTS: dict[str, tuple[str, Callable[[Plan], Plan]]] = {
    "eps": ("resnext", lambda p: changed(p, "batch_norm", lambda _: {"eps": 1e-3})),
    "norm's eps": ("convnext", lambda p: changed(p, "layer_norm", lambda _: {"eps": 1e-2})),
    "kind of GELU": ("vit", lambda p: changed(p, "gelu", lambda _: {"approximate": "tanh"})),
    "activation": ("mobilenet_v3", lambda p: renamed(p, "hardswish", "silu")),
    "padding of a pool": (
        "inception_v3",
        lambda p: changed(p, "avg_pool2d", lambda _: {"count_include_pad": False}),
    ),
    "order of axes": (
        "shufflenet_v2",
        lambda p: changed(p, "transpose", lambda a: {"dim1": a["dim0"]}),
    ),
    "order of branches": (
        "googlenet",
        lambda p: changed(
            p, "cat", lambda a: {"tensors": [*a["tensors"][:-2], *a["tensors"][:-3:-1]]}
        ),
    ),
    "direction of a roll": (
        "swin",
        lambda p: changed(p, "roll", lambda a: {"shifts": [-n for n in a["shifts"]]}),
    ),
    "scale of attention": (
        "vit",
        lambda p: changed(p, "scaled_dot_product_attention", lambda _: {"scale": 0.5}),
    ),
}


@pytest.mark.parametrize("fault", [_marked(FAULTS[fault][0], fault) for fault in FAULTS])
def test_the_proof_finds_a_planted_fault(fault: str) -> None:
    name, plant = FAULTS[fault]
    make, size, _ = NETWORKS[name]
    torch.manual_seed(0)
    module, x = make().eval(), images(2, 3, size, size)
    arrays = {key: to_numpy(value) for key, value in module.state_dict().items()}
    proof, plan = Proof.of(module, x), read(module, x)
    prove(build(plan, "channels_last"), arrays, proof)  # without it, it passes
    wrong = plant(plan)
    assert wrong != plan
    with pytest.raises(GraphError, match=r"differ from torch's by|cannot be built"):
        prove(build(wrong, "channels_last"), arrays, proof)


def test_fresh_weights_would_hide_faults() -> None:
    """Why the proof has lively ones: the logits of fresh transformers are all 0."""
    torch.manual_seed(0)
    module, x = vit().eval(), images(2, 3, 32, 32)
    arrays = {key: to_numpy(value) for key, value in module.state_dict().items()}
    proof, plan = Proof.of(module, x), read(module, x)
    wrong = changed(plan, "gelu", lambda _: {"approximate": "tanh"})
    fresh = dataclasses.replace(proof, changed={}, lively=proof.outputs)
    prove(build(wrong, "channels_last"), arrays, fresh)
    with pytest.raises(GraphError, match="differ from torch's by"):
        prove(build(wrong, "channels_last"), arrays, proof)
