"""The ways to explain a model, by the names that people give them. Imports no framework."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keras_alexnet.core.fields import option
from keras_alexnet.errors import ConfigurationError, UnknownModelError, similar

# Name -> what it shows.
METHODS: Mapping[str, str] = {
    "grad-cam": "where a layer's maps speak for a class",
    "integrated-gradients": "which pixels add to a class's score",
    "occlusion": "how far the score drops where a square hides the photo",
    "maps": "the strongest feature maps of a layer",
    "neighbours": "the photos of a folder that are nearest in feature space",
    "filters": "the kernels of the first convolution",
}

# Those that are about a class's score.
OF_SCORES = ("grad-cam", "integrated-gradients", "occlusion")

# Finding the points of the quadrature takes seconds for as many, and minutes for ten times more.
_MOST_STEPS = 1000


@dataclass(frozen=True)
class ExplanationDetail:
    """How closely the methods look.

    Attributes:
        steps: Points on the way from a black photo, of integrated gradients.
        window: Side in pixels of the square that hides a photo, of occlusion.
        stride: Pixels from one place of the square to the next; half the window by default.
        neighbours: Photos that are shown as the nearest.

    Raises:
        ConfigurationError: One of them is less than 1, or there are more than 1000 steps.
    """

    steps: int = option(50, "Points on the way from a black photo, at most 1000.", metavar="N")
    window: int | None = option(
        None,
        "Side of the square that hides the photo, in pixels.",
        metavar="N",
        show_default="a seventh of the photo's shorter side",
    )
    stride: int | None = option(
        None,
        "Pixels from one place of the square to the next, at most the window.",
        metavar="N",
        show_default="half the window",
    )
    # As figure 4 of Krizhevsky et al. 2012 has them.
    neighbours: int = option(6, "Number of nearest photos to show.", metavar="N")

    def __post_init__(self) -> None:
        check_number("steps", self.steps, most=_MOST_STEPS)
        for name in ("window", "stride", "neighbours"):
            if (value := getattr(self, name)) is not None:
                check_number(name, value)


# A field of `ExplanationDetail` -> the method that it is about.
METHOD_OF: Mapping[str, str] = {
    "steps": "integrated-gradients",
    "window": "occlusion",
    "stride": "occlusion",
    "neighbours": "neighbours",
}


def check_number(name: str, value: int, *, most: int | None = None) -> None:
    """Raise ConfigurationError unless a setting is a whole number from 1 to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= (most or value):
        wanted = "a positive integer" if most is None else f"a whole number from 1 to {most}"
        raise ConfigurationError(f"{name} must be {wanted}, got {value!r}")


def chosen_detail(given: Mapping[str, int], wanted: Sequence[str]) -> ExplanationDetail:
    """Return the detail that options ask for, by the names of its fields.

    Raises:
        ConfigurationError: A number is out of its range, or for a method that is not wanted.
    """
    for name in given:
        if (method := METHOD_OF[name]) not in wanted:
            how = "--among" if method == "neighbours" else f"--method {method}"
            raise ConfigurationError(
                f"--{name} is for the method {method}, which is not wanted: add {how}"
            )
    return ExplanationDetail(**given)


def chosen_methods(names: Sequence[str], *, among: bool) -> tuple[str, ...]:
    """Return the methods of these names, or where there are none all that can be used.

    `among` says whether there are photos to search for neighbours.

    Raises:
        UnknownModelError: There is no such method; the message names the nearest ones.
        ConfigurationError: Neighbours are wanted among nothing, or there is a folder for nothing.
    """
    for name in names:
        if name not in METHODS:
            raise UnknownModelError(
                f"unknown method {name!r}.{similar(name, METHODS)} Known: {', '.join(METHODS)}"
            )
    wanted = names or [name for name in METHODS if among or name != "neighbours"]
    if ("neighbours" in wanted) is not among:
        raise ConfigurationError(
            "--among is for the method neighbours, which is not wanted"
            if among
            else "neighbours are searched in a folder of photos: name it with --among"
        )
    return tuple(name for name in METHODS if name in wanted)
