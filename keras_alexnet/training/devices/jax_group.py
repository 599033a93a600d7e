"""JAX: `keras.distribution.DataParallel` over the devices of one process, or of several."""

import contextlib
import re
from typing import Any

import numpy as np

from keras_alexnet.core.backend import require
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.layers import keras
from keras_alexnet.training.devices.group import Group
from keras_alexnet.training.devices.joining import Cluster, time_limit

# How long a process may be silent until JAX ends the others, in seconds.
_HEARTBEAT = 20
# The first process evaluates while the others wait; then they part.
_LAST_WAIT = 24 * 3600
_LOST = re.compile(r"gloo|nccl|heartbeat|coordination service|connection (closed|reset)", re.I)


class JaxGroup(Group):
    """A mesh of devices, on which one program computes the whole batch.

    `distribution` is Keras' own over the mesh.
    """

    copies_model = True

    def __init__(self, distribution: Any) -> None:
        jax = require("jax")
        self._distribution = distribution
        self.rank, self.processes = jax.process_index(), jax.process_count()
        self.devices = distribution.num_model_replicas

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Return the scope of the distribution."""
        return self._distribution.scope()

    def explain(self, error: Exception) -> str | None:
        """Return that a connection broke.

        Who is at its other end only JAX knows, when a heartbeat is missed. It then ends this
        process, at once, so that it cannot be asked.
        """
        if not _LOST.search(str(error)):
            return None
        return (
            "another process was lost, or cannot be reached any more; JAX names it below, as a "
            f"task, within {_HEARTBEAT} s"
        )

    def leave(self) -> None:
        """Wait for the others, and part."""
        if self.processes > 1:
            require("jax").distributed.shutdown()

    def _all_gather(self, array: np.ndarray) -> np.ndarray:
        gathered = require("jax.experimental.multihost_utils").process_allgather(array)
        return np.asarray(gathered).reshape(self.processes, -1)


def divide(devices: int) -> JaxGroup:
    """Return the first devices of this host; of a CPU, as many parts.

    Raises:
        ConfigurationError: There are not so many.
    """
    jax = require("jax")
    with contextlib.suppress(RuntimeError):  # JAX has been in use; there may be enough
        jax.config.update("jax_num_cpu_devices", devices)
    names = keras.distribution.list_devices()
    if len(names) < devices:
        raise ConfigurationError(
            f"{devices} devices were asked for, but JAX sees {len(names)}: {', '.join(names)}"
        )
    return JaxGroup(
        keras.distribution.DataParallel(devices=names[:devices], auto_shard_dataset=False)
    )


def join_processes(cluster: Cluster, *, seconds: float) -> JaxGroup:
    """Join the processes that Keras' environment variables describe, within so many seconds.

    Raises:
        ConfigurationError: The first process cannot listen at its address.
    """
    jax = require("jax")
    try:
        with time_limit(seconds, cluster):
            jax.distributed.initialize(
                cluster.address,
                cluster.processes,
                cluster.rank,
                # Its own way to end the process has a longer message.
                initialization_timeout=int(seconds) + 60,
                heartbeat_timeout_seconds=_HEARTBEAT,
                shutdown_timeout_seconds=_LAST_WAIT,
            )
    except RuntimeError as error:
        raise ConfigurationError(
            f"process {cluster.rank} cannot join at {cluster.address}: "
            f"{str(error).splitlines()[0]}. Is the port in use?"
        ) from error
    return JaxGroup(keras.distribution.DataParallel(auto_shard_dataset=False))
