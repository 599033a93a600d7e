"""What the tests of weights files share."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from porting.checkpoints.files import (
    SUFFIXES,
    as_tensors,
)

EVERY_SUFFIX = pytest.mark.parametrize("suffix", SUFFIXES)


def sample_arrays() -> dict[str, np.ndarray]:
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


def sample_tensors() -> dict[str, torch.Tensor]:
    return as_tensors({k: v for k, v in sample_arrays().items() if k in ("z.weight", "a.bias")})


def assert_same(got: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert set(got) == set(wanted)
    for key, array in wanted.items():
        assert got[key].dtype == array.dtype, key
        assert got[key].shape == array.shape, key
        assert got[key].tobytes() == array.tobytes(), key


def pickled(content: Any, path: Path, protocol: int = 3) -> None:
    """Write what `np.save` writes for an object, with the pickle protocol of one's choice."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
    file.write(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    path.write_bytes(file.getvalue())


def boxed(content: Any) -> np.ndarray:
    box = np.empty((), object)
    box[()] = content
    return box
