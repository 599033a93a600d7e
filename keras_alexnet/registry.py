"""Models by name, in the manner of timm."""

import fnmatch
from collections.abc import Callable, Mapping
from typing import Any

from keras_alexnet.alexnet import AlexNet
from keras_alexnet.googlenet import GoogLeNet
from keras_alexnet.specs import find_spec

_CONSTRUCTORS: Mapping[str, Callable[..., Any]] = {"alexnet": AlexNet, "googlenet": GoogLeNet}


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of all models that match a shell pattern such as `"*net*"`, sorted."""
    return sorted(fnmatch.filter(_CONSTRUCTORS, pattern))


def create_model(name: str, /, **arguments: Any) -> Any:
    """Build a model by name.

    Args:
        name: One of `list_models()`.
        **arguments: Passed to the constructor as they are (`AlexNet`, `GoogLeNet`).

    Raises:
        UnknownModelError: No model has this name.
        ConfigurationError: An argument is out of range.
    """
    return _CONSTRUCTORS[find_spec(name).name](**arguments)
