"""AlexNet and GoogLeNet for Keras 3.

Names are imported on first use: `import keras_alexnet` alone loads neither Keras nor a backend, so
the specs and the preprocessing serve processes that have no framework. Where Keras is loaded
already, our layers are registered with it, so that `keras.saving.load_model` knows them. What is
neither named here nor a module at this level is private. Nothing here imports `porting`.
"""

import importlib
import sys

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

if "keras" in sys.modules:
    importlib.import_module(f"{__name__}.layers")
