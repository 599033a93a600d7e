"""Weight files: every format there and back, and every way in which one can be wrong."""

import json
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from keras_alexnet.errors import ConfigurationError
from keras_alexnet.files import atomic_output
from porting.checkpoints import (
    SUFFIXES,
    as_tensors,
    read_checkpoint,
    sha256,
    to_numpy,
    write_checkpoint,
)
from porting.errors import CheckpointError, PortingError

EVERY_SUFFIX = pytest.mark.parametrize("suffix", SUFFIXES)


def _arrays() -> dict[str, np.ndarray]:
    """Arrays of every rank and memory order, in an order that no alphabet gives."""
    rng = np.random.default_rng(0)
    return {
        "z.weight": rng.normal(size=(3, 2, 5, 4)).astype(np.float32),
        "a.bias": rng.normal(size=3).astype(np.float32),
        "transposed": rng.normal(size=(4, 6)).astype(np.float32).T,
        "strided": rng.normal(size=(8, 3)).astype(np.float32)[::2],
        "m.num_batches_tracked": np.array(12345678901, np.int64),
        "half": rng.normal(size=(2, 3)).astype(np.float16),
        "special": np.array([0.0, -0.0, 1e-45, np.finfo(np.float32).max], np.float32),
        "single": np.array([[7.5]], np.float64),
    }


def _tensors() -> dict[str, torch.Tensor]:
    return as_tensors({k: v for k, v in _arrays().items() if k in ("z.weight", "a.bias")})


def _assert_same(got: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert set(got) == set(wanted)
    for key, array in wanted.items():
        assert got[key].dtype == array.dtype, key
        assert got[key].shape == array.shape, key
        assert got[key].tobytes() == array.tobytes(), key


# There and back


@EVERY_SUFFIX
def test_round_trip_is_bit_exact(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    write_checkpoint(path, _arrays())
    checkpoint = read_checkpoint(path)
    _assert_same(checkpoint.arrays, _arrays())
    assert checkpoint.path == path
    assert checkpoint.notes == ()
    assert checkpoint.shapes == {key: array.shape for key, array in _arrays().items()}
    assert checkpoint.dtypes == {key: str(array.dtype) for key, array in _arrays().items()}
    assert os.listdir(tmp_path) == [path.name]  # noqa: PTH208  (names of hidden files too)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".npz"])
def test_order_is_kept(suffix: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / f"weights{suffix}", _arrays())
    assert list(read_checkpoint(tmp_path / f"weights{suffix}").arrays) == list(_arrays())


def test_torch_reads_what_we_write(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "weights.pth", _arrays())
    loaded = torch.load(tmp_path / "weights.pth", weights_only=True)
    assert list(loaded) == list(_arrays())
    _assert_same({key: value.numpy() for key, value in loaded.items()}, _arrays())
    write_checkpoint(tmp_path / "weights.safetensors", _arrays())
    loaded = safetensors.torch.load_file(tmp_path / "weights.safetensors")
    _assert_same({key: value.numpy() for key, value in loaded.items()}, _arrays())


def test_upper_case_suffixes(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "weights.PTH", _arrays())
    _assert_same(read_checkpoint(str(tmp_path / "weights.PTH")).arrays, _arrays())


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_torch_formats(suffix: str, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    torch.save(_tensors(), path, _use_new_zipfile_serialization=zipped)
    _assert_same(
        read_checkpoint(path).arrays, {key: value.numpy() for key, value in _tensors().items()}
    )


def test_torch_file_of_ordered_dict_and_parameters(tmp_path: Path) -> None:
    """As `model.state_dict()` and careless scripts make them."""
    module = torch.nn.Linear(3, 2)
    torch.save(module.state_dict(), tmp_path / "a.pth")
    torch.save(OrderedDict(module.named_parameters()), tmp_path / "b.pth")
    for name in ("a.pth", "b.pth"):
        arrays = read_checkpoint(tmp_path / name).arrays
        np.testing.assert_array_equal(arrays["weight"], module.weight.detach().numpy())


@pytest.mark.parametrize("container", ["state_dict", "model_state_dict", "model"])
def test_wrappers(container: str, tmp_path: Path) -> None:
    path = tmp_path / "training.pth"
    torch.save({"epoch": 3, "best": 0.7, container: _tensors(), "optimizer": {"lr": 0.1}}, path)
    checkpoint = read_checkpoint(path)
    assert list(checkpoint.arrays) == ["z.weight", "a.bias"]
    assert checkpoint.notes == (f"taken from the entry {container!r}",)


def test_a_key_called_model_is_no_wrapper(tmp_path: Path) -> None:
    torch.save({"model": torch.ones(2), "b": torch.ones(3)}, tmp_path / "w.pth")
    assert list(read_checkpoint(tmp_path / "w.pth").arrays) == ["model", "b"]


@pytest.mark.parametrize(
    "prefixes",
    [["module."], ["_orig_mod."], ["module.", "_orig_mod."], ["_orig_mod.", "module."]],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_prefixes(prefixes: list[str], suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    plain = {key: value.numpy() for key, value in _tensors().items()}
    write_checkpoint(path, {"".join(prefixes) + key: array for key, array in plain.items()})
    checkpoint = read_checkpoint(path)
    _assert_same(checkpoint.arrays, plain)
    assert checkpoint.notes == tuple(f"prefix {prefix!r} removed" for prefix in prefixes)


def test_prefixes_within_a_wrapper(tmp_path: Path) -> None:
    state = {f"module.{key}": value for key, value in _tensors().items()}
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    checkpoint = read_checkpoint(tmp_path / "w.pth")
    assert list(checkpoint.arrays) == ["z.weight", "a.bias"]
    assert checkpoint.notes == ("taken from the entry 'state_dict'", "prefix 'module.' removed")


def test_a_prefix_of_some_keys_stays(tmp_path: Path) -> None:
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "w.pth")
    assert list(read_checkpoint(tmp_path / "w.pth").arrays) == ["module.a", "b"]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_precisions(dtype: str, suffix: str, tmp_path: Path) -> None:
    """NumPy has no bfloat16; float32 holds its values exactly."""
    path = tmp_path / f"weights{suffix}"
    tensors = {
        key: value.to(getattr(torch, dtype)).contiguous() for key, value in _tensors().items()
    }
    save = torch.save if suffix == ".pth" else safetensors.torch.save_file
    save(tensors, path)
    checkpoint = read_checkpoint(path)
    assert set(checkpoint.dtypes.values()) == {dtype}
    wanted = "float32" if dtype == "bfloat16" else dtype
    for key, tensor in tensors.items():
        assert checkpoint.arrays[key].dtype == wanted
        np.testing.assert_array_equal(checkpoint.arrays[key], tensor.to(torch.float64).numpy())


def test_bfloat16_without_keras_in_the_process(
    tmp_path: Path, run_python: Callable[..., Any]
) -> None:
    """NumPy knows bfloat16 only where Keras or JAX has brought it along."""
    tensors = {"w": torch.tensor([1.5, -3e38, 1e-40]).bfloat16()}
    safetensors.torch.save_file(tensors, tmp_path / "w.safetensors")
    code = """
import sys
from porting.checkpoints import read_checkpoint
checkpoint = read_checkpoint(sys.argv[1])
assert "keras" not in sys.modules
assert checkpoint.dtypes == {"w": "bfloat16"}, checkpoint.dtypes
assert checkpoint.arrays["w"].dtype == "float32"
print(checkpoint.arrays["w"].tolist())
"""
    done = run_python(code, tmp_path / "w.safetensors")
    assert json.loads(done.stdout) == tensors["w"].tolist()


def test_to_numpy() -> None:
    parameter = torch.nn.Parameter(torch.tensor([1.5, -2.0]))
    np.testing.assert_array_equal(to_numpy(parameter), np.array([1.5, -2.0], np.float32))
    assert to_numpy(torch.tensor([1.5]).bfloat16()).dtype == np.float32
    np.testing.assert_array_equal(to_numpy([1, 2]), np.array([1, 2]))


def test_tensors_own_their_memory() -> None:
    array = np.zeros(3, np.float32)
    tensors = as_tensors({"b": array, "a": np.zeros((2, 3), np.float32).T})
    tensors["b"][0] = 1
    assert array[0] == 0
    assert list(tensors) == ["b", "a"]
    assert tensors["a"].is_contiguous()


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256(tmp_path / "f").startswith("ba7816bf8f01cfea")
    assert len(sha256(str(tmp_path / "f"))) == 64


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
    torch.save(_tensors(), path, _use_new_zipfile_serialization=False)
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


@pytest.mark.parametrize("name", ["weights.bin", "weights", "weights.pth.zip", "weights.keras"])
def test_unknown_suffix(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"content")
    text = f"{name}: unknown kind of weights file; known: .pth, .pt, .safetensors, .npz"
    with pytest.raises(CheckpointError, match=text):
        read_checkpoint(tmp_path / name)
    with pytest.raises(CheckpointError, match=text):
        write_checkpoint(tmp_path / name, _arrays())
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


@pytest.mark.parametrize(
    ("save", "text"),
    [
        (_pickled, "truncated or not a torch file"),
        (_saved, "it is a pickle that would run code when loaded"),
        (_saved_legacy, "it is a pickle that would run code when loaded"),
    ],
)
def test_nothing_in_a_file_is_executed(
    save: Callable[[Any, Path], None], text: str, tmp_path: Path
) -> None:
    proof = tmp_path / "proof"
    content = {"weight": torch.ones(2), "evil": _Malicious(f"touch '{proof}'")}
    save(content, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=text):
        read_checkpoint(tmp_path / "weights.pth")
    assert not proof.exists()
    # Without protection it is executed: the file is no dud.
    torch.load(tmp_path / "weights.pth", weights_only=False) if save is not _pickled else (
        pickle.loads((tmp_path / "weights.pth").read_bytes())
    )
    assert proof.exists()


@pytest.mark.parametrize("save", [_saved, _saved_legacy])
def test_whole_module(save: Callable[[Any, Path], None], tmp_path: Path) -> None:
    save(torch.nn.Linear(2, 3), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"model\.pth: not a plain state_dict") as caught:
        read_checkpoint(tmp_path / "model.pth")
    assert "such as a whole model" in str(caught.value)
    assert "save `model.state_dict()` instead" in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_torchscript(tmp_path: Path) -> None:
    torch.jit.trace(torch.nn.Linear(2, 3), torch.ones(1, 2)).save(tmp_path / "script.pt")
    with pytest.raises(CheckpointError, match=r"script\.pt: a TorchScript archive; save"):
        read_checkpoint(tmp_path / "script.pt")


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
        (
            {"weight": torch.ones(2), "epoch": 3},
            "the mapping holds entries that are no arrays: epoc",
        ),
        ({"a": 1, "b": "x"}, "entries that are no arrays: a, b. Known wrappers are 'state_dict', "),
        ({"net": {"weight": torch.ones(2)}}, "entries that are no arrays: net"),
        ({}, "no state_dict found: the mapping holds nothing"),
        ({"state_dict": {}}, "no state_dict found: the mapping holds nothing"),
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
        (torch.eye(3).to_sparse(), "float32"),
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


# Outputs


@EVERY_SUFFIX
def test_missing_folder(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / "none" / f"weights{suffix}"
    text = f"cannot write {path}: there is no folder {path.parent}"
    with pytest.raises(ConfigurationError, match=text):
        write_checkpoint(path, _arrays())
    assert not path.parent.exists()


def test_output_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "weights.npz").mkdir()
    with pytest.raises(ConfigurationError, match=r"cannot write .*weights\.npz: it is a folder"):
        write_checkpoint(tmp_path / "weights.npz", _arrays())


def test_output_on_a_full_disk() -> None:
    """`/dev/full` is no folder one can write beside; the text still names the file."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(ConfigurationError, match=r"cannot write /dev/full/w\.npz: there is no"):
        write_checkpoint("/dev/full/w.npz", _arrays())


@EVERY_SUFFIX
def test_existing_file_is_replaced(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"old" * 10_000)
    write_checkpoint(path, {"a": np.ones(3, np.float32)})
    assert list(read_checkpoint(path).arrays) == ["a"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, ValueError])
@pytest.mark.parametrize("existing", [b"old", None])
def test_interrupted_output(
    error: type[BaseException], existing: bytes | None, tmp_path: Path
) -> None:
    """No half file, nothing left over, and the old file untouched."""
    path = tmp_path / "weights.npz"
    if existing is not None:
        path.write_bytes(existing)
    with pytest.raises(error), atomic_output(path) as temporary:  # noqa: PT012
        temporary.write_bytes(b"half")
        assert temporary.suffix == ".npz"
        assert temporary.parent == path.parent
        raise error
    assert [entry.name for entry in tmp_path.iterdir()] == ([path.name] if existing else [])
    if existing is not None:
        assert path.read_bytes() == existing


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    class Refused:
        shape, dtype = (2,), np.dtype(np.float32)

        def __array__(self, *_: object, **__: object) -> np.ndarray:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(tmp_path / "weights.npz", {"a": Refused()})  # type: ignore[dict-item]
    assert not list(tmp_path.iterdir())


def test_errors_of_other_files_pass_through(tmp_path: Path) -> None:
    """Only trouble with the output itself is reported as such."""
    with pytest.raises(FileNotFoundError, match="elsewhere"), atomic_output(tmp_path / "w.npz"):
        (tmp_path / "elsewhere").read_bytes()
    assert not list(tmp_path.iterdir())


def test_a_vanished_output_is_reported(tmp_path: Path) -> None:
    text = r"cannot write .*w\.npz: No such file or directory"
    with pytest.raises(ConfigurationError, match=text):  # noqa: SIM117
        with atomic_output(tmp_path / "w.npz") as temporary:
            temporary.unlink(missing_ok=True)
    assert not list(tmp_path.iterdir())


@EVERY_SUFFIX
def test_outputs_have_the_usual_permissions(suffix: str, tmp_path: Path) -> None:
    """Some writers make files that only their owner can read."""
    (tmp_path / "usual").touch()
    write_checkpoint(tmp_path / f"weights{suffix}", _arrays())
    usual = (tmp_path / "usual").stat().st_mode
    assert (tmp_path / f"weights{suffix}").stat().st_mode == usual
