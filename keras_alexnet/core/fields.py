"""Fields of records that are options of a command line too, and how their values are written."""

from collections.abc import Callable
from dataclasses import field
from typing import Any, Literal, TypeVar, get_args, get_origin

from keras_alexnet.errors import ConfigurationError

T = TypeVar("T")


def option(
    default: Any, text: str, *, parse: Callable[[str], Any] | None = None, **details: Any
) -> Any:
    """Return a dataclass field with what its option on a command line needs.

    `--help` shows the text. `parse` makes a value of text, for types that a command line does not
    know; `details` are further arguments of `typer.Option`, with `flag` as the option's own name.
    """
    return field(default=default, metadata={"help": text, "parse": parse, "details": details})


def choices(hint: Any) -> list[str]:
    """Return the values of a field's type that is a `Literal`, alone or in a union; else none."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [choice for argument in get_args(hint) for choice in choices(argument)]


def parse_size(text: str) -> tuple[int, int]:
    """Read `224` or `193x251` as height and width in pixels; a single number is a square.

    Raises:
        ConfigurationError: The text is neither N nor HEIGHTxWIDTH.
    """
    numbers = text.strip().lower().split("x")
    if not (1 <= len(numbers) <= 2 and all(n.isdecimal() and int(n) > 0 for n in numbers)):
        raise ConfigurationError(f"size {text!r} is neither N nor HEIGHTxWIDTH, in pixels")
    return int(numbers[0]), int(numbers[-1])


def parse_shape(text: str) -> tuple[int, ...]:
    """Read `3x96x128` as channels, height and width of an image, or the shape of another input.

    Raises:
        ConfigurationError: The text is no shape.
    """
    numbers = text.strip().lower().split("x")
    if not all(n.isdecimal() and int(n) > 0 for n in numbers):
        raise ConfigurationError(
            f"shape {text!r} is not CHANNELSxHEIGHTxWIDTH, such as 3x96x128, nor another shape"
        )
    return tuple(map(int, numbers))


def comma_separated(parse: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """Return what reads several values with commas between them."""
    return lambda text: tuple(parse(part) for part in text.split(","))
