"""Weights files that speak of an architecture in other words: other names, axes, or numbers.

Two tables say what they mean, and the transfer then is the same for all: `spec_tables.weight_map`
has the architecture's own names and axes, `_RELATED` the networks whose weights serve another one.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from keras_alexnet.errors import counted, listed
from keras_alexnet.specs import SPECS
from keras_alexnet.specs.preprocessing import Preprocessing
from keras_alexnet.specs.schema import LRN, Conv, Dense, ModelSpec, Row
from keras_alexnet.specs.shapes import too_small
from porting.checkpoints.files import Checkpoint
from porting.checkpoints.states import is_average
from porting.errors import CheckpointError
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
        return _with_keys(_fold(candidate, origin, spec), _names(related))
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
    return _squeezed(_to_torch(_rename(checkpoint, spec), spec, size), spec, size)


def _names(related: Related) -> dict[str, str]:
    """Return key of the origin -> key of the other network."""
    return {
        f"{ours}.{part}": f"{theirs}.{part}"
        for ours, theirs in related.names.items()
        for part in ("weight", "bias")
    }


def _rename(checkpoint: Checkpoint, spec: ModelSpec) -> Checkpoint:
    """Give keys the architecture's names, without the prefix that they share in the file."""
    own = {canonical(entry.key): entry.key for entry in weight_map(spec, spec.classes)}
    spelt = {key: canonical(key) for key in checkpoint.arrays}
    prefix = _prefix(checkpoint, spelt.values(), list(own))
    names = {
        key: own[name.removeprefix(prefix)]
        for key, name in spelt.items()
        if name.startswith(prefix) and name.removeprefix(prefix) in own
    }
    for name in _twice(names.values()):
        both = " and ".join(key for key, each in names.items() if each == name)
        raise CheckpointError(f"{checkpoint.path}: {both} both stand for {name}")
    notes = []
    if strangers := _strangers(checkpoint, names, prefix):
        notes.append(f"left out, as they lie outside of the network: {listed(strangers)}")
        kept = {k: a for k, a in checkpoint.arrays.items() if k not in strangers}
        checkpoint = replace(checkpoint, arrays=kept, translated=True)
    renamed = {key: name for key, name in names.items() if key != name}
    if renamed:
        before, after = next(iter(renamed.items()))
        notes.append(
            f"{counted(len(renamed), 'name')} changed to {spec.name}'s, such as {before} to {after}"
        )
        checkpoint = _with_keys(checkpoint, renamed)
    return replace(checkpoint, notes=(*checkpoint.notes, *notes))


def _prefix(checkpoint: Checkpoint, spelt: Iterable[str], own: list[str]) -> str:
    """Return what stands before the architecture's keys in a file: as a rule nothing.

    Raises:
        CheckpointError: There are several such prefixes, and none is chosen.
    """
    spelt = set(spelt)
    first, *_ = own
    places = {key.removesuffix(first) for key in spelt if key.endswith(f"_{first}")}
    found = {prefix: sum(prefix + key in spelt for key in own) for prefix in {"", *places}}
    most = max(found.values())
    # Auxiliary heads and a head of one's own may be missing.
    fitting = [p for p in sorted(found) if found[p] == most and 2 * most >= len(own)]
    if "" in fitting or not fitting:
        return ""
    which = checkpoint.which
    if len(fitting) > 1 and which not in (None, "model", "ema"):
        fitting = [prefix for prefix in fitting if canonical(f"{which}.") == prefix]
    elif len(fitting) > 1:
        averages = [prefix for prefix in fitting if is_average(prefix)]
        fitting = averages if which == "ema" else [p for p in fitting if p not in averages]
    if len(fitting) != 1:
        names = sorted(prefix.rstrip("_") for prefix in places if 2 * found[prefix] >= len(own))
        raise CheckpointError(
            f"{checkpoint.path}: holds the network under the prefixes {listed(names)}; choose one "
            "with --which"
        )
    return fitting[0]


def _strangers(checkpoint: Checkpoint, names: Mapping[str, str], prefix: str) -> list[str]:
    """Return the keys that lack what stands before all those of the network in the file."""
    if prefix:
        return [key for key in checkpoint.arrays if not canonical(key).startswith(prefix)]
    if names.keys() <= checkpoint.wrapped:
        return [key for key in checkpoint.arrays if key not in checkpoint.wrapped]
    return []


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
