"""The import gate: which framework is loaded, in which order, and what is missing.

Importing this module loads no framework. `load_keras()` settles the Keras backend and imports
Keras; `require()` imports an optional package or names the `pip install` line that provides it.
"""

import importlib
import importlib.util
import json
import os
import platform
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from keras_alexnet.core.start_up_notes import import_tensorflow
from keras_alexnet.errors import ConfigurationError, ImportOrderError, MissingDependencyError

# In order of preference where the user expressed none; also the order of reports.
BACKENDS = ("tensorflow", "torch", "jax")

# Import name -> what to give to `pip install`, where that is not the same.
_DISTRIBUTIONS = {
    "torch": "torch torchvision",
    "torchvision": "torch torchvision",
    "jinja2": "jinja2 matplotlib",
    "matplotlib": "jinja2 matplotlib",
    "sklearn": "scikit-learn",
    "cv2": "opencv-python-headless",
    "google_crc32c": "google-crc32c",
    "upath": "universal-pathlib",
    "google": "protobuf",
    "ray": "'ray[data]' pyarrow",
    "pyarrow": "'ray[data]' pyarrow",
}

# Both ship their own LLVM and abort the process when they come after TensorFlow's
# ("CommandLine Error: Option ... registered more than once").
_BEFORE_TENSORFLOW = ("torchvision", "triton")


def installed(package: str) -> bool:
    """Say whether `package` can be imported, without importing it."""
    return package in sys.modules or importlib.util.find_spec(package) is not None


def installed_backends() -> tuple[str, ...]:
    """Return the Keras backends that this environment has, in the order of `BACKENDS`."""
    return tuple(name for name in BACKENDS if installed(name))


def pip_line(package: str) -> str:
    """Return the command that installs a package, torch together with the matching torchvision."""
    top = package.partition(".")[0]
    return f"pip install {_DISTRIBUTIONS.get(top, top)}"


def check_installed(package: str) -> None:
    """Check that an optional package is there, for a child that will import it.

    Raises:
        MissingDependencyError: It is not installed.
    """
    if not installed(package):
        raise _missing(package)


def _missing(package: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"{package} is needed here and is not installed. Install it with: {pip_line(package)}"
    )


def require(package: str) -> ModuleType:
    """Import an optional package by its import name.

    Raises:
        MissingDependencyError: It is not installed.
        ImportOrderError: It would crash the process because TensorFlow was imported before it.
    """
    if package in _BEFORE_TENSORFLOW and package not in sys.modules and "tensorflow" in sys.modules:
        raise ImportOrderError(
            f"{package} cannot be imported after TensorFlow in one process: both bring an LLVM of "
            f"their own and the process would abort. Import {package} before Keras or TensorFlow, "
            "or run this part in a process of its own with KERAS_BACKEND=torch."
        )
    try:
        if package == "tensorflow" and package not in sys.modules:
            return import_tensorflow()
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package.partition(".")[0]:
            raise
        raise _missing(package) from error
    except RuntimeError as error:
        if package == "torchvision" and "torchvision::nms" in str(error):
            raise MissingDependencyError(
                "torchvision does not match the installed torch (operator torchvision::nms is "
                "missing): they came from different builds. Reinstall both together with: "
                "pip install --force-reinstall torch torchvision"
            ) from error
        raise


_without_wrappers = False


def load_keras() -> Any:
    """Import Keras on the backend that the user chose, or on the first one installed.

    The choice is `KERAS_BACKEND`, else the `backend` of `~/.keras/keras.json`, else the first of
    `BACKENDS` that is installed. Keras alone would insist on TensorFlow in the last case. On JAX,
    XLA is told what suits a CPU, see `xla.settle_xla`.

    Raises:
        ConfigurationError: The chosen backend is none of `BACKENDS`.
        MissingDependencyError: The chosen backend, or every backend, is missing.
    """
    keras = sys.modules.get("keras") or _import_keras()
    if keras.backend.backend() == "jax":
        from keras_alexnet.core.xla import settle_xla

        settle_xla()
    return keras


def chosen_backend() -> str:
    """Return the backend that Keras runs on, or would run on once `load_keras` imports it.

    Raises:
        ConfigurationError: The chosen backend is none of `BACKENDS`.
        MissingDependencyError: The chosen backend, or every backend, is missing.
    """
    if "keras" in sys.modules:
        return sys.modules["keras"].backend.backend()
    chosen, origin = _chosen_backend()
    available = installed_backends()
    if chosen is None:
        if not available:
            raise MissingDependencyError(
                "Keras needs a backend and none of tensorflow, torch and jax is installed. "
                f"Install one with: {pip_line('tensorflow')} (or {pip_line('torch')}, "
                f"or {pip_line('jax')})"
            )
        return available[0]
    if chosen not in BACKENDS:
        raise ConfigurationError(
            f"unknown Keras backend {chosen!r}, chosen by {origin}; this package runs on "
            f"{', '.join(BACKENDS)}"
        )
    if chosen not in available:
        others = ", ".join(f"KERAS_BACKEND={name}" for name in available)
        raise MissingDependencyError(
            f"The Keras backend {chosen!r}, chosen by {origin}, is not installed. "
            f"Install it with: {pip_line(chosen)}" + (f", or set {others}" if others else "")
        )
    return chosen


def _import_keras() -> Any:
    backend = os.environ["KERAS_BACKEND"] = chosen_backend()
    if backend == "tensorflow":
        # oneDNN brings TensorFlow's CPU convolutions in channels_first. TensorFlow itself switches
        # it on by default for some processors of this kind only.
        if platform.machine().lower() in ("x86_64", "amd64"):
            os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
        require("tensorflow")
    hidden = _without_wrappers and "sklearn" not in sys.modules
    if hidden:
        sys.modules["sklearn"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("keras")
    finally:
        if hidden:
            del sys.modules["sklearn"]


def leave_wrappers_out() -> None:
    """Let this process import Keras without scikit-learn, which its wrappers for that alone need.

    For commands and children, which have no use for them: it takes one to two seconds.
    """
    global _without_wrappers  # noqa: PLW0603  (a process is a command or not)
    _without_wrappers = True


def choose_backend(name: str | None) -> None:
    """Choose the Keras backend of this process, as `--backend` does; None leaves it as it is.

    Raises:
        ConfigurationError: There is no such backend, or Keras runs on another one already.
        MissingDependencyError: It is not installed.
    """
    if name is None:
        return
    if name not in BACKENDS:
        raise ConfigurationError(f"unknown backend {name!r}; Keras has {', '.join(BACKENDS)}")
    if "keras" in sys.modules:
        running = sys.modules["keras"].backend.backend()
        if running != name:
            raise ConfigurationError(
                f"backend {name!r} was asked for, but Keras runs on {running} in this process; "
                f"start another one with KERAS_BACKEND={name}"
            )
    elif not installed(name):
        raise MissingDependencyError(
            f"The Keras backend {name!r} is not installed. Install it with: {pip_line(name)}"
        )
    os.environ["KERAS_BACKEND"] = name


def keras_home() -> Path:
    """Return the folder of Keras' configuration, data sets and caches."""
    home = os.environ.get("KERAS_HOME")
    return Path(home).expanduser() if home else Path.home() / ".keras"


def _chosen_backend() -> tuple[str | None, str]:
    """Return the backend that the user configured and where, or (None, "")."""
    if chosen := os.environ.get("KERAS_BACKEND"):
        return chosen, "the environment variable KERAS_BACKEND"
    config = keras_home() / "keras.json"
    if not config.is_file():
        return None, ""
    try:
        chosen = json.loads(config.read_text()).get("backend")
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigurationError(
            f"{config} is not a readable Keras configuration: {error}"
        ) from error
    # Keras writes this file itself on its first import, with "tensorflow" as the default: a
    # TensorFlow that is not installed was never a choice.
    if chosen == "tensorflow" and not installed(chosen):
        return None, ""
    return chosen, str(config)
