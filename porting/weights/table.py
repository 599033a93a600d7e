"""Rows of weight tables: which Keras variable holds which key of a state_dict, and how."""

from dataclasses import dataclass

import numpy as np

from porting.weights.layouts import Transform

Shape = tuple[int, ...]
Size = tuple[int, int]


@dataclass(frozen=True)
class Put:
    """One variable.

    Attributes:
        variable: `layer/variable` of the Keras model.
        key: Key of the state_dict.
        transform: What brings it to the variable's layout.
        shape: Shape in the state_dict.
    """

    variable: str
    key: str
    transform: Transform
    shape: Shape

    def to_keras(self, array: np.ndarray) -> np.ndarray:
        """Change an array of the state_dict to the variable's layout."""
        return self.transform.to_keras(array)

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        """Change a variable's value to the state_dict's layout."""
        return self.transform.to_torch(array)

    @property
    def keras_shape(self) -> Shape:
        """Shape of the Keras variable."""
        # A broadcast scalar has the shape and occupies no memory.
        return self.to_keras(np.broadcast_to(np.float32(0), self.shape)).shape


@dataclass(frozen=True)
class Carried:
    """A key without a Keras variable, kept beside the model.

    It is batch norm's counter of batches, or with `counter` False what inference does not compute
    with, such as auxiliary heads and tables of indices.
    """

    key: str
    counter: bool = True


Table = tuple[Put | Carried, ...]
