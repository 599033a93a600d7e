"""The engines by name. Each imports its framework when it is asked for."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from keras_alexnet.core.backend import require
from keras_alexnet.layers import keras
from keras_alexnet.optimizing.plan import Plan


class Engine(Protocol):
    """What computes a network.

    Attributes:
        fixed_batches: Whether each size of a batch costs a compilation.
    """

    fixed_batches: bool

    def __call__(self, x: Any) -> Any:
        """Compute the output, a tensor, of a batch, an array or tensor in the model's layout."""

    def is_tensor(self, x: Any) -> bool:
        """Say whether `x` is a tensor of this engine's framework."""

    def to_numpy(self, x: Any) -> np.ndarray:
        """Return an output as an array."""


def _torch(model: Any, plan: Plan, batch_size: int | None) -> Engine:
    require("torch")
    from keras_alexnet.optimizing.engines.torch import TorchEngine

    return TorchEngine(plan, _torch_device())


def _torch_compile(model: Any, plan: Plan, batch_size: int | None) -> Engine:
    require("torch")
    from keras_alexnet.optimizing.engines.torch_compile import TorchCompileEngine

    return TorchCompileEngine(plan, _torch_device())


def _torch_device() -> str:
    """Return where Keras' torch backend computes; the CPU beside another backend."""
    return str(keras.ops.zeros(()).device) if keras.backend.backend() == "torch" else "cpu"


def _tensorflow(model: Any, plan: Plan, batch_size: int | None) -> Engine:
    require("tensorflow")
    from keras_alexnet.optimizing.engines.tensorflow import TensorFlowEngine

    return TensorFlowEngine(plan)


def _jax(model: Any, plan: Plan, batch_size: int | None) -> Engine:
    require("jax")
    from keras_alexnet.optimizing.engines.jax import JaxEngine

    return JaxEngine(plan)


def _openvino(model: Any, plan: Plan, batch_size: int | None) -> Engine:
    from keras_alexnet.optimizing.engines.exported import OpenVinoEngine

    return OpenVinoEngine(model, batch_size)


def _onnxruntime(model: Any, plan: Plan, batch_size: int | None) -> Engine:
    from keras_alexnet.optimizing.engines.exported import OnnxRuntimeEngine

    return OnnxRuntimeEngine(model)


ENGINES: dict[str, Callable[[Any, Plan, int | None], Engine]] = {
    "torch": _torch,
    "torch_compile": _torch_compile,
    "tensorflow": _tensorflow,
    "jax": _jax,
    "openvino": _openvino,
    "onnxruntime": _onnxruntime,
}
