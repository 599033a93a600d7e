"""How new weights are drawn, and how to leave that out where others follow."""

import contextlib
import contextvars
from collections.abc import Iterator
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


# What holds the large weights of stock layers, and the offsets beside them.
_DRAWN = {f"{weights}_initializer" for weights in ("kernel", "depthwise", "embeddings", "bias")}
