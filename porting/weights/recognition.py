"""What a Keras model is: its architecture, from the names and shapes of its weights."""

import contextlib
from dataclasses import dataclass
from typing import Any

from keras_alexnet.models.interface import is_channels_first, spec_of
from keras_alexnet.specs import SPECS
from keras_alexnet.specs.schema import ModelSpec, keras_name
from porting.errors import TransferError
from porting.weights.counterpart import Counterpart
from porting.weights.spec_tables import counterpart, first_weighted_layer
from porting.weights.table import Size


@dataclass(frozen=True)
class Architecture:
    """What a Keras model turned out to be.

    `size` is the height and width of its images in pixels, None where it takes any.
    """

    spec: ModelSpec
    classes: int
    aux_heads: bool
    include_top: bool
    size: Size | None
    channels: int

    @property
    def counterpart(self) -> Counterpart:
        """What exactly the layers that the model has correspond to."""
        return counterpart(
            self.spec,
            self.classes,
            aux_heads=self.aux_heads,
            include_top=self.include_top,
            size=self.size,
            channels=self.channels,
        )


def architecture_of(model: Any) -> Architecture:
    """Recognise a Keras model by the names and shapes of its weights.

    Raises:
        TransferError: It is none of the known architectures.
    """
    shapes = {name: tuple(variable.shape) for name, variable in variables_of(model).items()}
    spec = spec_of(model)
    if spec is not None:
        aux = spec.aux
        head_shape = shapes.get(f"{keras_name(spec.classifier)}/kernel")
        size, channels = _image_shape(model.get_layer(first_weighted_layer(spec)), model)
        found = Architecture(
            spec,
            classes=head_shape[-1] if head_shape else spec.classes,
            aux_heads=bool(aux) and any(name.startswith(f"{aux[0].name}_") for name in shapes),
            include_top=head_shape is not None,
            size=size,
            channels=channels,
        )
        with contextlib.suppress(ValueError):  # it does not exist at this size
            puts = found.counterpart.puts
            if {put.variable: put.keras_shape for put in puts} == shapes:
                return found
    raise TransferError(
        f"model {model.name!r} is none of the known architectures ({', '.join(SPECS)}): its "
        f"{len(shapes)} weights have other names or shapes. Build it with "
        "keras_alexnet.create_model(...)"
    )


def _image_shape(first: Any, model: Any) -> tuple[Size | None, int]:
    """Return the size and the channels of the images that a network's first layer reads."""
    _, *shape = first.input.shape
    *size, channels = (*shape[1:], shape[0]) if is_channels_first(model) else shape
    return (None if None in size else (size[0], size[1])), channels


def variables_of(model: Any) -> dict[str, Any]:
    """Return `layer/variable` -> variable of a Keras model."""
    return {
        f"{layer.name}/{variable.name}": variable
        for layer in model.layers
        for variable in layer.weights
    }
