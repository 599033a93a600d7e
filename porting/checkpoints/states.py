"""Which of all that a file holds are the weights: wrappers, averages, whole models, company.

Training scripts save a state_dict beside much else, under names of their own. What is taken is
said, and what is left out is named.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_alexnet.errors import listed
from porting.checkpoints.torch_files import state_of
from porting.checkpoints.unpickling import Inert
from porting.errors import CheckpointError

# Entries of a checkpoint that hold a model's own weights, the best known first.
ENTRIES = (
    *("state_dict", "model_state_dict", "model", "net", "network", "module"),
    *("params", "weights"),
)
# Entries, and prefixes of keys, that hold averages of the weights: torchvision's `model_ema`,
# timm's `state_dict_ema`.
_AVERAGE = re.compile(r"(^|[_.])(ema|swa|averaged?)([_.]|$)")
# Parts of keys that wrappers put there, in front or within: DataParallel and
# DistributedDataParallel, torch.compile, FSDP, activation checkpointing.
_WRAPPERS = frozenset(("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
# Where a checkpoint says which architecture its script was asked for.
_ARCHITECTURE = ("arch", "architecture", "model_name")
_ARGUMENTS = ("args", "config", "cfg", "hyper_parameters", "opt")


class State(NamedTuple):
    """The weights of a file.

    Attributes:
        tensors: Key -> tensor or array, wrappers' parts removed.
        wrapped: Those whose own key begins with a wrapper's part.
        notes: What was taken and left out, for people.
    """

    tensors: dict[str, Any]
    wrapped: frozenset[str]
    notes: tuple[str, ...]


def find_state(path: Path, content: Any, which: str | None) -> State:
    """Find the weights in what a file held.

    `which` is `"model"` or `"ema"`, or the name of an entry; None prefers the model's own.

    Raises:
        CheckpointError: There are none, or several of which none is chosen.
    """
    found = _candidates(content)
    if not found:
        raise CheckpointError(f"{path}: {_what_else(content)}")
    name, notes = _chosen(path, found, which)
    state = found[name]
    if name:
        notes = [f"taken from the entry {name!r}", *notes]
    elif isinstance(content, Inert):
        notes = [f"taken out of a whole model, {content.origin}", *notes]
    strangers = [str(key) for key, value in state.items() if not is_tensor(value)]
    if strangers:
        notes.append(f"left out, as they are no tensors: {listed(strangers)}")
    tensors, wrapped, removed = {}, set[str](), dict[str, None]()
    for key, value in state.items():
        if is_tensor(value):
            short, wrappers = _unwrapped(str(key))
            short = str(key) if short in tensors else short  # where two would be called the same
            tensors[short] = value
            removed |= dict.fromkeys(wrappers)
            if str(key).partition(".")[0] in wrappers:
                wrapped.add(short)
    notes += [f"prefix {part + '.'!r} removed" for part in removed]
    return State(tensors, frozenset(wrapped), tuple(notes))


def architecture_in(content: Any) -> str | None:
    """Return the architecture that a checkpoint says it is, such as `alexnet`, or None."""
    if not isinstance(content, Mapping):
        return None
    for place in (content, *(_attributes(content.get(name)) for name in _ARGUMENTS)):
        for name in (*_ARCHITECTURE, *(["model"] if place is not content else [])):
            if isinstance(place.get(name), str):
                return str(place[name])
    return None


def is_tensor(value: Any) -> bool:
    """Return whether a value of a state_dict is an array of any kind, readable or not."""
    return hasattr(value, "dtype") or (
        isinstance(value, Inert) and value.origin.startswith("torch._utils._rebuild")
    )


def is_average(name: str) -> bool:
    """Return whether an entry or a prefix of keys is called as averages of weights are."""
    return _AVERAGE.search(name) is not None


def _attributes(value: Any) -> Mapping[Any, Any]:
    if isinstance(value, Inert):
        value = value.state
    return value if isinstance(value, Mapping) else {}


def _candidates(content: Any) -> dict[str, Mapping[Any, Any]]:
    """Return the state_dicts in what a file held, by entry; "" is the content itself."""
    found = {}
    if isinstance(content, Mapping):
        for name, value in content.items():
            if state := _as_state(value):
                found[str(name)] = state
    whole = _as_state(content)
    if whole is not None and not found.keys() & set(ENTRIES):
        return {"": whole}  # beside metrics and the like
    return found


def _as_state(value: Any) -> Mapping[Any, Any] | None:
    """Return a state_dict, or None for what holds no tensor but single numbers."""
    if isinstance(value, Inert) and not is_tensor(value):
        value = state_of(value)
    if isinstance(value, Mapping):
        tensors = filter(is_tensor, value.values())
        if any(getattr(tensor, "shape", (1,)) for tensor in tensors):
            return value
    return None


def _chosen(
    path: Path, found: Mapping[str, Mapping[Any, Any]], which: str | None
) -> tuple[str, list[str]]:
    """Return the name of the entry to take, and notes about the others."""
    if which in found:
        return str(which), []
    averages = [name for name in found if is_average(name)]
    own = [name for name in found if name not in averages]
    match which:
        case None | "model":
            wanted = own or averages
        case "ema":
            wanted = averages or [n for n in own if any(map(is_average, _prefixes(found[n])))]
        case _:
            wanted = [name for name in found if which in _prefixes(found[name])]
    if not wanted:
        raise CheckpointError(
            f"{path}: holds no weights called {which!r}; it has {listed(map(repr, found))}"
        )
    known = [name for name in ENTRIES if name in wanted]
    if len(wanted) > 1 and not known:
        raise CheckpointError(
            f"{path}: holds several models, {listed(map(repr, wanted))}; choose one with --which"
        )
    others = [f"it has averages in {n!r} too: --which ema" for n in averages if which is None]
    return (known or wanted)[0], others if own else []


def _prefixes(state: Mapping[Any, Any]) -> set[str]:
    """Return the first parts of a state_dict's keys."""
    return {str(key).partition(".")[0] for key in state}


def _unwrapped(key: str) -> tuple[str, list[str]]:
    parts = key.split(".")
    kept = [part for part in parts[:-1] if part not in _WRAPPERS]
    return ".".join([*kept, parts[-1]]), [part for part in parts[:-1] if part in _WRAPPERS]


def under_own_names(
    arrays: Mapping[str, np.ndarray], keys: Collection[str]
) -> Mapping[str, np.ndarray]:
    """Return arrays under the keys of a network whose own hold what elsewhere is a wrapper's part.

    A network may have a child that is called `module`.
    """
    own = {_unwrapped(key)[0]: key for key in keys}
    if len(own) < len(keys) or all(own.get(key, key) == key for key in arrays):
        return arrays
    return {own.get(key, key): array for key, array in arrays.items()}


def _what_else(content: Any) -> str:
    if not isinstance(content, Mapping):
        kind = content.origin if isinstance(content, Inert) else type(content).__name__
        return (
            f"holds a {kind}, not a state_dict (a mapping of names to arrays); save "
            "`model.state_dict()`"
        )
    what = f"entries that are no arrays: {listed(map(str, content))}" if content else "nothing"
    return (
        f"no state_dict found: the mapping holds {what}. Known wrappers are "
        f"{', '.join(map(repr, ENTRIES))}"
    )
