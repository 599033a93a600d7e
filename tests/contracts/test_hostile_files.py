"""Files made to harm: each attack by name, then random damage to real files, for every reader.

Nothing but arrays or an error of ours may come of them, in little time and memory.
"""

import functools
import io
import json
import os
import pickle
import struct
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import torch
from helpers.caffe_files import encode_net, field, small_net, varint
from helpers.checkpoints import boxed, pickled
from helpers.project import ROOT, RunPython
from hypothesis import HealthCheck, example, given, settings, strategies as st

from keras_alexnet.errors import KerasAlexNetError, ModelFileError
from keras_alexnet.models.weights import load_model, load_weights
from porting import read_checkpoint, write_checkpoint
from porting.checkpoints.guards import check_pickle
from porting.errors import CheckpointError

SECONDS = 5.0


def tiny_model() -> Any:
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="dense")], name="tiny")


def read(path: Path) -> Any:
    """Read a file with its reader, as the commands do, with every permission."""
    if path.name.endswith(".weights.h5"):
        return load_weights(tiny_model(), path)
    if path.suffix == ".keras":
        return load_model(path)
    return read_checkpoint(path, allow_pickle=True)


# Attacks by name: file name, what is written to it, and what is said

HUGE = 10**12
ZEROS = bytes(128 * 2**20)


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore")  # of names that come twice
        for name, content in members.items():
            archive.writestr(name.removesuffix("#"), content)
    return file.getvalue()


def npy(shape: tuple[int, ...], content: bytes = b"", descr: str = "<f4") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return file.getvalue() + content


def tensor_pickle(pickled_content: bytes) -> bytes:
    members = {
        "archive/data.pkl": pickled_content,
        "archive/byteorder": b"little",
        "archive/version": b"3\n",
    }
    return zipped(members, zipfile.ZIP_STORED)


def shared_tuples(levels: int = 60) -> bytes:
    """`{t60: 1}` with t0 = (), t1 = (t0, t0), …: each level doubles what a hash has to visit."""
    content = b"\x80\x02})q\x00"
    for level in range(levels):
        content += b"h" + bytes([level]) + b"\x86q" + bytes([level + 1])
    return content + b"K\x01s."


def of_npy(content: bytes) -> bytes:
    return npy((), content, "|O")


def torch_file(tensor: Any, rebuild: Callable[[bytes], bytes] = bytes) -> bytes:
    file = io.BytesIO()
    torch.save({"w": tensor}, file)
    return rebuild(file.getvalue())


def renamed(content: bytes, name: str) -> bytes:
    """An archive with one more member, of this name."""
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(name, b"x")
    return file.getvalue()


def recompressed(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return zipped({name: archive.read(name) for name in archive.namelist()})


def h5(fill: Callable[[h5py.File], Any]) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as root:
        fill(root)
    return file.getvalue()


def soft(root: h5py.File) -> None:
    root["layers/dense/vars/0"] = h5py.SoftLink("/etc")


def external_link(root: h5py.File) -> None:
    root["layers/dense/vars/0"] = h5py.ExternalLink("other.h5", "/a")


def external_values(root: h5py.File) -> None:
    root.create_dataset("layers/dense/vars/0", (2, 3), "f", external=[("/etc/passwd", 0, 24)])


def virtual(root: h5py.File) -> None:
    layout = h5py.VirtualLayout((2, 3), "f")
    layout[:] = h5py.VirtualSource("other.h5", "a", (2, 3))
    root.create_virtual_dataset("layers/dense/vars/0", layout)


def never_written(root: h5py.File) -> None:
    root.create_dataset("layers/dense/vars/0", (HUGE, 8), "f", chunks=(1024, 8))


def inflated(root: h5py.File) -> None:
    zeros = np.zeros(2**25, np.float32)
    root.create_dataset("layers/dense/vars/0", data=zeros, chunks=(2**22,), compression="gzip")


def objects(root: h5py.File) -> None:
    root.create_dataset("layers/dense/vars/0", data=["text"], dtype=h5py.string_dtype())


def circle(root: h5py.File) -> None:
    root.create_group("layers")["again"] = root["/"]


def of_keras(weights: bytes = b"", **members: bytes) -> bytes:
    """A `.keras` archive with the weights or members replaced."""
    with zipfile.ZipFile(io.BytesIO(saved_models()[".keras"])) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    if weights:
        parts["model.weights.h5"] = weights
    return zipped(parts | members, zipfile.ZIP_STORED)


@functools.cache
def saved_models() -> dict[str, bytes]:
    """A small network as Keras itself writes it, by suffix."""
    keras.utils.set_random_seed(0)
    model = tiny_model()
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "tiny.keras")
        model.save_weights(Path(folder) / "tiny.weights.h5")
        return {
            path.name.removeprefix("tiny"): path.read_bytes() for path in Path(folder).iterdir()
        }


Attack = tuple[str, Callable[[], bytes], str]
ATTACKS: dict[str, Attack] = {
    "npz bomb": (
        "w.npz",
        lambda: zipped({"a.npy": npy((2**25,), ZEROS)}),
        r"w.npz: refused: its unpacked members would take 134,217,856 bytes and the file has",
    ),
    "npz of a huge shape": (
        "w.npz",
        lambda: zipped({"a.npy": npy((HUGE,), bytes(8))}),
        r"a.npy declares float32 \(1000000000000,\), 4,000,000,000,000 bytes, and holds 8",
    ),
    "npz of a negative shape": (
        "w.npz",
        lambda: zipped({"a.npy": npy((-1, -2), bytes(8))}),
        r"not an .npz archive without pickled objects \(its shape is \(-1, -2\)\)",
    ),
    "npz with a pickle": (
        "w.npz",
        lambda: zipped({"a.npy": of_npy(pickle.dumps(boxed({})))}),
        r"a.npy holds Python objects",
    ),
    "npz that climbs out": (
        "w.npz",
        lambda: zipped({"../a.npy": npy((1,), bytes(4))}),
        r"refused: its member '../a.npy' leads out of the archive",
    ),
    "npz with an absolute path": (
        "w.npz",
        lambda: zipped({"/etc/a.npy": npy((1,), bytes(4))}),
        r"refused: its member '/etc/a.npy' leads out of the archive",
    ),
    "npz with a path of Windows": (
        "w.npz",
        lambda: zipped({"a\\..\\..\\a.npy": npy((1,), bytes(4))}),
        r"leads out of the archive",
    ),
    "npz with a name twice": (
        "w.npz",
        lambda: zipped({"a.npy": npy((1,), bytes(4)), "a.npy#": npy((1,), bytes(4))}),
        r"refused: its member 'a.npy' comes twice",
    ),
    "npz by another method": (
        "w.npz",
        lambda: zipped({"a.npy": npy((1,), bytes(4))}, zipfile.ZIP_LZMA),
        r"refused: its member 'a.npy' is compressed by method 14; known are 0",
    ),
    "npy of shared tuples": (
        "w.npy",
        lambda: of_npy(shared_tuples()),
        r"not a .npy dictionary of arrays \(its pickle nests objects 1\d,\d* parts deep",
    ),
    "npy with a huge memo": (
        "w.npy",
        lambda: of_npy(b"\x80\x02}r\xff\xff\xff\x7f."),
        r"its pickle remembers an object under the number 2147483647",
    ),
    "npy with a huge text": (
        "w.npy",
        lambda: of_npy(b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"a."),
        r"not a .npy dictionary of arrays",
    ),
    "npy of endless steps": (
        "w.npy",
        lambda: of_npy(b"\x80\x02" + b"]" * 1_000_010 + b"."),
        r"its pickle has more than 1,000,000 steps",
    ),
    "npy of a huge shape": (
        "w.npy",
        lambda: of_npy(_huge_array()),
        r"not a .npy dictionary of arrays \(cannot reshape",
    ),
    "npy of a whole array, huge": (
        "w.npy",
        lambda: npy((HUGE,)),
        r"one bare array, float32 \(1000000000000,\)",
    ),
    "pth of shared tuples": (
        "w.pth",
        lambda: tensor_pickle(shared_tuples()),
        r"not a torch file \(its pickle nests objects",
    ),
    "old pth of shared tuples": (
        "w.pth",
        lambda: _legacy_head() + shared_tuples(),
        r"not a torch file \(its pickle nests objects",
    ),
    "pth of one number, repeated": (
        "w.pth",
        lambda: torch_file(torch.zeros(1).expand(HUGE)),
        r"refused: its arrays would take 4,000,000,000,000 bytes",
    ),
    "pth with compressed tensors": (
        "w.pth",
        lambda: torch_file(torch.zeros(1000), recompressed),
        r"is compressed; torch.save stores tensors as they are",
    ),
    "pth that climbs out": (
        "w.pth",
        lambda: torch_file(torch.zeros(3), lambda content: renamed(content, "../../x")),
        r"refused: its member '../../x' leads out of the archive",
    ),
    "safetensors of a huge shape": (
        "w.safetensors",
        lambda: _safetensors({"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4 * HUGE]}),
        r"truncated or not a safetensors file",
    ),
    "safetensors of a shape that is not there": (
        "w.safetensors",
        lambda: _safetensors({"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 8]}),
        r"truncated or not a safetensors file",
    ),
    "caffemodel of a huge shape": (
        "w.caffemodel",
        lambda: field(
            100, field(1, b"a") + field(7, field(7, field(1, varint(HUGE))) + field(5, bytes(8)))
        ),
        r"layer 'a', weight: declares the shape \(1000000000000,\)",
    ),
    "caffemodel of empty messages": (
        "w.caffemodel",
        lambda: b"\x12\x00" * 300_000 + field(100, field(1, b"a") + b"\x3a\x00" * 300_000),
        r"layer 'a' has 300000 blobs",
    ),
    "keras with a soft link": (
        "m.keras",
        lambda: of_keras(h5(soft)),
        r"/layers/dense/vars/0 is a SoftLink, which can lead to another file",
    ),
    "keras with an external link": (
        "m.keras",
        lambda: of_keras(h5(external_link)),
        r"/layers/dense/vars/0 is a ExternalLink",
    ),
    "keras with values elsewhere": (
        "m.keras",
        lambda: of_keras(h5(external_values)),
        r"the values of /layers/dense/vars/0 lie in another file",
    ),
    "keras with values never written": (
        "m.keras",
        lambda: of_keras(h5(never_written)),
        r"refused: its data sets would take 32,000,000,000,000 bytes",
    ),
    "keras with a weights bomb": (
        "m.keras",
        lambda: of_keras(h5(inflated)),
        r"refused: its data sets would take 134,217,728 bytes",
    ),
    "keras with a configuration bomb": (
        "m.keras",
        lambda: of_keras(**{"config.json": b" " * (17 * 2**20)}),
        r"refused: its config.json has 17,825,792 bytes",
    ),
    "keras of endless nesting": (
        "m.keras",
        lambda: of_keras(**{"config.json": b"[" * 10**6}),
        r"Keras cannot load it \(maximum recursion",
    ),
    "keras that climbs out": (
        "m.keras",
        lambda: of_keras(**{"assets/../../x": b"x"}),
        r"refused: its member 'assets/../../x' leads out",
    ),
    "h5 with an external link": (
        "m.weights.h5",
        lambda: h5(external_link),
        r"m.weights.h5: refused: /layers/dense/vars/0 is a ExternalLink",
    ),
    "h5 of virtual values": (
        "m.weights.h5",
        lambda: h5(virtual),
        r"the values of /layers/dense/vars/0 lie in another file",
    ),
    "h5 with values never written": (
        "m.weights.h5",
        lambda: h5(never_written),
        r"m.weights.h5: refused: its data sets would take 32,000,000,000,000 bytes",
    ),
    "h5 of objects": (
        "m.weights.h5",
        lambda: h5(objects),
        r"/layers/dense/vars/0 holds objects of any length",
    ),
    "h5 in a circle": ("m.weights.h5", lambda: h5(circle), r"m.weights.h5: does not fit tiny"),
}


def _huge_array() -> bytes:
    """A pickled array that claims more values than its bytes are."""
    good = pickle.dumps(boxed({"conv1": [np.ones(2, np.float32)]}), 2)
    shape = b"K\x02\x85"
    assert good.count(shape) == 1
    return good.replace(shape, b"J\xff\xff\xff\x7f\x85")


def _legacy_head() -> bytes:
    file = io.BytesIO()
    torch.save({}, file, _use_new_zipfile_serialization=False)
    content = io.BytesIO(file.getvalue())
    for _ in range(3):
        pickle.load(content)
    return content.getvalue()[: content.tell()]


def _safetensors(entry: dict[str, Any]) -> bytes:
    header = json.dumps({"w": entry}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(8)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_attack(name: str, tmp_path: Path) -> None:
    file, content, text = ATTACKS[name]
    path = tmp_path / file
    path.write_bytes(content())
    started = time.monotonic()
    with pytest.raises((CheckpointError, ModelFileError), match=text):
        read(path)
    assert time.monotonic() - started < SECONDS


CHILD = """
import json, resource, sys, time
from pathlib import Path
import torch
import test_hostile_files as hostile
from keras_alexnet.errors import KerasAlexNetError
from porting import write_checkpoint

folder = Path(sys.argv[1])
hostile.tiny_model()  # what the libraries take for themselves
write_checkpoint(folder / "fine.pth", {"a": hostile.np.ones(3, "f")})
hostile.read(folder / "fine.pth")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for file in sorted(folder.glob("*/*")):
    try:
        hostile.read(file)
    except KerasAlexNetError:
        pass
    else:
        print("read:", file)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if after - before > 100_000:
        print(f"{file}: {(after - before) / 1024:.0f} MiB")
        before = after
print("done")
"""


@pytest.mark.slow
def test_memory_of_the_attacks(tmp_path: Path, run_python: RunPython) -> None:
    """None adds 100 MB to the most memory that a process had so far."""
    for number, (file, content, _) in enumerate(ATTACKS.values()):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / file).write_bytes(content())
    done = run_python(
        CHILD,
        tmp_path,
        PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), str(ROOT / "tests")]),
    )
    assert done.stdout.split() == ["done"]


def test_a_shared_tuple_would_hang_without_the_check() -> None:
    """The attack is none of paper: every level doubles the time, and 60 would take centuries."""
    seconds = []
    for levels in (16, 21):
        content = shared_tuples(levels)
        started = time.perf_counter()
        pickle.loads(content)
        seconds.append(time.perf_counter() - started)
    assert seconds[1] > 6 * seconds[0]
    with pytest.raises(ValueError, match="its pickle nests objects"):
        check_pickle(io.BytesIO(content))


# Random damage


@functools.cache
def originals() -> dict[str, bytes]:
    """A small file of each kind, as its writer writes it."""
    arrays = {"a.weight": np.arange(12, dtype=np.float32).reshape(3, 4), "a.bias": np.ones(3, "f")}
    files: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".pth", ".safetensors", ".npz"):
            write_checkpoint(Path(folder) / f"w{suffix}", arrays)
            files[f"w{suffix}"] = (Path(folder) / f"w{suffix}").read_bytes()
        path = Path(folder) / "w.npy"
        pickled(boxed({"a": [arrays["a.weight"], arrays["a.bias"]]}), path, 2)
        files["w.npy"] = path.read_bytes()
        np.savez_compressed(Path(folder) / "deflated.npz", **arrays)
        files["deflated.npz"] = (Path(folder) / "deflated.npz").read_bytes()
        tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
        torch.save(tensors, path, _use_new_zipfile_serialization=False)
        files["old.pth"] = path.read_bytes()
    files["old.caffemodel"] = encode_net(small_net(), old=True)
    files["new.caffemodel"] = encode_net(small_net())
    return files | {f"m{suffix}": content for suffix, content in saved_models().items()}


KINDS = (
    "w.pth",
    "old.pth",
    "w.safetensors",
    "w.npz",
    "deflated.npz",
    "w.npy",
    "old.caffemodel",
    "new.caffemodel",
    "m.keras",
    "m.weights.h5",
)
# Where in a file, what to do there, and with which bytes. Most of a format is at its ends.
PLACES = st.one_of(st.integers(0, 400), st.integers(-400, -1), st.integers(0, 2**16))
LENGTHS = st.sampled_from([0, 1, 2**7, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1])
DAMAGE = st.one_of(
    st.tuples(st.just("cut"), PLACES, st.just(b"")),
    st.tuples(st.just("replace"), PLACES, st.binary(min_size=1, max_size=4)),
    st.tuples(
        st.just("replace"),
        PLACES,
        st.builds(
            lambda n, size: (n % 256**size).to_bytes(size, "little"),
            LENGTHS,
            st.sampled_from([1, 2, 4, 8]),
        ),
    ),
    st.tuples(st.just("insert"), PLACES, st.binary(min_size=1, max_size=40)),
    st.tuples(st.just("insert"), st.just(2**20), st.binary(min_size=1, max_size=200)),
    st.tuples(st.just("remove"), PLACES, st.binary(min_size=1, max_size=40)),
)


def damaged(content: bytes, damages: list[tuple[str, int, bytes]]) -> bytes:
    for what, place, piece in damages:
        at = min(len(content), place) if place >= 0 else max(0, len(content) + place)
        if what == "cut":
            content = content[:at]
        elif what == "insert":
            content = content[:at] + piece + content[at:]
        else:
            rest = content[at + len(piece) :]
            content = content[:at] + (piece if what == "replace" else b"") + rest
    return content


@pytest.mark.parametrize("kind", KINDS)
def test_originals_are_read(kind: str, tmp_path: Path) -> None:
    (tmp_path / kind).write_bytes(originals()[kind])
    read(tmp_path / kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_random_damage(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("damaged") / kind

    @settings(
        max_examples=40 if kind.startswith("m.") else 250,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(st.lists(DAMAGE, min_size=1, max_size=3))
    @example([("cut", 0, b"")])
    def check(damages: list[tuple[str, int, bytes]]) -> None:
        path.write_bytes(damaged(originals()[kind], damages))
        started = time.monotonic()
        try:
            content = read(path)
        except KerasAlexNetError as error:
            assert str(path) in str(error)  # noqa: PT017  (arrays will do as well)
        else:
            if isinstance(content, keras.Model) or content is None:
                return
            assert all(isinstance(array, np.ndarray) for array in content.arrays.values())
        assert time.monotonic() - started < SECONDS

    check()
