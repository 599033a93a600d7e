"""`optimize`: a Keras model made faster for inference, computing the same."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_alexnet.core.backend import BACKENDS
from keras_alexnet.core.keras_internals import MissingPartError, warn_of_stock_layers
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.layers import keras
from keras_alexnet.models.interface import alone_or_list
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
        input_shape: Shape of a batch as the model takes it; None where any number will do. Of
            several inputs it is a dict by name.
        operations: How many fused operations the model's layers became; the runtimes fuse by
            themselves, after their own rules.
    """

    def __init__(self, engine: str, run: Engine, plan: Plan) -> None:
        self.name = plan.name
        self.engine = engine
        self.data_format = plan.data_format
        self._shapes = plan.input_shapes
        shapes = list(self._shapes.values())
        self.input_shape = dict(self._shapes) if len(shapes) > 1 else shapes[0]
        self.operations = len(plan.operations)
        self._run = run

    def __call__(self, x: Any) -> Any:
        """Compute the main output of a batch, or all of a model without one.

        Args:
            x: Images as the Keras model takes them, as an array or a tensor: float, or uint8. Of
                several inputs a list of those in the model's order, or a dict by their names.

        Returns:
            What the Keras model gives for them with `training=False`; of several outputs the one
            called `"logits"`, else all in the model's dict or list. Arrays for arrays, and
            tensors of Keras' backend or of the engine's framework for those.

        Raises:
            ConfigurationError: An input is missing, or has another shape.
        """
        given = self._given(x)
        if all(isinstance(each, np.ndarray) for each in given):
            return self._arrays(given)
        if all(map(self._run.is_tensor, given)):
            return self._run(alone_or_list(given))
        for each in given:
            if not keras.ops.is_tensor(each):
                raise ConfigurationError(
                    f"images must be a NumPy array or a tensor, got {type(each).__name__}"
                )
        arrays = self._arrays([keras.ops.convert_to_numpy(each) for each in given])
        return keras.tree.map_structure(keras.ops.convert_to_tensor, arrays)

    def _arrays(self, given: list[Any]) -> Any:
        results = self._run(alone_or_list(given))
        return keras.tree.map_structure(self._run.to_numpy, results)

    def predict(self, x: np.ndarray, batch_size: int = 32) -> Any:
        """Compute for many images what a call does, a batch at a time.

        Args:
            x: Images (N, ...), or several inputs, as for a call; arrays.
            batch_size: Images of a batch.

        Returns:
            The outputs (N, ...), arrays.

        Raises:
            ConfigurationError: An input is missing or has another shape, or `batch_size` is not
                positive.
        """
        if batch_size < 1:
            raise ConfigurationError(f"batch_size must be positive, got {batch_size}")
        given = self._given(x)
        total = len(given[0])
        if total == 0:
            raise ConfigurationError("there are no images to predict")
        results = []
        for start in range(0, total, batch_size):
            batch = [np.asarray(each[start : start + batch_size]) for each in given]
            count = len(batch[0])
            if count < batch_size and start and self._run.fixed_batches:
                # A size of its own would be compiled for this one batch.
                batch = [each[np.arange(batch_size) % count] for each in batch]
            found = self._arrays(batch)
            results.append(keras.tree.map_structure(lambda y, n=count: y[:n], found))
        return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *results)

    def _given(self, x: Any) -> list[Any]:
        """Return the inputs in the model's order, each of the shape that it takes."""
        names = list(self._shapes)
        if isinstance(x, Mapping):
            if set(x) != set(names):
                raise ConfigurationError(f"{self.name} takes {names}, got {list(x)}")
            given = [x[name] for name in names]
        elif len(names) > 1:
            if not isinstance(x, list | tuple) or len(x) != len(names):
                got = f"{len(x)} of them" if isinstance(x, list | tuple) else type(x).__name__
                raise ConfigurationError(
                    f"{self.name} takes a list or dict of {len(names)} inputs ({', '.join(names)}),"
                    f" got {got}"
                )
            given = list(x)
        else:
            given = [x]
        for each, (name, wanted) in zip(given, self._shapes.items(), strict=True):
            self._check(each, wanted, f" as {name!r}" if len(names) > 1 else "")
        sizes = {int(each.shape[0]) for each in given}
        if len(sizes) > 1:
            raise ConfigurationError(
                f"{self.name}: its inputs are batches of {' and '.join(map(str, sorted(sizes)))}"
            )
        return given

    def _check(self, x: Any, wanted: tuple[int | None, ...], which: str) -> None:
        shape = tuple(getattr(x, "shape", ()))
        if len(shape) != len(wanted) or any(
            b not in (None, a) for a, b in zip(shape, wanted, strict=True)
        ):
            kind = f"images of shape {wanted} ({self.data_format})"
            kind = kind if len(wanted) == 4 else f"numbers of shape {wanted}"
            raise ConfigurationError(f"{self.name} takes {kind}{which}, got {shape}")

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
            format, of one or several inputs. What has no faster counterpart here is called as Keras
            has it, which an engine on another framework than Keras' refuses.
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
    sizes = [shape[1:] for shape in plan.input_shapes.values()]
    if batch_size is not None and not any(None in size for size in sizes):
        zeros = [
            np.zeros((batch_size, *size), np.float32)  # type: ignore[type-var]
            for size in sizes
        ]
        optimized(alone_or_list(zeros))
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
