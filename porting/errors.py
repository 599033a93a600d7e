"""The exceptions of this package: a branch of `keras_alexnet`'s tree."""

from collections.abc import Mapping, Sequence

from keras_alexnet.errors import KerasAlexNetError


class PortingError(KerasAlexNetError):
    """Base of every error that this package raises on purpose."""


class CheckpointError(PortingError, ValueError):
    """A weights file cannot be read, or holds something other than named arrays."""


class TransferError(PortingError, ValueError):
    """Weights and model do not correspond one to one; the message lists every problem.

    Attributes:
        problems: Kind of problem -> keys with what was found and what was wanted, where known.
    """

    def __init__(self, message: str, problems: Mapping[str, Sequence[str]] | None = None) -> None:
        super().__init__(message)
        self.problems = problems or {}


class DownloadError(PortingError, OSError):
    """A weights file could not be downloaded, or is not the one that was announced."""


class UsageError(PortingError, ValueError):
    """The arguments of a command contradict each other or name nothing."""


class GraphError(PortingError, ValueError):
    """A torch network cannot become a Keras model: it does not export, or an operation is unknown.

    The message names the operation, its module and the line of code that asked for it.
    """
