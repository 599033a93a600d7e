"""The tensors of a model that explanations are about: its scores, its maps, its features."""

from typing import Any

import numpy as np

from keras_alexnet.core.keras_internals import without_tensorflow
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.layers import keras
from keras_alexnet.models.interface import (
    is_preprocessing,
    last_activation,
    main_output,
    maker,
)

_layers = keras.layers


def explained_scores(model: Any) -> tuple[Any, str]:
    """Return the Keras tensor (N, classes) that is explained, and what its numbers are called.

    They are logits where the model has them, before its softmax if need be: a probability also
    changes with all other classes' logits, and hardly where it is near 1.
    """
    output = main_output(model)
    activation = last_activation(model, output)
    if activation != "softmax":
        return output, "logit" if activation == "linear" else f"output of {activation}"
    layer = maker(model, output)
    if isinstance(layer, keras.Model):  # a model in a model keeps its softmax
        return output, "probability"
    if isinstance(layer, _layers.Softmax | _layers.Activation):
        return layer.input, "logit"
    with without_tensorflow():  # which Keras would import for the configuration
        copy = type(layer).from_config({**layer.get_config(), "activation": "linear"})
    logits = copy(layer.input)
    copy.set_weights(layer.get_weights())
    return logits, "logit"


def map_layer(network: Any) -> str:
    """Return the last layer with feature maps, which is no pooling, for Grad-CAM.

    Behind it stand the classifier and what makes numbers of maps. The maps of an auxiliary head
    are none of `network`, which holds what its scores depend on.

    Raises:
        ConfigurationError: There are none.
    """
    for layer in reversed(network.layers):
        if _has_maps(layer):
            return layer.name
    raise ConfigurationError(
        f"{network.name} has no feature maps (N, h, w, C), so that Grad-CAM and maps have nothing "
        "to show; explain it by integrated-gradients and occlusion"
    )


def _has_maps(layer: Any) -> bool:
    """Return whether a layer's own output is maps of more than a pixel, and no pooled ones."""
    if isinstance(layer, _layers.InputLayer) or is_preprocessing(layer):
        return False
    shape = getattr(layer.output, "shape", ())
    pooled = "Pooling" in type(layer).__name__
    return len(shape) == 4 and not pooled and all(n is None or n > 1 for n in shape[1:])


def first_convolution(network: Any) -> str:
    """Return the layer of two-dimensional kernels that stands nearest to the image.

    Raises:
        ConfigurationError: There is none.
    """
    for layer in network.layers:
        if isinstance(layer, _layers.Conv2D):
            return layer.name
    raise ConfigurationError(
        f"{network.name} has no Conv2D layer, so that it has no filters to show"
    )


def filters(layer: Any, channels: str) -> np.ndarray:
    """Return a convolution's kernels as pictures, each of full contrast and grey where it is 0.

    Args:
        layer: A convolution that reads an image.
        channels: What the model reads: `"RGB"`, `"BGR"` or `"L"`.

    Returns:
        float32 (filters, h, w, C) in [0, 1], in the order R, G, B or grey.

    Raises:
        ConfigurationError: The layer reads something else than these channels.
    """
    kernels = keras.ops.convert_to_numpy(layer.kernel)  # (h, w, C, filters)
    if kernels.shape[2] != len(channels):
        raise ConfigurationError(
            f"the kernels of {layer.name} read {kernels.shape[2]} channels, not those of an image "
            f"({channels}), so that they are no pictures"
        )
    pictures = kernels.transpose(3, 0, 1, 2).astype(np.float32)
    if channels == "BGR":
        pictures = pictures[..., ::-1]
    largest = np.abs(pictures).max(axis=(1, 2, 3), keepdims=True)
    return 0.5 + pictures / np.maximum(2 * largest, np.finfo(np.float32).tiny)


def classifier_input(network: Any) -> Any:
    """Return the Keras tensor that the last layer with a kernel reads: a model's features.

    Raises:
        ConfigurationError: No layer has a kernel.
    """
    for layer in reversed(network.layers):
        if hasattr(layer, "kernel"):
            return layer.input
    raise ConfigurationError(
        f"{network.name} has no classifier, a layer with a kernel, whose input are features"
    )
