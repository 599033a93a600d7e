"""Weights of one network turned into those of another that has the same layers."""

import math
from dataclasses import replace

import numpy as np

from keras_alexnet.specs.preprocessing import Preprocessing
from keras_alexnet.specs.schema import LRN, Conv, Dense, ModelSpec, Row
from porting.checkpoints.files import Checkpoint


def fold(checkpoint: Checkpoint, origin: ModelSpec, spec: ModelSpec) -> Checkpoint:
    """Change weights of `origin` so that `spec`, with the same layers, computes the same.

    Its input is an affine function by channel of origin's, which the first convolution takes over.
    The zeros that it pads are its own mean colour then.
    """
    arrays = dict(checkpoint.arrays)
    gains = _gains(origin, spec)
    first = next(iter(gains))
    for layer, (kernel_gain, bias_gain) in gains.items():
        if layer != first and kernel_gain == bias_gain == 1:
            continue
        kernel = arrays[f"{layer}.weight"].astype(np.float64)
        bias = arrays[f"{layer}.bias"].astype(np.float64)
        if layer == first:
            kernel, bias = _fold_input(kernel, bias, origin.preprocessing, spec.preprocessing)
        arrays[f"{layer}.weight"] = (kernel * kernel_gain).astype(np.float32)
        arrays[f"{layer}.bias"] = (bias * bias_gain).astype(np.float32)
    changed = ", ".join(layer for layer, gain in gains.items() if gain != (1, 1))
    note = (
        f"weights of {origin.name}: folded its input ({origin.preprocessing.channels}, its mean) "
        f"into {first}, its LRN's k into {changed}"
    )
    return replace(checkpoint, arrays=arrays, notes=(*checkpoint.notes, note))


def _gains(origin: ModelSpec, spec: ModelSpec) -> dict[str, tuple[float, float]]:
    """Return layer -> factors of its kernel and bias that make up for another k of the LRNs.

    N_k(x) = x / (k + a S(x))**b, where S is homogeneous of degree 2. With r = k'/k therefore
    N_k'(sqrt(r) x) = r**(1/2 - b) N_k(x). A layer before an LRN is scaled by sqrt(r), which its
    ReLU passes on, and the kernel behind it by r**(b - 1/2).
    """
    gains: dict[str, tuple[float, float]] = {}
    undo, last = 1.0, ""
    for row, target in zip(_layers(origin), _layers(spec), strict=True):
        if isinstance(row, LRN) and isinstance(target, LRN):
            ratio = target.k / row.k
            kernel, bias = gains[last]
            gains[last] = (kernel * math.sqrt(ratio), bias * math.sqrt(ratio))
            undo = ratio ** (row.beta - 0.5)
        else:
            gains[row.name] = (undo, 1.0)
            undo, last = 1.0, row.name
    return gains


def _layers(spec: ModelSpec) -> list[Row]:
    return [row for row in (*spec.body, *spec.head) if isinstance(row, Conv | Dense | LRN)]


def _fold_input(
    kernel: np.ndarray, bias: np.ndarray, theirs: Preprocessing, ours: Preprocessing
) -> tuple[np.ndarray, np.ndarray]:
    """Turn a first convolution (O, I, H, W) on images that `theirs` normalised to those of `ours`.

    With p the pixel 0..255, ours is x = (p / s - m) / d and theirs y = (p / s' - m') / d', so
    y = gain x + shift with gain = s d / (s' d') and shift = (s m / s' - m') / d'.
    """
    order = [theirs.channels.index(channel) for channel in ours.channels]
    mean, std = np.array(ours.mean), np.array(ours.std)
    their_mean, their_std = np.array(theirs.mean)[order], np.array(theirs.std)[order]
    gain = ours.scale * std / (theirs.scale * their_std)
    shift = (ours.scale * mean / theirs.scale - their_mean) / their_std
    kernel = kernel[:, order]
    bias = bias + np.einsum("oihw,i->o", kernel, shift)
    return kernel * gain[:, None, None], bias
