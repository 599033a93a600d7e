"""PyTorch weights into Keras models and back, with proof that both compute the same.

Functions that build models import Keras when they are called, so that reading and comparing files
needs no backend.
"""

from porting.checkpoints.files import read_checkpoint, write_checkpoint
from porting.conversion.convert import convert, export, from_torchvision, load_model
from porting.errors import PortingError
from porting.weights.transfer import load_state_dict, to_state_dict

__all__ = [
    "PortingError",
    "convert",
    "export",
    "from_torchvision",
    "load_model",
    "load_state_dict",
    "read_checkpoint",
    "to_state_dict",
    "write_checkpoint",
]
