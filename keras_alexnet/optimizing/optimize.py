"""`optimize`: a Keras model made faster for inference, computing the same."""

from typing import Any

import numpy as np

from keras_alexnet.core.backend import BACKENDS
from keras_alexnet.core.keras_internals import MissingPartError, warn_of_stock_layers
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.layers import keras
from keras_alexnet.optimizing.engines.registry import ENGINES, Engine, open_engine
from keras_alexnet.optimizing.engines.stock import StockEngine
from keras_alexnet.optimizing.operations import Call
from keras_alexnet.optimizing.plan import Plan, make_plan, stock_plan


class OptimizedModel:
    """A model for inference, as `optimize` returns it. It holds weights of its own.

    Attributes:
        name: The Keras model's name.
        engine: Name of what computes.
        data_format: `"channels_last"` or `"channels_first"`: the Keras model's, and that of images.
        input_shape: Shape of a batch as the model takes it; None where any number will do.
        operations: How many fused operations the model's layers became; the runtimes fuse by
            themselves, after their own rules.
    """

    def __init__(self, engine: str, run: Engine, plan: Plan) -> None:
        self.name = plan.name
        self.engine = engine
        self.data_format = plan.data_format
        self.input_shape = plan.input_shape
        self.operations = len(plan.operations)
        self._run = run

    def __call__(self, x: Any) -> Any:
        """Compute the main output of a batch, or all of a model without one.

        Args:
            x: Images as the Keras model takes them, as an array or a tensor: float, or uint8.

        Returns:
            What the Keras model gives for them with `training=False`; of several outputs the one
            called `"logits"`, else all in the model's dict or list. Arrays for an array, and
            tensors of Keras' backend or of the engine's framework for one.

        Raises:
            ConfigurationError: The images have another shape.
        """
        self._check(x)
        if isinstance(x, np.ndarray):
            return self._arrays(x)
        if self._run.is_tensor(x):
            return self._run(x)
        if not keras.ops.is_tensor(x):
            raise ConfigurationError(
                f"images must be a NumPy array or a tensor, got {type(x).__name__}"
            )
        arrays = self._arrays(keras.ops.convert_to_numpy(x))
        return keras.tree.map_structure(keras.ops.convert_to_tensor, arrays)

    def _arrays(self, x: np.ndarray) -> Any:
        return keras.tree.map_structure(self._run.to_numpy, self._run(x))

    def predict(self, x: np.ndarray, batch_size: int = 32) -> Any:
        """Compute for many images what a call does, a batch at a time.

        Args:
            x: Images (N, ...) as for a call.
            batch_size: Images of a batch.

        Returns:
            The outputs (N, ...), arrays.

        Raises:
            ConfigurationError: The images have another shape, or `batch_size` is not positive.
        """
        if batch_size < 1:
            raise ConfigurationError(f"batch_size must be positive, got {batch_size}")
        self._check(x)
        if len(x) == 0:
            raise ConfigurationError("there are no images to predict")
        results = []
        for start in range(0, len(x), batch_size):
            batch = np.asarray(x[start : start + batch_size])
            count = len(batch)
            if count < batch_size and start and self._run.fixed_batches:
                # A size of its own would be compiled for this one batch.
                batch = batch[np.arange(batch_size) % count]
            results.append(keras.tree.map_structure(lambda y, n=count: y[:n], self._arrays(batch)))
        return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *results)

    def _check(self, x: Any) -> None:
        shape = tuple(getattr(x, "shape", ()))
        wanted = self.input_shape
        if len(shape) != len(wanted) or any(
            b not in (None, a) for a, b in zip(shape, wanted, strict=True)
        ):
            raise ConfigurationError(
                f"{self.name} takes images of shape {wanted} ({self.data_format}), got {shape}"
            )

    def __repr__(self) -> str:
        return (
            f"OptimizedModel({self.name!r}, engine={self.engine!r}, "
            f"input_shape={self.input_shape}, operations={self.operations})"
        )


def optimize(model: Any, engine: str = "auto", batch_size: int | None = None) -> OptimizedModel:
    """Return a model that computes the same as a Keras model, faster, for inference.

    Its layers are fused into as few operations as give the same result: batch norm goes into the
    convolution before it (in float64), padding, activations and what is added afterwards into
    convolutions and pools, tables that no image changes become numbers, dropout goes away. Of
    several outputs the one called `"logits"` stays, or all where none is. The weights are copied:
    the Keras model is not changed, and training it further does not change the result.

    Args:
        model: A functional Keras model of float32, built or loaded from a file, in either data
            format. What has no faster counterpart here is called as Keras has it, which an engine
            on another framework than Keras' refuses.
        engine: What computes: `"torch"`, `"torch_compile"`, `"tensorflow"`, `"jax"`, `"openvino"`
            or `"onnxruntime"`; `"auto"` for the framework that Keras runs on. `"torch_compile"`
            is `torch.compile` of what `"torch"` computes: each shape of a batch takes up to half
            a minute at its first call, and a C++ compiler. The last two export the model into a
            temporary file first, which takes up to a minute and proves the export.
        batch_size: Batch that is prepared for, so that its first call is as fast as later ones.
            Others work too; engines that compile do so at the first call of each shape.

    Returns:
        A callable; `predict` computes many batches.

    Raises:
        ConfigurationError: The engine is unknown, or the model is not functional, computes in
            another precision than float32, or has a layer that only Keras computes, on another
            framework than the engine's.
        MissingDependencyError: The engine's package is not installed.
        ExportError: The model cannot be exported to what the engine runs.
        CompilationError: `torch.compile` finds no working compiler (here if `batch_size` is given,
            else at the first call).

    Example:
        >>> from keras_alexnet import create_model
        >>> fast = optimize(create_model("lenet5"))
        >>> fast.predict(np.zeros((2, 28, 28, 1), np.float32)).shape
        (2, 10)
    """
    if engine == "auto":
        engine = keras.backend.backend()
    if engine not in ENGINES:
        raise ConfigurationError(f"unknown engine {engine!r}; there are auto, {', '.join(ENGINES)}")
    if batch_size is not None and not (
        isinstance(batch_size, int | np.integer) and batch_size >= 1
    ):
        raise ConfigurationError(f"batch_size must be a positive integer, got {batch_size!r}")
    try:
        plan = make_plan(model)
        _check_calls(plan, engine)
        run = open_engine(engine, model, plan, batch_size)
    except MissingPartError:
        warn_of_stock_layers(model.name)
        engine, plan, run = "keras", stock_plan(model), StockEngine(model)
    optimized = OptimizedModel(engine, run, plan)
    if batch_size is not None and None not in plan.input_shape[1:]:
        optimized(np.zeros((batch_size, *plan.input_shape[1:]), np.float32))
    return optimized


def _check_calls(plan: Plan, engine: str) -> None:
    """Refuse what Keras alone computes where another framework than Keras' is to."""
    package = ENGINES[engine].package
    if package not in BACKENDS or package == keras.backend.backend():
        return
    for each in plan.operations:
        if isinstance(each, Call):
            raise ConfigurationError(
                f"{each.reason} for engine={engine!r}: Keras computes it, on "
                f'{keras.backend.backend()}; engine="auto" has it do so'
            )
