"""ILSVRC2010 and ILSVRC2012 in miniature: the official layouts, with `meta.mat` by SciPy."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from keras_alexnet.data.examples import DataSet, Examples, Files
from keras_alexnet.data.sources.ilsvrc import _read_truth
from keras_alexnet.data.sources.registry import open_data
from keras_alexnet.errors import DataError

# By the year's id; the order of the WordNet ids is another one.
WNIDS = ("n02119789", "n01440764", "n07730033")
WORDS = ("kit fox, Vulpes macrotis", "tench, Tinca tinca", "cardoon")
TRUTH = (2, 3, 1, 1, 2)


@dataclasses.dataclass
class Layout:
    """A miniature of one year's data."""

    year: int
    root: Path
    kit: Path
    train: Path

    @property
    def name(self) -> str:
        return f"ILSVRC{self.year}"

    @property
    def truth(self) -> Path:
        return self.kit / f"{self.name}_validation_ground_truth.txt"

    def open(self) -> DataSet:
        return open_data(f"ilsvrc{self.year}", self.root)

    def refused(self, text: str) -> None:
        with pytest.raises(DataError, match=text):
            self.open()


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (3, 2)).save(path, "JPEG")


def write_meta(path: Path, name: str, ids: tuple[int, ...], wnids: tuple[str, ...]) -> None:
    """Write the struct array of a development kit: low-level synsets, then their ancestors."""
    fields = [f"{name}_ID", "WNID", "words", "gloss", "num_children", "children"]
    fields += ["wordnet_height", "num_train_images"]
    synsets = np.zeros((len(ids) + 2, 1), [(field, object) for field in fields])
    for number, (id_, wnid) in enumerate(zip(ids, wnids, strict=True)):
        children = np.zeros((1, 0))
        synsets[number, 0] = (id_, wnid, WORDS[number], "a gloss", 0, children, 0, 2)
    for number in (len(ids), len(ids) + 1):
        row = (number + 1, f"n0000000{number}", "entity", "", 2, np.array([[1, 2]]), 1, 0)
        synsets[number, 0] = row
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"synsets": synsets, "cost_matrix": np.eye(len(ids))}, do_compression=True)


def build(root: Path, year: int) -> Layout:
    kit = root / ("devkit" if year == 2010 else "ILSVRC2012_devkit_t12") / "data"
    layout = Layout(year, root, kit, root / ("train_cache" if year == 2010 else "train"))
    write_meta(kit / "meta.mat", layout.name, (1, 2, 3), WNIDS)
    layout.truth.write_text("".join(f"{id_}\n" for id_ in TRUTH))
    for number in range(1, len(TRUTH) + 1):
        image(root / "val" / f"{layout.name}_val_{number:08}.JPEG")
    for wnid in WNIDS:
        for number in (12, 7):
            image(layout.train / wnid / f"{wnid}_{number}.JPEG")
    return layout


@pytest.fixture
def ilsvrc(tmp_path: Path) -> Callable[[int], Layout]:
    return lambda year: build(tmp_path / str(year), year)


YEARS = pytest.mark.parametrize("year", [2010, 2012])

# Class index by WordNet id: by the year's id in 2010; in 2012 all are sorted, as torchvision,
# Keras and Caffe have it.
INDICES = {
    2010: {wnid: id_ for id_, wnid in enumerate(WNIDS)},
    2012: {wnid: index for index, wnid in enumerate(sorted(WNIDS))},
}


def by_class(part: Examples | None) -> dict[str, int]:
    """Return the class index of each folder's images."""
    assert isinstance(part, Files)
    pairs = {
        (path.parent.name, int(label)) for path, label in zip(part.paths, part.labels, strict=True)
    }
    assert len(pairs) == len(dict(pairs))
    return dict(pairs)


def names(part: Examples | None) -> list[str]:
    assert isinstance(part, Files)
    return [path.name for path in part.paths]


def test_the_miniature_has_the_official_structure(ilsvrc: Callable[[int], Layout]) -> None:
    """As torchvision.datasets.imagenet.parse_devkit_archive reads it."""
    file = ilsvrc(2012).kit / "meta.mat"
    assert loadmat(file)["synsets"].shape == (5, 1)
    rows = list(zip(*loadmat(file, squeeze_me=True)["synsets"], strict=True))
    assert rows[0] == (1, 2, 3, 4, 5)
    assert rows[1][:3] == WNIDS
    assert rows[2][:3] == WORDS
    assert rows[4] == (0, 0, 0, 2, 2)


@YEARS
def test_parts_and_labels(ilsvrc: Callable[[int], Layout], year: int) -> None:
    layout = ilsvrc(year)
    data = layout.open()
    index = {id_: INDICES[year][wnid] for id_, wnid in enumerate(WNIDS, 1)}
    assert data.name == layout.name
    assert data.classes == tuple(WORDS[id_ - 1] for id_ in sorted(index, key=index.__getitem__))
    assert by_class(data.train) == INDICES[year]
    assert sorted(names(data.train)) == sorted(f"{w}_{n}.JPEG" for w in WNIDS for n in (7, 12))
    assert names(data.val) == [f"{layout.name}_val_{n:08}.JPEG" for n in (1, 2, 3, 4, 5)]
    assert data.val is not None
    assert data.val.labels.tolist() == [index[id_] for id_ in TRUTH]
    assert data.val.labels.dtype == np.int64
    assert data.test is None


@YEARS
def test_other_names_of_folders(ilsvrc: Callable[[int], Layout], year: int) -> None:
    layout = ilsvrc(year)
    kit = {2010: "ILSVRC2010_devkit-1.0", 2012: "devkit"}[year]
    layout.kit.parent.rename(layout.root / kit)
    if year == 2010:
        layout.train.rename(layout.root / "train")
    data = layout.open()
    assert by_class(data.train) == INDICES[year]
    assert len(names(data.val)) == len(TRUTH)


def test_validation_images_in_class_folders(ilsvrc: Callable[[int], Layout]) -> None:
    layout = ilsvrc(2012)
    val = layout.root / "val"
    for number, id_ in enumerate(TRUTH, 1):
        file = val / f"{layout.name}_val_{number:08}.JPEG"
        (val / WNIDS[id_ - 1]).mkdir(exist_ok=True)
        file.rename(val / WNIDS[id_ - 1] / file.name)
    layout.truth.unlink()
    data = layout.open()
    assert by_class(data.val) == by_class(data.train)
    assert len(names(data.val)) == len(TRUTH)
    image(val / "ILSVRC_val_00000009.JPEG")
    layout.refused(r"val: 1 images lie beside its class folders, such as ILSVRC_val_00000009")
    (val / "ILSVRC_val_00000009.JPEG").unlink()
    shutil.rmtree(val / WNIDS[2])
    layout.refused(r"val: its class folders differ .*meta\.mat: missing n07730033$")


def test_one_part_alone(ilsvrc: Callable[[int], Layout]) -> None:
    layout = ilsvrc(2010)
    layout.train.rename(layout.root / "aside")
    assert list(layout.open().parts()) == ["val"]
    shutil.rmtree(layout.root / "val")
    layout.refused(r"neither a folder train.* nor a folder val$")
    (layout.root / "aside").rename(layout.train)
    layout.truth.unlink()
    assert list(layout.open().parts()) == ["train"]


def test_2010_has_labels_for_its_test_images(ilsvrc: Callable[[int], Layout]) -> None:
    layout = ilsvrc(2010)
    for number in (1, 2):
        image(layout.root / "test" / f"ILSVRC2010_test_{number:08}.JPEG")
    assert layout.open().test is None
    truth = layout.root / "ILSVRC2010_test_ground_truth.txt"
    truth.write_text("3\r\n1")
    for place in (truth, layout.kit / truth.name):
        truth.rename(place)
        test = layout.open().test
        assert test is not None
        assert test.labels.tolist() == [2, 0]
        assert names(test) == ["ILSVRC2010_test_00000001.JPEG", "ILSVRC2010_test_00000002.JPEG"]


def test_class_folders_that_do_not_fit(ilsvrc: Callable[[int], Layout]) -> None:
    layout = ilsvrc(2012)
    shutil.rmtree(layout.train / WNIDS[0])
    image(layout.train / "n99999999" / "1.JPEG")
    layout.refused(
        r"train: its class folders differ from the classes in .*meta\.mat: "
        r"missing n02119789; unexpected n99999999$"
    )
    (layout.train / "n99999999").rename(layout.train / WNIDS[0])
    for file in (layout.train / WNIDS[1]).iterdir():
        file.unlink()
    layout.refused(r"train: the class folders n01440764 hold no images")


def test_validation_images_that_do_not_fit(ilsvrc: Callable[[int], Layout]) -> None:
    layout = ilsvrc(2010)
    val = layout.root / "val"
    (val / "ILSVRC2010_val_00000002.JPEG").unlink()
    layout.refused(r"val: 4 images, but .*validation_ground_truth\.txt has 5 lines")
    # As many as lines again, but each label after the gap would be another image's.
    image(val / "ILSVRC2010_val_00000006.JPEG")
    layout.refused(r"line 2 of ILSVRC2010_val.* ends in _00000002\.JPEG; ILSVRC2010_val_00000003")
    image(val / "ILSVRC2010_val_00000002.JPEG")
    (val / "ILSVRC2010_val_00000006.JPEG").rename(val / "extra.JPEG")
    (val / "ILSVRC2010_val_00000005.JPEG").unlink()
    layout.refused(r"line 5 of .* ends in _00000005\.JPEG; extra\.JPEG is found in its place")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"1\n2\n4\n3\n1\n", r"line 3 is '4'; it must be the id of a class, 1\.\.3"),
        (b"1\n0\n", r"line 2 is '0'"),
        (b"1\n\n2\n", r"line 2 is ''"),
        (b"1\n2 3\n", r"line 2 is '2 3'"),
        (b"1\n\xb2\n", r"not a text of numbers"),
        (b"1\n" + b"9" * 5000 + b"\n", r"line 2 is '9{40}'"),
    ],
)
def test_ground_truth_that_is_refused(tmp_path: Path, content: bytes, text: str) -> None:
    file = tmp_path / "ILSVRC2012_validation_ground_truth.txt"
    file.write_bytes(content)
    with pytest.raises(DataError, match=rf"ILSVRC2012_validation_ground_truth\.txt: .*{text}"):
        _read_truth(file, 3)


def test_meta_files_that_are_refused(ilsvrc: Callable[[int], Layout]) -> None:
    layout = ilsvrc(2012)
    meta = layout.kit / "meta.mat"
    whole = meta.read_bytes()
    again = r".*unpack the development kit again"
    meta.write_bytes(whole[: len(whole) // 2])
    layout.refused(rf"meta\.mat: not the synsets of ILSVRC2012 \(.*Error: {again}")
    savemat(meta, {"classes": np.eye(2)})
    layout.refused(rf"not the synsets of ILSVRC2012 \(KeyError: 'synsets'\){again}")
    write_meta(meta, "ILSVRC2010", (1, 2, 3), WNIDS)
    layout.refused(rf"not the synsets of ILSVRC2012 \(.*ILSVRC2012_ID.*\){again}")
    write_meta(meta, "ILSVRC2012", (1, 2, 4), WNIDS)
    layout.refused(rf"ids of its 3 low-level synsets are not 1, 2 and so on{again}")
    write_meta(meta, "ILSVRC2012", (1, 2, 3), (WNIDS[0], WNIDS[0], WNIDS[1]))
    layout.refused(rf"WordNet ids are not distinct{again}")
    write_meta(meta, "ILSVRC2012", (), ())
    layout.refused(rf"ids of its 0 low-level synsets{again}")
    meta.unlink()
    layout.refused(r"meta\.mat: no such file; the development kit of ILSVRC2012 has it")


def test_a_meta_file_that_kills_scipy_s_reader(ilsvrc: Callable[[int], Layout]) -> None:
    """A file without compression, and so without check sums, whose end became zeros."""
    layout = ilsvrc(2012)
    meta = layout.kit / "meta.mat"
    savemat(meta, {"synsets": loadmat(meta)["synsets"]})
    whole = meta.read_bytes()
    meta.write_bytes(whole[:660].ljust(len(whole), b"\0"))
    # Other releases of SciPy may raise.
    layout.refused(r"meta\.mat: not the synsets of ILSVRC2012 \((the reader died|.*Error.*)\);")


@YEARS
def test_without_a_development_kit(ilsvrc: Callable[[int], Layout], year: int) -> None:
    layout = ilsvrc(year)
    shutil.rmtree(layout.kit.parent)
    layout.refused(rf"no development kit of ILSVRC{year}; its folder must be called .*`folder`")
    with pytest.raises(DataError, match=r"nowhere: no such folder"):
        open_data(f"ilsvrc{year}", layout.root / "nowhere")
