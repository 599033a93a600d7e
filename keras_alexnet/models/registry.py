"""Models by name, in the manner of timm."""

import fnmatch
from typing import Any

from keras_alexnet.models.builder import build
from keras_alexnet.specs import SPECS, find_spec


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of all models that match a shell pattern such as `"*net*"`, sorted."""
    return sorted(fnmatch.filter(SPECS, pattern))


def create_model(name: str, /, **arguments: Any) -> Any:
    """Build a model by name.

    Args:
        name: One of `list_models()`.
        **arguments: Those of `AlexNet` and `GoogLeNet`, for every model. What is left out follows
            the model: its number of classes, its input shape, its dropout rate. `aux_heads` is for
            the GoogLeNets, `transform_input` for torchvision's alone. `include_preprocessing` puts
            the model's own normalisation in: it always takes R, G, B of 0..255 (grey for LeNet-5),
            Caffe's models too.

    Returns:
        A functional `keras.Model`: images to logits (N, classes), or to a dict of them with
        `aux_heads`. Networks without adaptive pooling before their dense layers fit weights of one
        image size only.

    Raises:
        UnknownModelError: No model has this name.
        ConfigurationError: An argument is out of range.
    """
    return build(find_spec(name), **arguments)
