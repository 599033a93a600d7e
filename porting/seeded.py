"""Seeded weights that let errors show: every layer is alive and logits differ between photos.

PyTorch's default initialisation does not: after it, GoogLeNet's logits of two photos differ by a
millionth. Here kernels are He-scaled, and batch-norm statistics are either measured on seeded
images or drawn with the mean and deviation of every tensor of the pretrained network.
"""

import zlib
from collections.abc import Mapping

import numpy as np

from keras_alexnet.backend import require
from keras_alexnet.specs import SPECS
from porting import torchvision_zoo
from porting.checkpoints import as_tensors
from porting.errors import UsageError
from porting.maps import Put, weight_map

Statistics = Mapping[str, Mapping[str, float]]


def seeded_state_dict(
    name: str,
    *,
    seed: int = 0,
    classes: int = 1000,
    aux_heads: bool = False,
    statistics: Statistics | None = None,
) -> dict[str, np.ndarray]:
    """Draw a state_dict for one of the known architectures.

    Args:
        name: Architecture.
        seed: Same seed, same weights; each tensor has a stream of its own.
        classes: Number of classes.
        aux_heads: Whether to include auxiliary classifiers.
        statistics: Key -> `{"mean": m, "std": s}` to draw from. Without it kernels are He-scaled
            and batch-norm statistics are measured by torchvision's network on seeded images.

    Returns:
        Key -> array in torchvision's order.

    Raises:
        UsageError: The statistics lack a key.
        MissingDependencyError: The network has batch norm to calibrate and torchvision is missing.
    """
    table = weight_map(SPECS[name], classes, aux_heads=aux_heads)
    arrays: dict[str, np.ndarray] = {}
    for entry in table:
        if not isinstance(entry, Put):
            arrays[entry.key] = np.array(0, np.int64)
            continue
        rng = np.random.default_rng([seed, zlib.crc32(entry.key.encode())])
        if statistics is None:
            values = _he_scaled(rng, entry)
        elif entry.key in statistics:
            values = _from_statistics(rng, entry, statistics[entry.key])
        else:
            raise UsageError(f"the statistics have no entry for {entry.key} of {name}")
        arrays[entry.key] = values.astype(np.float32)
    if statistics is None and any(not isinstance(entry, Put) for entry in table):
        arrays = _calibrate(name, arrays, seed, classes=classes, aux_heads=aux_heads)
    return arrays


def _he_scaled(rng: np.random.Generator, put: Put) -> np.ndarray:
    if len(put.shape) > 1:
        return rng.normal(0, (2 / np.prod(put.shape[1:])) ** 0.5, put.shape)
    if put.variable.endswith(("gamma", "moving_variance")):
        return rng.uniform(0.75, 1.25, put.shape)
    return rng.normal(0, 0.1, put.shape)


def _from_statistics(
    rng: np.random.Generator, put: Put, moments: Mapping[str, float]
) -> np.ndarray:
    mean, std = moments["mean"], moments["std"]
    if put.variable.endswith("moving_variance"):
        # A gamma distribution has these moments and no negative values.
        return rng.gamma((mean / std) ** 2, std**2 / mean, put.shape)
    return rng.normal(mean, std, put.shape)


def _calibrate(
    name: str, arrays: dict[str, np.ndarray], seed: int, *, classes: int, aux_heads: bool
) -> dict[str, np.ndarray]:
    """Replace batch-norm statistics by those of a batch of seeded images."""
    # Before torch: it must precede TensorFlow, and `require` says so where it is too late.
    require("torchvision")
    torch = require("torch")
    net = torchvision_zoo.build(name, classes=classes, aux_heads=aux_heads, transform_input=False)
    net.load_state_dict(as_tensors(arrays))
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics of this batch alone
            module.train()
    with torch.no_grad():
        aux = SPECS[name].aux if aux_heads else ()
        torchvision_zoo.forward(net, torch.from_numpy(_images(seed)), aux)
    return {key: value.numpy() for key, value in net.state_dict().items()}


def _images(seed: int) -> np.ndarray:
    """Return normalised images with structure at several scales, float32 (8, 3, 224, 224)."""
    rng = np.random.default_rng([seed, 1])
    images = np.zeros((8, 3, 224, 224))
    for cells in (4, 14, 56, 224):
        blocks = rng.normal(0, 1, (8, 3, cells, cells))
        images += blocks.repeat(224 // cells, axis=2).repeat(224 // cells, axis=3) / 2
    return images.astype(np.float32)
