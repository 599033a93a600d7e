"""NumPy arrays and the backend's tensors over the same memory, on the CPU.

A network's weights are large beside everything else that a conversion holds; frameworks copy them
wherever an array becomes a tensor or a tensor an array.
"""

import math
from typing import Any

import numpy as np

from keras_alexnet.core.backend import load_keras, require

# What TensorFlow and XLA ask of memory that they take as it is.
_ALIGNMENT = 64


def aligned_zeros(shape: tuple[int, ...]) -> np.ndarray:
    """Return float32 zeros, in memory that takes no room before it is written to."""
    count = 4 * math.prod(shape)
    memory = np.zeros(count + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + count].view(np.float32).reshape(shape)


def as_tensor(array: np.ndarray) -> Any:
    """Return a tensor of the backend with the memory of an array, which nobody may change then.

    The array is from `aligned_zeros`. It is copied where the device has memory of its own.
    """
    keras = load_keras()
    backend, tensor = keras.backend.backend(), array
    if backend == "tensorflow":
        tensor = require("tensorflow").experimental.dlpack.from_dlpack(array.__dlpack__())
    elif backend == "torch":
        tensor = require("torch").from_numpy(array)
    elif backend == "jax":
        tensor = require("jax").device_put(array)
    return keras.ops.convert_to_tensor(tensor)


def as_array(variable: Any, *, widened: bool = False) -> np.ndarray:
    """Return the memory of a Keras variable as an array to read, or a copy where it must be one.

    Read it before the variable changes, and read a variable anew after each step of training: the
    array may follow the variable, and JAX gives the memory of variables in training away. NumPy has
    no bfloat16: it becomes float32 where `widened`, else an array of `ml_dtypes`.
    """
    tensor = variable.value
    if "bfloat16" not in str(tensor.dtype):
        if hasattr(tensor, "read_value"):  # TensorFlow
            return np.asarray(memoryview(tensor.read_value()))
        if hasattr(tensor, "detach") and tensor.device.type == "cpu":  # torch
            return tensor.detach().numpy()
        # JAX; `__array__` would make a copy that the variable keeps.
        if getattr(getattr(tensor, "device", None), "platform", None) == "cpu":
            return np.from_dlpack(tensor)
    array = np.asarray(variable)
    return array.astype(np.float32) if widened and array.dtype.name == "bfloat16" else array
