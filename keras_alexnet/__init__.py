"""AlexNet and GoogLeNet for Keras 3.

Names are imported on first use: `import keras_alexnet` alone loads neither Keras nor a backend, so
the specs and the preprocessing serve processes that have no framework. Where Keras is loaded
already, our layers are registered with it, so that `keras.saving.load_model` knows them.
"""

import importlib
import sys
from typing import Any

_HOME = {
    "AlexNet": "models.constructors",
    "GoogLeNet": "models.constructors",
    "LocalResponseNormalization": "layers",
    "Preprocessing": "specs.preprocessing",
    "create_model": "models.constructors",
    "feature_extractor": "models.features",
    "list_models": "models.constructors",
    "load_model": "models.weights",
    "normalize": "data.preprocessing",
    "optimize": "optimizing.optimize",
    "load_images": "data.preprocessing",
    "read_record": "models.record",
    "resize_and_crop": "data.preprocessing",
}
__all__ = sorted(_HOME)  # noqa: PLE0605
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


if "keras" in sys.modules:
    importlib.import_module(f"{__name__}.layers")
