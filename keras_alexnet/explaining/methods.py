"""The ways to explain a model, by the names that people give them. Imports no framework."""

from collections.abc import Mapping, Sequence

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
