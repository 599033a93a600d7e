"""AlexNet as torchvision has it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_alexnet.models.builder import build
from keras_alexnet.specs.alexnet import ALEXNET


def AlexNet(  # noqa: N802  (keras.applications names its constructors after the network)
    include_top: bool = True,
    weights: str | Path | None = None,
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = None,
    dropout_rate: float = 0.5,
    include_preprocessing: bool = False,
    name: str = "alexnet",
    data_format: str | None = None,
    dtype: Any = None,
) -> Any:
    """Build AlexNet (Krizhevsky 2014, arXiv:1404.5997), layer for layer torchvision's.

    Layers are named after torchvision's modules (`features_0`, `classifier_6`). The model consists
    of Keras' own layers only, so a saved one loads without this package.

    Args:
        include_top: Whether the pooling to 6 x 6 and the three dense layers are included.
        weights: None for new weights (PyTorch's default initialisation), or the path of a `.keras`
            or `.weights.h5` file.
        input_tensor: Keras tensor to build on instead of a new input.
        input_shape: Shape of one image in the order of `data_format`; height and width at least
            63 pixels. By default (224, 224, 3), and (None, None, 3) without top. With a top and
            None in the shape, TensorFlow graphs serve one size per loaded model, since Keras'
            adaptive pooling needs static sizes there.
        pooling: Without top: None for the last feature map, `"avg"` or `"max"` for a global pool.
        classes: Number of classes.
        classifier_activation: Activation of the output; None for logits.
        dropout_rate: Rate of both dropout layers, in [0, 1).
        include_preprocessing: Whether the model normalises its input: it then takes RGB 0..255,
            uint8 or float. Otherwise it takes values normalised by `preprocessing.normalize`.
        name: Name of the model.
        data_format: `"channels_last"`, `"channels_first"`, or None for Keras' global setting.
        dtype: Keras dtype policy such as `"mixed_bfloat16"`; None for the global one.

    Returns:
        A functional `keras.Model`: images (N, H, W, 3) or (N, 3, H, W) to logits (N, classes);
        without top to features (N, h, w, 256), (N, 256, h, w) or (N, 256).

    Raises:
        ConfigurationError: An argument is out of range.
        ModelFileError: `weights` cannot be read or does not fit.
    """
    return build(
        ALEXNET,
        include_top=include_top,
        weights=weights,
        input_tensor=input_tensor,
        input_shape=input_shape,
        pooling=pooling,
        classes=classes,
        classifier_activation=classifier_activation,
        dropout_rate=dropout_rate,
        include_preprocessing=include_preprocessing,
        name=name,
        data_format=data_format,
        dtype=dtype,
    )
