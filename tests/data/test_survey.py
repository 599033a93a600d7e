"""What `data` finds: counts, sizes, colours, what cannot be read, and what is there twice."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from typer.testing import CliRunner

from keras_alexnet import find_data, survey_data
from keras_alexnet.commands.app import app
from keras_alexnet.data.choosing import choose_examples
from keras_alexnet.data.examples import Arrays, DataSet, Files
from keras_alexnet.data.packed.examples import read_packed
from keras_alexnet.data.packed.index import Encoding
from keras_alexnet.data.packed.packer import Packing, pack_data
from keras_alexnet.data.survey.results import class_sheet, from_json, notes, part_sheet, to_json
from keras_alexnet.data.survey.survey import count_data, is_quick
from keras_alexnet.data.survey.twins import near_pairs
from keras_alexnet.errors import ConfigurationError


def picture(seed: int, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    """A colourful image with structure of all sizes, uint8 (h, w, 3)."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)).resize(size[::-1]), float
        )
        for n in (2, 4, 8, 16)
    ]
    return np.clip(sum(layers) / 4, 0, 255).astype(np.uint8)


def save(path: Path, pixels: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Cats and dogs with one fault of each sort."""
    root = tmp_path / "photos"
    for number in range(4):
        save(root / "train" / "cat" / f"{number}.png", picture(number))
        save(root / "train" / "dog" / f"{number}.png", picture(10 + number, (40, 90)))
    for number in range(2):
        save(root / "test" / "cat" / f"{number}.png", picture(20 + number))
        save(root / "test" / "dog" / f"{number}.png", picture(30 + number))
    save(root / "test" / "cat" / "copy.png", picture(1))  # of train/cat/1
    save(root / "test" / "dog" / "again.png", picture(2))  # of train/cat/2, another class
    small = Image.fromarray(picture(3)).resize((44, 33))
    save(root / "test" / "cat" / "small.jpg", np.asarray(small), quality=60)  # of train/cat/3
    save(root / "train" / "dog" / "twice.png", picture(10, (40, 90)))  # of train/dog/0
    save(root / "train" / "cat" / "grey.png", picture(40)[..., 0])
    for part in ("train", "test"):  # alike for a hash, as nothing is on them
        shade = {"train": 30, "test": 200}[part]
        save(root / part / "dog" / "flat.png", np.full((50, 50, 3), shade, np.uint8))
    (root / "train" / "dog" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (root / "train" / "dog" / "notes.txt").write_text("mine")
    return root


def test_folders(photos: Path) -> None:
    done: list[int] = []
    survey = survey_data(find_data(str(photos)), done.append)
    assert done == list(range(1, 21))
    train, test = survey.parts["train"], survey.parts["test"]
    assert (train.images, train.by_class.tolist()) == (12, [5, 7])
    assert (test.images, test.by_class.tolist()) == (8, [4, 4])
    assert train.sizes == {(60, 80): 5, (40, 90): 5, (50, 50): 1}
    assert train.modes == {"RGB": 10, "L": 1}
    assert [path.name for path in train.unreadable] == ["broken.jpg"]
    assert [path.name for path in survey.left_out] == ["notes.txt"]
    pairs = {(str(pair.first.path), str(pair.second.path)): pair for pair in survey.leaks}
    named = {
        tuple("/".join(Path(path).parts[-2:]) for path in key): (pair.exact, pair.contradict)
        for key, pair in pairs.items()
    }
    assert named == {
        ("cat/1.png", "cat/copy.png"): (True, False),
        ("cat/2.png", "dog/again.png"): (True, True),
        ("cat/3.png", "cat/small.jpg"): (False, False),
    }
    (copy,) = survey.copies
    assert (copy.first.path.name, copy.second.path.name) == ("0.png", "twice.png")  # type: ignore[union-attr]


def test_colours_are_those_of_all_pixels() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 6, 7, 3), np.uint8)
    survey = survey_data(DataSet("mine", ("a", "b"), Arrays(images, np.arange(20) % 2)))
    part = survey.parts["train"]
    flat = images.reshape(-1, 3) / 255
    np.testing.assert_allclose(part.mean, flat.mean(0), rtol=1e-12)
    np.testing.assert_allclose(part.std, flat.std(0), rtol=1e-12)
    assert part.sizes == {(6, 7): 20}
    assert not survey.leaks


def test_what_is_said(photos: Path) -> None:
    survey = survey_data(find_data(str(photos)))
    said = notes(survey)
    train = photos / "train"
    (why,) = survey.parts["train"].unreadable.values()
    assert said == [
        f"train: 1 image cannot be read, {why}: {train / 'dog' / 'broken.jpg'}",
        f"1 file left out, not named like images: {train / 'dog' / 'notes.txt'}",
        "leak: test has 2 images the same as one of train (1 of another class): "
        f"{photos / 'test' / 'cat' / 'copy.png'} = {train / 'cat' / '1.png'}, "
        f"{photos / 'test' / 'dog' / 'again.png'} = {train / 'cat' / '2.png'}",
        "leak: test has 1 image nearly the same as one of train: "
        f"{photos / 'test' / 'cat' / 'small.jpg'} = {train / 'cat' / '3.png'}",
        "there are 1 image the same as an earlier one of their part: "
        f"{train / 'dog' / 'twice.png'} = {train / 'dog' / '0.png'}",
    ]
    row = part_sheet(survey).records[0]
    assert (row["smallest"], row["largest"], row["unreadable"]) == (5, 7, 1)
    assert row["sizes"] == "40..60 x 50..90 (60x80: 45 %)"
    assert "| cat | 5 | 4 |" in survey._repr_markdown_()
    assert json.loads(json.dumps(to_json(survey)))["leaks"][0]["second"]["label"] == "cat"


def test_a_survey_comes_back_from_json(photos: Path) -> None:
    data = find_data(str(photos))
    for survey in (survey_data(data), count_data(data)):
        content = json.loads(json.dumps(to_json(survey)))
        back = from_json(content)
        assert to_json(back) == content
        assert notes(back) == notes(survey)
        assert part_sheet(back).cells == part_sheet(survey).cells
        assert class_sheet(back).rows == class_sheet(survey).rows


def test_counts_need_no_look(photos: Path) -> None:
    survey = count_data(find_data(str(photos)))
    assert [len(row) for row in part_sheet(survey).rows] == [4, 4]
    assert part_sheet(survey).rows == [("train", 12, 5, 7), ("test", 8, 4, 4)]
    left_out = photos / "train" / "dog" / "notes.txt"
    assert notes(survey) == [f"1 file left out, not named like images: {left_out}"]
    assert to_json(survey)["looked"] is False


def test_what_is_quick_to_look_at(tmp_path: Path) -> None:
    def arrays_of(count: int) -> DataSet:
        return DataSet("mine", ("a",), Arrays(np.zeros((count, 1, 1, 3)), np.zeros(count, int)))

    assert is_quick(arrays_of(2_000))
    assert not is_quick(arrays_of(2_001))
    for name, kilobytes in (("small.jpg", 1), ("large.jpg", 1 << 17)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(kilobytes << 10)  # takes no room
    files = [Files((tmp_path / n,), np.zeros(1, int)) for n in ("small.jpg", "large.jpg", "no")]
    quick = [is_quick(DataSet("mine", ("a",), each)) for each in files]
    assert quick == [True, False, True]


@pytest.mark.parametrize("encode", Encoding)
def test_packed_data(encode: Encoding, tmp_path: Path) -> None:
    images = np.stack([picture(number) for number in (0, 1, 1)])
    data = DataSet("mine", ("a",), Arrays(images, np.zeros(3, int)))
    pack_data(data, tmp_path / "packed", Packing(encode))
    packed = read_packed(tmp_path / "packed")
    assert not is_quick(packed)  # they may lie far away
    survey = survey_data(packed)
    train = survey.parts["train"]
    assert (train.sizes, train.modes, train.unreadable) == ({(60, 80): 3}, {"RGB": 3}, {})
    (copy,) = survey.copies
    names = [str(place.path).rpartition("/")[2] for place in (copy.first, copy.second)]
    assert sorted(names) == ["1", "2"]


@pytest.mark.parametrize(("side", "leaks"), [(31, 0), (32, 1)])
def test_small_images_are_never_nearly_the_same(side: int, leaks: int) -> None:
    image = picture(1, (side, side))
    parts = [Arrays(each[None], np.zeros(1, int)) for each in (image, image // 2 * 2)]
    survey = survey_data(DataSet("mine", ("a",), parts[0], test=parts[1]))
    assert [pair.exact for pair in survey.leaks] == [False] * leaks
    if not leaks:
        assert notes(survey) == ["no image of one part is the same as one of another"]


HASHES = arrays.arrays(np.uint64, st.integers(0, 40), elements=st.integers(0, 2**64 - 1))


@given(HASHES, st.integers(0, 6), st.randoms(use_true_random=False))
def test_near_hashes_are_all_found(first: np.ndarray, most: int, random: object) -> None:
    """As by comparing each with each, among those of which some differ in a few bits."""
    rng = np.random.default_rng(len(first) * 7 + most)
    second = first.copy()
    for _ in range(most + 1):
        second ^= np.uint64(1) << rng.integers(0, 64, len(second), dtype=np.uint64)
    second = rng.permutation(second)
    wanted = [
        (i, j)
        for i, a in enumerate(first.tolist())
        for j, b in enumerate(second.tolist())
        if (a ^ b).bit_count() <= most
    ]
    assert near_pairs(first, second, most) == wanted


def test_examples_are_of_many_classes(photos: Path) -> None:
    data = find_data(str(photos))
    assert data.train is not None
    chosen, pixels = choose_examples(data.train, 6)
    assert sorted(data.train.labels[chosen].tolist()) == [0, 0, 0, 1, 1, 1]
    assert all(image.dtype == np.uint8 and image.ndim == 3 for image in pixels)
    everything, _ = choose_examples(data.train, 99)
    assert len(everything) == 11  # one cannot be read


def test_the_command(photos: Path, tmp_path: Path) -> None:
    arguments = ["data", str(photos), "--plot", str(tmp_path / "grid.png")]
    done = CliRunner().invoke(app, [*arguments, "--json", str(tmp_path / "found.json")])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "leak: test has 2 images the same as one of train (1 of another class)" in said
    assert json.loads((tmp_path / "found.json").read_text())["parts"]["test"]["images"] == 8
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.width > 500
    done = CliRunner().invoke(app, ["data", str(photos), "--format", "csv"])
    assert done.output.splitlines() == ["class,train,test", "cat,5,4", "dog,7,4"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nothing"], "'nothing' is neither a kind of data"),
        (["digits", "--data-dir", "here"], "data of the kind digits are built in"),
        (["digits", "--preset", "no"], "unknown preset 'no'"),
        (["digits", "--plot", "grid.gif"], "cannot draw grid.gif: its suffix must be one of"),
    ],
)
def test_mistakes(arguments: list[str], text: str) -> None:
    done = CliRunner().invoke(app, ["data", *arguments])
    assert isinstance(done.exception, ConfigurationError)
    assert text in str(done.exception)
