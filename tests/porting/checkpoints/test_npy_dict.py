"""`.npy` dictionaries: what they hold, who may read them, and what they cannot do."""

import os
import pickle
import struct
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.checkpoints import boxed, pickled

from keras_alexnet.specs import SPECS
from porting import read_checkpoint
from porting.commands.app import main
from porting.conversion.sources import open_source
from porting.errors import CheckpointError
from porting.weights.spec_tables import weight_map
from porting.weights.table import Put

StateDict = dict[str, np.ndarray]


def layers(*, by_name: bool = False, as_bytes: bool = False) -> dict[Any, Any]:
    rng = np.random.default_rng(0)
    content = {
        "conv1_7x7_s2": (rng.normal(size=(7, 7, 3, 64)), rng.normal(size=64)),
        "inception_3a/1x1": (rng.normal(size=(1, 1, 192, 64)), rng.normal(size=64)),
    }
    return {
        name.encode() if as_bytes else name: (
            {"weights": w.astype("f"), "biases": b.astype("f")}
            if by_name
            else [w.astype("f"), b.astype("f")]
        )
        for name, (w, b) in content.items()
    }


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("by_name", [False, True])
def test_dictionaries(protocol: int, as_bytes: bool, by_name: bool, tmp_path: Path) -> None:
    path = tmp_path / "w.npy"
    pickled(boxed(layers(by_name=by_name, as_bytes=as_bytes)), path, protocol)
    checkpoint = read_checkpoint(path, allow_pickle=True)
    assert checkpoint.layout == "keras"
    for name, (w, b) in layers().items():
        for part, wanted in (("weight", w), ("bias", b)):
            np.testing.assert_array_equal(checkpoint.arrays[f"{name}.{part}"], wanted, strict=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content,
        OrderedDict,
        lambda content: {name: tuple(entry) for name, entry in content.items()},
        lambda content: {
            name: np.array([*entry, None], object)[:2] for name, entry in content.items()
        },
        lambda content: {name: [each.astype(">f4") for each in e] for name, e in content.items()},
        lambda content: {name: [np.asfortranarray(w), b] for name, (w, b) in content.items()},
        lambda content: {name: [each.astype("f2") for each in e] for name, e in content.items()},
    ],
    ids=["plain", "ordered", "tuples", "objects", "big-endian", "fortran", "half"],
)
def test_what_numpy_itself_saves(change: Callable[[dict[str, Any]], Any], tmp_path: Path) -> None:
    content = change(layers())
    np.save(tmp_path / "w.npy", content)  # type: ignore[arg-type]
    arrays = read_checkpoint(tmp_path / "w.npy", allow_pickle=True).arrays
    for name, (w, b) in content.items():
        np.testing.assert_array_equal(arrays[f"{name}.weight"], w)
        np.testing.assert_array_equal(arrays[f"{name}.bias"], b)
        assert arrays[f"{name}.weight"].dtype == w.dtype


def short(text: bytes) -> bytes:
    return b"U" + bytes([len(text)]) + text


def of_python_2(arrays: dict[bytes, np.ndarray]) -> bytes:
    """A pickle of `{name: [array]}` as Python 2 wrote it: texts without an encoding, protocol 2."""

    def array(value: np.ndarray) -> bytes:
        shape = b"(" + b"".join(b"M" + struct.pack("<H", n) for n in value.shape) + b"t"
        content = value.astype("<f4").tobytes()
        return (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
            b"(K\x01" + shape + b"cnumpy\ndtype\n" + short(b"f4") + b"K\x00K\x01\x87R"
            b"(K\x03" + short(b"<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            b"\x89T" + struct.pack("<I", len(content)) + content + b"tb"
        )

    items = b"".join(short(name) + b"]" + array(value) + b"a" for name, value in arrays.items())
    return b"\x80\x02}(" + items + b"u."


def test_python_2(tmp_path: Path) -> None:
    values = np.arange(300, dtype=np.float32).reshape(20, 15)
    pickled(of_python_2({b"fc8": values}), tmp_path / "w.npy")
    with (tmp_path / "w.npy").open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file.seek(128)
        assert pickle.load(file, encoding="latin1")["fc8"][0].shape == (20, 15)  # no dud
    arrays = read_checkpoint(tmp_path / "w.npy", allow_pickle=True).arrays
    np.testing.assert_array_equal(arrays["fc8.weight"], values, strict=True)


def caffe_dictionary(state: StateDict, model: str, separator: str) -> dict[str, Any]:
    """A state_dict as converters from Caffe save it: Keras' layout, H, W, C before fc6."""
    content: dict[str, list[np.ndarray]] = {}
    for put in weight_map(SPECS[model], 1000):
        assert isinstance(put, Put)
        name = put.key.rpartition(".")[0].replace(".", separator)
        content.setdefault(name, []).append(np.ascontiguousarray(put.to_keras(state[put.key])))
    return content


@pytest.mark.parametrize(
    ("model", "separator"),
    [pytest.param("alexnet_caffe", "/", marks=pytest.mark.slow), ("googlenet_caffe", "_")],
)
def test_every_weight_finds_its_place(
    model: str, separator: str, state_dicts: Callable[[str], StateDict], tmp_path: Path
) -> None:
    """Caffe's AlexNet has a dense layer behind a flatten, and grouped convolutions."""
    state = state_dicts(model)
    np.save(tmp_path / "w.npy", caffe_dictionary(state, model, separator))  # type: ignore[arg-type]
    opened = open_source(model, tmp_path / "w.npy", allow_pickle=True)
    assert set(opened.checkpoint.arrays) == set(state)
    for key, array in state.items():
        np.testing.assert_array_equal(opened.checkpoint.arrays[key], array, strict=True)
    assert opened.checkpoint.notes[-1] == "axes changed from Keras' order to torch's"
    copy = opened.torch_file(tmp_path)
    assert set(read_checkpoint(copy).arrays) == set(state)


# Who may read one


def test_without_permission(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", layers())  # type: ignore[arg-type]
    text = r"w\.npy: a pickle, a kind of file that can run code when it is read.*--allow-pickle"
    with pytest.raises(CheckpointError, match=text):
        read_checkpoint(tmp_path / "w.npy")


def test_the_commands_ask_for_permission(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.npy"
    np.save(path, layers())  # type: ignore[arg-type]
    commands = (
        ["convert", "googlenet_caffe", "--source", path, "--output", tmp_path / "m.keras"],
        ["check", "googlenet_caffe", "--source", path],
        ["inspect", path],
        ["diff", path, path],
    )
    for command in commands:
        monkeypatch.setattr("sys.argv", ["porting", *map(str, command)])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 2, command
        assert "--allow-pickle" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["porting", "diff", str(path), str(path), "--allow-pickle"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0


def test_bare_array(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.ones((2, 3), np.float32))
    for allow_pickle in (False, True):
        with pytest.raises(CheckpointError, match=r"one bare array, float32 \(2, 3\); weights are"):
            read_checkpoint(tmp_path / "w.npy", allow_pickle=allow_pickle)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([1, 2], "holds no dictionary of layers .*but a list"),
        ({}, "the mapping holds nothing"),
        ({"conv1": 3}, r"layer 'conv1' is neither \[weights, biases\] nor a dictionary"),
        ({"conv1": []}, "layer 'conv1' is neither"),
        ({"conv1": [np.ones(2), np.ones(2), np.ones(2)]}, "layer 'conv1' is neither"),
        ({"conv1": {"kernel": np.ones(2)}}, "layer 'conv1' is neither"),
        ({"conv1": ["a", "b"]}, "layer 'conv1' is neither"),
        ({"conv1": [np.array(["a"])]}, "an array of dtype 'U1'; weights are f2, f4, f8"),
    ],
)
def test_something_else(content: Any, text: str, tmp_path: Path) -> None:
    pickled(boxed(content), tmp_path / "w.npy")
    with pytest.raises(CheckpointError, match=text):
        read_checkpoint(tmp_path / "w.npy", allow_pickle=True)


# What a file cannot do


class Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self._call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_nothing_is_called(protocol: int, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    for evil, name in (
        (Calls(os.mkdir, str(proof)), "(posix|nt).mkdir"),
        (Calls(eval, f"__import__('os').mkdir({str(proof)!r})"), "(builtins|__builtin__).eval"),
        (Calls(np.fromfile, str(proof)), r"numpy\S*.fromfile"),
    ):
        pickled(boxed({"conv1": [evil]}), tmp_path / "w.npy", protocol)
        with pytest.raises(CheckpointError, match=f"refused: its pickle would call {name};"):
            read_checkpoint(tmp_path / "w.npy", allow_pickle=True)
    assert not proof.exists()


def test_a_pickle_within_a_pickle_stays_bytes(tmp_path: Path) -> None:
    inner = pickle.dumps(Calls(os.mkdir, str(tmp_path / "proof")))
    pickled(boxed({"conv1": [inner]}), tmp_path / "w.npy")
    with pytest.raises(CheckpointError, match="layer 'conv1' is neither"):
        read_checkpoint(tmp_path / "w.npy", allow_pickle=True)
    assert not (tmp_path / "proof").exists()


def test_attributes_of_our_functions_stay(tmp_path: Path) -> None:
    """BUILD sets attributes of any object, of a function as well."""
    evil = b"\x80\x02c_codecs\nencode\nN}X\x0c\x00\x00\x00__defaults__NsX\x05\x00\x00\x00conv1"
    pickled(evil + b"s\x86b.", tmp_path / "w.npy")
    with pytest.raises(CheckpointError):
        read_checkpoint(tmp_path / "w.npy", allow_pickle=True)
    test_dictionaries(2, True, False, tmp_path)
