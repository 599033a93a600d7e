"""The exceptions of this package: one tree, each also a built-in kind that callers may catch."""


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
    """A file is not a readable image."""


class ChildError(KerasAlexNetError, RuntimeError):
    """A child process failed or ran out of time; the message holds the end of its output."""


class DataError(KerasAlexNetError, ValueError):
    """A data set is missing, damaged or contradicts itself."""


class TrainingError(KerasAlexNetError, RuntimeError):
    """A run cannot go on: its loss is not finite, or its folder cannot be written to or resumed."""
