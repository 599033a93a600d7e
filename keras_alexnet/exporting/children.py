"""The children of an export."""

from typing import Any

from keras_alexnet.core.children import call_child
from keras_alexnet.errors import ChildError, ExportError

_TIMEOUT = 3600.0  # seconds of silence; the largest network takes one minute


def run_job(module: str, job: dict[str, Any], *, backend: str | None = None) -> Any:
    """Run a child of this folder on a job and return its result.

    It sees no accelerator: TF32 and the like would break the comparison, and exported files hold
    the device of their tensors. TensorFlow's runtime imports Keras by itself, and without `backend`
    would bring another one with it; None is for a child that has neither.

    Raises:
        ExportError: A converter or runtime failed; the message names the cause in one line.
        KerasAlexNetError: The child found a mistake of the user's, died or hung.
    """
    name = f"{__package__}.{module}"
    try:
        return call_child(name, job, backend=backend, accelerator=False, timeout=_TIMEOUT)
    except ChildError as error:
        if error.reason is None:
            raise
        raise ExportError(error.reason) from error
