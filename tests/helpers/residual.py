"""A small network with a way around its layers, in Keras and in torch, with live seeded weights."""

from typing import Any

import keras
import numpy as np
import torch
from torch import Tensor, nn

from keras_alexnet.models.builder import input_layers
from keras_alexnet.specs.preprocessing import Preprocessing

SIDE, CLASSES, WIDTH = 16, 5, 6
PREPROCESSING = Preprocessing(SIDE, (SIDE, SIDE))
LABELS = ("tabby, tabby cat", "tiger cat", "great grey owl", "crane", "crane, wading bird")


class Residual(nn.Module):
    """Convolution, pooling, a convolution beside its own input, and a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.fc = nn.Linear(WIDTH * (SIDE // 2) ** 2, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = self.pool(self.relu1(self.conv1(images)))
        x = self.relu2(self.conv2(x) + x)
        return self.fc(x.flatten(1))


def arrays() -> dict[str, np.ndarray]:
    """Weights in Keras' layouts; the dense kernel is (h w C, classes)."""
    rng = np.random.default_rng(0)
    flat = WIDTH * (SIDE // 2) ** 2
    found = {}
    for name, shape in (
        ("conv1", (3, 3, 3, WIDTH)),
        ("conv2", (3, 3, WIDTH, WIDTH)),
        ("fc", (flat, CLASSES)),
    ):
        fan_in = np.prod(shape[:-1])
        found[name] = rng.normal(0, (2 / fan_in) ** 0.5, shape).astype(np.float32)
        found[f"{name}_bias"] = rng.normal(0, 0.1, shape[-1:]).astype(np.float32)
    return found


def in_torch() -> Residual:
    net, weights, half = Residual().eval(), arrays(), SIDE // 2
    dense = weights["fc"].reshape(half, half, WIDTH, CLASSES).transpose(3, 2, 0, 1)
    with torch.no_grad():
        for name in ("conv1", "conv2"):
            kernel = np.ascontiguousarray(weights[name].transpose(3, 2, 0, 1))
            getattr(net, name).weight.copy_(torch.from_numpy(kernel))
        net.fc.weight.copy_(torch.from_numpy(dense.reshape(CLASSES, -1).copy()))
        for name in ("conv1", "conv2", "fc"):
            getattr(net, name).bias.copy_(torch.from_numpy(weights[f"{name}_bias"]))
    return net


def in_keras(
    *, first: bool = False, activation: str = "linear", own: Preprocessing | None = None
) -> Any:
    """The same network; `first` for channels_first, `own` normalisation for inside of it."""
    layers, weights = keras.layers, arrays()
    data_format = "channels_first" if first else "channels_last"
    shape = (3, SIDE, SIDE) if first else (SIDE, SIDE, 3)
    conv = {"kernel_size": 3, "padding": "same", "data_format": data_format}
    image = keras.Input(shape)
    x = input_layers(image, data_format, own, transform_input=False)
    x = layers.ReLU(name="relu1")(layers.Conv2D(WIDTH, name="conv1", **conv)(x))
    x = layers.MaxPooling2D(2, data_format=data_format, name="pool")(x)
    x = layers.Add(name="add")([layers.Conv2D(WIDTH, name="conv2", **conv)(x), x])
    x = layers.Flatten(data_format=data_format)(layers.ReLU(name="relu2")(x))
    scores = layers.Dense(CLASSES, activation=activation, name="fc")(x)
    model = keras.Model(image, scores, name="residual")
    for name in ("conv1", "conv2", "fc"):
        model.get_layer(name).set_weights([weights[name], weights[f"{name}_bias"]])
    return model


def photos(count: int = 3) -> np.ndarray:
    """Noise, uint8 (N, h, w, 3)."""
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
