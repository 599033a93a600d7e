"""Models by name, in the manner of timm, and torchvision's two by constructors of their own."""

import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_alexnet.models.builder import build
from keras_alexnet.specs import SPECS, find_spec
from keras_alexnet.specs.alexnet import ALEXNET
from keras_alexnet.specs.googlenet import GOOGLENET


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of all models that match a shell pattern such as `"*net*"`, sorted.

    Example:
        >>> list_models("google*")
        ['googlenet', 'googlenet_caffe', 'googlenet_lab', 'googlenet_paper']
    """
    return sorted(fnmatch.filter(SPECS, pattern))


def create_model(name: str, /, **arguments: Any) -> Any:
    """Build a model by name.

    Args:
        name: One of `list_models()`.
        **arguments: Those of `AlexNet` and `GoogLeNet`, for every model. What is left out follows
            the model: its number of classes, its input shape, its dropout rate. `aux_heads` is for
            the GoogLeNets, `transform_input` for torchvision's alone. `include_preprocessing` puts
            the model's own normalisation in: it always takes R, G, B of 0..255 (grey for LeNet-5),
            Caffe's models too.

    Returns:
        A functional `keras.Model`: images to logits (N, classes), or to a dict of them with
        `aux_heads`. Networks without adaptive pooling before their dense layers fit weights of one
        image size only.

    Raises:
        UnknownModelError: No model has this name.
        ConfigurationError: An argument is out of range.

    Example:
        >>> create_model("lenet5", classes=4, include_preprocessing=True).output_shape
        (None, 4)
    """
    return build(find_spec(name), **arguments)


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

    Example:
        >>> AlexNet(include_top=False, data_format="channels_first").output_shape
        (None, 256, None, None)
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


def GoogLeNet(  # noqa: N802  (keras.applications names its constructors after the network)
    include_top: bool = True,
    weights: str | Path | None = None,
    input_tensor: Any = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Any = None,
    dropout_rate: float = 0.2,
    include_preprocessing: bool = False,
    name: str = "googlenet",
    data_format: str | None = None,
    dtype: Any = None,
    aux_heads: bool = False,
    transform_input: bool = False,
) -> Any:
    """Build GoogLeNet (Szegedy et al. 2014, arXiv:1409.4842), layer for layer torchvision's.

    As there, batch norm (eps 1e-3) follows every convolution, the "5x5" branches are 3x3 and the
    last pool before block 5 is 2x2. Layers are named after torchvision's modules
    (`inception4a_branch2_0_conv`); the model consists of Keras' own layers only.

    Args:
        include_top: Whether the global pool and the dense layer are included.
        weights: As for `AlexNet`; new ones are normal with deviation .01, as in torchvision.
        input_tensor: As for `AlexNet`.
        input_shape: As for `AlexNet`, height and width at least 15 pixels. None in the shape lets
            one model serve every size, but with auxiliary heads: see there.
        pooling: As for `AlexNet`.
        classes: Number of classes.
        classifier_activation: Activation of the outputs; None for logits.
        dropout_rate: Rate of the dropout before the last layer, in [0, 1). The auxiliary heads
            have torchvision's fixed .7.
        include_preprocessing: As for `AlexNet`.
        name: Name of the model.
        data_format: As for `AlexNet`.
        dtype: As for `AlexNet`.
        aux_heads: Whether both auxiliary classifiers are outputs too; the output is then a dict
            with the keys `"logits"`, `"aux1"` and `"aux2"`.
        transform_input: Whether the network first maps ImageNet-normalised values to mean .5 and
            deviation .5. torchvision switches this on for its pretrained weights.

    Returns:
        A functional `keras.Model`: images (N, H, W, 3) or (N, 3, H, W) to logits (N, classes), or
        to a dict of three such with `aux_heads`; without top to features (N, h, w, 1024),
        (N, 1024, h, w) or (N, 1024).

    Raises:
        ConfigurationError: An argument is out of range.
        ModelFileError: `weights` cannot be read or does not fit.

    Example:
        >>> model = GoogLeNet(classes=5, input_shape=(64, 64, 3), aux_heads=True)
        >>> sorted(model.output)
        ['aux1', 'aux2', 'logits']
    """
    return build(
        GOOGLENET,
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
        aux_heads=aux_heads,
        transform_input=transform_input,
    )
