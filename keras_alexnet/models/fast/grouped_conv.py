"""Grouped convolutions, one group after the other, where the backend gains by it."""

from types import MethodType
from typing import Any

from keras_alexnet.core import backend

keras = backend.load_keras()
ops = keras.ops


def split_groups(layer: Any) -> None:
    """Let a grouped `Conv2D` convolve its groups one by one.

    TensorFlow has no grouped convolution on a CPU, so Keras compiles one with XLA, with which a
    training step of the layer takes about ten times as long; JAX has the same one
    (benchmarks/grouped_conv.py). Layers of another kind and without groups are left alone.
    """
    if isinstance(layer, keras.layers.Conv2D) and layer.groups > 1:
        layer.convolution_op = MethodType(_convolve_groups, layer)


def _convolve_groups(layer: Any, inputs: Any, kernel: Any) -> Any:
    channels = -1 if layer.data_format == "channels_last" else 1
    parts = zip(
        ops.split(inputs, layer.groups, axis=channels),
        ops.split(kernel, layer.groups, axis=-1),
        strict=True,
    )
    convolved = [
        ops.conv(
            part,
            part_kernel,
            strides=list(layer.strides),
            padding=layer.padding,
            dilation_rate=layer.dilation_rate,
            data_format=layer.data_format,
        )
        for part, part_kernel in parts
    ]
    return ops.concatenate(convolved, axis=channels)
