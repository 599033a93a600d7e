"""Weights files that speak of an architecture in other words: other names, axes, or numbers.

Two tables say what they mean, and the transfer then is the same for all: `spec_tables.weight_map`
has the architecture's own names and axes, `_RELATED` the networks whose weights serve another one.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from keras_alexnet.specs import SPECS
from keras_alexnet.specs.preprocessing import Preprocessing
from keras_alexnet.specs.schema import LRN, Conv, Dense, ModelSpec, Row
from keras_alexnet.specs.shapes import too_small
from porting.checkpoints.files import Checkpoint
from porting.errors import CheckpointError
from porting.weights.layouts import conv_to_torch, dense_to_torch
from porting.weights.spec_tables import Fit, fit, weight_map
from porting.weights.table import Put, Size


@dataclass(frozen=True)
class Related:
    """A network of the same layers, whose weights can be turned into another's: names of both."""

    origin: str
    names: Mapping[str, str]  # its layers -> the other's


_RELATED: Mapping[str, Related] = {
    "alexnet_paper": Related(
        "alexnet_caffe",
        {
            "conv1": "features.0",
            "conv2": "features.4",
            "conv3": "features.8",
            "conv4": "features.10",
            "conv5": "features.12",
            "fc6": "classifier.1",
            "fc7": "classifier.4",
            "fc8": "classifier.6",
        },
    )
}


def translate(checkpoint: Checkpoint, spec: ModelSpec, *, size: Size | None = None) -> Checkpoint:
    """Return a checkpoint with an architecture's own keys, in torch's layout.

    Names that differ in separators alone are recognised (`conv1/7x7_s2/weight`), Keras' axes are
    changed to torch's, and a related network's weights are folded. What belongs to none stays as
    it is. Arrays are views where that is possible. The first dense layer may depend on `size`, the
    images' height and width in pixels, by default the architecture's own.

    Raises:
        CheckpointError: Two keys of the file stand for one of the architecture.
    """
    related = _RELATED.get(spec.name)
    if related is not None:
        origin = SPECS[related.origin]
        candidate = _to_torch(_rename(checkpoint, origin), origin, None)
        if not fit(origin, candidate.shapes).problems:
            return _with_keys(_fold(candidate, origin, spec), _names(related))
    return _to_torch(_rename(checkpoint, spec), spec, size)


def identify(checkpoint: Checkpoint) -> list[Fit]:
    """Compare a checkpoint with every known architecture, the best fit first.

    Related networks do not count: only names that the file itself has.
    """
    # Shapes alone: a broadcast number has any shape and occupies no memory.
    hollow = {key: np.broadcast_to(np.float32(0), a.shape) for key, a in checkpoint.arrays.items()}
    outline = replace(checkpoint, arrays=hollow)
    fits = [
        fit(spec, _to_torch(_rename(outline, spec), spec, None).shapes) for spec in SPECS.values()
    ]
    return sorted(fits, key=lambda each: each.problems)


def _canonical(name: str) -> str:
    return re.sub(r"[^0-9A-Za-z]+", "_", name)


def _names(related: Related) -> dict[str, str]:
    """Return key of the origin -> key of the other network."""
    return {
        f"{ours}.{part}": f"{theirs}.{part}"
        for ours, theirs in related.names.items()
        for part in ("weight", "bias")
    }


def _rename(checkpoint: Checkpoint, spec: ModelSpec) -> Checkpoint:
    by_canonical = {_canonical(entry.key): entry.key for entry in weight_map(spec, spec.classes)}
    names = {
        key: by_canonical[_canonical(key)]
        for key in checkpoint.arrays
        if _canonical(key) in by_canonical
    }
    renamed = {key: name for key, name in names.items() if key != name}
    if not renamed:
        return checkpoint
    for name in _twice(names.values()):
        both = " and ".join(key for key, each in names.items() if each == name)
        raise CheckpointError(f"{checkpoint.path}: {both} both stand for {name}")
    example = next(iter(renamed.items()))
    note = f"{len(renamed)} names changed to {spec.name}'s, such as {example[0]} to {example[1]}"
    return replace(_with_keys(checkpoint, renamed), notes=(*checkpoint.notes, note))


def _twice(names: Iterable[str]) -> Iterator[str]:
    seen = set()
    for name in names:
        if name in seen:
            yield name
        seen.add(name)


def _with_keys(checkpoint: Checkpoint, names: Mapping[str, str]) -> Checkpoint:
    return replace(
        checkpoint,
        arrays={names.get(key, key): array for key, array in checkpoint.arrays.items()},
        dtypes={names.get(key, key): dtype for key, dtype in checkpoint.dtypes.items()},
        translated=True,
    )


def _to_torch(checkpoint: Checkpoint, spec: ModelSpec, size: Size | None) -> Checkpoint:
    """Change the axes of the architecture's arrays from Keras' to torch's."""
    if checkpoint.layout == "torch":
        return checkpoint
    if size is not None and too_small(spec, size, aux_heads=True):
        size = None
    head = checkpoint.arrays.get(f"{spec.classifier}.weight")
    classes = spec.classes if head is None or not head.ndim else head.shape[-1]
    puts = {
        entry.key: entry
        for entry in weight_map(spec, classes or spec.classes, size=size)
        if isinstance(entry, Put)
    }
    arrays = {
        key: _axes_to_torch(puts[key], array) if key in puts else array
        for key, array in checkpoint.arrays.items()
    }
    note = "axes changed from Keras' order to torch's"
    return replace(
        checkpoint,
        arrays=arrays,
        notes=(*checkpoint.notes, note),
        layout="torch",
        translated=True,
    )


def _axes_to_torch(put: Put, array: np.ndarray) -> np.ndarray:
    if array.shape == put.keras_shape:
        return put.to_torch(array)
    # Of another network or image size: in the same order of axes, for the words about it.
    if put.transform.name == "conv" and array.ndim == 4:
        return conv_to_torch(array)
    return dense_to_torch(array) if "dense" in put.transform.name and array.ndim == 2 else array


def _fold(checkpoint: Checkpoint, origin: ModelSpec, spec: ModelSpec) -> Checkpoint:
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
