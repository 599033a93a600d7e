"""Models by name, in the manner of timm."""

import difflib
import fnmatch
from collections.abc import Callable, Mapping
from typing import Any

from keras_alexnet.alexnet import AlexNet
from keras_alexnet.errors import UnknownModelError
from keras_alexnet.googlenet import GoogLeNet

_CONSTRUCTORS: Mapping[str, Callable[..., Any]] = {"alexnet": AlexNet, "googlenet": GoogLeNet}


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of all models that match a shell pattern such as `"*net*"`, sorted."""
    return sorted(fnmatch.filter(_CONSTRUCTORS, pattern))


def create_model(name: str, **arguments: Any) -> Any:
    """Build a model by name.

    Args:
        name: One of `list_models()`.
        **arguments: Passed to the constructor as they are (`AlexNet`, `GoogLeNet`).

    Raises:
        UnknownModelError: No model has this name.
        ConfigurationError: An argument is out of range.
    """
    if name not in _CONSTRUCTORS:
        raise UnknownModelError(unknown_model_message(name, _CONSTRUCTORS))
    return _CONSTRUCTORS[name](**arguments)


def unknown_model_message(name: str, known: Mapping[str, Any]) -> str:
    """Say that a model is unknown, which are known, and which one may have been meant."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown model {name!r}.{hint} Known: {', '.join(sorted(known))}"
