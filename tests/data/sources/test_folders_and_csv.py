"""Image files by class folder and by CSV file: what is found, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_alexnet.core.places import path_of
from keras_alexnet.data.examples import DataSet, Examples, Files, left_out_note
from keras_alexnet.data.packed.examples import is_packed, read_packed
from keras_alexnet.data.sources.folders import expand, find_images, search
from keras_alexnet.data.sources.registry import open_data
from keras_alexnet.errors import DataError, ImageFileError, listed


def touch(*paths: Path) -> None:
    """Write a small image at each path, in the format of its suffix."""
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2), (number, 0, 0)).save(path)


def found(part: Examples | None, root: Path) -> list[tuple[str, int]]:
    assert isinstance(part, Files)
    assert part.labels.dtype == np.int64
    names = [path.relative_to(root).as_posix() for path in part.paths]
    return list(zip(names, part.labels.tolist(), strict=True))


@pytest.fixture
def divided(tmp_path: Path) -> Path:
    """Two classes in three parts."""
    root = tmp_path / "pets"
    for part in ("train", "val", "test"):
        touch(*(root / part / name / f"{i}.png" for name in ("cat", "dog") for i in range(2)))
    return root


def test_the_same_files_and_labels_as_torchvision(tmp_path: Path) -> None:
    names = ["Zebra", "ant", "bee 2", "bee 10", "été"]
    suffixes = [".jpg", ".JPEG", ".png", ".bmp", ".WebP", ".ppm", ".pgm", ".tif", ".TIFF"]
    root = tmp_path / "animals"
    touch(*(root / name / f"{i}{suffix}" for name in names for i, suffix in enumerate(suffixes)))
    touch(root / "ant" / "b" / "c" / "deep.png", root / "ant" / "a" / "deeper.png")
    theirs = pytest.importorskip("torchvision").datasets.ImageFolder(root)
    data = open_data("folder", root)
    assert data.name == "animals"
    assert list(data.classes) == theirs.classes
    assert isinstance(data.train, Files)
    assert set(zip(map(str, data.train.paths), data.train.labels, strict=True)) == set(
        theirs.samples
    )
    assert len(data.train) == len(theirs)
    assert (data.val, data.test) == (None, None)
    assert find_images(root / "ant")[-2:] == [
        root / "ant" / "a" / "deeper.png",
        root / "ant" / "b" / "c" / "deep.png",
    ]


def test_other_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    touch(tmp_path / "cat" / "1.gif", tmp_path / "dog" / "1.jpg")
    touch(tmp_path / "cat" / ".2.jpg", tmp_path / "cat" / ".thumbnails" / "3.jpg")
    touch(tmp_path / ".cache" / "4.jpg")
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "labels.csv").write_text("")
    data = open_data("folder", tmp_path)
    assert found(data.train, tmp_path) == [("cat/1.gif", 0), ("dog/1.jpg", 1)]
    assert data.left_out == (tmp_path / "cat" / "notes.txt",)
    assert (
        left_out_note(data.left_out)
        == f"1 file left out, not named like images: {data.left_out[0]}"
    )


def test_every_suffix_is_read_or_counted(tmp_path: Path) -> None:
    suffixes = [".jfif", ".jpe", ".jp2", ".avif", ".JPEG", ".tif"]
    touch(*(tmp_path / "cat" / f"{i}.png" for i in range(2)), tmp_path / "dog" / "1.png")
    for suffix in suffixes:
        shutil.copy(tmp_path / "cat" / "0.png", tmp_path / "cat" / f"x{suffix}")
    shutil.copy(tmp_path / "cat" / "0.png", tmp_path / "cat" / "no_suffix")
    data = open_data("folder", tmp_path)
    assert len(found(data.train, tmp_path)) == 3 + len(suffixes)
    assert [path.name for path in data.left_out] == ["no_suffix"]


def test_links_are_followed_as_torchvision_does(tmp_path: Path) -> None:
    """But for one to a folder in which it lies itself: in that torchvision walks for ever."""
    root, store = tmp_path / "data", tmp_path / "store"
    touch(root / "cat" / "1.png", root / "dog" / "1.png", store / "more" / "2.png", store / "3.png")
    (root / "cat" / "linked").symlink_to(store)
    (root / "cat" / "4.png").symlink_to(store / "3.png")
    (root / "eel").symlink_to(store)
    theirs = pytest.importorskip("torchvision").datasets.ImageFolder(root)
    data = open_data("folder", root)
    assert isinstance(data.train, Files)
    assert set(map(str, data.train.paths)) == {path for path, _ in theirs.samples}
    before = data.train.paths
    (root / "cat" / "round").symlink_to(root)
    (store / "again").symlink_to(store)
    data = open_data("folder", root)
    assert isinstance(data.train, Files)
    assert set(before) <= set(data.train.paths)
    assert len(data.train) < 30


@pytest.mark.parametrize("names", [("seg_train", "seg_test"), ("train-a", "validation-a")])
def test_parts_that_would_become_classes(names: tuple[str, str], tmp_path: Path) -> None:
    for name in names:
        touch(*(tmp_path / name / name / kind / "1.png" for kind in ("sea", "street")))
    text = f"the folders {', '.join(sorted(names))} look like parts of the data, not like classes"
    with pytest.raises(DataError, match=text):
        open_data("folder", tmp_path)


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("training", "valid", "testing"), ("Train", "validation", "TEST")],
)
def test_parts(divided: Path, train: str, val: str, test: str) -> None:
    for name, called in {"train": train, "val": val, "test": test}.items():
        (divided / name).rename(divided / called)
    (divided / "test results").mkdir()
    (divided / "README.txt").write_text("no folder")
    data = open_data("folder", divided)
    assert data.classes == ("cat", "dog")
    for part, called in ((data.train, train), (data.val, val), (data.test, test)):
        assert found(part, divided / called) == [
            *(("cat/0.png", 0), ("cat/1.png", 0), ("dog/0.png", 1), ("dog/1.png", 1))
        ]


def test_a_test_part_alone(divided: Path) -> None:
    shutil.rmtree(divided / "train")
    shutil.rmtree(divided / "val")
    assert list(open_data("folder", divided).parts()) == ["test"]


def refused(kind: str, path: Path, text: str) -> None:
    with pytest.raises(DataError, match=text):
        open_data(kind, path)


def test_folders_that_are_none(divided: Path, tmp_path: Path) -> None:
    refused("folder", tmp_path / "nowhere", r"nowhere: no such folder")
    file = divided / "train" / "cat" / "0.png"
    refused("folder", file, r"0\.png: it is a file, a folder was expected")
    (tmp_path / "empty").mkdir()
    refused("folder", tmp_path / "empty", r"empty: no class folders; .*empty/CLASS/IMAGE")
    refused("folder", divided / "train" / "cat", r"cat: no class folders")
    refused("folder", tmp_path, r"the class folders empty hold no images")


def test_class_folders_that_do_not_fit(divided: Path) -> None:
    (divided / "test" / "dog").rename(divided / "test" / "wolf")
    refused(
        "folder",
        divided,
        r"pets/test: its class folders differ from the classes in .*pets/train: "
        r"missing dog; unexpected wolf$",
    )
    shutil.rmtree(divided / "test")
    for image in (divided / "val" / "dog").iterdir():
        image.unlink()
    (divided / "val" / "dog" / "readme.md").write_text("none here")
    refused("folder", divided, r"pets/val: the class folders dog hold no images \(.*\.jpeg")


def test_unlabelled_images(divided: Path) -> None:
    shutil.rmtree(divided / "test")
    touch(divided / "test" / "1.png")
    refused("folder", divided, r"pets/test: no class folders.*`keras-alexnet predict`")


def test_names_that_can_be_read_in_two_ways(divided: Path, tmp_path: Path) -> None:
    touch(divided / "bird" / "1.png")
    refused("folder", divided, r"beside test, train, val there are images in bird\. .*named train")
    shutil.rmtree(divided / "bird")
    (divided / "valid").mkdir()
    refused("folder", divided, r"both val and valid are its val part; keep one")
    refused("folder", tmp_path, r"pets is its only class folder; is that folder the data set\?")


def test_lists_in_messages() -> None:
    assert listed("abc") == "a, b, c"
    assert listed(map(str, range(9))) == "0, 1, 2, 3, 4 and 4 more"


def csv_file(root: Path, *lines: str) -> Path:
    """Write a table, and the images 1.png to 6.png beside it."""
    touch(*(root / f"{i}.png" for i in range(1, 7)))
    path = root / "pets.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_csv_with_parts(tmp_path: Path) -> None:
    absolute = tmp_path / "elsewhere" / "7.png"
    touch(absolute)
    path = csv_file(
        tmp_path / "table",
        "Label, taken ,path,SPLIT",
        "dog,2011,1.png,train",
        '"cat, big",2012,2.png, Training',
        f"dog,2013,{absolute},valid",
        "",
        '"cat, big","a ""quoted""\nyear",../table/3.png,TEST',
        "été ,,4.png,train",
    )
    data = open_data("csv", path)
    assert data.name == "pets"
    assert data.classes == ("cat, big", "dog", "été")
    root = tmp_path / "table"
    assert found(data.train, root) == [("1.png", 1), ("2.png", 0), ("4.png", 2)]
    assert found(data.val, tmp_path) == [("elsewhere/7.png", 1)]
    assert found(data.test, root) == [("../table/3.png", 0)]


def test_csv_without_parts_and_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "\ufeffpath,label", "2.png,b", "1.png,a")
    data: DataSet = open_data("csv", path)
    assert found(data.train, tmp_path) == [("2.png", 1), ("1.png", 0)]
    assert list(data.parts()) == ["train"]


def test_csv_with_class_indices(tmp_path: Path) -> None:
    lines = [f"{i + 1}.png,{label}" for i, label in enumerate(["2", "0", "01", "1"])]
    data = open_data("csv", csv_file(tmp_path, "path,label", *lines))
    assert data.classes == ("0", "1", "2")
    assert [label for _, label in found(data.train, tmp_path)] == [2, 0, 1, 1]
    many = [f"{i}.png" for i in range(11)]
    touch(*(tmp_path / name for name in many))
    lines = [f"{name},{i}" for i, name in enumerate(many)]
    data = open_data("csv", csv_file(tmp_path, "path,label", *lines))
    assert data.classes[9:] == ("9", "10")  # as numbers, not as words


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([], r"line 1 must name the columns path,label.*lacks path and label and is ''"),
        (["1.png,cat"], r"lacks path and label and is '1\.png,cat'"),
        (["path;label", "1.png;cat"], r"lacks path and label and is 'path;label'"),
        (["path,class", "1.png,cat"], r"lacks label and is 'path,class'"),
        (["path,label"], r"below its header, no line names an image"),
        (["path,label", "1.png,a", "2.png"], r"line 3 has 1 values for the 2 columns path,label"),
        (["path,label", "1.png,cat, big"], r"line 2 has 3 values.*commas must be quoted"),
        (["path,label", "1.png,a", "", ",b"], r"line 4 has no path"),
        (["path,label", "1.png,  "], r"line 2 has no label"),
        (["path,label,split", "1.png,a,dev"], r"line 2 has the split 'dev'; .*train, val or test"),
        (["path,label,split", "1.png,a,"], r"line 2 has the split ''"),
        (["path,label", '1.png,"a'], r"line 2 is no CSV \(unexpected end of data\)"),
        (
            ["path,label,split", "1.png,a,train", "2.png,b,val", "./1.png,a,test"],
            r"lines 2 and 4 name the same image",
        ),
        (
            ["path,label", "1.png,a", "no.png,b", "2.png,c", f"{'x' * 300}.png,d"],
            r"2 of its 4 images do not exist: .*no\.png \(line 3\), .*x\.png \(line 5\)",
        ),
        (["path,label", "1.png,1", "2.png,2"], r"go from 1 to 2, and none is 0\. Write names"),
        (["path,label", "1.png,0", "2.png,-1"], r"go from -1 to 0, and none is 1"),
        (["path,label", "1.png,0", "2.png,900000000"], r"go from 0 to 900000000, and none is 1"),
        (
            ["path,label,split", "1.png,a,train", "2.png,b,val"],
            r"the val part has classes that the train part lacks: b$",
        ),
    ],
)
def test_csv_that_is_refused(tmp_path: Path, lines: list[str], text: str) -> None:
    refused("csv", csv_file(tmp_path, *lines), rf"pets\.csv: .*{text}")


def test_csv_of_other_kinds(tmp_path: Path) -> None:
    refused("csv", tmp_path / "nowhere.csv", r"nowhere\.csv: no such file")
    refused("csv", tmp_path, "it is a folder")
    path = csv_file(tmp_path)
    path.write_bytes("path,label\n1.png,été\n".encode("latin-1"))
    refused("csv", path, r"line 2 is not UTF-8 text .*save the file as UTF-8")
    path.write_text("path,label\n1.png,cat\n", encoding="utf-16")
    refused("csv", path, r"line 1 is not UTF-8 text")


def test_one_thousand_missing_images_are_counted(tmp_path: Path) -> None:
    lines = [f"{i}.jpg,cat" for i in range(1000)]
    path = csv_file(tmp_path, "path,label", *lines)
    refused("csv", path, r"1000 of its 1000 images do not exist: .*4\.jpg \(line 6\) and 995 more")


def test_csv_with_paths_of_windows(tmp_path: Path) -> None:
    touch(tmp_path / "im" / "a.png", tmp_path / "im" / "b.png")
    (tmp_path / "t.csv").write_text("path,label\nim\\a.png,cat\nim/b.png,dog\n")
    data = open_data("csv", tmp_path / "t.csv")
    assert found(data.train, tmp_path) == [("im/a.png", 0), ("im/b.png", 1)]


def test_csv_of_one_class(tmp_path: Path) -> None:
    touch(tmp_path / "a.png", tmp_path / "b.png")
    (tmp_path / "t.csv").write_text("path,label\na.png,cat\nb.png,cat\n")
    refused("csv", tmp_path / "t.csv", r"t\.csv: 'cat' is its only class")


def test_a_split_that_is_too_small_is_explained(tmp_path: Path) -> None:
    touch(*(tmp_path / name / f"{i}.png" for name in ("cat", "dog") for i in range(2)))
    text = "4 examples of 2 classes .* the smallest class has 2. Take another share .--val-fraction"
    with pytest.raises(DataError, match=text):
        open_data("folder", tmp_path).with_validation(0.1, seed=0)


def test_images_of_another_file_system() -> None:
    memory = pytest.importorskip("fsspec").filesystem("memory")
    pytest.importorskip("upath")
    for name in ("b.JPG", "sub/a.png", "sub/notes.txt", ".hidden/c.png", "sub/.d.png"):
        memory.pipe_file(f"/photos/{name}", b"x")
    try:
        place = path_of("memory://photos")
        found = search(place)
        assert list(map(str, found.images)) == [
            "memory://photos/b.JPG",
            "memory://photos/sub/a.png",
        ]
        assert [path.name for path in found.others] == ["notes.txt"]
        assert [path.name for path in expand([place], recursive=False)] == ["b.JPG"]
        assert expand([path_of("memory://photos/sub/a.png")])[0].read_bytes() == b"x"
        memory.mkdir("/photos/empty")
        with pytest.raises(DataError, match=r"memory://photos/empty: no image files in this fold"):
            expand([path_of("memory://photos/empty")])
    finally:
        memory.rm("/photos", recursive=True)


def test_a_file_system_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one whose credentials are wrong, which raises errors of its own library."""
    memory = pytest.importorskip("fsspec").filesystem("memory")
    pytest.importorskip("upath")
    place = path_of("memory://photos/a.png")

    class ForeignError(Exception):
        pass

    def fail(*arguments: object, **options: object) -> None:
        raise ForeignError("Forbidden")

    for name in ("info", "exists", "isdir", "isfile", "cat_file", "open", "_open"):
        monkeypatch.setattr(type(memory), name, fail)
    for use in (lambda: expand([place]), lambda: is_packed(place)):
        with pytest.raises(
            DataError, match=r"a\.png: its file system cannot be used \(.*Forbidden"
        ):
            use()
    with pytest.raises(ImageFileError, match=r"a\.png: cannot be read \(Forbidden\)"):
        Files((place,), np.zeros(1, np.int64)).content(0)
    with pytest.raises(DataError, match=r"index\.json: cannot be read \(Forbidden\)"):
        read_packed("memory://photos")
