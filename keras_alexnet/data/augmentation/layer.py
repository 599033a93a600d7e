"""Augmentation on the device, as the first layer of the model that is trained."""

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_alexnet.core import backend
from keras_alexnet.data.augmentation.colour import recolour
from keras_alexnet.data.augmentation.draws import resized_size
from keras_alexnet.data.augmentation.record import Augmentation
from keras_alexnet.data.augmentation.resample import resample
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.specs.schema import DATA_FORMATS

keras = backend.load_keras()
ops = keras.ops


class Augment(keras.layers.Layer):  # type: ignore[name-defined]
    """Applies the random numbers of `draws` to images of bytes. It draws none, and has no weights.

    It computes in float32 under every dtype policy, and belongs to the training step alone: it is
    never saved with a model.

    Args:
        augmentation: What may happen to an image.
        size: (height, width) of the result.
        data_format: Layout of the result, `"channels_last"` or `"channels_first"`.
        pca: Principal components, see `recolour`.

    Call arguments:
        inputs: A dict of `"image"`, uint8 (B, H, W, C); `"geometry"`, float32 (B, 5) of
            `draws.crop_geometry`, left out where images have the right size and place already; and
            `"colours"`, float32 (B, K) of `Draws.colours`, left out where they have their colours.

    Returns:
        float32 (B, height, width, C) or (B, C, height, width), 0..255 as `recolour` describes it.

    Raises:
        ConfigurationError: Grey images would be recoloured, or the components are missing.
    """

    def __init__(
        self,
        augmentation: Augmentation,
        size: tuple[int, int],
        *,
        data_format: str,
        pca: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        super().__init__(name="augment", dtype="float32", trainable=False)
        if data_format not in DATA_FORMATS:
            raise ConfigurationError(
                f"data_format must be 'channels_last' or 'channels_first', got {data_format!r}"
            )
        self.augmentation = augmentation
        self.size = size
        self.data_format = data_format
        self.pca = pca
        # XLA compiles the training step on JAX; on TensorFlow this layer alone, a chain of
        # operations on large arrays: XLA makes the network slower on a CPU.
        self._computed: Callable[[dict[str, Any]], Any] = self._compute
        if keras.backend.backend() == "tensorflow":
            self._computed = backend.require("tensorflow").function(
                self._compute, jit_compile=True, autograph=False
            )

    def build(self, input_shape: dict[str, tuple[int | None, ...]]) -> None:
        """Check that the images fit the augmentation, before anything is traced."""
        shape = input_shape["image"]
        if "colours" in input_shape:
            self.augmentation.check(channels=shape[-1], pca=self.pca)
        if "geometry" not in input_shape and tuple(shape[1:3]) != self.size:
            raise ConfigurationError(
                f"without geometry the images must have the size {self.size}, got {shape[1:3]}"
            )

    def call(self, inputs: dict[str, Any]) -> Any:
        """Crop, resize, mirror and recolour; see the class."""
        return self._computed(inputs)

    def _compute(self, inputs: dict[str, Any]) -> Any:
        x = inputs["image"]
        if "geometry" in inputs:
            whole = resized_size(self.augmentation, *x.shape[1:3])
            # torch runs one operation after the other: a matrix product is the fastest of them.
            fused = keras.backend.backend() != "torch"
            x = resample(x, inputs["geometry"], self.size, whole=whole, ops=ops, fused=fused)
        else:
            x = ops.cast(x, "float32")
        if "colours" in inputs:
            x = recolour(x, inputs["colours"], self.augmentation, ops=ops, pca=self.pca)
        return ops.transpose(x, (0, 3, 1, 2)) if self.data_format == "channels_first" else x

    def compute_output_shape(
        self, input_shape: dict[str, tuple[int | None, ...]]
    ) -> tuple[int | None, ...]:
        """Return the shape of the result for the shapes of the inputs."""
        batch, *_, channels = input_shape["image"]
        if self.data_format == "channels_first":
            return (batch, channels, *self.size)
        return (batch, *self.size, channels)
