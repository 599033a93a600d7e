"""OpenVINO and ONNX Runtime as engines: the model is exported, proved, and run by them.

`keras_alexnet.exporting` writes the file, in a child on the backend that can, and compares what
the runtime makes of it with the Keras model. It lies in a temporary folder that goes with the
engine.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.core.backend import require
from keras_alexnet.core.keras_internals import without_tensorflow
from keras_alexnet.exporting.exporter import ExportRequest, export_model
from keras_alexnet.exporting.formats import find_format
from keras_alexnet.layers import keras
from keras_alexnet.models.interface import MAIN_OUTPUT
from keras_alexnet.optimizing.plan import Plan, main_model


class _Runtime:
    """What both have in common: arrays in, arrays out, and the exported file."""

    fixed_batches = False

    def __init__(self, model: Any, plan: Plan, format_: str) -> None:
        self._format = find_format(format_)
        self._format.require(int8=False)
        self._folder = tempfile.TemporaryDirectory(prefix="keras-alexnet-")
        folder = Path(self._folder.name)
        self._inputs = list(plan.input_shapes)
        needed = main_model(model)
        named = isinstance(needed.output, dict)
        self._outputs = {name: name for name in needed.output} if named else MAIN_OUTPUT
        with without_tensorflow():
            needed.save(folder / "model.keras")
        self._file = folder / f"model{self._format.suffix}"
        export_model(ExportRequest(folder / "model.keras", self._format, self._file))
        (folder / "model.keras").unlink()

    def _batches(self, x: Any) -> list[np.ndarray]:
        """Return what is given, one array or several, for each of the inputs."""
        return [np.ascontiguousarray(each, np.float32) for each in keras.tree.flatten(x)]

    def is_tensor(self, x: Any) -> bool:
        """Say that no tensor is of this framework: both take arrays."""
        return False

    def to_numpy(self, x: np.ndarray) -> np.ndarray:
        """Return an output, which is an array already."""
        return x


class OpenVinoEngine(_Runtime):
    """A model on OpenVINO, in float32.

    One request computes at a time, by all threads, as calls come one after the other. A network of
    fixed size is compiled for `batch_size`, beside the one for any.
    """

    def __init__(self, model: Any, plan: Plan, batch_size: int | None) -> None:
        super().__init__(model, plan, "openvino")
        self._openvino = require("openvino")
        self._core = self._openvino.Core()
        self._network = self._core.read_model(self._file)
        self._fixed = batch_size
        self._compiled: dict[int | None, Any] = {}

    def __call__(self, x: Any) -> Any:
        """Run a batch."""
        batches = self._batches(x)
        size = len(batches[0]) if len(batches[0]) == self._fixed else None
        if size not in self._compiled:
            self._compiled[size] = self._compile(size)
        results = self._compiled[size].infer(self._named(batches), share_inputs=True)
        # Their memory is written to again by the next call.
        if isinstance(self._outputs, str):
            return np.array(results[0])
        return {name: np.array(results[name]) for name in self._outputs}

    def _named(self, batches: list[np.ndarray]) -> Any:
        """Return what a request takes: exported files have the inputs of several by name."""
        return batches if len(batches) == 1 else dict(zip(self._inputs, batches, strict=True))

    def _compile(self, batch_size: int | None) -> Any:
        network = self._network
        if batch_size is not None:
            network = network.clone()
            shapes = [[batch_size, *list(each.partial_shape)[1:]] for each in network.inputs]
            network.reshape(dict(zip(network.inputs, shapes, strict=True)))
        # Without the precision's hint it computes in bfloat16 where the processor can.
        hints = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        return self._core.compile_model(network, "CPU", hints).create_infer_request()


class OnnxRuntimeEngine(_Runtime):
    """A model on ONNX Runtime."""

    def __init__(self, model: Any, plan: Plan, batch_size: int | None) -> None:
        super().__init__(model, plan, "onnx")
        self._session = require("onnxruntime").InferenceSession(
            self._file, providers=["CPUExecutionProvider"]
        )
        if len(self._inputs) == 1:
            self._inputs = [each.name for each in self._session.get_inputs()]

    def __call__(self, x: Any) -> Any:
        """Run a batch."""
        names = keras.tree.flatten(self._outputs)
        found = self._session.run(names, dict(zip(self._inputs, self._batches(x), strict=True)))
        return keras.tree.pack_sequence_as(self._outputs, found)
