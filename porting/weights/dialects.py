"""Weights files that speak of an architecture in other words: other names, axes, or numbers.

Two tables say what they mean, and the transfer then is the same for all: `spec_tables.weight_map`
has the architecture's own names and axes, `_RELATED` the networks whose weights serve another one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from keras_alexnet.errors import listed
from keras_alexnet.specs import SPECS
from keras_alexnet.specs.schema import ModelSpec
from keras_alexnet.specs.shapes import too_small
from porting.checkpoints.files import Checkpoint
from porting.weights.folding import fold
from porting.weights.key_names import rename, with_keys
from porting.weights.layouts import conv_to_torch, dense_to_torch
from porting.weights.spec_tables import Fit, canonical, fit, weight_map
from porting.weights.table import Put, Size
from porting.weights.topology import contradictions


@dataclass(frozen=True)
class Related:
    """A network of the same layers, whose weights can be turned into another's: names of both."""

    origin: str
    names: Mapping[str, str]  # its layers -> the other's


_CAFFE_TO_PAPER = {
    "conv1": "features.0",
    "conv2": "features.4",
    "conv3": "features.8",
    "conv4": "features.10",
    "conv5": "features.12",
    "fc6": "classifier.1",
    "fc7": "classifier.4",
    "fc8": "classifier.6",
}
_RELATED: Mapping[str, Related] = {"alexnet_paper": Related("alexnet_caffe", _CAFFE_TO_PAPER)}
# What files call the networks that have twins of the same names and shapes.
_NETWORKS: Mapping[str, str] = {
    "caffenet": "caffenet",
    "bvlc_reference_caffenet": "caffenet",
    "alexnet_caffe": "alexnet_caffe",
    "bvlc_alexnet": "alexnet_caffe",
}


def translate(checkpoint: Checkpoint, spec: ModelSpec, *, size: Size | None = None) -> Checkpoint:
    """Return a checkpoint with an architecture's own keys, in torch's layout.

    A prefix that the architecture's keys share is removed, and keys without it are left out. Names
    that differ in separators alone are recognised (`conv1/7x7_s2/weight`), axes of length 1 and
    Keras' order of axes are changed to torch's, and a related network's weights are folded. What
    else belongs to none stays as it is. Arrays are views where that is possible. The first dense
    layer may depend on `size`, the images' height and width in pixels, by default the
    architecture's own.

    Raises:
        CheckpointError: Two keys of the file stand for one of the architecture, or it holds the
            network several times.
    """
    related = _related(checkpoint, spec)
    if related is not None:
        origin = SPECS[related.origin]
        candidate = _as(checkpoint, origin, None)
        return with_keys(fold(candidate, origin, spec), _names(related))
    return _as(checkpoint, spec, size)


def identify(checkpoint: Checkpoint) -> list[Fit]:
    """Compare a checkpoint with every known architecture, the best fit first.

    Related networks do not count: only names that the file itself has. Of those with the same names
    and shapes the one comes first that the file's own description of its layers says.
    """
    # Shapes alone: a broadcast number has any shape and occupies no memory.
    hollow = {key: np.broadcast_to(np.float32(0), a.shape) for key, a in checkpoint.arrays.items()}
    outline = replace(checkpoint, arrays=hollow)
    fits = [
        (fit(spec, _as(outline, spec, None).shapes), len(disagreements(checkpoint, spec)))
        for spec in SPECS.values()
    ]
    return [each for each, _ in sorted(fits, key=lambda pair: (pair[0].problems, pair[1]))]


def disagreements(checkpoint: Checkpoint, spec: ModelSpec) -> list[str]:
    """Return what a file says of its network and an architecture does not, a sentence each."""
    related = _related(checkpoint, spec)
    spec = spec if related is None else SPECS[related.origin]
    if checkpoint.net is not None and checkpoint.net.is_wired:
        return contradictions(checkpoint.net, spec)
    called = checkpoint.net.name if checkpoint.net is not None else checkpoint.architecture
    meant = _NETWORKS.get(canonical(called or "").lower())
    if meant in (None, spec.name) or fit(SPECS[meant], checkpoint.shapes).problems:
        return []
    return [f"it calls its network {called}, which is {meant}"]


def _related(checkpoint: Checkpoint, spec: ModelSpec) -> Related | None:
    """Return the network whose weights a checkpoint holds, where they serve another one."""
    related = _RELATED.get(spec.name)
    if related is None:
        return None
    origin = SPECS[related.origin]
    return None if fit(origin, _as(checkpoint, origin, None).shapes).problems else related


def _as(checkpoint: Checkpoint, spec: ModelSpec, size: Size | None) -> Checkpoint:
    return _squeezed(_to_torch(rename(checkpoint, spec), spec, size), spec, size)


def _names(related: Related) -> dict[str, str]:
    """Return key of the origin -> key of the other network."""
    return {
        f"{ours}.{part}": f"{theirs}.{part}"
        for ours, theirs in related.names.items()
        for part in ("weight", "bias")
    }


def _squeezed(checkpoint: Checkpoint, spec: ModelSpec, size: Size | None) -> Checkpoint:
    """Change shapes that differ from the architecture's in axes of length 1 alone.

    Biases of Caffe are (1, 1, 1, N), and a dense layer may have been a convolution of 1 x 1.
    Counters become whole numbers.
    """
    head = checkpoint.arrays.get(f"{spec.classifier}.weight")
    classes = head.shape[0] if head is not None and head.ndim else spec.classes
    arrays, changed = dict(checkpoint.arrays), list[str]()
    for entry in weight_map(spec, classes or spec.classes, size=_possible(spec, size)):
        array = arrays.get(entry.key)
        if array is None:
            continue
        if isinstance(entry, Put):
            if array.shape != entry.shape and _long(array.shape) == _long(entry.shape):
                arrays[entry.key] = array.reshape(entry.shape)
                changed.append(entry.key)
        elif array.dtype.kind == "f" and array.size == 1 and float(array.item()).is_integer():
            arrays[entry.key] = array.astype(np.int64).reshape(())
    notes = [f"axes of length 1 left out of {listed(changed, 3)}"] if changed else []
    return replace(
        checkpoint,
        arrays=arrays,
        notes=(*checkpoint.notes, *notes),
        translated=checkpoint.translated or bool(changed),
    )


def _long(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(length for length in shape if length != 1)


def _possible(spec: ModelSpec, size: Size | None) -> Size | None:
    """Return a size of images, or None where the architecture does not exist at it."""
    return None if size is not None and too_small(spec, size, aux_heads=True) else size


def _to_torch(checkpoint: Checkpoint, spec: ModelSpec, size: Size | None) -> Checkpoint:
    """Change the axes of the architecture's arrays from Keras' to torch's."""
    if checkpoint.layout == "torch":
        return checkpoint
    if _is_torchs(checkpoint, spec):
        note = "its kernels are in torch's order of axes already, (O, I, H, W) and (O, I)"
        return replace(checkpoint, notes=(*checkpoint.notes, note), layout="torch", translated=True)
    head = checkpoint.arrays.get(f"{spec.classifier}.weight")
    classes = spec.classes if head is None or not head.ndim else head.shape[-1]
    puts = {
        entry.key: entry
        for entry in weight_map(spec, classes or spec.classes, size=_possible(spec, size))
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


def _is_torchs(checkpoint: Checkpoint, spec: ModelSpec) -> bool:
    """Return whether convolutions that fit one order of axes alone fit torch's."""
    fitting = {"torch": 0, "keras": 0}
    for entry in weight_map(spec, spec.classes):
        if isinstance(entry, Put) and len(entry.shape) == 4 and entry.key in checkpoint.arrays:
            shape = checkpoint.arrays[entry.key].shape
            fitting["torch"] += shape == entry.shape != entry.keras_shape
            fitting["keras"] += shape == entry.keras_shape != entry.shape
    return fitting["torch"] > 0 and not fitting["keras"]


def _axes_to_torch(put: Put, array: np.ndarray) -> np.ndarray:
    if array.shape == put.keras_shape:
        return put.to_torch(array)
    # Of another network or image size: in the same order of axes, for the words about it.
    if put.transform.name == "conv" and array.ndim == 4:
        return conv_to_torch(array)
    return dense_to_torch(array) if "dense" in put.transform.name and array.ndim == 2 else array
