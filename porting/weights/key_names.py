"""Keys of a weights file as an architecture spells them: separators, prefixes, strangers."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from keras_alexnet.errors import counted, listed
from keras_alexnet.specs.schema import ModelSpec
from porting.checkpoints.files import Checkpoint
from porting.checkpoints.states import is_average
from porting.errors import CheckpointError
from porting.weights.spec_tables import canonical, weight_map


def rename(checkpoint: Checkpoint, spec: ModelSpec) -> Checkpoint:
    """Give keys the architecture's names, without the prefix that they share in the file.

    Raises:
        CheckpointError: Two keys of the file stand for one of the architecture, or it holds the
            network several times.
    """
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
        checkpoint = with_keys(checkpoint, renamed)
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


def with_keys(checkpoint: Checkpoint, names: Mapping[str, str]) -> Checkpoint:
    """Return a checkpoint with other keys for those that `names` has."""
    return replace(
        checkpoint,
        arrays={names.get(key, key): array for key, array in checkpoint.arrays.items()},
        dtypes={names.get(key, key): dtype for key, dtype in checkpoint.dtypes.items()},
        translated=True,
    )
