"""The table of data sources: kinds, places, and the digits that need neither file nor network."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from keras_alexnet.data.examples import Arrays, Files, fingerprint
from keras_alexnet.data.sources.registry import SOURCES, find_data, open_data
from keras_alexnet.errors import ConfigurationError, DataError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two class folders and a CSV file of the same images."""
    lines = ["path,label"]
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "photos" / name / "1.png")
        lines.append(f"photos/{name}/1.png,{name}")
    (tmp_path / "photos.csv").write_text("\n".join(lines))
    return tmp_path


def test_kinds() -> None:
    assert list(SOURCES) == [
        *(
            "digits",
            "digits-rgb",
            "cifar10",
            "cifar100",
            "folder",
            "csv",
            "ilsvrc2010",
            "ilsvrc2012",
            "packed",
        )
    ]
    for source in SOURCES.values():
        assert source.description.endswith(".")
        assert "\n" not in source.description


def test_digits() -> None:
    data = open_data("digits")
    assert data.classes == tuple("0123456789")
    assert data.val is None
    assert isinstance(data.train, Arrays)
    assert isinstance(data.test, Arrays)
    assert (len(data.train), len(data.test)) == (1437, 360)
    images = np.concatenate([data.train.images, data.test.images])
    labels = np.concatenate([data.train.labels, data.test.labels])
    assert images.dtype == np.uint8
    assert images.shape == (1797, 8, 8, 1)
    assert labels.dtype == np.int64

    # Nothing lost, nothing twice: both parts are the original, each value 0..16 on its own grey.
    theirs = load_digits()
    levels = np.array([round(level * 255 / 16) for level in range(17)])
    wanted = levels[theirs.images.astype(int)].reshape(1797, 64)
    mine = images.reshape(1797, 64)
    order, other = (
        np.lexsort(np.column_stack([table, classes]).T)
        for table, classes in ((mine, labels), (wanted, theirs.target))
    )
    np.testing.assert_array_equal(mine[order], wanted[other])
    np.testing.assert_array_equal(labels[order], theirs.target[other])
    assert set(np.unique(images)) == set(levels)

    # The same share of every class, and always the same images.
    counts = np.bincount(data.test.labels)
    np.testing.assert_allclose(counts, np.bincount(theirs.target) / 5, atol=1)
    assert fingerprint(data) == fingerprint(open_data("digits"))


def test_digits_for_networks_of_colour_images() -> None:
    data, small = open_data("digits-rgb"), open_data("digits")
    for part in ("train", "test"):
        large, original = getattr(data, part), getattr(small, part)
        assert large.images.shape == (len(original), 32, 32, 3)
        assert (large.images == large.images[..., :1]).all()
        np.testing.assert_array_equal(large.labels, original.labels)
        # Each pixel became 4 x 4.
        means = large.images[..., 0].reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4))
        assert np.abs(means - original.images[..., 0]).mean() < 12


def test_places_and_kinds_that_do_not_go_together(photos: Path) -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"no kind of data 'mnist'; there are digits, digits-rgb, cifar10, ",
    ):
        open_data("mnist")
    for kind in ("folder", "csv", "ilsvrc2010", "ilsvrc2012"):
        with pytest.raises(ConfigurationError, match=rf"kind {kind} need a place.*--data-dir"):
            open_data(kind)
    with pytest.raises(ConfigurationError, match=r"digits are built in: leave out the place /tmp"):
        open_data("digits", "/tmp")


def test_data_by_its_place_alone(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_data("digits").name == "digits"
    for data in (
        find_data(str(photos / "photos")),
        find_data(str(photos / "photos.csv")),
        find_data("folder", photos / "photos"),
        find_data("csv", photos / "photos.csv"),
    ):
        assert isinstance(data.train, Files)
        assert data.name == "photos"
        assert data.classes == ("cat", "dog")
        assert [path.name for path in data.train.paths] == ["1.png", "1.png"]
    monkeypatch.setenv("HOME", str(photos))
    assert find_data("~/photos").classes == ("cat", "dog")
    assert open_data("csv", "~/photos.csv").classes == ("cat", "dog")

    with pytest.raises(
        ConfigurationError, match=r"'photo' is neither a kind of data \(digits, .*\) nor a folder"
    ):
        find_data("photo")
    with pytest.raises(ConfigurationError, match=r"photos' is a place already: leave out /tmp"):
        find_data(str(photos / "photos"), "/tmp")


def test_what_the_system_refuses_is_one_line(photos: Path) -> None:
    with pytest.raises(DataError, match=r"x\.csv: cannot be read \(File name too long\)"):
        open_data("csv", photos / ("x" * 300 + ".csv"))
