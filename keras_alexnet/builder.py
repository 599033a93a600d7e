"""Spec -> `keras.Model`: checks the arguments, assembles the graph, loads weights."""

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet import layers
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.layers import Settings, keras
from keras_alexnet.preprocessing import (
    IMAGENET,
    TRANSFORM_INPUT_OFFSET,
    TRANSFORM_INPUT_SCALE,
    Preprocessing,
)
from keras_alexnet.specs import DATA_FORMATS, ModelSpec
from keras_alexnet.weights import load_weights

_POOLINGS = {
    "avg": keras.layers.GlobalAveragePooling2D,
    "max": keras.layers.GlobalMaxPooling2D,
}


def build(
    spec: ModelSpec,
    *,
    include_top: bool,
    weights: str | Path | None,
    input_tensor: Any,
    input_shape: Sequence[int | None] | None,
    pooling: str | None,
    classes: int,
    classifier_activation: Any,
    dropout_rate: float | None,
    include_preprocessing: bool,
    name: str | None,
    data_format: str | None,
    dtype: Any,
    aux_heads: bool = False,
    transform_input: bool = False,
) -> Any:
    """Build a model from a spec; the public constructors document the arguments."""
    data_format = resolve_data_format(data_format)
    _check_dtype(dtype)
    if pooling not in (None, *_POOLINGS):
        raise ConfigurationError(f"pooling must be None, 'avg' or 'max', got {pooling!r}")
    if not (isinstance(classes, int | np.integer) and classes >= 1):
        raise ConfigurationError(f"classes must be a positive integer, got {classes!r}")
    rate = spec.dropout_rate if dropout_rate is None else dropout_rate
    if not 0 <= rate < 1:
        raise ConfigurationError(f"dropout_rate must lie in [0, 1), got {dropout_rate!r}")
    if aux_heads and not include_top:
        raise ConfigurationError("aux_heads=True needs include_top=True: they are classifiers too")

    settings = Settings(data_format, dtype, int(classes), rate, spec.init)
    rgb = include_preprocessing or transform_input
    image = _input(spec, input_tensor, input_shape, include_top, rgb, data_format)
    x = _input_layers(
        image, data_format, IMAGENET if include_preprocessing else None, transform_input
    )
    rows: dict[str, Any] = {}
    outputs: Any
    drawing = contextlib.nullcontext() if weights is None else layers.weights_will_follow()
    with drawing:
        x = layers.apply_rows(spec.body, x, settings, rows)
        if include_top:
            outputs = {"logits": layers.apply_rows(spec.head, x, settings, rows)}
            for aux in spec.aux if aux_heads else ():
                outputs[aux.name] = layers.apply_rows(aux.rows, rows[aux.reads], settings, rows)
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


def _input(
    spec: ModelSpec,
    input_tensor: Any,
    input_shape: Sequence[int | None] | None,
    include_top: bool,
    rgb: bool,
    data_format: str,
) -> Any:
    """Return the checked Keras tensor that the network starts from."""
    if input_tensor is not None and not keras.utils.is_keras_tensor(input_tensor):
        raise ConfigurationError(
            f"input_tensor must be the output of keras.Input or of a Keras layer, "
            f"got {type(input_tensor).__name__}"
        )
    if input_shape is not None:
        shape = tuple(input_shape) if isinstance(input_shape, Iterable) else (input_shape,)
    elif input_tensor is not None:
        shape = tuple(input_tensor.shape[1:])
    else:
        size = spec.default_size if include_top else None
        shape = (size, size, 3) if data_format == "channels_last" else (3, size, size)
    order = (
        "(height, width, channels)"
        if data_format == "channels_last"
        else "(channels, height, width)"
    )
    if len(shape) != 3:
        raise ConfigurationError(f"input_shape must be {order} for {data_format}, got {shape}")
    if input_tensor is not None and tuple(input_tensor.shape[1:]) != shape:
        raise ConfigurationError(
            f"input_shape {shape} contradicts input_tensor, whose shape is {input_tensor.shape[1:]}"
        )
    *size_hw, channels = shape if data_format == "channels_last" else (*shape[1:], shape[0])
    wanted = 3 if rgb else channels
    if channels is None or channels < 1 or channels != wanted:
        raise ConfigurationError(
            f"{spec.name} needs {'3 (RGB)' if rgb else 'a fixed number of'} "
            f"channels; input_shape {shape} is read as {order} for {data_format}"
        )
    if any(n is not None and n < spec.min_size for n in size_hw):
        raise ConfigurationError(
            f"{spec.name} needs images of at least {spec.min_size} x {spec.min_size} pixels, as "
            f"its feature map vanishes below; got {size_hw[0]} x {size_hw[1]} "
            f"(input_shape {shape}, {data_format}). Resize the images or pass a larger input_shape."
        )
    return keras.Input(shape, name="image") if input_tensor is None else input_tensor


def _input_layers(
    x: Any, data_format: str, preprocessing: Preprocessing | None, transform_input: bool
) -> Any:
    """Apply `preprocessing.normalize` as Keras layers, in float32 whatever the policy."""
    axis, vector = (-1, (1, 1, 3)) if data_format == "channels_last" else (1, (3, 1, 1))
    if preprocessing is not None:
        # Normalization divides, as torchvision does; Rescaling would multiply by the rounded
        # 1/255. The variance is squared in float32: its root is then the exact deviation.
        x = keras.layers.Normalization(
            axis=None, mean=0.0, variance=255.0**2, name="preprocessing_scale", dtype="float32"
        )(x)
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
