"""Weights into Keras variables, block by block, with little memory beside the variables.

Keras' own `assign` takes the whole value: one copy in the order of its axes, one in the framework,
on TensorFlow a third behind it. A dense layer of AlexNet alone has 151 MB.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from keras_alexnet.core.backend import load_keras, require
from keras_alexnet.core.memory import aligned_zeros, as_tensor
from porting.weights.layouts import contiguous
from porting.weights.table import Put

_BLOCK = 1 << 24  # bytes


def blocks(array: np.ndarray) -> Iterator[slice]:
    """Return slices of an array's first axis, which it must have, of 16 MiB or little more each.

    For most transforms that axis of a state_dict's array is the last one of the Keras variable.
    """
    rows = max(len(array) * _BLOCK // max(array.nbytes, 1), 1)
    return (slice(start, start + rows) for start in range(0, len(array), rows))


def _blocks(put: Put, array: np.ndarray) -> Iterable[slice]:
    return blocks(array) if put.transform.in_blocks else (slice(None),)


def assign(put: Put, variable: Any, array: np.ndarray, forget: Callable[[], None]) -> None:
    """Set a Keras variable to an array of a state_dict, in the layout that `put` gives it.

    `forget` is called whenever a block of the array has been read.
    """
    array = np.atleast_1d(array)
    if load_keras().backend.backend() == "torch":
        _into_torch(put, variable, array, forget)
    else:
        _whole(put, variable, array, forget)


def _into_torch(put: Put, variable: Any, array: np.ndarray, forget: Callable[[], None]) -> None:
    torch, tensor = require("torch"), variable.value.data
    for block in _blocks(put, array):
        # `require`: of the machine's byte order, and no steps backwards, which torch knows not.
        part = np.require(put.to_keras(array[block]), array.dtype.newbyteorder("="))
        part = part if min(part.strides, default=0) >= 0 else part.copy()
        with warnings.catch_warnings():  # of arrays that are read-only: it only reads
            warnings.simplefilter("ignore")
            tensor[..., block].copy_(torch.from_numpy(part))
        forget()


def _whole(put: Put, variable: Any, array: np.ndarray, forget: Callable[[], None]) -> None:
    value = aligned_zeros(variable.shape)
    for block in _blocks(put, array):
        value[..., block] = contiguous(put.to_keras(array[block]))
        forget()
    variable.assign(as_tensor(value))
