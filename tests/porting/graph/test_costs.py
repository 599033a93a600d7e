"""Multiply-accumulates of converted networks: those that torchvision publishes of its weights."""

from collections.abc import Iterator

import keras
import pytest
import torch
from torchvision import models

from keras_alexnet.models.profile import profile_model
from porting.graph.builder import build
from porting.graph.reader import read
from porting.torch_side import torchvision_zoo

# Quick to build, and of different kinds: attention, depthwise convolutions, shuffled channels.
QUICK = ("resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "vit_b_32")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    keras.backend.clear_session()


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in models.list_models(module=models)
    ],
)
def test_multiply_accumulates_and_parameters_are_torchvisions(name: str) -> None:
    shape = torchvision_zoo.info(name, "DEFAULT").shape
    # Inference leaves the auxiliary heads out.
    net = torchvision_zoo.build_network(name, size=shape[1:], aux_heads=False)
    rows = profile_model(build(read(net, torch.randn(2, *shape)), "channels_last").model)
    published = models.get_model_weights(name).DEFAULT.meta["_ops"]
    assert round(sum(row.macs for row in rows) / 1e9, 3) == pytest.approx(published, abs=0.0011)
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in net.parameters())
