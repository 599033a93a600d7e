"""Libraries of networks, and what a process of its own says of them."""

import dataclasses
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from keras_alexnet.core.backend import installed, pip_line, require
from keras_alexnet.core.children import call_child, enter_child
from keras_alexnet.errors import MissingDependencyError
from porting.torch_side import timm_zoo, torchvision_zoo
from porting.torch_side.weights_info import WeightsInfo

# Package -> the module that has `names`, `build_network`, `adapted`, `has_aux_heads`
# and `info` of it.
ZOOS: dict[str, ModuleType] = {"torchvision": torchvision_zoo, "timm": timm_zoo}

_CHILD = "porting.torch_side.zoos"
_TIMEOUT = 300.0
Ask = Callable[[dict[str, Any]], Any]


def describe(library: str, model: str, weights: str, *, ask: Ask | None = None) -> WeightsInfo:
    """Return what a library says of `weights`, asked in a process of its own.

    `weights` is what the library calls them, or `"DEFAULT"`. A child that has imported it already
    can be the one to `ask`, which has `answer` do so.

    Raises:
        UsageError: The library knows no such network or weights.
        MissingDependencyError: It is not installed.
    """
    _check_installed(library, f"{model} and its weights {weights!r}")
    job = {"library": library, "model": model, "weights": weights}
    return WeightsInfo.from_json((ask or _asked)(job))


def names(library: str, pattern: str) -> list[str]:
    """Return the networks of a library that match a pattern such as `res*`.

    Raises:
        MissingDependencyError: It is not installed.
    """
    _check_installed(library, f"{library}:{pattern}")
    return list(_asked({"library": library, "pattern": pattern}))


def _check_installed(library: str, what: str) -> None:
    if not installed(library):
        raise MissingDependencyError(
            f"{library} is needed for {what}. Install it with: {pip_line(library)}"
        )


_asked: Ask = partial(call_child, _CHILD, timeout=_TIMEOUT)


def answer(job: dict[str, Any]) -> Any:
    """Answer a question of `describe` or `names` in a process that may import the library."""
    require("torchvision")  # before anything that might load another LLVM
    zoo = ZOOS[job["library"]]
    if "pattern" in job:
        return zoo.names(job["pattern"])
    return dataclasses.asdict(zoo.info(job["model"], job["weights"]))


if __name__ == "__main__":
    enter_child(answer)
