"""Models by name, and their features by layer, torch module and stage."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from helpers.models import EACH, assert_close, call, random_images
from helpers.small import SMALL

from keras_alexnet import (
    AlexNet,
    GoogLeNet,
    create_model,
    feature_extractor,
    list_models,
)
from keras_alexnet.errors import ConfigurationError, UnknownModelError
from keras_alexnet.specs import SPECS
from keras_alexnet.specs.shapes import trace

# Names


def test_models_by_name() -> None:
    assert list_models() == sorted(SPECS)
    assert list_models("goo*") == [
        "googlenet",
        "googlenet_caffe",
        "googlenet_lab",
        "googlenet_paper",
    ]
    assert list_models("vgg*") == []
    assert create_model("googlenet", **SMALL).name == "googlenet"


def test_every_spec_is_where_its_name_says() -> None:
    assert [spec.name for spec in SPECS.values()] == list(SPECS)
    assert len(SPECS) == len(set(map(id, SPECS.values()))) == 14
    assert "alexnet" in SPECS
    assert "vgg" not in SPECS


def test_models_by_name_can_be_named() -> None:
    """`name` is an argument of the constructors as well."""
    options = {**SMALL, "name": "mine"}
    assert GoogLeNet(**options).name == "mine"
    assert create_model("googlenet", **options).name == "mine"


def test_unknown_model_names_the_nearest() -> None:
    text = "unknown model 'googlnet'. Did you mean 'googlenet'\\? Known: alexnet, alexnet_lrn, "
    with pytest.raises(UnknownModelError, match=text):
        create_model("googlnet")
    with pytest.raises(UnknownModelError, match=r"unknown model 'vit_b_16'\. Known: alexnet"):
        create_model("vit_b_16")


def test_constructors_refuse_unknown_arguments() -> None:
    with pytest.raises(TypeError, match="transform_input"):
        AlexNet(transform_input=True)


@pytest.mark.parametrize(
    ("node", "layer"),
    [
        ("inception4a", "inception4a"),
        ("inception4a_branch2_0_bn", "inception4a_branch2_0_bn"),
        ("inception4a.branch2.0.bn", "inception4a_branch2_0_bn"),
        ("maxpool3", "maxpool3"),
        ("stage1", "conv1_relu"),
        ("stage3", "inception3b"),
        ("stage5", "inception5b"),
    ],
)
def test_feature_extractor(node: str, layer: str, live: dict[str, Any]) -> None:
    images = random_images(40, 48)
    model = live["googlenet"]
    extractor = feature_extractor(model, [node])
    assert extractor.weights[0] is model.weights[0]  # shared, not copied
    wanted = keras.Model(model.inputs[0], model.get_layer(layer).output)
    got = call(extractor, images)
    assert list(got) == [node]
    np.testing.assert_array_equal(got[node], call(wanted, images))


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("alexnet", ("features.1", "features.5", "features.12", "classifier.4")),
        ("googlenet", ("conv1.bn", "inception3a", "inception4a.branch4.1.conv", "maxpool4")),
        # Modules whose output is that of the ReLU inside them, which is a call in torchvision.
        ("googlenet", ("conv1", "inception4a.branch1", "inception4a.branch2.1")),
    ],
)
def test_features_by_torch_module_equal_torchvisions(
    name: str,
    modules: tuple[str, ...],
    live: dict[str, Any],
    nets: Callable[[str], Any],
    torch_outputs: Callable[..., dict[str, np.ndarray]],
) -> None:
    # torchvision's ReLUs work in place, on what the module before them has put out.
    images = random_images(80, 95)
    wanted = torch_outputs(nets(name), images, modules=modules)
    got = call(feature_extractor(live[name], list(modules)), images)
    for module in modules:
        assert_close(wanted[module], got[module], "layer")


def test_feature_extractor_renames(live: dict[str, Any]) -> None:
    nodes = {"stage2": "low", "features.12": "high", "classifier_6": "out"}
    extractor = feature_extractor(live["alexnet"], nodes)
    got = call(extractor, random_images(63, 63))
    assert {name: value.shape for name, value in got.items()} == {
        "low": (2, 7, 7, 192),
        "high": (2, 1, 1, 256),
        "out": (2, 1000),
    }


@EACH
def test_stages_end_before_the_resolution_drops(name: str, live: dict[str, Any]) -> None:
    """Each stage is the last map of its resolution, and the strides double in between."""
    spec = SPECS[name]
    last = {}
    for row, _, after in trace(spec, aux_heads=False, include_top=False):
        if row in spec.body:
            last[after[1]] = row.name
    assert list(spec.stages.values()) == [last[n] for n in sorted(last, reverse=True)]
    extracted = call(
        feature_extractor(live[name], list(spec.stages)), random_images(224, 224, count=1)
    )
    heights = [extracted[stage].shape[1] for stage in spec.stages]
    assert heights == {"alexnet": [55, 27, 13, 6], "googlenet": [112, 56, 28, 14, 7]}[name]


def test_feature_extractor_of_a_foreign_model() -> None:
    image = keras.Input((4,))
    model = keras.Model(image, keras.layers.Dense(2, name="d")(image), name="foreign")
    assert call(feature_extractor(model, ["d"]), np.zeros((3, 4)))["d"].shape == (3, 2)
    text = "foreign has no layer or stage 'stage1'. Stages: none. Layers: .*, d"
    with pytest.raises(ConfigurationError, match=text):
        feature_extractor(model, ["stage1"])


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        (
            ["inception9z"],
            r"googlenet has no layer or stage 'inception9z'\. Did you mean 'inceptio",
        ),
        ({"stage7": "x"}, "googlenet has no layer or stage 'stage7'"),
        ("stage1", "nodes must be a list of names or a dict, got the string 'stage1'"),
        ([], "nodes is empty: name at least one layer or stage"),
        ({}, "nodes is empty: name at least one layer or stage"),
    ],
)
def test_feature_extractor_errors(nodes: Any, text: str, small: Any) -> None:
    with pytest.raises(ConfigurationError, match=text):
        feature_extractor(small, nodes)
