"""Weights of a Keras file into a model, layer by layer name."""

import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from keras_alexnet.core.files import out_of_room
from keras_alexnet.errors import ModelFileError, one_line
from keras_alexnet.layers import keras
from keras_alexnet.models.archives import check_model_file, check_weights_file
from keras_alexnet.models.fast.quicken import quicken
from keras_alexnet.models.initialization import nothing_drawn

_MOST_LISTED = 20


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
        with nothing_drawn():
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except ModelFileError:
        raise
    except Exception as error:
        if (full := out_of_room(error)) is not None:
            raise ModelFileError(
                f"{path}: no room to unpack it in {tempfile.gettempdir()} ({full.strerror}); "
                "free some there"
            ) from error
        # Keras raises whatever its readers happen to raise on damaged input.
        raise ModelFileError(f"{path}: Keras cannot load it ({one_line(error)})") from error
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
                f"{path}: does not fit {model.name} ({one_line(error)})"
            ) from error
        return
    if path.suffix != ".keras":
        raise ModelFileError(
            f"{path}: weights must be a .keras or .weights.h5 file. For a PyTorch checkpoint run: "
            f"python -m porting convert {model.name} --source {path} --output {path.stem}.keras"
        )
    copy_by_name(
        load_model(path),
        model,
        what=str(path),
        hint="Pass the file's own `classes`, `aux_heads` and `include_top`.",
    )


def copy_by_name(
    source: Any,
    target: Any,
    *,
    may_differ: Collection[str] = (),
    leave: Callable[[Any], bool] = lambda layer: False,
    what: str = "the file",
    hint: str = "",
) -> list[str]:
    """Give a model the weights of the layers of another, which may have more, by their names.

    Layers that are named in `may_differ` keep their weights where the source has none that fit, and
    those names are returned; layers of the target for which `leave` is true keep theirs anyway.

    Raises:
        ModelFileError: The source lacks weights, or has them in other shapes; the target stays as
            it is. The message calls the source `what` and ends with the hint.
    """
    layers = {layer.name: layer for layer in source.layers}
    kept, assignments, problems = [], [], []
    for layer in target.layers:
        if not layer.weights or leave(layer):
            continue
        theirs = {w.name: w for w in layers[layer.name].weights} if layer.name in layers else {}
        pairs = [(own, theirs.get(own.name)) for own in layer.weights]
        wrong = [(own, w) for own, w in pairs if w is None or w.shape != own.shape]
        if not wrong:
            assignments += pairs
        elif layer.name in may_differ:
            kept.append(layer.name)
        elif layer.name not in layers:
            problems.append(f"layer {layer.name} is not in the file")
        else:
            problems += [
                f"{layer.name}/{own.name}: the file has "
                + ("no such weight" if w is None else f"shape {tuple(w.shape)}")
                + f", the model wants {tuple(own.shape)}"
                for own, w in wrong
            ]
    if problems:
        more = [f"and {len(problems) - _MOST_LISTED} more"] if len(problems) > _MOST_LISTED else []
        lines = [f"{what} does not fit {target.name}:", *problems[:_MOST_LISTED], *more]
        raise ModelFileError("\n  ".join(lines) + (f"\n{hint}" if hint else ""))
    copy_values((other for _, other in assignments), (own for own, _ in assignments))
    return kept


def copy_values(sources: Iterable[Any], targets: Iterable[Any]) -> None:
    """Give Keras variables the values of others, in memory of their own.

    On JAX `assign` alone would share it, and training or predicting with one model takes it away.
    """
    for source, target in zip(sources, targets, strict=True):
        target.assign(keras.ops.convert_to_numpy(source))
