"""The engines by name. Each imports its framework when asked for; this module imports none."""

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from keras_alexnet.core.backend import require


class Engine(Protocol):
    """What computes a network; made of the Keras model, its plan, and a batch size or None.

    Frameworks read the plan alone; the runtimes of exported files read the model alone, but for
    OpenVINO, which prepares for the batch size too.
    """

    fixed_batches: bool  # whether each size of a batch costs a compilation

    def __call__(self, x: Any) -> Any:
        """Compute a batch, an array or tensor in the model's layout; return the plan's outputs.

        Of a model of several inputs it is a list of them.
        """

    def is_tensor(self, x: Any) -> bool:
        """Say whether `x` is a tensor of this engine's framework."""

    def to_numpy(self, x: Any) -> np.ndarray:
        """Return an output as an array."""


class EngineKind(NamedTuple):
    """The package that an engine needs, and its class: `module.Class` of this folder."""

    package: str
    home: str


ENGINES: Mapping[str, EngineKind] = {
    "torch": EngineKind("torch", "torch.TorchEngine"),
    "torch_compile": EngineKind("torch", "torch_compile.TorchCompileEngine"),
    "tensorflow": EngineKind("tensorflow", "tensorflow.TensorFlowEngine"),
    "jax": EngineKind("jax", "jax.JaxEngine"),
    "openvino": EngineKind("openvino", "exported.OpenVinoEngine"),
    "onnxruntime": EngineKind("onnxruntime", "exported.OnnxRuntimeEngine"),
}


def open_engine(name: str, model: Any, plan: Any, batch_size: int | None) -> Engine:
    """Return one of `ENGINES` for a Keras model, its plan, and a batch size to prepare for or None.

    Raises:
        MissingDependencyError: Its package is not installed.
    """
    package, home = ENGINES[name]
    require(package)
    module, _, kind = home.partition(".")
    engine = getattr(importlib.import_module(f"{__package__}.{module}"), kind)
    return engine(model, plan, batch_size)
