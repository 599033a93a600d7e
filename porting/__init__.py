"""PyTorch weights into Keras models and back, with proof that both compute the same.

Names are imported on first use, and functions that build models import Keras when they are called,
so that reading and comparing files needs no backend. May import all of `keras_alexnet`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
