"""CIFAR in all its published forms: found, checked against its digests, read without surprises."""

import dataclasses
import functools
import hashlib
import http.server
import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from keras_alexnet.data.examples import Arrays, DataSet
from keras_alexnet.data.sources import cifar
from keras_alexnet.data.sources.cifar import read_cifar
from keras_alexnet.data.sources.cifar_formats import CIFAR10, CIFAR100, Cifar
from keras_alexnet.data.sources.registry import open_data
from keras_alexnet.errors import DataError

TRAIN, TEST = 7, 3  # images of the small CIFAR-100


@pytest.fixture(scope="module")
def official(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder that holds the real `cifar-10-batches-py`."""
    folder = tmp_path_factory.mktemp("cifar10")
    script = shared_data / "restore_cifar10.py"
    subprocess.run([sys.executable, script, folder], check=True, capture_output=True)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def real(official: Path) -> DataSet:
    return open_data("cifar10", official)


def parts(data: DataSet) -> tuple[Arrays, Arrays]:
    assert isinstance(data.train, Arrays)
    assert isinstance(data.test, Arrays)
    assert data.val is None
    return data.train, data.test


def test_cifar10_equals_what_torchvision_reads(official: Path, real: DataSet) -> None:
    train, test = parts(real)
    assert real.name == "CIFAR-10"
    for part in (train, test):
        assert part.images.dtype == np.uint8
        assert part.labels.dtype == np.int64
    theirs = pytest.importorskip("torchvision").datasets.CIFAR10(official, train=False)
    assert list(real.classes) == theirs.classes
    np.testing.assert_array_equal(test.images, theirs.data)
    np.testing.assert_array_equal(test.labels, theirs.targets)
    assert train.images.shape == (50_000, 32, 32, 3)
    last = pickle.loads(
        (official / "cifar-10-batches-py" / "data_batch_5").read_bytes(), encoding="latin1"
    )
    pixels = last["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(train.images[40_000:], pixels)
    np.testing.assert_array_equal(train.labels[40_000:], last["labels"])


def records(part: Arrays) -> bytes:
    """Return images as the binary version has them."""
    pixels = part.images.transpose(0, 3, 1, 2).reshape(-1, 3072)
    return np.column_stack([part.labels.astype(np.uint8), pixels]).tobytes()


def test_records_of_the_same_images_have_the_sums_of_the_binary_version(real: DataSet) -> None:
    assert digest(records(parts(real)[1]), "sha1") == CIFAR10.layouts[1].test["test_batch.bin"]


@pytest.mark.slow
def test_the_binary_version_is_the_same(real: DataSet, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    train, test = parts(real)
    blocks = {f"data_batch_{i + 1}": slice(i * 10_000, (i + 1) * 10_000) for i in range(5)}
    for part, names in ((train, blocks), (test, {"test_batch": slice(None)})):
        for name, block in names.items():
            content = records(Arrays(part.images[block], part.labels[block]))
            (folder / f"{name}.bin").write_bytes(content)
    # Files that are read have passed the published SHA-1 sums.
    for mine, theirs in zip(parts(open_data("cifar10", tmp_path)), (train, test), strict=True):
        np.testing.assert_array_equal(mine.images, theirs.images)
        np.testing.assert_array_equal(mine.labels, theirs.labels)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"incomplete, data_batch_3\.bin missing.*binary\.tar\.gz"):
        open_data("cifar10", folder)


def test_a_damaged_batch_is_not_parsed(official: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    content = bytearray((official / folder.name / "data_batch_1").read_bytes())
    content[1_000_000] ^= 1
    (folder / "data_batch_1").write_bytes(content)
    with pytest.raises(
        DataError, match=r"data_batch_1 is damaged: its MD5 is \w+, wanted is c99cafc1"
    ):
        open_data("cifar10", tmp_path)
    with pytest.raises(DataError, match=r"CIFAR-100 is not there.*This is CIFAR-10.*cifar10"):
        open_data("cifar100", tmp_path)


def python2_pickle(batch: dict[str, str | list[int] | np.ndarray]) -> bytes:
    """Pickle a dict as cPickle of Python 2 did, protocol 2, with byte strings."""

    def string(text: bytes) -> bytes:
        if len(text) < 256:
            return b"U" + bytes([len(text)]) + text
        return b"T" + len(text).to_bytes(4, "little") + text

    def value(item: str | list[int] | np.ndarray) -> bytes:
        if isinstance(item, str):
            return string(item.encode())
        if isinstance(item, list):
            return b"](" + b"".join(b"K" + bytes([number]) for number in item) + b"e"
        rows, columns = (b"M" + size.to_bytes(2, "little") for size in item.shape)
        minus_one = b"J\xff\xff\xff\xff"
        kind = b"cnumpy\ndtype\n" + string(b"u1") + b"K\0K\1\x87R"
        kind += b"(K\3" + string(b"|") + b"NNN" + minus_one * 2 + b"K\0tb"
        array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85"
        array += string(b"b") + b"\x87R(K\1" + rows + columns + b"\x86" + kind
        return array + b"\x89" + string(item.tobytes()) + b"tb"

    pairs = (string(key.encode()) + value(item) for key, item in batch.items())
    return b"\x80\x02}(" + b"".join(pairs) + b"u."


def batch(count: int, seed: int) -> dict[str, str | list[int] | np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "batch_label": "training batch 1 of 1",
        "fine_labels": rng.integers(0, 100, count).tolist(),
        "coarse_labels": rng.integers(0, 20, count).tolist(),
        "data": rng.integers(0, 256, (count, 3072), np.uint8),
    }


def digest(content: bytes, algorithm: str = "md5") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def tar(path: Path, files: dict[str, bytes]) -> str:
    """Write an archive and return its MD5."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return hashlib.md5(path.read_bytes()).hexdigest()


@dataclasses.dataclass
class Small:
    """CIFAR-100 with few images: its table has their digests, all else is the real one's."""

    table: Cifar
    root: Path
    expected: dict[str, dict[str, str | list[int] | np.ndarray]]

    def check(self, data: DataSet) -> None:
        assert data.name == "CIFAR-100"
        assert data.classes == CIFAR100.classes
        for part, name in zip(parts(data), ("train", "test"), strict=True):
            pixels = np.asarray(self.expected[name]["data"]).reshape(-1, 3, 32, 32)
            np.testing.assert_array_equal(part.images, pixels.transpose(0, 2, 3, 1))
            np.testing.assert_array_equal(part.labels, self.expected[name]["fine_labels"])


@pytest.fixture
def small(tmp_path: Path) -> Small:
    """Both archives of a small CIFAR-100 in a folder."""
    expected = {"train": batch(TRAIN, 0), "test": batch(TEST, 1)}
    python = {name: python2_pickle(content) for name, content in expected.items()}
    binary = {
        f"{name}.bin": np.column_stack(
            [np.uint8(content["coarse_labels"]), np.uint8(content["fine_labels"]), content["data"]]
        ).tobytes()
        for name, content in expected.items()
    }
    layouts = []
    for layout, files, algorithm in zip(
        CIFAR100.layouts, (python, binary), ("md5", "sha1"), strict=True
    ):
        md5 = tar(
            tmp_path / layout.archive,
            {
                # Members that must be passed over, wherever they want to go.
                "../../escaped": b"",
                "train": b"",
                **{f"{layout.folder}/{name}": content for name, content in files.items()},
                f"{layout.folder}/meta": b"",
            },
        )
        train, test = ({name: digest(content, algorithm)} for name, content in files.items())
        layouts.append(dataclasses.replace(layout, archive_md5=md5, train=train, test=test))
    return Small(dataclasses.replace(CIFAR100, layouts=tuple(layouts)), tmp_path, expected)


def test_the_order_of_the_fine_classes() -> None:
    """The official `meta` holds these names: pickled with the coarse ones, they have its MD5."""
    coarse = (
        "aquatic_mammals fish flowers food_containers fruit_and_vegetables "
        "household_electrical_devices household_furniture insects large_carnivores "
        "large_man-made_outdoor_things large_natural_outdoor_scenes "
        "large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people reptiles "
        "small_mammals trees vehicles_1 vehicles_2"
    )
    numbers = iter(range(1, 256))

    def memo(opcode: bytes) -> bytes:
        return opcode + b"q" + bytes([next(numbers)])

    def string(text: str) -> bytes:
        return memo(b"U" + bytes([len(text)]) + text.encode())

    content = b"\x80\x02" + memo(b"}") + b"("
    for key, names in (("fine", CIFAR100.classes), ("coarse", coarse.split())):
        content += string(f"{key}_label_names") + memo(b"]") + b"("
        content += b"".join(map(string, names)) + b"e"
    assert hashlib.md5(content + b"u.").hexdigest() == "7973b15100ade9c7d40fb424638fde48"


def test_digests_are_those_that_torchvision_checks() -> None:
    torchvision = pytest.importorskip("torchvision")
    for mine, theirs in (
        (CIFAR10, torchvision.datasets.CIFAR10),
        (CIFAR100, torchvision.datasets.CIFAR100),
    ):
        python = mine.layouts[0]
        assert (python.archive, python.archive_md5) == (theirs.filename, theirs.tgz_md5)
        assert python.folder == theirs.base_folder
        assert f"{cifar._ORIGIN}/{python.archive}" == theirs.url
        for files, listed in ((python.train, theirs.train_list), (python.test, theirs.test_list)):
            assert list(files.items()) == [(name, f"md5:{md5}") for name, md5 in listed]


@pytest.mark.parametrize("form", [0, 1], ids=["python", "binary"])
def test_cifar100_from_archive_and_folder(small: Small, form: int) -> None:
    layout = small.table.layouts[form]
    archive = small.root / layout.archive
    small.check(read_cifar(small.table, archive, download=False))
    renamed = archive.rename(small.root / "download (1).tgz")
    small.check(read_cifar(small.table, renamed, download=False))

    root = small.root / "unpacked"
    with tarfile.open(renamed) as members:
        for name in layout.digests:
            members.extract(f"{layout.folder}/{name}", root, filter="data")
    for place in (root, root / layout.folder):
        small.check(read_cifar(small.table, place, download=False))
    assert not list(small.root.parent.rglob("escaped"))


def test_an_archive_within_a_folder(small: Small) -> None:
    small.check(read_cifar(small.table, small.root, download=False))
    (small.root / "cifar-100-python.tar.gz").unlink()
    small.check(read_cifar(small.table, small.root, download=False))


def test_wrong_archives(small: Small) -> None:
    archive = small.root / "cifar-100-python.tar.gz"
    wanted = small.table.layouts[0].archive_md5
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-100])
    with pytest.raises(
        DataError, match=rf"not an official archive of CIFAR-100.*MD5 is \w+, wanted is {wanted}"
    ):
        read_cifar(small.table, archive, download=False)
    with pytest.raises(DataError, match=r"python\.tar\.gz: not an official archive of CIFAR-10:"):
        open_data("cifar10", archive)

    # A truncated archive whose MD5 is right, were that possible.
    layout = dataclasses.replace(
        small.table.layouts[0], archive_md5=hashlib.md5(archive.read_bytes()).hexdigest()
    )
    table = dataclasses.replace(small.table, layouts=(layout,))
    with pytest.raises(DataError, match=r"damaged archive"):
        read_cifar(table, archive, download=False)


def test_the_other_data_set_is_recognised(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "CIFAR100", small.table)
    with pytest.raises(DataError, match=r"this is CIFAR-100; its kind is cifar100"):
        open_data("cifar10", small.root / "cifar-100-binary.tar.gz")


class Evil:
    """Runs a command when it is unpickled by a reader that admits everything."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_pickles_may_hold_arrays_only(small: Small, tmp_path: Path) -> None:
    """Even one whose digest is right: MD5 is no protection against forgery."""
    harmed = tmp_path / "harmed"
    layout = small.table.layouts[0]
    folder = tmp_path / layout.folder
    folder.mkdir()
    python = pickle.dumps({"data": Evil(harmed), "fine_labels": [0]}, protocol=2)
    short = python2_pickle({"data": np.zeros((2, 3072), np.uint8), "fine_labels": [0]})
    for content, problem in (
        (python, r"posix\.mkdir has no place in it"),
        (short, r"cannot reshape"),
        (python2_pickle({"fine_labels": [0]}), r"'data'"),
        (b"no pickle", r"."),
    ):
        (folder / "train").write_bytes(content)
        changed = dataclasses.replace(layout, train={"train": digest(content)})
        table = dataclasses.replace(small.table, layouts=(changed,))
        with pytest.raises(DataError, match=rf"train is no batch of CIFAR-100 \(.*({problem})"):
            read_cifar(table, folder, download=False)
    assert not harmed.exists()


def test_labels_out_of_range(small: Small, tmp_path: Path) -> None:
    layout = small.table.layouts[1]
    folder = tmp_path / layout.folder
    folder.mkdir()
    content = bytes([0, 100]) + bytes(3072)
    files = dict.fromkeys(("train.bin", "test.bin"), digest(content))
    for name in files:
        (folder / name).write_bytes(content)
    changed = dataclasses.replace(layout, train=dict([*files.items()][:1]), test=files)
    table = dataclasses.replace(small.table, layouts=(changed,))
    with pytest.raises(DataError, match=r"labels from 100 to 100, but there are 100 classes"):
        read_cifar(table, folder, download=False)


def test_places_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such file or folder; CIFAR-10 was expected"):
        open_data("cifar10", tmp_path / "nowhere")
    with pytest.raises(
        DataError, match=r"CIFAR-10 is not there; one of cifar-10-batches-py, cifar-10-python\.tar"
    ):
        open_data("cifar10", tmp_path)


@pytest.fixture
def server(small: Small, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A server in place of the author's, with the small archives; the cache of Keras is empty."""
    handler = functools.partial(
        type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None}),
        directory=str(small.root),
    )
    home = small.root / "home"
    monkeypatch.setenv("KERAS_HOME", str(home))
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as http_server:
        thread = threading.Thread(target=http_server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setattr(cifar, "_ORIGIN", f"http://127.0.0.1:{http_server.server_port}")
        yield home / "datasets"
        http_server.shutdown()
        thread.join()


def test_download_into_the_cache_of_keras(
    small: Small, server: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = server / "cifar-100-python.tar.gz"
    with pytest.raises(DataError, match=r"downloads are switched off.*--data-dir"):
        read_cifar(small.table, None, download=False)
    small.check(read_cifar(small.table, None, download=True))
    assert capsys.readouterr().out == ""
    modified = archive.stat().st_mtime_ns
    for download in (False, True):
        small.check(read_cifar(small.table, None, download=download))
    assert archive.stat().st_mtime_ns == modified

    archive.write_bytes(b"cut short")
    small.check(read_cifar(small.table, None, download=True))

    # Where keras.datasets.cifar100.load_data has been before us.
    archive.unlink()
    target = server / "cifar-100-python-target"
    with tarfile.open(small.root / archive.name) as members:
        for name in ("train", "test"):
            members.extract(f"cifar-100-python/{name}", target, filter="data")
    small.check(read_cifar(small.table, None, download=False))


def test_downloads_that_fail(small: Small, server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = small.root / "cifar-100-python.tar.gz"
    published.write_bytes(b"something else")
    with pytest.raises(DataError, match=r"could not be downloaded: .*hash does not match"):
        read_cifar(small.table, None, download=True)
    published.unlink()
    with pytest.raises(DataError, match=r"could not be downloaded: URL fetch failure.*404"):
        read_cifar(small.table, None, download=True)
    monkeypatch.setattr(cifar, "_ORIGIN", "http://127.0.0.1:1")
    with pytest.raises(
        DataError,
        match=r"CIFAR-100 is not in .*datasets and could not be downloaded: .*refused.*"
        r"Fetch http://127\.0\.0\.1:1/cifar-100-python\.tar\.gz .* --data-dir",
    ):
        read_cifar(small.table, None, download=True)
