"""Seeded weights that let errors show: every layer is alive and logits differ between photos.

PyTorch's default initialisation does not: after it, GoogLeNet's logits of two photos differ by a
millionth. Here kernels are He-scaled and calibrated on seeded images, or every tensor is drawn with
the mean and deviation that it has in a pretrained network.
"""

import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from keras_alexnet.core.backend import require
from keras_alexnet.specs import SPECS
from keras_alexnet.specs.schema import LRN, BatchNorm, Sigmoid
from keras_alexnet.specs.shapes import too_small, trace
from porting.checkpoints.files import as_tensors, write_checkpoint
from porting.errors import UsageError
from porting.torch_side import torchvision_zoo
from porting.torch_side.reference_nets import Reference, batch_norms, forward
from porting.weights.spec_tables import outputs_of, weight_map
from porting.weights.table import Put, Size

Statistics = Mapping[str, Mapping[str, float]]


def seeded_state_dict(
    name: str,
    *,
    seed: int = 0,
    classes: int | None = None,
    aux_heads: bool = False,
    size: Size | None = None,
    statistics: Statistics | None = None,
) -> dict[str, np.ndarray]:
    """Draw a state_dict for one of the known architectures.

    Args:
        name: Architecture.
        seed: Same seed, same weights; each tensor has a stream of its own.
        classes: Number of classes; by default the architecture's.
        aux_heads: Whether to include auxiliary classifiers.
        size: Height and width of the images in pixels; by default the architecture's.
        statistics: Key -> `{"mean": m, "std": s}` to draw from. Without it kernels are He-scaled
            and calibrated by the torch network on seeded images: batch norm's statistics are
            measured there, and what local response normalisation reads is brought to where it
            does something.

    Returns:
        Key -> array in torch's order.

    Raises:
        UsageError: The statistics lack a key, or the images are too small for the network.
        MissingDependencyError: The network must be calibrated and torch is missing.
    """
    spec = SPECS[name]
    if problem := too_small(spec, size or spec.default_size, aux_heads=aux_heads):
        raise UsageError(problem)
    table = weight_map(spec, classes or spec.classes, aux_heads=aux_heads, size=size)
    rows = [step.row for step in trace(spec, aux_heads=aux_heads)]
    # Sigmoids of small values are all near .5, and so alike between photos.
    gain = 8 if any(isinstance(row, Sigmoid) for row in rows) else 1
    arrays: dict[str, np.ndarray] = {}
    for entry in table:
        if not isinstance(entry, Put):
            arrays[entry.key] = np.array(0, np.int64)
            continue
        rng = np.random.default_rng([seed, zlib.crc32(entry.key.encode())])
        if statistics is None:
            values = gain * _he_scaled(rng, entry)
        elif entry.key in statistics:
            values = _from_statistics(rng, entry, statistics[entry.key])
        else:
            raise UsageError(f"the statistics have no entry for {entry.key} of {name}")
        arrays[entry.key] = values.astype(np.float32)
    if statistics is None and any(isinstance(row, BatchNorm | LRN) for row in rows):
        arrays = _calibrate(name, arrays, seed, aux_heads=aux_heads, size=size)
    return arrays


def write_seeded(job: Mapping[str, Any]) -> None:
    """Write what `seeded_state_dict` draws: `seeded` has its arguments, `output` is the file."""
    given = {**job["seeded"], "size": tuple(job["seeded"]["size"])}  # JSON knows no tuples
    write_checkpoint(job["output"], seeded_state_dict(**given))


def _he_scaled(rng: np.random.Generator, put: Put) -> np.ndarray:
    if len(put.shape) > 1:
        return rng.normal(0, (2 / np.prod(put.shape[1:])) ** 0.5, put.shape)
    if put.variable.endswith(("gamma", "moving_variance")):
        return rng.uniform(0.75, 1.25, put.shape)
    if put.variable.endswith("beta"):
        # Around 0, deep networks of batch norm and ReLU are chaotic: rounding errors double every
        # few layers, a hundredfold at the end of `googlenet_lab`.
        return rng.normal(1, 0.1, put.shape)
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
    name: str, arrays: dict[str, np.ndarray], seed: int, *, aux_heads: bool, size: Size | None
) -> dict[str, np.ndarray]:
    """Adapt weights to what a batch of seeded images makes of them."""
    if name in torchvision_zoo.NETWORKS:
        # Before torch: it must precede TensorFlow, and `require` says so where it is too late.
        require("torchvision")
    torch = require("torch")
    spec = SPECS[name]
    classes = len(arrays[f"{spec.classifier}.weight"])
    net = Reference(name, classes, aux_heads=aux_heads, size=size).build()
    net.load_state_dict(as_tensors(arrays))
    for module in batch_norms(net).values():
        module.momentum = 1.0  # the statistics of this batch alone
        module.train()
    last_conv = None
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            last_conv = module
        elif isinstance(module, torch.nn.LocalResponseNorm):
            module.register_forward_pre_hook(partial(_raise_for_lrn, last_conv))
    with torch.no_grad():
        outputs = outputs_of(spec, aux_heads=aux_heads)
        rng = np.random.default_rng([seed, 1])
        images = live_images(rng, spec.channels, 8, size or spec.default_size)
        forward(net, outputs, torch.from_numpy(images))
    return {key: value.numpy() for key, value in net.state_dict().items()}


def _raise_for_lrn(conv: Any, lrn: Any, inputs: tuple[Any]) -> tuple[Any]:
    """Scale a convolution so that its squares weigh as much as k in the LRN that follows.

    With activations near 1, as otherwise, LRN would divide everything by the same number and a
    wrong window would not show. ReLU and max pooling in between pass the factor on.
    """
    (x,) = inputs
    factor = (lrn.k / (lrn.alpha * x.square().mean())) ** 0.5
    conv.weight.mul_(factor)
    conv.bias.mul_(factor)
    return (x * factor,)


def live_images(rng: np.random.Generator, channels: int, count: int, size: Size) -> np.ndarray:
    """Return normalised images with structure at several scales, float32 (count, C, H, W)."""
    height, width = size
    images = np.zeros((count, channels, height, width))
    for cells in (4, 14, 56, 224):
        blocks = rng.normal(0, 1, (count, channels, cells, cells))
        rows = np.arange(height) * cells // height
        columns = np.arange(width) * cells // width
        images += blocks[:, :, rows[:, None], columns] / 2
    return images.astype(np.float32)


def live_inputs(
    rng: np.random.Generator, shapes: Sequence[Sequence[int]], count: int
) -> list[np.ndarray]:
    """Return normalised images for every shape (C, H, W), and normal noise for others."""
    return [
        live_images(rng, shape[0], count, (shape[1], shape[2]))
        if len(shape) == 3
        else rng.normal(0, 1, (count, *shape)).astype(np.float32)
        for shape in shapes
    ]
