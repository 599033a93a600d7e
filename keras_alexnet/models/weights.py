"""Weights of a Keras file into a model, layer by layer name."""

import errno
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from keras_alexnet.errors import ModelFileError
from keras_alexnet.layers import keras
from keras_alexnet.models.archives import check_model_file, check_weights_file
from keras_alexnet.models.fast.quicken import quicken

_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


def load_model(path: str | Path) -> Any:
    """Load a `.keras` file for inference, with safe deserialisation and clear errors.

    Raises:
        ModelFileError: The file is missing, damaged, unsafe, or needs code that is not here.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise ModelFileError(f"{path}: Keras cannot load it (no .keras archive, or truncated)")
    try:
        check_model_file(path)
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except ModelFileError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise ModelFileError(
                f"{path}: no room to unpack it in {tempfile.gettempdir()} ({error.strerror}); "
                "free some there"
            ) from error
        # Keras raises whatever its readers happen to raise on damaged input.
        raise ModelFileError(f"{path}: Keras cannot load it ({_first_line(error)})") from error
    return quicken(model)


def load_weights(model: Any, path: str | Path) -> None:
    """Fill a model from a `.keras` or `.weights.h5` file.

    A `.keras` file is matched by layer name, so it may hold more layers than the model (a head,
    auxiliary classifiers). A `.weights.h5` file must have been saved from the same architecture.

    Raises:
        ModelFileError: The file is unreadable, or lacks or contradicts weights of the model; the
            model is then unchanged.
    """
    path = Path(path)
    if path.name.endswith(".weights.h5"):
        if not path.is_file():
            raise ModelFileError(f"{path}: no such file")
        before = model.get_weights()
        try:
            check_weights_file(path)
            model.load_weights(path)
        except ModelFileError:
            raise
        except Exception as error:
            model.set_weights(before)  # Keras stops in the middle.
            raise ModelFileError(
                f"{path}: does not fit {model.name} ({_first_line(error)})"
            ) from error
        return
    if path.suffix != ".keras":
        raise ModelFileError(
            f"{path}: weights must be a .keras or .weights.h5 file. For a PyTorch checkpoint run: "
            f"python -m porting convert {model.name} --source {path} --output {path.stem}.keras"
        )
    source = {layer.name: layer for layer in load_model(path).layers}
    assignments, problems = [], []
    for layer in model.layers:
        if not layer.weights:
            continue
        if layer.name not in source:
            problems.append(f"layer {layer.name} is not in the file")
            continue
        have = {weight.name: weight for weight in source[layer.name].weights}
        for weight in layer.weights:
            found = have.get(weight.name)
            if found is None or found.shape != weight.shape:
                shape = "no such weight" if found is None else f"shape {tuple(found.shape)}"
                problems.append(
                    f"{layer.name}/{weight.name}: the file has {shape}, "
                    f"the model wants {tuple(weight.shape)}"
                )
            else:
                assignments.append((weight, found))
    if problems:
        raise ModelFileError(
            f"{path} does not fit {model.name}:\n  "
            + "\n  ".join(problems[:20])
            + (f"\n  and {len(problems) - 20} more" if len(problems) > 20 else "")
            + "\nPass the file's own `classes`, `aux_heads` and `include_top`."
        )
    for weight, found in assignments:
        weight.assign(found)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
