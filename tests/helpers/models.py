"""What the tests of models share."""

from typing import Any

import keras
import numpy as np
import pytest
import torch

from keras_alexnet import (
    create_model,
)
from keras_alexnet.models.initialization import weights_will_follow
from porting.checks.compare import difference
from porting.tolerances import TOLERANCES
from porting.torch_side import torchvision_zoo
from porting.weights.layouts import nhwc_to_nchw

StateDict = dict[str, np.ndarray]
BOTH = pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
EACH = pytest.mark.parametrize("name", ["alexnet", "googlenet"])


def random_images(height: int, width: int, *, count: int = 2, seed: int = 0) -> np.ndarray:
    """Images (N, H, W, 3) that differ at more scales than one pixel."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(count, -(-height // 8), -(-width // 8), 3))
    coarse = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    return (coarse + rng.normal(size=(count, height, width, 3))).astype(np.float32)


def random_pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), dtype=np.uint8)


def call(model: Any, images: np.ndarray, data_format: str = "channels_last") -> Any:
    """Outputs of a model as arrays, for images (N, H, W, C)."""
    if data_format == "channels_first":
        images = np.ascontiguousarray(nhwc_to_nchw(images))
    with torch.no_grad():
        outputs = model(images, training=False)
    return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)


def placed_shape(height: int | None, width: int | None, data_format: str) -> tuple[int | None, ...]:
    return (height, width, 3) if data_format == "channels_last" else (3, height, width)


def share_weights(model: Any, source: Any) -> Any:
    """Give `model` the weights of the layers of `source` that are called the same."""
    for layer in model.layers:
        if layer.weights and not layer.name.startswith("preprocessing"):
            layer.set_weights(source.get_layer(layer.name).get_weights())
    return model


def variant(source: Any, name: str, **options: Any) -> Any:
    """Build a network anew with the weights of another."""
    with weights_will_follow():
        model = create_model(name, **options)
    return share_weights(model, source)


def assert_close(reference: np.ndarray, got: np.ndarray, tolerance: str) -> None:
    assert got.shape == reference.shape
    gap = difference(reference, got).relative
    assert gap <= TOLERANCES[tolerance].limit, f"{gap:.2e} relative"


def meta_shapes(
    name: str, *, classes: int = 1000, aux_heads: bool = False
) -> dict[str, tuple[int, ...]]:
    """Shapes of torchvision's state_dict, without memory for its values."""
    with torch.device("meta"):
        net = torchvision_zoo.build(
            name, classes=classes, aux_heads=aux_heads, transform_input=False
        )
    return {key: tuple(value.shape) for key, value in net.state_dict().items()}


def zeros(shapes: dict[str, tuple[int, ...]]) -> StateDict:
    """Arrays of these shapes that take no memory."""
    return {
        key: np.array(0, np.int64) if not shape else np.broadcast_to(np.float32(0), shape)
        for key, shape in shapes.items()
    }
