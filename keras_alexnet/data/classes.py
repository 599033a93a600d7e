"""Which classes of two lists are the same, by their names.

A class is called by its name, by a number, or, one of ImageNet's thousand, in three ways: by its
WordNet id, as torchvision's records call it, or in the words of ILSVRC2012's development kit.
"""

import csv
import functools
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from keras_alexnet.core.files import read_text
from keras_alexnet.errors import ConfigurationError, DataError, listed

# By index: WordNet ids in their order; torchvision's names (torchvision/models/_meta.py); the words
# of the development kit's meta.mat, which are WordNet's.
_IMAGENET = "imagenet_classes.tsv"
_WORDNET_ID = re.compile(r"^(n\d{8}) ")


def same_classes(ours: Sequence[str], theirs: Sequence[str]) -> list[int] | None:
    """Return where in `theirs` each class of `ours` is, by its name; None where one is not there.

    Raises:
        DataError: It is open which class a name means.
    """
    if ours == theirs:
        return list(range(len(ours)))
    for keys in (_plain_keys, _imagenet_keys):
        mine, others = keys(ours), keys(theirs)
        if mine is None or others is None or not set(mine) <= set(others):
            continue
        for name, key in zip(ours, mine, strict=True):
            if mine.count(key) > 1 or others.count(key) > 1:
                raise DataError(f"there are two classes {name!r}; which one is meant is open")
        places = {key: place for place, key in enumerate(others)}
        return [places[key] for key in mine]
    return None


def class_called(name: str, labels: Sequence[str]) -> int | None:
    """Return the index of the class that a name means, or None where none or several have it.

    It is a label, another of ImageNet's names for it, or one of a label's words, in whatever case.

    Raises:
        DataError: Several classes have this very label.
    """
    if found := same_classes([name], labels):
        return found[0]
    meant = [index for index, label in enumerate(labels) if name.lower() in words_of(label)]
    return meant[0] if len(meant) == 1 else None


def words_of(label: str) -> list[str]:
    """Return the words of a label, in lower case: `n02123045 tabby, tabby cat` has three."""
    return [word.strip() for word in _WORDNET_ID.sub(r"\1,", label).lower().split(",")]


def are_indices(names: Sequence[str]) -> bool:
    """Return whether names only count the classes: 0, 1, 2 and so on, in this order."""
    return all(name.isdecimal() and int(name) == i for i, name in enumerate(names))


def mapped(names: Sequence[str], path: Path) -> tuple[str, ...]:
    """Return the names that a CSV file without header gives to classes.

    A line holds the data's name of a class, and the model's; classes that are in none keep theirs.

    Raises:
        ConfigurationError: It is no such file, a name stands in it twice, or one is no class.
    """
    by_name = _read_map(path)
    if strangers := [name for name in by_name if name not in names]:
        raise ConfigurationError(
            f"{path}: {listed(map(repr, strangers))} is no class of the data, which has "
            f"{listed(map(repr, names))}"
        )
    return tuple(by_name.get(name, name) for name in names)


def _read_map(path: Path) -> dict[str, str]:
    rows = [row for row in csv.reader(read_text(path).splitlines()) if row]
    if wrong := next((row for row in rows if len(row) != 2 or not all(map(str.strip, row))), None):
        raise ConfigurationError(
            f"{path}: each line must hold two names, the data's and the model's of a class; one is "
            f"{','.join(wrong)!r}"
        )
    for column, whose in enumerate(("data's", "model's")):
        twice = [
            n for n, count in Counter(row[column].strip() for row in rows).items() if count > 1
        ]
        if twice:
            raise ConfigurationError(f"{path}: the {whose} names {listed(twice)} stand in it twice")
    return {data.strip(): model.strip() for data, model in rows}


def _plain_keys(names: Sequence[str]) -> list[Hashable]:
    """Return names as they are meant: numbers without leading zeros, accents in one spelling."""
    if all(name.isdecimal() for name in names):
        return [int(name) for name in names]
    return [unicodedata.normalize("NFC", name).strip() for name in names]


def _imagenet_keys(names: Sequence[str]) -> list[Hashable] | None:
    """Return the WordNet ids of ImageNet's classes, or None where one vocabulary has not all."""
    if list(names) in map(list, _imagenet()):
        return list(_imagenet()[0])
    speaking = [column for column in _by_name() if all(name in column for name in names)]
    if not speaking:
        return None
    meant = [{wnid for column in speaking for wnid in column[name]} for name in names]
    for name, wnids in zip(names, meant, strict=True):
        if len(wnids) > 1:
            raise DataError(
                f"there are two classes {name!r} of ImageNet, {' and '.join(sorted(wnids))}; which "
                "one is meant is open"
            )
    return [*itertools.chain(*meant)]


@functools.cache
def _imagenet() -> tuple[tuple[str, ...], ...]:
    """Return the columns of the table, by index: WordNet ids, torchvision's names, words."""
    text = files(__package__).joinpath(_IMAGENET).read_text(encoding="utf-8")
    _, *rows = (line.split("\t") for line in text.splitlines())
    return tuple(zip(*rows, strict=True))


@functools.cache
def _by_name() -> tuple[Mapping[str, set[str]], ...]:
    """Return for each vocabulary: name of a class -> the WordNet ids that it stands for."""
    wnids, *_ = columns = _imagenet()
    found: list[dict[str, set[str]]] = []
    for column in columns:
        found.append({})
        for name, wnid in zip(column, wnids, strict=True):
            found[-1].setdefault(name, set()).add(wnid)
    return tuple(found)
