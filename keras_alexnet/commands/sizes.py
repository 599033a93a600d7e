"""Sizes of images as people write them on a command line."""

from keras_alexnet.errors import ConfigurationError


def parse_size(text: str) -> tuple[int, int]:
    """Read `224` or `193x251` as height and width in pixels; a single number is a square.

    Raises:
        ConfigurationError: The text is neither N nor HEIGHTxWIDTH.
    """
    numbers = text.strip().lower().split("x")
    if not (1 <= len(numbers) <= 2 and all(n.isdecimal() and int(n) > 0 for n in numbers)):
        raise ConfigurationError(f"size {text!r} is neither N nor HEIGHTxWIDTH, in pixels")
    return int(numbers[0]), int(numbers[-1])
