"""Spec -> `keras.Model`: checks the arguments, assembles the graph, loads weights."""

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.errors import ConfigurationError
from keras_alexnet.layers import keras
from keras_alexnet.models.fast.quicken import quicken
from keras_alexnet.models.initialization import weights_will_follow
from keras_alexnet.models.rows import Settings, apply_rows
from keras_alexnet.models.weights import load_weights
from keras_alexnet.specs.preprocessing import Preprocessing
from keras_alexnet.specs.schema import DATA_FORMATS, AdaptiveAvgPool, ModelSpec
from keras_alexnet.specs.shapes import too_small
from keras_alexnet.specs.shared import TRANSFORM_INPUT_OFFSET, TRANSFORM_INPUT_SCALE

_POOLINGS = {
    "avg": keras.layers.GlobalAveragePooling2D,
    "max": keras.layers.GlobalMaxPooling2D,
}


def build(
    spec: ModelSpec,
    *,
    include_top: bool = True,
    weights: str | Path | None = None,
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: Any = None,
    dropout_rate: float | None = None,
    include_preprocessing: bool = False,
    name: str | None = None,
    data_format: str | None = None,
    dtype: Any = None,
    aux_heads: bool = False,
    transform_input: bool = False,
) -> Any:
    """Build a model from a spec; `create_model` documents the arguments."""
    data_format = resolve_data_format(data_format)
    _check_dtype(dtype)
    if pooling not in (None, *_POOLINGS):
        raise ConfigurationError(f"pooling must be None, 'avg' or 'max', got {pooling!r}")
    classes = spec.classes if classes is None else classes
    if not (isinstance(classes, int | np.integer) and classes >= 1):
        raise ConfigurationError(f"classes must be a positive integer, got {classes!r}")
    rate = spec.dropout_rate if dropout_rate is None else dropout_rate
    if not 0 <= rate < 1:
        raise ConfigurationError(f"dropout_rate must lie in [0, 1), got {dropout_rate!r}")
    if aux_heads and not spec.aux:
        raise ConfigurationError(f"{spec.name} has no auxiliary heads; leave aux_heads out")
    if aux_heads and not include_top:
        raise ConfigurationError("aux_heads=True needs include_top=True: they are classifiers too")
    if transform_input and not spec.transform_input:
        raise ConfigurationError(f"{spec.name} knows no transform_input; leave it out")

    settings = Settings(data_format, dtype, int(classes), rate, spec.init)
    shape = _image_shape(spec, input_tensor, input_shape, include_top, data_format)
    given_channels = include_preprocessing or transform_input
    _check_shape(spec, shape, data_format, include_top, aux_heads, given_channels)
    image = keras.Input(shape, name="image") if input_tensor is None else input_tensor
    preprocessing = spec.preprocessing if include_preprocessing else None
    x = input_layers(image, data_format, preprocessing, transform_input=transform_input)
    rows: dict[str, Any] = {}
    outputs: Any
    with contextlib.nullcontext() if weights is None else weights_will_follow():
        x = apply_rows(spec.body, x, settings, rows)
        if include_top:
            outputs = {"logits": apply_rows(spec.head, x, settings, rows)}
            for aux in spec.aux if aux_heads else ():
                outputs[aux.name] = apply_rows(aux.rows, rows[aux.reads], settings, rows)
    if include_top:
        outputs = _activate(outputs, classifier_activation, dtype)
        if not aux_heads:
            outputs = outputs["logits"]
    elif pooling is not None:
        outputs = _POOLINGS[pooling](name=f"{pooling}_pool", data_format=data_format, dtype=dtype)(
            x
        )
    else:
        outputs = x
    sources = [image] if input_tensor is None else keras.utils.get_source_inputs(input_tensor)
    # One input bare: Keras warns at each call of a model that was built with a list of one.
    model = keras.Model(
        sources[0] if len(sources) == 1 else sources, outputs, name=name or spec.name
    )
    quicken(model)
    if weights is not None:
        load_weights(model, weights)
    return model


def resolve_data_format(data_format: str | None) -> str:
    """Return `data_format`, or Keras' global setting for None."""
    resolved = keras.config.image_data_format() if data_format is None else data_format
    if resolved not in DATA_FORMATS:
        raise ConfigurationError(
            f"data_format must be 'channels_last', 'channels_first' or None, got {data_format!r}"
        )
    return resolved


def _check_dtype(dtype: Any) -> None:
    if dtype is None:
        return
    try:
        floating = "float" in keras.dtype_policies.get(dtype).compute_dtype
    except (TypeError, ValueError):
        floating = False
    if not floating:
        raise ConfigurationError(
            f"dtype must be a floating-point Keras dtype policy such as 'float32', 'bfloat16' or "
            f"'mixed_float16', got {dtype!r}"
        )


def _image_shape(
    spec: ModelSpec,
    input_tensor: Any,
    input_shape: Sequence[int | None] | None,
    include_top: bool,
    data_format: str,
) -> tuple[int | None, ...]:
    """Return the shape of one image that the arguments ask for."""
    if input_tensor is not None and not keras.utils.is_keras_tensor(input_tensor):
        raise ConfigurationError(
            f"input_tensor must be the output of keras.Input or of a Keras layer, "
            f"got {type(input_tensor).__name__}"
        )
    if input_shape is None and input_tensor is None:
        size = spec.default_size if include_top else (None, None)
        channels = spec.channels
        return (*size, channels) if data_format == "channels_last" else (channels, *size)
    if input_shape is None:
        return tuple(input_tensor.shape[1:])
    shape = tuple(input_shape) if isinstance(input_shape, Iterable) else (input_shape,)
    if input_tensor is not None and tuple(input_tensor.shape[1:]) != shape:
        raise ConfigurationError(
            f"input_shape {shape} contradicts input_tensor, whose shape is {input_tensor.shape[1:]}"
        )
    return shape


def _check_shape(
    spec: ModelSpec,
    shape: tuple[int | None, ...],
    data_format: str,
    include_top: bool,
    aux_heads: bool,
    given_channels: bool,
) -> None:
    """Refuse image shapes that the network cannot take."""
    last = data_format == "channels_last"
    order = "(height, width, channels)" if last else "(channels, height, width)"
    if len(shape) != 3:
        raise ConfigurationError(f"input_shape must be {order} for {data_format}, got {shape}")
    *size, channels = shape if last else (*shape[1:], shape[0])
    if channels is None or channels < 1 or (given_channels and channels != spec.channels):
        own = f"{spec.channels} ({spec.preprocessing.channels})"
        raise ConfigurationError(
            f"{spec.name} needs {own if given_channels else 'a fixed number of'} channels; "
            f"input_shape {shape} is read as {order} for {data_format}"
        )
    if problem := too_small(spec, size, aux_heads=aux_heads):
        raise ConfigurationError(
            f"{problem} (input_shape {shape}, {data_format}). Resize the images or pass a larger "
            "input_shape."
        )
    if None in size and include_top and _flattens_a_map(spec, aux_heads):
        raise ConfigurationError(
            f"{spec.name} flattens a feature map whose size follows the image's, so it needs a "
            f"fixed height and width in input_shape; got {shape}. Name them, or use "
            f"include_top=False."
        )


def _flattens_a_map(spec: ModelSpec, aux_heads: bool) -> bool:
    heads = [spec.head, *(aux.rows for aux in spec.aux if aux_heads)]
    return any(not any(isinstance(row, AdaptiveAvgPool) for row in rows) for rows in heads)


def input_layers(
    x: Any, data_format: str, preprocessing: Preprocessing | None, *, transform_input: bool
) -> Any:
    """Apply `preprocessing.normalize` as Keras layers, in float32 whatever the policy.

    Without a preprocessing, or `transform_input`, the images `x` stay what they are.
    """
    axis, vector = (-1, (1, 1, 3)) if data_format == "channels_last" else (1, (3, 1, 1))
    if preprocessing is not None:
        if preprocessing.channels == "BGR":
            x = keras.ops.flip(x, axis)
        # Normalization divides, as torchvision does; Rescaling would multiply by the rounded
        # 1/255. The variance is squared in float32: its root is then the exact deviation.
        if preprocessing.scale != 1:
            x = keras.layers.Normalization(
                axis=None,
                mean=0.0,
                variance=preprocessing.scale**2,
                name="preprocessing_scale",
                dtype="float32",
            )(x)
        if any(preprocessing.mean) or any(std != 1 for std in preprocessing.std):
            x = keras.layers.Normalization(
                axis=axis,
                mean=list(preprocessing.mean),
                variance=np.square(np.asarray(preprocessing.std, np.float32)).tolist(),
                name="preprocessing_normalize",
                dtype="float32",
            )(x)
    if transform_input:
        # Three axes, because Rescaling would place a plain vector by the global image format.
        x = keras.layers.Rescaling(
            np.reshape(TRANSFORM_INPUT_SCALE, vector).tolist(),
            np.reshape(TRANSFORM_INPUT_OFFSET, vector).tolist(),
            name="transform_input",
            dtype="float32",
        )(x)
    return x


def _activate(outputs: dict[str, Any], activation: Any, dtype: Any) -> dict[str, Any]:
    """Put the classifier activation behind the logits; they stay what they are for None."""
    if activation is None or keras.activations.get(activation) is keras.activations.linear:
        return outputs
    suffix = {"logits": "predictions"}
    return {
        key: keras.layers.Activation(
            activation, name=suffix.get(key, f"{key}_predictions"), dtype=dtype
        )(x)
        for key, x in outputs.items()
    }
