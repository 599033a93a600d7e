"""TensorFlow as the host's loader, whatever framework computes the model."""

import contextlib
import os
import sys
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from keras_alexnet.core.backend import installed, require
from keras_alexnet.errors import MissingDependencyError

# TensorFlow keeps so many batches ready.
PREFETCH = 2


def load_tensorflow(framework: str) -> Any:
    """Import TensorFlow for its input pipelines.

    Beside another framework, Keras' backend, it leaves the GPUs alone, of which it would take all
    memory.

    Raises:
        MissingDependencyError: It is not installed.
    """
    if framework != "tensorflow" and "tensorflow" not in sys.modules:
        # torch imports triton when it first compiles something; behind TensorFlow it would abort.
        if framework == "torch" and installed("triton"):
            require("triton")
        # What it writes about devices is of no interest; its errors are exceptions.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        tf = require("tensorflow")
    except MissingDependencyError as error:
        raise MissingDependencyError(
            f"{error} It changes colours on the host, and augments images in memory there; on the "
            "device that needs no TensorFlow (--augment-on device)"
        ) from error
    if framework != "tensorflow":
        with contextlib.suppress(RuntimeError):  # too late: it was in use before
            tf.config.set_visible_devices([], "GPU")
    return tf


def python_step(tf: Any, method: Callable[..., Any], arguments: Any, *results: Any) -> list[Any]:
    """Call a bound method on NumPy arrays, as a step of a dataset.

    `tf.numpy_function` keeps what it calls for good. This one keeps the method's object alive only
    through `finished`. The arguments are tensors, `results` the (shape, dtype) of what it returns.
    """
    weak = weakref.WeakMethod(method)

    def call(*arrays: Any) -> Any:
        bound = weak()
        if bound is None:
            raise RuntimeError("these batches outlived the epoch that they belong to")
        return bound(*arrays)

    values = tf.numpy_function(call, arguments, [dtype for _, dtype in results])
    return [tf.ensure_shape(v, shape) for v, (shape, _) in zip(values, results, strict=True)]


def finished(tf: Any, dataset: Any, owner: object) -> Any:
    """Return a dataset that works ahead and keeps the object that its `python_step`s belong to."""
    return settled(tf, dataset.prefetch(PREFETCH), owner)


def settled(tf: Any, dataset: Any, owner: object) -> Any:
    """Return a dataset that keeps the object that its `python_step`s belong to."""
    options = tf.data.Options()
    # Nothing is left to be tuned, and its thread lets the end of every few epochs wait for it,
    # about as long as the epoch took (TensorFlow 2.21).
    options.autotune.enabled = False
    dataset = dataset.with_options(options)
    dataset.owner_of_python_steps = owner
    return dataset


def from_batches(tf: Any, batches: Iterable[Any], signature: Any) -> Any:
    """Return a dataset of the batches that an object yields, once, as `signature` describes them.

    It does not work ahead: the object does. As with `python_step`, the object lives no longer than
    the dataset.
    """
    weak = weakref.ref(batches)

    def generate() -> Iterator[Any]:
        found = weak()
        if found is None:
            raise RuntimeError("these batches outlived the epoch that they belong to")
        return iter(found)

    dataset = tf.data.Dataset.from_generator(generate, output_signature=signature)
    return settled(tf, dataset, batches)


def numpy_batches(dataset: Any) -> Iterator[tuple[Any, ...]]:
    """Iterate over the batches of a `tf.data.Dataset` as read-only arrays, uncopied."""
    # Nobody writes to inputs, but torch warns that somebody could.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    yield from dataset.as_numpy_iterator()
