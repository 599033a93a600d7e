"""What may happen to a training image, as a record: torchvision's transforms in their usual order.

resize -> crop -> flip -> colour jitter -> grayscale -> PCA colour. Normalisation is the model's.
"""

from dataclasses import dataclass
from typing import Literal

from keras_alexnet.errors import ConfigurationError

Crop = Literal["center", "random", "random-resized"]


@dataclass(frozen=True)
class Augmentation:
    """Parameters of the transforms; the defaults leave an image of the right size alone.

    Attributes:
        resize: Length of the short side after resizing, in pixels, before the crop; None leaves
            the image as it is. Has no meaning for random resized crops.
        crop: How the model's input size is cut out: the centre, at random, or a random area and
            aspect ratio that is resized to it.
        padding: Black pixels put around the image before a random crop.
        scale: Range of the area of a random resized crop, as a share of the image's.
        ratio: Range of its aspect ratio, width / height.
        flip: Probability of a horizontal flip.
        brightness: Brightness factors are drawn from [max(0, 1 - b), 1 + b].
        contrast: The same for contrast.
        saturation: The same for saturation.
        hue: Hue shifts are drawn from [-h, h], in turns; at most .5.
        grayscale: Probability that an image loses its colours.
        pca: Deviation of the factors of the PCA colour augmentation (Krizhevsky 2012: .1).
    """

    resize: int | None = None
    crop: Crop = "center"
    padding: int = 0
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grayscale: float = 0.0
    pca: float = 0.0

    def __post_init__(self) -> None:
        ranges = {
            "flip": (self.flip, 1),
            "grayscale": (self.grayscale, 1),
            "hue": (self.hue, 0.5),
            "padding": (self.padding, 1000),
            "brightness": (self.brightness, 100),
            "contrast": (self.contrast, 100),
            "saturation": (self.saturation, 100),
            "pca": (self.pca, 100),
        }
        for name, (value, highest) in ranges.items():
            if not 0 <= value <= highest:
                raise ConfigurationError(f"{name} must lie in [0, {highest}], got {value!r}")
        if self.crop not in ("center", "random", "random-resized"):
            raise ConfigurationError(
                f"crop must be 'center', 'random' or 'random-resized', got {self.crop!r}"
            )
        if self.resize is not None and self.resize < 1:
            raise ConfigurationError(f"resize must be a number of pixels, got {self.resize!r}")
        if self.padding and self.crop != "random":
            raise ConfigurationError(f"padding needs crop='random', got {self.crop!r}")
        for name, (low, high) in {"scale": self.scale, "ratio": self.ratio}.items():
            if not 0 < low <= high:
                raise ConfigurationError(f"{name} must be a range (low, high) above 0")

    @property
    def jitters(self) -> bool:
        """Whether colours are jittered."""
        return any((self.brightness, self.contrast, self.saturation, self.hue))

    @property
    def recolours(self) -> bool:
        """Whether colours may change at all."""
        return self.jitters or bool(self.grayscale or self.pca)
