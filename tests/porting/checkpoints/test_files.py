"""Weight files: every format there and back, and every way in which one can be wrong."""

import errno
import json
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers.checkpoints import EVERY_SUFFIX, assert_same, sample_arrays, sample_tensors

from keras_alexnet.core.files import atomic_output
from keras_alexnet.errors import ConfigurationError
from porting.checkpoints.files import (
    as_tensors,
    read_checkpoint,
    sha256,
    to_numpy,
    write_checkpoint,
)

# There and back


@EVERY_SUFFIX
def test_round_trip_is_bit_exact(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    write_checkpoint(path, sample_arrays())
    checkpoint = read_checkpoint(path)
    assert_same(checkpoint.arrays, sample_arrays())
    assert checkpoint.path == path
    assert checkpoint.notes == ()
    assert checkpoint.shapes == {key: array.shape for key, array in sample_arrays().items()}
    assert checkpoint.dtypes == {key: str(array.dtype) for key, array in sample_arrays().items()}
    assert os.listdir(tmp_path) == [path.name]  # noqa: PTH208  (names of hidden files too)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".npz"])
def test_order_is_kept(suffix: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / f"weights{suffix}", sample_arrays())
    assert list(read_checkpoint(tmp_path / f"weights{suffix}").arrays) == list(sample_arrays())


def test_torch_reads_what_we_write(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "weights.pth", sample_arrays())
    loaded = torch.load(tmp_path / "weights.pth", weights_only=True)
    assert list(loaded) == list(sample_arrays())
    assert_same({key: value.numpy() for key, value in loaded.items()}, sample_arrays())
    write_checkpoint(tmp_path / "weights.safetensors", sample_arrays())
    loaded = safetensors.torch.load_file(tmp_path / "weights.safetensors")
    assert_same({key: value.numpy() for key, value in loaded.items()}, sample_arrays())


def test_upper_case_suffixes(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "weights.PTH", sample_arrays())
    assert_same(read_checkpoint(str(tmp_path / "weights.PTH")).arrays, sample_arrays())


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_torch_formats(suffix: str, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    torch.save(sample_tensors(), path, _use_new_zipfile_serialization=zipped)
    assert_same(
        read_checkpoint(path).arrays,
        {key: value.numpy() for key, value in sample_tensors().items()},
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
    torch.save(
        {"epoch": 3, "best": 0.7, container: sample_tensors(), "optimizer": {"lr": 0.1}}, path
    )
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
    plain = {key: value.numpy() for key, value in sample_tensors().items()}
    write_checkpoint(path, {"".join(prefixes) + key: array for key, array in plain.items()})
    checkpoint = read_checkpoint(path)
    assert_same(checkpoint.arrays, plain)
    assert checkpoint.notes == tuple(f"prefix {prefix!r} removed" for prefix in prefixes)


def test_prefixes_within_a_wrapper(tmp_path: Path) -> None:
    state = {f"module.{key}": value for key, value in sample_tensors().items()}
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    checkpoint = read_checkpoint(tmp_path / "w.pth")
    assert list(checkpoint.arrays) == ["z.weight", "a.bias"]
    assert checkpoint.notes == ("taken from the entry 'state_dict'", "prefix 'module.' removed")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_precisions(dtype: str, suffix: str, tmp_path: Path) -> None:
    """NumPy has no bfloat16; float32 holds its values exactly."""
    path = tmp_path / f"weights{suffix}"
    tensors = {
        key: value.to(getattr(torch, dtype)).contiguous() for key, value in sample_tensors().items()
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
from porting.checkpoints.files import read_checkpoint
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


# Outputs


@EVERY_SUFFIX
def test_missing_folder(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / "none" / f"weights{suffix}"
    text = f"cannot write {path}: there is no folder {path.parent}"
    with pytest.raises(ConfigurationError, match=text):
        write_checkpoint(path, sample_arrays())
    assert not path.parent.exists()


def test_output_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "weights.npz").mkdir()
    with pytest.raises(ConfigurationError, match=r"cannot write .*weights\.npz: it is a folder"):
        write_checkpoint(tmp_path / "weights.npz", sample_arrays())


def test_output_on_a_full_disk() -> None:
    """`/dev/full` is no folder one can write beside; the text still names the file."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(ConfigurationError, match=r"cannot write /dev/full/w\.npz: there is no"):
        write_checkpoint("/dev/full/w.npz", sample_arrays())


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


def test_a_full_disk_is_told_in_one_line(tmp_path: Path) -> None:
    """HDF5 puts a report of several lines, with names of its own, where the reason belongs."""
    report = "Can't close file (file write failed: at = Mon\n, errno = 28, total write = 2048)"
    with (
        pytest.raises(
            ConfigurationError, match=r"cannot write .*w\.keras: No space left on device$"
        ),
        atomic_output(tmp_path / "w.keras"),
    ):
        raise OSError(errno.ENOSPC, report)
    assert not list(tmp_path.iterdir())


def _h5py_closing() -> None:
    """What h5py does: it fails once more, in its own words, in the wake of the system's error."""
    try:
        raise OSError(errno.ENOSPC, "Can't synchronously write data")
    finally:
        raise RuntimeError("Can't decrement id ref count (file write failed)")


def _safetensors() -> None:
    raise ValueError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("fail", [_h5py_closing, _safetensors])
def test_a_full_disk_in_a_writers_own_words(fail: Callable[[], None], tmp_path: Path) -> None:
    text = r"cannot write .*w\.keras: No space left on device$"
    with pytest.raises(ConfigurationError, match=text), atomic_output(tmp_path / "w.keras"):
        fail()
    with pytest.raises(RuntimeError, match="something else"), atomic_output(tmp_path / "w.keras"):
        raise RuntimeError("something else (os error 2)")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_torch_files_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real writer, whose own error would say nothing of the disk."""
    stock = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *a, **k: stock(Path("/dev/full"), *a, **k))
    with pytest.raises(ConfigurationError, match=r"w\.pth: No space left on device$"):
        write_checkpoint(tmp_path / "w.pth", {"a": np.ones(100_000, np.float32)})
    monkeypatch.undo()
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
    write_checkpoint(tmp_path / f"weights{suffix}", sample_arrays())
    usual = (tmp_path / "usual").stat().st_mode
    assert (tmp_path / f"weights{suffix}").stat().st_mode == usual
