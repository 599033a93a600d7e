"""Weights that a file keeps as the parts they are computed from: pruning and normalisations.

Each is computed as torch computes it in inference, in float64, and rounded once.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_alexnet.errors import counted, listed
from porting.errors import CheckpointError

Arrays = Mapping[str, np.ndarray]


class Form(NamedTuple):
    """How one of torch's reparametrisations keeps a tensor called `weight`, say.

    Attributes:
        name: What people call it.
        parts: What is put behind the tensor's key, or in place of it with a `{}`, for each part.
        compute: The tensor, of its parts in float64.
    """

    name: str
    parts: tuple[str, ...]
    compute: Callable[..., np.ndarray]


def _masked(original: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return original * mask


def _weight_norm(g: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return g v / |v|, the norm over every axis but the one that g has."""
    axes = tuple(axis for axis in range(v.ndim) if g.ndim == v.ndim and g.shape[axis] == 1)
    norm = np.sqrt((v * v).sum(axis=axes or None, keepdims=True))
    return v * (g / norm)


def _spectral_norm(original: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the weight over its largest singular value, as u and v estimate it."""
    return original / (u @ original.reshape(len(original), -1) @ v)


# torch.nn.utils.prune, weight_norm and spectral_norm, and the parametrizations that follow them.
FORMS = (
    Form("pruned", ("{}_orig", "{}_mask"), _masked),
    Form("spectral norm", ("{}_orig", "{}_u", "{}_v"), _spectral_norm),
    Form("weight norm", ("{}_g", "{}_v"), _weight_norm),
    Form(
        "weight norm",
        ("parametrizations.{}.original0", "parametrizations.{}.original1"),
        _weight_norm,
    ),
    Form(
        "spectral norm",
        (
            "parametrizations.{}.original",
            "parametrizations.{}.0._u",
            "parametrizations.{}.0._v",
        ),
        _spectral_norm,
    ),
)
_TENSORS = ("weight", "bias")
# Parts of keys of files that hold no weights of a network -> what they are, and the way out.
_REFUSED = {
    "lora_": "a LoRA adapter, which changes the weights of another file: merge both in the program "
    "that made it (`model.merge_and_unload()`), then save the state_dict",
    "_packed_params": "a quantised network: save the float network from before its quantisation",
    ".zero_point": "a quantised network: save the float network from before its quantisation",
    ".qweight": "a quantised network: save the float network from before its quantisation",
}


def computed(path: Path, arrays: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return a state_dict with plain tensors in the places of their parts, and notes about them.

    Raises:
        CheckpointError: It is an adapter or quantised, or has parts of an unknown kind.
    """
    for part, what in _REFUSED.items():
        if key := next((key for key in arrays if part in key), None):
            raise CheckpointError(f"{path}: {key} belongs to {what}")
    found, taken, notes = {}, set[str](), []
    for form in FORMS:
        places = _places(form, arrays.keys() - taken)
        for key, parts in places.items():
            values = [arrays[part].astype(np.float64) for part in parts]
            found[parts[0]] = key, form.compute(*values).astype(arrays[parts[0]].dtype)
            taken |= {*parts}
        if places:
            notes.append(
                f"{form.name}: {counted(len(places), 'tensor')} computed, {listed(places, 3)}"
            )
    if strange := next((key for key in arrays.keys() - taken if "parametrizations." in key), None):
        raise CheckpointError(
            f"{path}: {strange} is part of a parametrisation that is not known; make it permanent "
            "(torch.nn.utils.parametrize.remove_parametrizations), then save the state_dict"
        )
    plain = {}
    for key, array in arrays.items():
        if key in found:
            name, value = found[key]
            plain[name] = value
        elif key not in taken:
            plain[key] = array
    return plain, notes


def _places(form: Form, keys: set[str]) -> dict[str, list[str]]:
    """Return key of a tensor -> the keys of its parts, where all of them are there."""
    places = {}
    for tensor in _TENSORS:
        names = [part.format(tensor) for part in form.parts]
        for key in sorted(keys):
            if key != names[0] and not key.endswith("." + names[0]):
                continue
            module = key.removesuffix(names[0])
            if all(module + name in keys for name in names):
                places[f"{module}{tensor}"] = [module + name for name in names]
    return places
