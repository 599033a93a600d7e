"""Weights into a Keras model and out of it again: a checked bijection."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_alexnet.core.memory import as_array
from keras_alexnet.specs.schema import ModelSpec
from porting.checkpoints.files import as_tensors, to_numpy
from porting.errors import TransferError
from porting.weights.assignment import assign, blocks
from porting.weights.counterpart import Counterpart
from porting.weights.problems import list_problems
from porting.weights.recognition import Architecture, architecture_of, variables_of
from porting.weights.spec_tables import fit, identify
from porting.weights.table import Carried, Put

# What torch wants back and no variable of a model holds, by key: counters of batches, heads that
# inference leaves out, tables of indices. `.keras` files carry it beside the model.
_carried: "weakref.WeakKeyDictionary[Any, dict[str, np.ndarray]]" = weakref.WeakKeyDictionary()
# What of a model that was made of a graph corresponds to what, which its layers do not tell.
_counterparts: "weakref.WeakKeyDictionary[Any, Counterpart]" = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class TransferReport:
    """What a transfer did.

    Attributes:
        architecture: Name of the architecture, or empty where it has none.
        loaded: Keys whose values are now in the model.
        carried: Counters of batches and what else no variable holds, kept beside the model.
        ignored: Keys of heads that the model was built without.
    """

    architecture: str
    loaded: tuple[str, ...]
    carried: tuple[str, ...]
    ignored: tuple[str, ...]


def unfilled_model(
    spec: ModelSpec, *, aux_heads: bool, transform_input: bool = False, **options: Any
) -> Any:
    """Return a Keras model of a spec, its kernels and biases zeros, for weights that follow.

    Of the two options only those that the spec has are used; the others are `create_model`'s.
    """
    from keras_alexnet.models.constructors import create_model
    from keras_alexnet.models.initialization import weights_will_follow

    if spec.aux:
        options["aux_heads"] = aux_heads
    if spec.transform_input:
        options["transform_input"] = transform_input
    with weights_will_follow():
        return create_model(spec.name, **options)


def load_state_dict(model: Any, state_dict: Mapping[str, Any]) -> TransferReport:
    """Fill a Keras model with a torch state_dict.

    Args:
        model: A model of this package (`AlexNet`, `GoogLeNet`), one of `from_torch`, or one that
            `load_model` loaded from its file.
        state_dict: Key -> torch tensor or array; float16 and bfloat16 are widened exactly.

    Returns:
        What was loaded, carried and ignored.

    Raises:
        TransferError: Keys are missing, unexpected, or of a wrong shape, dtype or value. The
            message lists all problems, and the model is unchanged.

    Example:
        >>> from keras_alexnet import create_model
        >>> source, target = create_model("lenet5"), create_model("lenet5")
        >>> load_state_dict(target, to_state_dict(source, framework="numpy")).loaded[:2]
        ('features.0.weight', 'features.0.bias')
    """
    return load_arrays(model, state_dict, lambda: None)


def load_arrays(
    model: Any, state_dict: Mapping[str, Any], forget: Callable[[], None]
) -> TransferReport:
    """Do as `load_state_dict`, and call `forget` whenever a part of an array has been read."""
    arrays = {str(key): to_numpy(value) for key, value in state_dict.items()}
    if model in _counterparts:
        report = fill(variables_of(model), _counterparts[model], arrays, forget)
        carry(model, carried_by(model) | {key: arrays[key] for key in report.carried})
        return report
    architecture = architecture_of(model)
    try:
        report = fill(variables_of(model), architecture.counterpart, arrays, forget)
    except TransferError as error:
        text = _explain(architecture, error.problems, arrays)
        raise TransferError(text, error.problems) from None
    carry(model, {key: arrays[key] for key in report.carried})
    return replace(report, architecture=architecture.spec.name)


def fill(
    variables: Mapping[str, Any],
    counterpart: Counterpart,
    arrays: Mapping[str, np.ndarray],
    forget: Callable[[], None] = lambda: None,
) -> TransferReport:
    """Fill Keras variables, by `layer/variable`, with the arrays of a state_dict.

    `forget` is called whenever a part of an array has been read.

    Raises:
        TransferError: Keys are missing, unexpected, or of a wrong shape, dtype or value; no
            variable has changed.
    """
    puts, carried = counterpart.puts, counterpart.carried
    absent = set(counterpart.ignored)
    ignored = [key for key in arrays if key in absent]
    dtypes = {put.key: variables[put.variable].dtype for put in puts}
    problems = _problems(puts, carried, ignored, arrays, dtypes, forget)
    if problems:
        lines = ["the weights do not fit the variables:", *list_problems(problems)]
        raise TransferError("\n".join(lines), problems)
    for put in puts:
        assign(put, variables[put.variable], arrays[put.key], forget)
    beside = tuple(entry.key for entry in carried if entry.key in arrays)
    return TransferReport("", tuple(put.key for put in puts), beside, tuple(ignored))


def to_state_dict(model: Any, *, framework: str = "torch") -> dict[str, Any]:
    """Return a Keras model's weights as a torchvision-keyed state_dict.

    Args:
        model: A model of this package, or one loaded from its file.
        framework: `"torch"` for tensors, `"numpy"` for arrays without a need for torch.

    Returns:
        Key -> tensor or array in the order of torchvision's own state_dict. Counters of batches,
        and what inference does not compute with, are those that `load_state_dict`, `from_torch` or
        `load_model` brought; counters are else 0.

    Raises:
        TransferError: The model is none of the known architectures, and neither `from_torch` nor
            `load_model` made it.
        ValueError: `framework` has another value.

    Example:
        >>> from keras_alexnet import create_model
        >>> weights = to_state_dict(create_model("lenet5"), framework="numpy")
        >>> weights["features.0.weight"].shape  # (O, I, H, W)
        (6, 1, 5, 5)
    """
    if framework not in ("torch", "numpy"):
        raise ValueError(f"framework must be 'torch' or 'numpy', got {framework!r}")
    variables = variables_of(model)
    carried = carried_by(model)
    arrays: dict[str, np.ndarray] = {}
    for entry in counterpart_of(model).table:
        if isinstance(entry, Carried):
            if entry.key not in carried and not entry.counter:
                raise TransferError(
                    f"{entry.key} is not kept beside this model; load its file with "
                    "porting.load_model"
                )
            arrays[entry.key] = carried.get(entry.key, np.array(0, np.int64))
        else:
            arrays[entry.key] = entry.to_torch(as_array(variables[entry.variable], widened=True))
    # Copies, which stay as they are when the model is trained on.
    if framework == "torch":
        return as_tensors(arrays)
    return {key: np.array(array, order="C") for key, array in arrays.items()}


def carry(model: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Keep what no variable holds beside a model, for `to_state_dict`."""
    _carried[model] = {key: np.array(array) for key, array in arrays.items()}


def carried_by(model: Any) -> dict[str, np.ndarray]:
    """Return what is kept beside a model."""
    return dict(_carried.get(model, {}))


def set_counterpart(model: Any, counterpart: Counterpart) -> None:
    """Say what of a model corresponds to what of a torch network, where its layers do not."""
    _counterparts[model] = counterpart


def counterpart_of(model: Any) -> Counterpart:
    """Return what of a model corresponds to what of a torch network.

    Raises:
        TransferError: Nobody has said so, and it is none of the known architectures.
    """
    known = _counterparts.get(model)
    return architecture_of(model).counterpart if known is None else known


def _problems(
    puts: Sequence[Put],
    carried: Sequence[Carried],
    ignored: Sequence[str],
    arrays: Mapping[str, np.ndarray],
    dtypes: Mapping[str, str],
    forget: Callable[[], None],
) -> dict[str, list[str]]:
    """Return kind of problem -> keys, with what was found and what was wanted."""
    problems: dict[str, list[str]] = {
        kind: [] for kind in ("missing", "wrong shape", "wrong dtype", "not finite", "unexpected")
    }
    for put in puts:
        array = arrays.get(put.key)
        if array is None:
            problems["missing"].append(put.key)
        elif array.shape != put.shape:
            problems["wrong shape"].append(f"{put.key} is {array.shape}, wanted {put.shape}")
        elif array.dtype.kind != "f":
            problems["wrong dtype"].append(f"{put.key} is {array.dtype}, wanted floating point")
        elif lost := _not_finite(array, dtypes[put.key], forget):
            problems["not finite"].append(f"{put.key} holds {lost} NaN or infinite values")
    for key in (entry.key for entry in carried if entry.counter):
        value = arrays.get(key)
        if value is not None and (value.shape or value.dtype.kind not in "iu" or value < 0):
            found = f"{value.dtype} of shape {value.shape}" if value.shape else str(value)
            problems["wrong dtype"].append(f"{key} is {found}, wanted a whole number from 0 up")
    known = {put.key for put in puts} | {entry.key for entry in carried} | set(ignored)
    problems["unexpected"] = [key for key in arrays if key not in known]
    return {kind: keys for kind, keys in problems.items() if keys}


def _not_finite(array: np.ndarray, dtype: str, forget: Callable[[], None]) -> int:
    """Count the values that a variable of `dtype` could not hold."""
    # bfloat16 has float32's range.
    target = np.float16 if dtype == "float16" else np.float32
    lost, array = 0, np.atleast_1d(array)
    for block in blocks(array):
        with np.errstate(over="ignore"):
            lost += int((~np.isfinite(array[block].astype(target, copy=False))).sum())
        forget()
    return lost


def _explain(
    architecture: Architecture,
    problems: Mapping[str, Sequence[str]],
    arrays: Mapping[str, np.ndarray],
) -> str:
    shapes = {key: array.shape for key, array in arrays.items()}
    own = fit(architecture.spec, shapes, size=architecture.size)
    lines = [f"the weights do not fit {architecture.spec.name}:", *list_problems(problems)]
    if own.classes not in (None, architecture.classes):
        lines.append(
            f"The file's head has {own.classes} classes, the model {architecture.classes}: "
            f"build the model with classes={own.classes}."
        )
    if architecture.aux_heads and not own.aux_heads:
        lines.append("The file has no auxiliary heads: build the model with aux_heads=False.")
    if own.problems:
        lines.append(suggest(shapes))
    return "\n".join(lines)


def suggest(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Say in a sentence which known architecture a file fits."""
    best = identify(shapes)[0]
    if best.problems == 0:
        return f"The keys and shapes fit {best.title}."
    return "The keys and shapes fit none of the known models."
