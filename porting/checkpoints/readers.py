"""Readers of weight files, one for each suffix.

Nothing here executes code from a file: NumPy archives are read without pickles, the pickles of
torch's and `.npy` files with stand-ins for all that they name.
What a file declares is compared with what it holds before it is read.
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.errors import MissingDependencyError, ModelFileError, one_line
from porting.checkpoints.caffe_model import CaffeModel, read_caffe_model
from porting.checkpoints.caffe_net import Net, read_prototxt
from porting.checkpoints.guards import check_npz
from porting.checkpoints.npy_dict import read_npy_dict
from porting.checkpoints.torch_files import read_torch
from porting.errors import CheckpointError


def read(path: Path, *, allow_pickle: bool) -> tuple[Any, Net | None]:
    """Read what a file holds: as a rule a mapping of names to arrays or tensors.

    Its suffix is one of `READERS`; a `.npy` file, which is a pickle, is read with `allow_pickle`.
    The second value is what the file says of its network's layers, or a `.prototxt` beside it of
    the same name, or `deploy.prototxt` beside a `.caffemodel`.

    Raises:
        CheckpointError: The file is damaged or unsafe.
        MissingDependencyError: torch or protobuf is needed and not installed.
    """
    suffix = path.suffix.lower()
    reader, kind = READERS[suffix]
    if suffix == ".npy":
        reader = functools.partial(reader, allow_pickle=allow_pickle)
    try:
        content, net = reader(path), None
        if isinstance(content, CaffeModel):
            content, net = content
        return content, net if net is not None and net.is_wired else _net_beside(path) or net
    except (CheckpointError, MissingDependencyError):
        raise
    except ModelFileError as error:
        raise CheckpointError(str(error)) from error
    except Exception as error:
        # On damaged input the libraries raise whatever happens to fail first.
        reason = one_line(error)
        raise CheckpointError(f"{path}: truncated or not {kind} ({reason})") from error


def _net_beside(path: Path) -> Net | None:
    names = [path.with_suffix(".prototxt").name]
    if path.suffix.lower() == ".caffemodel":
        names.append("deploy.prototxt")
    files = [path.with_name(name) for name in names]
    return next((read_prototxt(file) for file in files if file.is_file()), None)


# What safetensors calls NumPy's types.
_SAFETENSORS: dict[str, Any] = {
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    "U8": "uint8",
    "BOOL": "bool",
}


def _read_safetensors(path: Path) -> Any:
    """Return arrays over the mapped file, so that only what is read takes memory."""
    import ml_dtypes
    from safetensors import safe_open

    dtypes = _SAFETENSORS | {"BF16": ml_dtypes.bfloat16}
    arrays = {}
    with safe_open(path, "numpy") as checked:  # that no entry lies outside the file, or on another
        content = np.memmap(path, np.uint8, "r")
        start = 8 + int.from_bytes(content[:8].tobytes(), "little")
        header = json.loads(content[8:start].tobytes())
        header.pop("__metadata__", None)
        for key, entry in header.items():
            if entry["dtype"] not in dtypes or 0 in entry["shape"]:
                arrays[key] = checked.get_tensor(key)
                continue
            first, end = entry["data_offsets"]
            array = content[start + first : start + end].view(dtypes[entry["dtype"]])
            arrays[key] = array.reshape(entry["shape"])
    return arrays


def _read_npz(path: Path) -> Any:
    check_npz(path)
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


READERS: dict[str, tuple[Callable[..., Any], str]] = {
    ".pth": (read_torch, "a torch file"),
    ".pt": (read_torch, "a torch file"),
    ".safetensors": (_read_safetensors, "a safetensors file"),
    ".npz": (_read_npz, "an .npz archive without pickled objects"),
    ".caffemodel": (read_caffe_model, "a .caffemodel file"),
    ".npy": (read_npy_dict, "a .npy dictionary of arrays"),
    ".bin": (read_torch, "a torch file"),  # Hugging Face's older name for it
}
