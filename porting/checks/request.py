"""A check in the user's words."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_alexnet.core.backend import BACKENDS, check_installed, installed_backends, pip_line
from keras_alexnet.core.fields import comma_separated, option, parse_shape, parse_size
from keras_alexnet.specs.schema import DATA_FORMATS
from porting.conversion.sources import ALLOW_PICKLE, INPUT_SHAPE, TRANSFORM_INPUT, WHICH
from porting.errors import UsageError
from porting.weights.table import Shape, Size


def input_shapes_option() -> Any:
    """Return the field of the shapes of a network's inputs."""
    shapes = comma_separated(parse_shape)
    return option(None, INPUT_SHAPE, parse=shapes, flag="--input-shape", metavar="TEXT")


@dataclass(frozen=True)
class CheckRequest:
    """A check in the user's words, which the fields' help texts are.

    The weights are those of the first size. Without images, noise alone is compared where they are
    an empty list. `reference` is what `user_code.check_function` takes.
    """

    model: str
    source: str | Path | None = option(
        None, "A weights file or torchvision weights' name; by default seeded weights.", parse=str
    )
    candidate: Path | None = option(None, "The .keras file; by default the source is converted.")
    images: list[Path] | None = option(
        None, "Photo file or folder, repeatable; by default scikit-learn's sample photos."
    )
    sizes: Sequence[Size] | None = option(
        None,
        "N or HEIGHTxWIDTH, comma-separated, in pixels; by default the model's own and up to three "
        "others that its weights serve.",
        parse=comma_separated(parse_size),
    )
    noise: int = option(2, "Noise images of each size.", min=0)
    seed: int = option(0, "Of the noise and of seeded weights.", min=0)
    gradients: bool = option(
        True,
        "Compare the gradient of every weight, in float64.",
        flag="--gradients/--no-gradients",
    )
    input_shapes: Sequence[Shape] | None = input_shapes_option()
    backends: Sequence[str] | None = option(
        None, "Comma-separated; by default all installed.", parse=comma_separated(str)
    )
    data_formats: Sequence[str] = option(
        DATA_FORMATS, "Comma-separated.", parse=comma_separated(str)
    )
    transform_input: bool | None = option(None, TRANSFORM_INPUT)
    reference: str | None = option(
        None,
        "Your own torch network: FUNCTION(model, classes=, aux_heads=, size=) is run and returns "
        "it. By default torchvision's, or one of torch's layers after our table.",
        metavar="FILE.py:FUNCTION",
    )
    allow_pickle: bool = option(False, ALLOW_PICKLE, flag="--allow-pickle")
    which: str | None = option(None, WHICH)
    timeout: float = option(900.0, "Seconds of silence that end a child process.", min=1)


def chosen_backends(request: CheckRequest) -> tuple[str, ...]:
    """Return the backends of a check, whose data formats are known and reference is there."""
    chosen = checked_backends(request.backends)
    if unknown := [f for f in request.data_formats if f not in DATA_FORMATS]:
        raise UsageError(f"unknown data format {unknown[0]!r}; known: {', '.join(DATA_FORMATS)}")
    check_installed("torchvision")  # the reference; said before anything is computed
    return chosen


def checked_backends(backends: Sequence[str] | None) -> tuple[str, ...]:
    """Return the Keras backends that were asked for, all that are installed for None.

    Raises:
        UsageError: One is unknown or not installed, or none is.
    """
    if backends is None:
        found = installed_backends()
        if not found:
            raise UsageError(f"no Keras backend is installed: {pip_line('tensorflow torch jax')}")
        return found
    for backend in backends:
        if backend not in BACKENDS:
            raise UsageError(f"unknown backend {backend!r}; known: {', '.join(BACKENDS)}")
        if backend not in installed_backends():
            raise UsageError(
                f"the backend {backend} is not installed. Install it with: {pip_line(backend)}"
            )
    return tuple(backends)
