"""Checkpoints into `.keras` files and back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.core.children import enter_child
from keras_alexnet.core.files import check_output
from keras_alexnet.models.record import read_arrays, read_record, save_model
from keras_alexnet.specs.preprocessing import damaged
from porting.checkpoints.files import SUFFIXES, write_checkpoint
from porting.checkpoints.mapped import MappedFile
from porting.conversion.networks import convert_network
from porting.conversion.provenance import record_of
from porting.conversion.sources import Source, open_source
from porting.errors import TransferError, UsageError
from porting.torch_side.targets import Target
from porting.weights.counterpart import Counterpart
from porting.weights.table import Shape
from porting.weights.transfer import (
    carry,
    load_arrays,
    set_counterpart,
    to_state_dict,
    unfilled_model,
)


def build_from_source(
    source: Source,
    *,
    include_preprocessing: bool = False,
    data_format: str | None = None,
    dtype: str | None = None,
    aux_heads: bool = False,
    input_shape: Sequence[int | None] | None = None,
) -> Any:
    """Return a Keras model with the weights of a source; arguments as in the constructors.

    Raises:
        TransferError: A weight is missing, misshapen or not finite.
        UsageError: `aux_heads` is asked for and the file has none.
    """
    if aux_heads and not source.fit.aux_heads:
        raise UsageError(f"{source.path} holds no auxiliary heads")
    model = unfilled_model(
        source.spec,
        classes=source.classes,
        include_preprocessing=include_preprocessing,
        data_format=data_format,
        dtype=dtype,
        input_shape=input_shape,
        aux_heads=aux_heads,
        transform_input=source.transform_input,
    )
    load_arrays(model, source.checkpoint.arrays, MappedFile(source.path).forget)
    return model


def from_torchvision(
    name: str, weights: str | Path = "IMAGENET1K_V1", *, aux_heads: bool = False, **options: Any
) -> Any:
    """Return a Keras model with torchvision's pretrained weights, downloaded on first use.

    Args:
        name: `"alexnet"` or `"googlenet"`.
        weights: Name of the weights in torchvision, or a file of them.
        aux_heads: Whether GoogLeNet's auxiliary classifiers are outputs too.
        **options: `include_preprocessing`, `data_format`, `dtype`, `input_shape`.

    Raises:
        PortingError: As `open_source`.
    """
    return build_from_source(open_source(name, weights), aux_heads=aux_heads, **options)


def convert(
    name: str,
    source: str | Path | None,
    output: str | Path,
    *,
    classes: int | None = None,
    include_preprocessing: bool = False,
    data_format: str | None = None,
    dtype: str | None = None,
    aux_heads: bool = False,
    transform_input: bool | None = None,
    input_size: tuple[int | None, int | None] | None = None,
    input_shapes: Sequence[Shape] | None = None,
    labels: Sequence[str] | None = None,
    allow_pickle: bool = False,
    which: str | None = None,
) -> dict[str, Any]:
    """Convert a checkpoint into a `.keras` file that carries its origin.

    Args:
        name: Architecture of this package; or any torch network of images, as `torchvision:NAME` or
            `FILE.py:FUNCTION`, which is run and returns a `torch.nn.Module`. Of these the model's
            logits are compared with torch's before the file gets its name.
        source: A weights file, or the name of torchvision weights. None stands for the weights that
            the user's function itself has given its module.
        output: File to write, ending in `.keras`; complete or not there.
        classes: Number of classes that the file must have, or None.
        include_preprocessing: Whether the saved model takes RGB (or grey) 0..255.
        data_format: Keras data format of the saved model, or None for the global setting.
        dtype: Keras dtype policy of the saved model, or None for the global one.
        aux_heads: Whether to keep the auxiliary classifiers.
        transform_input: As in `open_source`.
        input_size: Height and width in pixels, None for any; by default the architecture's.
        input_shapes: Channels, height and width, for a `FILE.py:FUNCTION`; of several inputs the
            shape of each.
        labels: Class names to store; torchvision's weights bring their own.
        allow_pickle: As in `open_source`.
        which: As in `open_source`.

    Returns:
        The record that the file carries.

    Raises:
        PortingError: As `open_source`.
        KerasAlexNetError: An option is out of range, or the output cannot be written.

    Example:
        >>> import tempfile
        >>> from porting import seeded_state_dict, write_checkpoint
        >>> folder = tempfile.mkdtemp()
        >>> write_checkpoint(f"{folder}/mine.npz", seeded_state_dict("lenet5"))
        >>> record = convert("lenet5", f"{folder}/mine.npz", f"{folder}/mine.keras")
        >>> record["model"]["classes"]
        10
    """
    output = Path(output)
    if output.suffix != ".keras":
        raise UsageError(f"{output}: a Keras model file must be named *.keras")
    check_output(output)
    if (target := Target.parse(name)) is not None:
        if aux_heads or transform_input is not None:
            raise UsageError(
                f"{name} is converted as its own code computes in inference; leave aux_heads and "
                "transform_input out"
            )
        return convert_network(
            target,
            source,
            output,
            labels=labels,
            data_format=data_format,
            dtype=dtype,
            include_preprocessing=include_preprocessing,
            classes=classes,
            size=input_size,
            shapes=input_shapes,
            allow_pickle=allow_pickle,
            which=which,
        )
    if source is None or input_shapes is not None:
        raise UsageError(
            f"{name} needs a source of weights, and an input size rather than an input shape"
        )
    height, width = input_size or (None, None)
    opened = open_source(
        name,
        source,
        classes=classes,
        transform_input=transform_input,
        size=None if height is None or width is None else (height, width),
        aux_heads=aux_heads,
        allow_pickle=allow_pickle,
        which=which,
    )
    if labels is None and opened.info is not None:
        labels = opened.info.labels
    if labels is not None and len(labels) != opened.classes:
        raise UsageError(f"{len(labels)} labels were given for {opened.classes} classes")
    shape = None
    if input_size is not None:
        from keras_alexnet.models.builder import resolve_data_format

        first = resolve_data_format(data_format) == "channels_first"
        channels = opened.spec.channels
        shape = (channels, *input_size) if first else (*input_size, channels)
    model = build_from_source(
        opened,
        include_preprocessing=include_preprocessing,
        data_format=data_format,
        dtype=dtype,
        aux_heads=aux_heads,
        input_shape=shape,
    )
    record = record_of(opened, model, include_preprocessing, aux_heads, labels)
    del opened  # as large as the model; it is not needed beside what saving takes
    save_model(model, output, record)
    return record


def load_model(path: str | Path) -> Any:
    """Load a `.keras` file together with what `to_state_dict` needs of its record.

    Raises:
        ModelFileError: The file is missing or damaged.
    """
    from keras_alexnet.models import weights

    model = weights.load_model(path)
    record = read_record(path) or {}
    counters = record.get("num_batches_tracked", {})
    carry(model, {k: np.array(n, np.int64) for k, n in counters.items()} | read_arrays(path))
    if "counterpart" in record:
        try:
            set_counterpart(model, Counterpart.from_json(record["counterpart"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise damaged("counterpart", error, "what `porting convert` writes") from error
    return model


def export(path: str | Path, output: str | Path, *, dtype: str = "float32") -> int:
    """Write the weights of a `.keras` file as a torch state_dict.

    Args:
        path: The `.keras` file.
        output: File to write: `.pth`, `.pt`, `.safetensors` or `.npz`; complete or not there.
        dtype: `"float32"` or `"float16"`, of the weights in the file.

    Returns:
        Number of tensors written.

    Raises:
        ModelFileError: The file is missing or damaged.
        TransferError: The model is none of the known architectures.
        UsageError: The suffix of `output` names no known format, or `dtype` is another.
    """
    if dtype not in ("float32", "float16"):
        raise UsageError(f"dtype must be float32 or float16, got {dtype!r}")
    if Path(output).suffix.lower() not in SUFFIXES:
        raise UsageError(f"{output}: unknown kind of weights file; known: {', '.join(SUFFIXES)}")
    check_output(output)
    arrays = {
        key: array.astype(dtype) if array.dtype.kind == "f" else array
        for key, array in to_state_dict(load_model(path), framework="numpy").items()
    }
    if any(array.dtype.kind == "f" and not np.isfinite(array).all() for array in arrays.values()):
        raise TransferError(f"{path}: weights are not finite as {dtype}")
    write_checkpoint(output, arrays)
    return len(arrays)


if __name__ == "__main__":
    enter_child(lambda job: convert(**job))
