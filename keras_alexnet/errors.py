"""The exceptions of this package: one tree, each also a built-in kind that callers may catch."""

import difflib
import re
from collections.abc import Iterable

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # of Keras' messages
_LONGEST = 300  # characters of a foreign error


class KerasAlexNetError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigurationError(KerasAlexNetError, ValueError):
    """An argument has a value that the model cannot be built with."""


class UnknownModelError(KerasAlexNetError, ValueError):
    """No model, layer or stage has the name that was asked for."""


class MissingDependencyError(KerasAlexNetError, ImportError):
    """An optional package is not installed; the message holds the `pip install` line."""


class ImportOrderError(KerasAlexNetError, ImportError):
    """A package was imported too late to be safe in this process."""


class ModelFileError(KerasAlexNetError, ValueError):
    """A model or weights file cannot be read, or does not fit the model."""


class ImageFileError(KerasAlexNetError, ValueError):
    """A file is not a readable image.

    Attributes:
        reason: Why, without the name of the file, for lists that give it beside.
    """

    def __init__(self, place: object, reason: str) -> None:
        super().__init__(place, reason)
        self.reason = reason

    def __str__(self) -> str:
        place, reason = self.args
        return f"{place}: {reason}"


class ChildError(KerasAlexNetError, RuntimeError):
    """A child process failed or hung; the message holds the end of its output.

    Attributes:
        reason: The error that it ended with in one line, or None where it died or was stopped.
    """

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason


class DataError(KerasAlexNetError, ValueError):
    """A data set is missing, damaged or contradicts itself."""


class TrainingError(KerasAlexNetError, RuntimeError):
    """A run cannot go on: its loss is not finite, or its folder cannot be written to or resumed."""


class ExportError(KerasAlexNetError, RuntimeError):
    """A model cannot be exported to a format, or the exported file cannot be run."""


class VerificationError(KerasAlexNetError, RuntimeError):
    """An exported file computes something else than the model it was exported from."""


class CompilationError(KerasAlexNetError, RuntimeError):
    """A model cannot be compiled: `torch.compile` finds no working compiler."""


class BenchmarkError(KerasAlexNetError, RuntimeError):
    """A competitor cannot do what is measured."""


def listed(names: Iterable[str], limit: int = 5) -> str:
    """Return names as a sentence has them: the first few, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def similar(name: str, known: Iterable[str], limit: int = 3) -> str:
    """Return the names that an unknown one may stand for, as a sentence behind a space, or ""."""
    close = difflib.get_close_matches(name, list(known), limit)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def counted(number: int, noun: str) -> str:
    """Return a number of things as a sentence has them: `1 image`, `1,200 images`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def one_line(error: Exception, *, named: bool = False) -> str:
    """Return the first line of a foreign error's message, with its kind in front where `named`.

    One that only announces others has the last one behind it, which says what happened.
    """
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines() if line.strip()]
    kind = type(error).__name__
    text = lines[0] if lines else kind
    if text.endswith(":"):  # as TensorFlow's, which names the node of its graph at the end
        text = " ".join([text, *[line for line in lines[1:] if not line.startswith("[[")][-1:]])
    text = f"{kind}: {text}" if named and lines else text
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
