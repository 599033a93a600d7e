"""Layers that Keras lacks. Importing this module registers them for `keras.saving.load_model`."""

import math
from typing import Any

import numpy as np

from keras_alexnet.core import backend
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.specs.schema import DATA_FORMATS

keras = backend.load_keras()
ops = keras.ops

# d ** -beta for the exponents in use, several times faster than the general power.
_INVERSE_POWERS = {
    0.5: ops.rsqrt,
    0.75: lambda d: ops.rsqrt(d * ops.sqrt(d)),
    1.0: ops.reciprocal,
}


def _torch_differentiates() -> bool:
    """Return whether torch records operations: in a backward pass, for a second derivative."""
    return bool(backend.require("torch").is_grad_enabled())


@keras.saving.register_keras_serializable(package="keras_alexnet")
class LocalResponseNormalization(keras.layers.Layer):  # type: ignore[name-defined]
    """Local response normalisation across channels, with `torch.nn.LocalResponseNorm`'s semantics.

    y[c] = x[c] / (k + alpha / size * sum of x[j]**2) ** beta, where j runs over the `size` channels
    from c - size // 2 to c + (size - 1) // 2 and channels beyond the border count as zero.
    (Krizhevsky et al. 2012, section 3.3, but for the division of alpha.) Parameters of TensorFlow
    and Caffe are translated by `keras_alexnet.lrn`.

    It computes in float32 under float16 and bfloat16 policies, since squares leave their range.

    Args:
        size: Channels in the window.
        alpha: Factor of the mean of squares.
        beta: Exponent.
        k: Offset of the denominator.
        data_format: `"channels_last"`, `"channels_first"`, or None for Keras' global setting.
        **kwargs: `name` and `dtype` of a Keras layer.

    Shapes:
        Input and output (N, ..., C) or (N, C, ...), with any number of axes between.

    Raises:
        ConfigurationError: A parameter is out of range.
    """

    def __init__(
        self,
        size: int = 5,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 1.0,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not (isinstance(size, int | np.integer) and size >= 1):
            raise ConfigurationError(f"size must be a positive integer, got {size!r}")
        for name, value in (("alpha", alpha), ("beta", beta), ("k", k)):
            if not (isinstance(value, int | float | np.number) and math.isfinite(value)):
                raise ConfigurationError(f"{name} must be a finite number, got {value!r}")
        self.size = int(size)
        self.alpha = float(alpha)
        self.beta = float(beta)
        self.k = float(k)
        self.data_format = data_format or keras.config.image_data_format()
        if self.data_format not in DATA_FORMATS:
            raise ConfigurationError(
                f"data_format must be 'channels_last', 'channels_first' or None, "
                f"got {data_format!r}"
            )

    def call(self, inputs: Any) -> Any:
        """Normalise a batch."""
        dtype = keras.backend.standardize_dtype(inputs.dtype)
        wide = dtype if dtype == "float64" else "float32"
        return ops.cast(self._normalize(ops.cast(inputs, wide)), dtype)

    def _normalize(self, inputs: Any) -> Any:
        # The gradient in closed form needs one windowed sum more and nothing but the input; what
        # automatic differentiation makes of the sum and the power takes up to twice the time.
        @ops.custom_gradient
        def normalize(x: Any) -> Any:
            known = self._terms(x)

            def gradient(*args: Any, upstream: Any = None) -> Any:
                point, (d, factor, y) = x, known
                if upstream is None:  # TensorFlow and JAX
                    (upstream,) = args
                elif _torch_differentiates():
                    # For a second derivative: torch has taken the known ones for constants.
                    point = args[0]
                    d, factor, y = self._terms(point)
                shared = self._windowed_sum(upstream * y / d, adjoint=True)
                return upstream * factor - (2 * self.beta) * point * shared

            return known[2], gradient

        return normalize(inputs)

    def _terms(self, x: Any) -> tuple[Any, Any, Any]:
        """Return the denominator's base d, d ** -beta, and the output."""
        d = self.k + self._windowed_sum(ops.square(x))
        known = _INVERSE_POWERS.get(self.beta)
        factor = d**-self.beta if known is None else known(d)
        return d, factor, x * factor

    def _windowed_sum(self, x: Any, *, adjoint: bool = False) -> Any:
        """Return alpha / size times the sum over the window of each channel.

        The adjoint sums over the channels whose windows hold this one. XLA fuses shifted slices
        into one loop; elsewhere a product with a band matrix is fastest (benchmarks/lrn.py). A
        running sum would cancel where channels differ much.
        """
        before, behind = self.size // 2, (self.size - 1) // 2
        if adjoint:
            before, behind = behind, before
        scale = self.alpha / self.size
        if keras.backend.backend() == "jax":
            return scale * self._slices(x, before, behind)
        channels = x.shape[-1 if self.data_format == "channels_last" else 1]
        indices = ops.arange(channels)
        offset = ops.expand_dims(indices, 1) - indices  # (from, to)
        inside = ops.logical_and(offset >= -before, offset <= behind)
        band = scale * ops.cast(inside, x.dtype)
        if self.data_format == "channels_last":
            return ops.matmul(x, band)
        shape = ops.shape(x)
        columns = ops.reshape(x, (shape[0], channels, math.prod(shape[2:])))  # (N, C, H * W)
        return ops.reshape(ops.matmul(ops.transpose(band), columns), shape)

    def _slices(self, x: Any, before: int, behind: int) -> Any:
        axis = len(x.shape) - 1 if self.data_format == "channels_last" else 1
        channels = x.shape[axis]
        padding = [(0, 0)] * len(x.shape)
        padding[axis] = (before, behind)
        padded = ops.pad(x, padding)
        window = [slice(None)] * len(x.shape)
        total: Any = 0
        for start in range(self.size):
            window[axis] = slice(start, start + channels)
            total = total + padded[tuple(window)]
        return total

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` needs."""
        return {
            **super().get_config(),
            "size": self.size,
            "alpha": self.alpha,
            "beta": self.beta,
            "k": self.k,
            "data_format": self.data_format,
        }
