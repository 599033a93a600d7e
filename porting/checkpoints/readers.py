"""Readers of weight files, one for each suffix.

Nothing here executes code from a file: torch files are read with `weights_only=True`, NumPy
archives without pickles, and the pickles of `.npy` files with stand-ins for all that they name.
What a file declares is compared with what it holds before it is read.
"""

import functools
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.core.backend import require
from keras_alexnet.errors import MissingDependencyError, ModelFileError, one_line
from porting.checkpoints.caffe_model import read_caffe_model
from porting.checkpoints.guards import check_npz, check_torch
from porting.checkpoints.npy_dict import read_npy_dict
from porting.errors import CheckpointError

# What torch's restricted unpickler says of a file that names functions or classes to call.
_SIGNS_OF_CODE = ("Unsupported global", "Unsupported class", "unsupported GLOBAL")


def read(path: Path, *, allow_pickle: bool) -> Any:
    """Read what a file holds: as a rule a mapping of names to arrays or torch tensors.

    Its suffix is one of `READERS`; a `.npy` file, which is a pickle, is read with `allow_pickle`.

    Raises:
        CheckpointError: The file is damaged or unsafe.
        MissingDependencyError: torch or protobuf is needed and not installed.
    """
    suffix = path.suffix.lower()
    reader, kind = READERS[suffix]
    if suffix == ".npy":
        reader = functools.partial(reader, allow_pickle=allow_pickle)
    try:
        return reader(path)
    except (CheckpointError, MissingDependencyError):
        raise
    except ModelFileError as error:
        raise CheckpointError(str(error)) from error
    except Exception as error:
        # On damaged input the libraries raise whatever happens to fail first.
        reason = one_line(error)
        raise CheckpointError(f"{path}: truncated or not {kind} ({reason})") from error


def _read_torch(path: Path) -> Any:
    torch = require("torch")
    check_torch(path)
    # Files since torch 1.6 are zip archives, which can be mapped instead of read.
    mapped = zipfile.is_zipfile(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        if not any(sign in str(error) for sign in _SIGNS_OF_CODE):
            # Not torch's own words: they advise to load the file unsafely.
            reason = "nothing that its safe reader understands"
            raise CheckpointError(f"{path}: truncated or not a torch file ({reason})") from error
        raise CheckpointError(
            f"{path}: not a plain state_dict: it is a pickle that would run code when loaded, "
            "such as a whole model. In the program that made it, save "
            "`model.state_dict()` instead, then convert that file."
        ) from error
    except RuntimeError as error:
        if "TorchScript" not in str(error):
            raise
        raise CheckpointError(
            f"{path}: a TorchScript archive; save `model.state_dict()` of it instead"
        ) from error


def _read_safetensors(path: Path) -> Any:
    # Gives NumPy the dtype bfloat16, which safetensors asks it for.
    import ml_dtypes  # noqa: F401
    from safetensors.numpy import load_file

    return load_file(path)


def _read_npz(path: Path) -> Any:
    check_npz(path)
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


READERS: dict[str, tuple[Callable[..., Any], str]] = {
    ".pth": (_read_torch, "a torch file"),
    ".pt": (_read_torch, "a torch file"),
    ".safetensors": (_read_safetensors, "a safetensors file"),
    ".npz": (_read_npz, "an .npz archive without pickled objects"),
    ".caffemodel": (read_caffe_model, "a .caffemodel file"),
    ".npy": (read_npy_dict, "a .npy dictionary of arrays"),
}
