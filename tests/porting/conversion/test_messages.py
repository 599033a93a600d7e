"""What is said where weights do not fit: true, and with the way out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.checkpoints import boxed, pickled

from porting.conversion.sources import open_source
from porting.errors import CheckpointError, TransferError
from porting.torch_side.seeded import seeded_state_dict

State = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def lenet() -> State:
    return dict(seeded_state_dict("lenet5", seed=0))


def npy_of(state: State, path: Path, *, keras_order: bool) -> Path:
    """A dictionary of layers, its kernels in the order of Keras or of torch."""
    layers: dict[str, list[np.ndarray]] = {}
    for key, array in state.items():
        axes = {4: (2, 3, 1, 0), 2: (1, 0)}.get(array.ndim) if keras_order else None
        layers.setdefault(key.rpartition(".")[0], []).append(
            np.ascontiguousarray(array.transpose(axes) if axes else array)
        )
    pickled(boxed(layers), path)
    return path


def test_npy_files_in_torchs_order_are_recognised(lenet: State, tmp_path: Path) -> None:
    path = npy_of(lenet, tmp_path / "w.npy", keras_order=False)
    opened = open_source("lenet5", path, allow_pickle=True)
    assert opened.checkpoint.notes[-1].startswith(
        "its kernels are in torch's order of axes already"
    )
    for key, array in lenet.items():
        np.testing.assert_array_equal(opened.checkpoint.arrays[key], array, strict=True)


def test_npy_files_are_quoted_with_their_own_shapes(lenet: State, tmp_path: Path) -> None:
    wrong = dict(lenet, **{"features.0.weight": np.zeros((7, 1, 5, 5), np.float32)})
    path = npy_of(wrong, tmp_path / "w.npy", keras_order=False)
    with pytest.raises(TransferError, match=r"features.0.weight: file \(7, 1, 5, 5\), wanted \(6"):
        open_source("lenet5", path, allow_pickle=True)


def refusal(state: State, tmp_path: Path) -> str:
    tensors = {key: torch.from_numpy(array) for key, array in state.items()}
    torch.save(tensors, tmp_path / "w.pth")
    with pytest.raises(TransferError) as caught:
        open_source("lenet5", tmp_path / "w.pth")
    return str(caught.value)


def test_one_wrong_shape_is_blamed_on_what_it_comes_from(lenet: State, tmp_path: Path) -> None:
    colours = dict(lenet, **{"features.0.weight": np.zeros((6, 3, 5, 5), np.float32)})
    said = refusal(colours, tmp_path)
    assert "Its first layer reads images of other channels" in said
    assert "first dense layer" not in said
    dense = next(key for key, array in lenet.items() if array.ndim == 2)
    larger = dict(lenet, **{dense: np.zeros((120, 900), np.float32)})
    assert "first dense layer may belong to images of another size" in refusal(larger, tmp_path)
    second = [key for key, array in lenet.items() if array.ndim == 2][1]
    other = dict(lenet, **{second: np.zeros((84, 121), np.float32)})
    assert "another size" not in refusal(other, tmp_path)


def test_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a folder; name a file$"):
        open_source("lenet5", tmp_path)
    (tmp_path / "a.pth").touch()
    with pytest.raises(CheckpointError, match=r"a folder; name a file, such as a\.pth in it"):
        open_source("lenet5", tmp_path)
    (tmp_path / ".metadata").touch()
    text = r"a folder of torch\.distributed\.checkpoint; .*format_utils dcp_to_torch"
    with pytest.raises(CheckpointError, match=text):
        open_source("lenet5", tmp_path)
