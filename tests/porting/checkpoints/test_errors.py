"""Weights files that are damaged, or hold something else, or something evil."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers.checkpoints import EVERY_SUFFIX, sample_arrays, sample_tensors

from porting.checkpoints.files import (
    read_checkpoint,
    write_checkpoint,
)
from porting.errors import CheckpointError, PortingError

# Damaged files


def _write(path: Path) -> bytes:
    write_checkpoint(path, {"weight": np.arange(2000, dtype=np.float32), "b": np.ones(3, "f")})
    return path.read_bytes()


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".pth", "truncated or not a torch file"),
        (".pt", "truncated or not a torch file"),
        (".safetensors", "truncated or not a safetensors file"),
        (".npz", "truncated or not an .npz archive"),
    ],
)
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_truncated(suffix: str, text: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    content = _write(path)
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=rf"weights\{suffix}: {text}"):
        read_checkpoint(path)


@EVERY_SUFFIX
@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 8, 9, 64])
def test_cut_within_the_first_bytes(suffix: str, length: int, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    content = _write(path)
    path.write_bytes(content[:length])
    with pytest.raises(CheckpointError, match="truncated"):
        read_checkpoint(path)


@pytest.mark.parametrize("length", [1, 2, 3, 5, 10, 30, 100, 400, -10])
def test_truncated_legacy_torch_file(length: int, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(sample_tensors(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=r"weights\.pth: truncated or not a torch file"):
        read_checkpoint(path)


@EVERY_SUFFIX
@pytest.mark.parametrize("content", [b"hello, world\n" * 30, b"\x00" * 500, b"<!DOCTYPE html>\n"])
def test_garbage(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"weights\{suffix}: .*not an? "):
        read_checkpoint(path)


@EVERY_SUFFIX
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_raises_no_error_of_the_readers_own(suffix: str, tmp_path: Path) -> None:
    """A flipped byte is harmless or an error of ours, never a bare one of zipfile or struct."""
    path = tmp_path / f"weights{suffix}"
    write_checkpoint(path, {"w": np.arange(4, dtype=np.float32)})
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    leaked = {}
    for position in rng.choice(len(content), size=min(200, len(content)), replace=False):
        damaged = bytearray(content)
        damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            read_checkpoint(path)
        except PortingError:
            continue
        except Exception as error:
            leaked[type(error).__name__] = f"byte {position}: {error}"
    assert not leaked


@EVERY_SUFFIX
def test_empty_file(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"weights{suffix}").touch()
    with pytest.raises(CheckpointError, match=rf"weights\{suffix}: the file is empty"):
        read_checkpoint(tmp_path / f"weights{suffix}")


@EVERY_SUFFIX
def test_missing_file(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"none\{suffix}: no such file"):
        read_checkpoint(tmp_path / f"none{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(CheckpointError, match=rf"folder\{suffix}: no such file"):
        read_checkpoint(tmp_path / f"folder{suffix}")


@pytest.mark.parametrize("name", ["weights.h5", "weights", "weights.pth.zip", "weights.keras"])
def test_unknown_suffix(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"content")
    text = f"{name}: unknown kind of weights file; known: .pth, .pt, .safetensors, .npz"
    with pytest.raises(CheckpointError, match=text):
        read_checkpoint(tmp_path / name)
    with pytest.raises(CheckpointError, match=text):
        write_checkpoint(tmp_path / name, sample_arrays())
    assert (tmp_path / name).read_bytes() == b"content"


# Files that hold something else


class _Malicious:
    """Runs a shell command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self._command,)


def _pickled(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def _saved(content: Any, path: Path) -> None:
    torch.save(content, path)


def _saved_legacy(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("save", [_saved, _saved_legacy])
def test_nothing_in_a_file_is_executed(save: Callable[[Any, Path], None], tmp_path: Path) -> None:
    """What a file names is not called; the weights beside it are read all the same."""
    proof = tmp_path / "proof"
    content = {"weight": torch.ones(2), "evil": _Malicious(f"touch '{proof}'")}
    save(content, tmp_path / "weights.pth")
    checkpoint = read_checkpoint(tmp_path / "weights.pth")
    np.testing.assert_array_equal(checkpoint.arrays["weight"], [1, 1])
    assert checkpoint.notes == ("left out, as they are no tensors: evil",)
    assert not proof.exists()
    # Without protection it is executed: the file is no dud.
    torch.load(tmp_path / "weights.pth", weights_only=False)
    assert proof.exists()


def test_a_plain_pickle_is_no_torch_file(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    _pickled({"evil": _Malicious(f"touch '{proof}'")}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="truncated or not a torch file"):
        read_checkpoint(tmp_path / "weights.pth")
    assert not proof.exists()


@pytest.mark.parametrize(
    ("content", "kind"), [([1, 2, 3], "list"), ("text", "str"), (torch.ones(3), "Tensor")]
)
def test_torch_file_of_something_else(content: Any, kind: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=f"holds a {kind}, not a state_dict"):
        read_checkpoint(tmp_path / "w.pth")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("content", [[1, 2, 3], {"a": np.ones(3, np.float32)}])
def test_plain_pickle(content: Any, protocol: int, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(CheckpointError, match=r"w\.pth: (not a plain state_dict|.*not a torch)"):
        read_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"a": 1, "b": "x"}, "entries that are no arrays: a, b. Known wrappers are 'state_dict', "),
        ({}, "no state_dict found: the mapping holds nothing"),
        ({"state_dict": {}}, "the mapping holds entries that are no arrays: state_dict"),
    ],
)
def test_mapping_of_something_else(content: Any, text: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=text):
        read_checkpoint(tmp_path / "w.pth")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (torch.eye(3).to_sparse(), "torch"),
        (torch.ones(3).to(torch.float8_e4m3fn), "float8_e4m3fn"),
    ],
    ids=["sparse", "float8"],
)
def test_tensors_without_an_array(tensor: torch.Tensor, kind: str, tmp_path: Path) -> None:
    torch.save({"w": tensor}, tmp_path / "w.pth")
    text = f"w is a {kind} tensor of a kind that has no plain array .*save dense floating-point"
    with pytest.raises(CheckpointError, match=text):
        read_checkpoint(tmp_path / "w.pth")


def test_safetensors_of_a_dtype_without_an_array(tmp_path: Path) -> None:
    tensors = {"w": torch.ones(3).to(torch.float8_e4m3fn)}
    safetensors.torch.save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"w\.safetensors: "):
        read_checkpoint(tmp_path / "w.safetensors")


def test_safetensors_with_an_overlong_header(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    content = (len(header) + 10**9).to_bytes(8, "little") + header + bytes(8)
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="truncated or not a safetensors file"):
        read_checkpoint(tmp_path / "w.safetensors")


def test_npz_with_objects(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    evil = np.array([_Malicious(f"touch '{proof}'")], dtype=object)
    np.savez(tmp_path / "w.npz", fine=np.ones(2), evil=evil)
    with pytest.raises(CheckpointError, match=r"w\.npz: .* without pickled objects"):
        read_checkpoint(tmp_path / "w.npz")
    assert not proof.exists()


def test_bare_array_called_npz(tmp_path: Path) -> None:
    with (tmp_path / "w.npz").open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(CheckpointError, match=r"w\.npz: one bare array; an \.npz archive of names"):
        read_checkpoint(tmp_path / "w.npz")


def test_empty_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz")
    with pytest.raises(CheckpointError, match="no state_dict found: the mapping holds nothing"):
        read_checkpoint(tmp_path / "w.npz")
