"""What a model is, takes and gives: the one place that finds it out from the model itself.

The preprocessing layers of ours are known by their names, an architecture by its layers. Imports no
framework by itself.
"""

import contextlib
from collections.abc import Iterable
from typing import Any

from keras_alexnet.core.backend import load_keras
from keras_alexnet.core.keras_internals import MissingPartError, maker_of
from keras_alexnet.errors import ModelFileError
from keras_alexnet.models.record import ModelInput, use_of
from keras_alexnet.specs import SPECS, schema
from keras_alexnet.specs.shapes import trace

MAIN_OUTPUT = "logits"
_PREPROCESSING = "preprocessing_"
# Classes of layers that rows of the same name become in one architecture and not in another.
_CLASSES: dict[type[schema.Row], str] = {
    schema.Conv: "Conv2D",
    schema.BatchNorm: "BatchNormalization",
    schema.LRN: "LocalResponseNormalization",
    schema.ReLU: "ReLU",
    schema.MaxPool: "MaxPooling2D",
}


def spec_of(model: Any) -> schema.ModelSpec | None:
    """Return the architecture whose body a model has: its layers, their kinds, widths, order."""
    layers = {layer.name: layer for layer in model.layers}
    found = [spec for spec in SPECS.values() if _has_body_of(spec, layers)]
    # Of Caffe's and Keras' AlexNets, which share names, the one with more layers.
    return max(found, key=lambda spec: len(spec.body), default=None)


def _has_body_of(spec: schema.ModelSpec, layers: dict[str, Any]) -> bool:
    for row, _, after in trace(spec, aux_heads=False, include_top=False):
        layer = layers.get(schema.keras_name(row.name))
        if layer is None or type(layer).__name__ != _CLASSES.get(type(row), type(layer).__name__):
            return False
        if isinstance(row, schema.Conv) and layer.filters != after[0]:
            return False
    # A model's layers are in the order of computation: CaffeNet is AlexNet's in another.
    places = {name: place for place, name in enumerate(layers)}
    chain = [places[schema.keras_name(row.name)] for row in spec.body]
    return chain == sorted(chain)


def is_preprocessing(layer: Any) -> bool:
    """Return whether a layer is part of the normalisation that a model of ours holds."""
    return layer.name.startswith(_PREPROCESSING)


def takes_pixels(model: Any) -> bool:
    """Return whether a model holds its own normalisation, and so takes 0..255."""
    return any(map(is_preprocessing, model.layers))


def data_formats(layers: Iterable[Any]) -> set[str]:
    """Return the data formats of layers of feature maps, those of models among them included."""
    found = set()
    for layer in layers:
        if inner := getattr(layer, "layers", ()):
            found |= data_formats(inner)
        elif getattr(layer, "data_format", None) and len(layer.input.shape) == 4:
            found.add(layer.data_format)
    return found


def alone_or_list(values: list[Any]) -> Any:
    """Return what a model, or its export, is called with: a list of several, or what is alone."""
    return values if len(values) > 1 else values[0]


def named_outputs(outputs: Any) -> dict[str, Any]:
    """Return a model's outputs as name -> value; a single one is called `logits`."""
    return outputs if isinstance(outputs, dict) else {MAIN_OUTPUT: outputs}


def main_output(model: Any) -> Any:
    """Return the Keras tensor of a model's only output, or of the one called `logits`.

    It is None where there are several and none is called so.
    """
    outputs = getattr(model, "outputs", None) or []
    # A Sequential has no `output`, and of a Functional it alone has the names.
    structure = getattr(model, "output", outputs[0] if outputs else None)
    if isinstance(structure, dict):
        return structure.get(MAIN_OUTPUT, outputs[0] if len(outputs) == 1 else None)
    return outputs[0] if len(outputs) == 1 else None


def last_activation(model: Any, output: Any) -> str:
    """Return the name of the activation that an output of a model comes from."""
    keras = load_keras()
    layer = maker(model, output)
    while isinstance(layer, keras.Model):  # a model in a model
        layer = maker(layer, layer.outputs[0])
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    return getattr(getattr(layer, "activation", None), "__name__", "linear")


def maker(model: Any, tensor: Any) -> Any:
    """Return the operation of a model that makes a Keras tensor."""
    with contextlib.suppress(MissingPartError):
        return maker_of(tensor)[0]
    flatten = load_keras().tree.flatten
    operations = getattr(model, "operations", model.layers)
    return next(o for o in operations if any(x is tensor for x in flatten(o.output)))


def input_of(model: Any, record: dict[str, Any] | None) -> ModelInput:
    """Find out from a Keras model and the record of its file what the model takes.

    Without a record the preprocessing is known of our own architectures, if the model holds its
    normalisation.

    Raises:
        ModelFileError: It takes no single image of these channels, or its record is damaged.
    """
    inputs = getattr(model, "inputs", None) or []
    if len(inputs) > 1:
        names = ", ".join(each.name for each in inputs)
        raise ModelFileError(
            f"{model.name} takes {len(inputs)} inputs ({names}) where one image is given; call it "
            "in Python with a list of them"
        )
    if not inputs or len(inputs[0].shape) != 4:
        raise ModelFileError(f"{model.name} is no model of one image (h, w, C) or (C, h, w)")
    return _first_image(model, record)


def inputs_of(model: Any, record: dict[str, Any] | None) -> dict[str, ModelInput]:
    """Find out what each input of a Keras model takes, by name and in the model's order.

    The first may be images, as `input_of` has them; further ones are numbers of which nobody says
    more than their shape.

    Raises:
        ModelFileError: A single one takes no images of these channels, or the record is damaged.
    """
    inputs = getattr(model, "inputs", None) or []
    if len(inputs) <= 1:
        takes = input_of(model, record)
        return {inputs[0].name: takes}
    found = {each.name: ModelInput(tuple(each.shape[1:]), False, False, None) for each in inputs}
    if len(inputs[0].shape) == 4:
        found[inputs[0].name] = _first_image(model, record)
    return found


def _first_image(model: Any, record: dict[str, Any] | None) -> ModelInput:
    """Return what a model's first input takes, which are images."""
    shape = tuple(model.inputs[0].shape[1:])
    labels = preprocessing = None
    if record is not None:
        preprocessing, pixels, labels = use_of(record)
    elif pixels := takes_pixels(model):
        spec = spec_of(model)
        preprocessing = None if spec is None else spec.preprocessing
    first = is_channels_first(model, preprocessing.channels if preprocessing else None)
    height, width = shape[1:] if first else shape[:2]
    if preprocessing is not None and height and width:
        preprocessing = preprocessing.at_size(height, width)
    return ModelInput(shape, first, pixels, preprocessing, labels)


def is_channels_first(model: Any, channels: str | None = None) -> bool:
    """Return whether a model takes its image, or the first of several, as (C, h, w).

    Its layers say so, or where none does the axis with as many values as there are channels, which
    are `"RGB"`, `"BGR"` or `"L"`, or None where they are not known.

    Raises:
        ModelFileError: Neither end of the shape has so many.
    """
    shapes = [tuple(each.shape[1:]) for each in model.inputs]
    shape = next((shape for shape in shapes if len(shape) == 3), shapes[0])
    counts = (1, 3) if channels is None else (len(channels),)
    formats = data_formats(model.layers)
    if channels is not None and len(channels) not in (shape[0], shape[-1]):
        raise ModelFileError(
            f"{model.name} takes {shape}, not images of {len(channels)} channels ({channels})"
        )
    if len(formats) == 1:
        return formats == {"channels_first"}
    return shape[-1] not in counts and shape[0] in counts
