"""Memory: what a conversion takes beside the weights, and what shares or gives back its own."""

import ctypes
import json
import mmap
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from helpers.backends import EACH_BACKEND
from helpers.models import StateDict
from helpers.project import ROOT, RunPython

from keras_alexnet.core.backend import BACKENDS, installed
from keras_alexnet.core.memory import aligned_zeros, as_array, as_tensor
from porting.checkpoints.files import write_checkpoint
from porting.checkpoints.mapped import MappedFile
from porting.torch_side.seeded import seeded_state_dict
from porting.weights.assignment import assign, blocks
from porting.weights.layouts import Transform
from porting.weights.table import Put

# Of the weights' size, above what the process had when all was imported. Measured: 1.1 to 1.3.
MOST_MEMORY = 2.2


@pytest.fixture(scope="module")
def alexnet() -> StateDict:
    return seeded_state_dict("alexnet", seed=3, classes=7)


CASES = [(backend, ".pth") for backend in BACKENDS if installed(backend)]


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "suffix"), [*CASES, ("torch", ".safetensors")])
def test_converting_takes_little_more_than_the_weights(
    backend: str, suffix: str, alexnet: StateDict, tmp_path: Path
) -> None:
    script, source = ROOT / "benchmarks" / "convert.py", tmp_path / f"w{suffix}"
    write_checkpoint(source, alexnet)
    files = [str(source), str(tmp_path / "m.keras")]
    done = subprocess.run(
        [sys.executable, str(script), "--child", "alexnet", *files],
        env=os.environ | {"KERAS_BACKEND": backend},
        stdout=subprocess.PIPE,
        text=True,
        timeout=240,
        check=True,
    )
    taken = json.loads(done.stdout.splitlines()[-1])["memory"]
    weights = source.stat().st_size
    assert weights < taken < MOST_MEMORY * weights


def _resident() -> int:
    """Return the pages of files that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[2])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_forgotten_pages_come_back_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    values = torch.arange(4 << 20, dtype=torch.float32)
    torch.save({"w": values}, path)
    loaded = torch.load(path, mmap=True, weights_only=True)["w"]
    assert torch.equal(loaded, values)
    before = _resident()
    MappedFile(path).forget()
    assert before - _resident() > 3 << 10  # of the file's 4096
    assert torch.equal(loaded, values)


@pytest.mark.parametrize("guarded", [False, True])
def test_pages_that_were_written_are_kept(guarded: bool, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"w": torch.zeros(1 << 20)}, path)
    loaded = torch.load(path, mmap=True, weights_only=True)["w"]
    loaded[7] = 5.0  # in this process only
    if guarded:  # what follows the mapping may be a page without permissions, such as a stack's end
        middle = (loaded.data_ptr() + loaded.nbytes // 2) & -mmap.PAGESIZE
        nothing, page = ctypes.c_int(0), ctypes.c_size_t(mmap.PAGESIZE)
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(middle), page, nothing) == 0
    MappedFile(path).forget()
    assert loaded[7] == 5.0
    assert torch.load(path, weights_only=True)["w"][7] == 0


def test_a_file_that_is_not_mapped_has_nothing_to_forget(tmp_path: Path) -> None:
    MappedFile(tmp_path / "missing").forget()


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5), (7, 1 << 20), (1 << 23,)])
def test_blocks_cover_the_first_axis_once(shape: tuple[int, ...]) -> None:
    array = np.broadcast_to(np.float32(0), shape or (1,))
    indices = [i for block in blocks(array) for i in range(len(array))[block]]
    assert indices == list(range(len(array)))


@pytest.mark.parametrize("shape", [(2, 3), (5,), ()])
def test_arrays_and_tensors_share_memory(shape: tuple[int, ...]) -> None:
    array = aligned_zeros(shape)
    assert array.shape == shape
    assert array.ctypes.data % 64 == 0
    array[...] = np.arange(array.size).reshape(shape)
    variable = keras.Variable(array)
    variable.assign(as_tensor(array))
    assert np.array_equal(as_array(variable), array)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int64"])
def test_arrays_of_every_dtype(dtype: str) -> None:
    variable = keras.Variable([[1, 2], [3, 4]], dtype=dtype, trainable=False)
    found = as_array(variable)
    assert found.dtype.name == dtype or (keras.backend.backend() == "jax" and dtype == "int64")
    assert found.tolist() == [[1, 2], [3, 4]]
    widened = as_array(variable, widened=True)
    assert widened.dtype == (np.float32 if dtype == "bfloat16" else found.dtype)
    assert widened.tolist() == [[1, 2], [3, 4]]


SHARED = """
import keras
from keras_alexnet.core.memory import as_array
variable = keras.Variable([[1.0, 2.0], [3.0, 4.0]])
first, second = as_array(variable), as_array(variable)
assert first.tolist() == [[1, 2], [3, 4]], first
assert first.ctypes.data == second.ctypes.data, "there are two copies"
variable.assign([[5.0, 6.0], [7.0, 8.0]])
assert as_array(variable).tolist() == [[5, 6], [7, 8]]
"""


@pytest.mark.slow
@EACH_BACKEND
def test_reading_a_variable_copies_nothing(backend: str, run_python: RunPython) -> None:
    run_python(SHARED, KERAS_BACKEND=backend, JAX_PLATFORMS="cpu", CUDA_VISIBLE_DEVICES="")


@pytest.mark.parametrize("dtype", ["float16", "float32", ">f4"])
@pytest.mark.parametrize("backwards", [False, True])
def test_large_kernels_are_assigned_in_blocks(dtype: str, backwards: bool) -> None:
    """Three blocks of 16 MiB; of any byte order and any strides."""
    rng = np.random.default_rng(0)
    array = rng.normal(size=(3 << 10, 4 << 10)).astype(dtype)
    if backwards:
        array = array[::-1, ::-1]
    variable = keras.Variable(keras.initializers.Zeros(), shape=(4 << 10, 3 << 10))
    read: list[int] = []
    assign(
        Put("d/kernel", "d", Transform("dense"), array.shape),
        variable,
        array,
        lambda: read.append(1),
    )
    assert np.array_equal(variable.numpy(), array.T.astype(np.float32))
    assert len(read) == len(list(blocks(array)))
