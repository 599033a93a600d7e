"""Functions of the user's own files, `FILE.py:FUNCTION`, which are run as they are."""

import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_alexnet.core.backend import require
from porting.errors import UsageError

_MODULE = "porting_user_code"


def check_function(text: str) -> str:
    """Return `FILE.py:FUNCTION` with an absolute path.

    Raises:
        UsageError: The text has another form, or there is no such file.
    """
    file, _, function = text.rpartition(":")
    if not (file.endswith(".py") and function.isidentifier()):
        raise UsageError(f"{text!r} is not of the form FILE.py:FUNCTION")
    if not Path(file).is_file():
        raise UsageError(f"{file}: no such Python file")
    return f"{Path(file).resolve()}:{function}"


def call_function(
    text: str, *arguments: Any, optional: Mapping[str, Any] | None = None, **options: Any
) -> Any:
    """Return the network that a user's function makes, in inference mode.

    Of the `optional` arguments it gets those that it has parameters for.

    Raises:
        UsageError: The function is not there, failed, or returned no `torch.nn.Module`.
    """
    file, _, function = text.rpartition(":")
    spec = importlib.util.spec_from_file_location(_MODULE, file)
    assert spec is not None  # the name ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
        call = getattr(module, function, None)
        if not callable(call):
            raise UsageError(f"{file} has no function {function!r}")
        accepted = inspect.signature(call).parameters
        given = {name: value for name, value in (optional or {}).items() if name in accepted}
        net = call(*arguments, **options, **given)
    except UsageError:
        raise
    except Exception as error:
        # Whatever the user's file happens to raise.
        raise UsageError(f"{text} failed: {type(error).__name__}: {error}") from error
    if not isinstance(net, require("torch").nn.Module):
        raise UsageError(f"{text} returned {type(net).__name__}, wanted a torch.nn.Module")
    return net.eval()
