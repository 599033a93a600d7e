"""Which classes are the same: by name, by number, by any of ImageNet's three vocabularies."""

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from keras_alexnet.data.classes import (
    _imagenet,
    are_indices,
    class_called,
    mapped,
    same_classes,
)
from keras_alexnet.errors import ConfigurationError, DataError

WNIDS, TORCHVISION, WORDS = range(3)


@given(st.permutations([*range(12)]))
def test_any_order_of_the_same_names(order: list[int]) -> None:
    names = [f"class {n}" for n in range(12)]
    assert same_classes([names[n] for n in order], names) == order
    numbers = list(map(str, range(12)))
    assert same_classes([numbers[n] for n in order], numbers) == order


def test_numbers_and_accents_in_other_spellings() -> None:
    assert same_classes(("00", "01", "10"), ("10", "0", "1")) == [1, 2, 0]
    assert same_classes(("e\u0301te\u0301", "a"), ("a", "\u00e9t\u00e9")) == [1, 0]
    assert same_classes(("1", "ant"), ("ant", "01")) is None


@pytest.mark.parametrize(("mine", "others"), product(range(3), repeat=2))
def test_imagenet_in_any_vocabulary(mine: int, others: int) -> None:
    table = _imagenet()
    assert [len(column) for column in table] == [1000] * 3
    everything = list(range(1000))
    assert same_classes(table[mine], table[others]) == everything
    some = [0, 2, 999]
    assert same_classes([table[mine][i] for i in some], table[others]) == some
    few = tuple(table[others][i] for i in reversed(some))
    assert same_classes([table[mine][i] for i in some], few) == [2, 1, 0]


def test_the_table_is_imagenets(shared_data: Path) -> None:
    lines = (shared_data / "bvlc_googlenet" / "synset_words.txt").read_text().splitlines()
    wnids, _, words = _imagenet()
    assert [f"{w} {name}" for w, name in zip(wnids, words, strict=True)] == lines
    weights = pytest.importorskip("torchvision").models.AlexNet_Weights.DEFAULT
    assert list(_imagenet()[TORCHVISION]) == weights.meta["categories"]


def test_the_bird_and_the_machine_are_both_called_crane() -> None:
    wnids, names, words = _imagenet()
    cranes = [i for i, name in enumerate(words) if name == "crane"]
    assert len(cranes) == 2
    with pytest.raises(DataError, match=r"two classes 'crane' of ImageNet, n\d+ and n\d+"):
        same_classes(("crane", words[0]), wnids)
    assert same_classes([names[i] for i in cranes], wnids) == cranes
    with pytest.raises(DataError, match="two classes 'crane'"):
        same_classes(("ant", "crane"), ("crane", "ant", "crane"))
    with pytest.raises(DataError, match="two classes '1'"):
        same_classes(("1", "01"), ("0", "1"))


def test_names_that_only_count() -> None:
    assert are_indices(("0", "1", "2"))
    assert not are_indices(("0", "1", "10", "2"))
    assert not are_indices(("0", "one"))


def test_a_file_says_which_is_which(tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    path.write_bytes('\ufeffKatze,cat\r\n"Hund, gross", dog\r\n'.encode())
    assert mapped(("Katze", "Hund, gross", "eel"), path) == ("cat", "dog", "eel")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Katze\n", "each line must hold two names.*one is 'Katze'"),
        ("Katze,\n", "each line must hold two names"),
        ("Katze,cat\nKatze,dog\n", "the data's names Katze stand in it twice"),
        ("Katze,cat\nHund,cat\n", "the model's names cat stand in it twice"),
        ("Kuh,cow\n", "'Kuh' is no class of the data, which has 'Katze', 'Hund'"),
        (b"K\xe4fer,bug\n", "line 1 is not UTF-8 text"),
        (None, "no such file"),
    ],
)
def test_maps_that_are_refused(text: str | bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    if text is not None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigurationError, match=rf"map\.csv: {message}"):
        mapped(("Katze", "Hund"), path)


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("n02123045 tabby, tabby cat", 0),
        ("Tabby Cat", 0),
        ("tiger cat", 1),
        ("crane", 3),  # a label before the words of others
        ("wading bird", 2),
        ("cat", None),
        ("shared", None),
        ("n02123045", 0),
    ],
)
def test_a_class_by_one_of_its_words(name: str, index: int | None) -> None:
    labels = ("n02123045 tabby, tabby cat", "tiger cat", "crane, wading bird", "crane")
    labels += ("x, shared", "y, shared")
    assert class_called(name, labels) == index
