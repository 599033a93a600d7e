"""What happens to an image before the first layer, as specs and model files say it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import Any, Literal, Self

from keras_alexnet.errors import ModelFileError

CHANNELS = ("RGB", "BGR", "L")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")


@dataclass(frozen=True)
class Preprocessing:
    """What happens to a decoded image before the first layer: one record per weights file.

    The values are (pixel / scale - mean) / std by channel.

    Attributes:
        resize_size: Length of the short side after resizing, in pixels.
        crop_size: Height and width of the centre crop, in pixels.
        mean: Mean of the channels, in their order.
        std: Standard deviation of the channels, in their order.
        channels: Order in which the network reads them: `"RGB"`, `"BGR"`, or `"L"` for grey.
        scale: Divisor of the pixels 0..255: 255 where mean and deviation are those of [0, 1].
        interpolation: Filter of the resize, Pillow's of that name: `"nearest"`, `"bilinear"`,
            `"bicubic"` or `"lanczos"`.
        squash: Whether both sides are resized, to `squashed_size`, whatever their ratio was.
    """

    resize_size: int = 256
    crop_size: tuple[int, int] = (224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    channels: Literal["RGB", "BGR", "L"] = "RGB"
    scale: float = 255.0
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    squash: bool = False

    @property
    def squashed_size(self) -> tuple[int, int]:
        """Height and width of a squashed image in pixels: the crop's and its margin."""
        height, width = (
            round(side * self.resize_size / max(self.crop_size)) for side in self.crop_size
        )
        return height, width

    @property
    def mode(self) -> Literal["RGB", "L"]:
        """Pillow's mode of the images, whose order R, G, B is changed behind it."""
        return "L" if self.channels == "L" else "RGB"

    @classmethod
    def from_record(cls, values: Any) -> Self:
        """Return what `dataclasses.asdict` made into JSON: the entry of a model file's record.

        Args:
            values: The fields by name, tuples as lists; one that is left out has its default.

        Raises:
            ModelFileError: It is no such object, or a field has a value that it cannot have.
        """
        if not isinstance(values, Mapping):
            raise damaged("preprocessing", values, "an object with " + ", ".join(_names(cls)))
        if unknown := sorted(values.keys() - set(_names(cls))):
            raise damaged("preprocessing", unknown, "fields among " + ", ".join(_names(cls)))
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        found = cls(**given)
        for name, choices in (("channels", CHANNELS), ("interpolation", INTERPOLATIONS)):
            if (value := getattr(found, name)) not in choices:
                raise damaged(f"preprocessing.{name}", value, "one of " + ", ".join(choices))
        count = len(found.channels)
        for name, right, wanted in (
            ("resize_size", _is_size(found.resize_size), "a whole number from 1 up"),
            ("crop_size", _are(_is_size, found.crop_size, 2), "two whole numbers from 1 up"),
            ("mean", _are(_is_finite, found.mean, count), f"{count} numbers"),
            ("std", _are(_is_positive, found.std, count), f"{count} numbers above 0"),
            ("scale", _is_positive(found.scale), "a number above 0"),
            ("squash", isinstance(found.squash, bool), "true or false"),
        ):
            if not right:
                raise damaged(
                    f"preprocessing.{name}", values.get(name, getattr(found, name)), wanted
                )
        return found

    def at_size(self, height: int, width: int) -> Self:
        """Return the same record for another input size, the margin of the resize kept."""
        if (height, width) == self.crop_size:
            return self
        resize_size = round(max(height, width) * self.resize_size / max(self.crop_size))
        return replace(self, resize_size=resize_size, crop_size=(height, width))


def damaged(name: str, value: Any, wanted: str) -> ModelFileError:
    """Return the error about an entry of a model file's record."""
    return ModelFileError(
        f"the file's record is damaged ({name} is {value!r}; wanted: {wanted}); convert, train or "
        "save the model anew"
    )


def _names(kind: type[Preprocessing]) -> list[str]:
    return [field.name for field in fields(kind)]


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_positive(value: Any) -> bool:
    return _is_finite(value) and value > 0


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and _is_positive(value)


def _are(check: Callable[[Any], bool], values: Any, count: int) -> bool:
    """Say whether something is so many values that pass a check."""
    return isinstance(values, tuple) and len(values) == count and all(map(check, values))
