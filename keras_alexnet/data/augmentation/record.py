"""What may happen to a training image, as a record: torchvision's transforms in their usual order.

resize -> crop -> flip -> colour jitter -> grayscale -> PCA colour. Normalisation is the model's.
"""

from dataclasses import dataclass
from typing import Literal

from keras_alexnet.core.fields import option
from keras_alexnet.errors import ConfigurationError

Crop = Literal["center", "random", "random-resized"]


@dataclass(frozen=True)
class Augmentation:
    """Parameters of the transforms; the defaults leave an image of the right size alone."""

    resize: int | None = option(
        None,
        "Short side in pixels after resizing, before the crop; random-resized has no use for it.",
    )
    crop: Crop = option(
        "center", "How the input is cut out: a random area and shape of it for random-resized."
    )
    padding: int = option(0, "Black pixels put around the image before a random crop.")
    scale: tuple[float, float] = option(
        (0.08, 1.0), "Range of the area of a random-resized crop, as a share of the image's."
    )
    ratio: tuple[float, float] = option(
        (3 / 4, 4 / 3), "Range of the width / height of a random-resized crop."
    )
    flip: float = option(0.0, "Probability of a horizontal flip.")
    brightness: float = option(
        0.0, "Brightness factors are drawn from 1 - this (at least 0) to 1 + this."
    )
    contrast: float = option(0.0, "The same for contrast.")
    saturation: float = option(0.0, "The same for saturation.")
    hue: float = option(0.0, "Hue shifts are drawn from minus to plus this, in turns; at most .5.")
    grayscale: float = option(0.0, "Probability that an image loses its colours.")
    pca: float = option(
        0.0, "Deviation of the PCA colour augmentation's factors (Krizhevsky 2012: .1)."
    )

    def __post_init__(self) -> None:
        limits = {"flip": 1, "grayscale": 1, "hue": 0.5, "padding": 1000}
        limits |= dict.fromkeys(("brightness", "contrast", "saturation", "pca"), 100)
        for name, highest in limits.items():
            value = getattr(self, name)
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
    def jitters(self) -> tuple[str, ...]:
        """The operations of a colour jitter that are in use."""
        names = ("brightness", "contrast", "saturation", "hue")
        return tuple(name for name in names if getattr(self, name))

    @property
    def recolours(self) -> bool:
        """Whether colours may change at all."""
        return bool(self.jitters or self.grayscale or self.pca)

    def in_words(self) -> str:
        """Return the parameters that have an effect, in their order: `resize 256, random crop`."""
        said = []
        if self.resize is not None and self.crop != "random-resized":
            said.append(f"resize {self.resize}")
        if self.padding:
            said.append(f"padding {self.padding}")
        if self.crop == "random-resized":
            low, high = self.scale
            said.append(f"random resized crop {low:g}..{high:g}")
        elif self.crop == "random":
            said.append("random crop")
        chances = ("flip", "brightness", "contrast", "saturation", "hue", "grayscale", "pca")
        said += [f"{name} {value:g}" for name in chances if (value := getattr(self, name))]
        return ", ".join(said) or "none"

    def check(self, *, channels: int | None, pca: object) -> None:
        """Check what the augmentation needs besides its parameters.

        `channels` are those of the images, 3 for RGB or 1 for grey; None if unknown. `pca` are the
        principal components of colours, or None.

        Raises:
            ConfigurationError: Grey images would be recoloured, or the components are missing.
        """
        if self.recolours and channels not in (3, None):
            raise ConfigurationError(
                "grey images have no colours: leave brightness, contrast, saturation, hue, "
                f"grayscale and pca at 0 for images of {channels} channel(s)"
            )
        if self.pca and pca is None:
            raise ConfigurationError(
                "pca augmentation needs the principal components of the training images' colours; "
                "give those of statistics.colour_components"
            )
