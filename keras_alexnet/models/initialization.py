"""How new weights are drawn, and how to leave that out where others follow."""

import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterator
from typing import Any

from keras_alexnet.core.memory import aligned_zeros, as_tensor
from keras_alexnet.layers import keras
from keras_alexnet.specs.schema import Init, Normal

_weights_will_follow = contextvars.ContextVar("weights_will_follow", default=False)


@contextlib.contextmanager
def weights_will_follow() -> Iterator[None]:
    """Within this block, new kernels and biases are zeros instead of random numbers.

    For models that get their weights next: drawing 61 million numbers takes seconds. The layers
    keep their initialisers in their configuration.
    """
    token = _weights_will_follow.set(True)
    try:
        yield
    finally:
        _weights_will_follow.reset(token)


def initializers(init: Init, fan_in: int) -> dict[str, Any]:
    """Return the Keras initialisers of a layer whose outputs have `fan_in` inputs each."""
    if isinstance(init.kernel, Normal):
        kernel = keras.initializers.RandomNormal(stddev=init.kernel.std)
    else:
        kernel = keras.initializers.VarianceScaling(init.kernel.scale, init.kernel.mode, "uniform")
    bound = fan_in**-0.5
    return {
        "kernel_initializer": kernel,
        "bias_initializer": (
            keras.initializers.RandomUniform(-bound, bound)
            if init.bias is None
            else keras.initializers.Constant(init.bias)
        ),
    }


class _Untouched(keras.initializers.Zeros):
    """Zeros that take no time and no memory until something is written over them."""

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        dtype = keras.backend.standardize_dtype(dtype)
        if dtype != "float32":
            return super().__call__(shape, dtype)
        return as_tensor(aligned_zeros(tuple(shape)))


def built_on(layer: Any, x: Any) -> Any:
    """Call a new layer, drawing its weights unless others will follow."""
    drawn = {name: value for name, value in vars(layer).items() if name in _DRAWN}
    if not _weights_will_follow.get():
        return layer(x)
    for name in drawn:
        setattr(layer, name, _Untouched())
    try:
        return layer(x)
    finally:
        for name, value in drawn.items():
            setattr(layer, name, value)


@contextlib.contextmanager
def nothing_drawn() -> Iterator[None]:
    """Within this block, Keras' random initialisers give zeros to this thread.

    For models that Keras itself builds from a file before it reads their weights. JAX would compile
    the drawing of each shape: of GoogLeNet's for half a minute.
    """
    kinds = [getattr(keras.initializers, name) for name in _RANDOM]
    drawing = [kind.__call__ for kind in kinds]
    with _changing, weights_will_follow():
        for kind, draw in zip(kinds, drawing, strict=True):
            kind.__call__ = _unless_weights_follow(draw)
        try:
            yield
        finally:
            for kind, draw in zip(kinds, drawing, strict=True):
                kind.__call__ = draw


def _unless_weights_follow(draw: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, shape: Any, dtype: Any = None, **options: Any) -> Any:
        if _weights_will_follow.get():
            return _Untouched()(shape, dtype)
        return draw(self, shape, dtype, **options)

    return call


# The initialisers that draw; Keras' others are kinds of them.
_RANDOM = ("RandomNormal", "TruncatedNormal", "RandomUniform", "VarianceScaling", "Orthogonal")
_changing = threading.RLock()  # one thread at a time changes Keras' classes
# What holds the large weights of stock layers, and the offsets beside them.
_DRAWN = {f"{weights}_initializer" for weights in ("kernel", "depthwise", "embeddings", "bias")}
