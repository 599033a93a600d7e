"""Texts that users write, and names of files, which are bytes."""

import os
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from keras_alexnet.core.files import READABLY, read_text, readable
from keras_alexnet.errors import ConfigurationError, DataError, counted, listed


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_byte_order_marks_and_line_endings(mark: bytes, ending: bytes, tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(mark + b"apple" + ending + "bérry".encode() + ending)
    assert read_text(path).splitlines() == ["apple", "bérry"]


def test_texts_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(b"apple\nb\xe9rry\n")
    with pytest.raises(ConfigurationError, match=r"labels\.txt: line 2 is not UTF-8 text \("):
        read_text(path)
    with pytest.raises(DataError, match="it is a folder"):
        read_text(tmp_path, error=DataError)
    with pytest.raises(ConfigurationError, match="no such file"):
        read_text(tmp_path / "none.txt")


@given(st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name))
def test_every_name_of_a_file_is_readable(name: bytes) -> None:
    shown = readable(os.fsdecode(name))
    assert shown.encode("utf-8").decode() == shown
    assert os.fsdecode(name).encode("utf-8", READABLY).decode() == shown


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    assert readable(os.fsdecode(b"caf\xe9/\xc3\xa9")) == r"caf\xe9/é"


def test_counting_in_words() -> None:
    assert [counted(n, "image") for n in (0, 1, 1200)] == ["0 images", "1 image", "1,200 images"]
    assert listed(map(str, range(7)), 3) == "0, 1, 2 and 4 more"
