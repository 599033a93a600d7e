"""Where a run computes: how many devices, and whether among other processes."""

from dataclasses import dataclass

from keras_alexnet.errors import ConfigurationError
from keras_alexnet.training.devices.group import Group
from keras_alexnet.training.devices.joining import (
    keras_cluster,
    tensorflow_cluster,
    torchrun_cluster,
)


@dataclass(frozen=True)
class Placement:
    """Where a run computes; what it computes does not depend on it.

    Attributes:
        devices: Devices of this host that share each batch.
        distribute: Whether this process is one of several, as its launcher says.
        join_timeout: How long to wait for the others, in seconds.

    Raises:
        ConfigurationError: A value is impossible.
    """

    devices: int = 1
    distribute: bool = False
    join_timeout: float = 300.0

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise ConfigurationError(f"--devices must be at least 1, got {self.devices}")
        if self.devices > 1 and self.distribute:
            raise ConfigurationError(
                "--devices is for one process, or for all of one host; with --distribute each "
                "process takes the devices that it sees: leave one of the two out"
            )
        if not self.join_timeout > 0:
            raise ConfigurationError(f"--join-timeout must be above 0, got {self.join_timeout:g}")

    def group(self, backend: str) -> Group:
        """Return the devices that train together, as this process sees them.

        To be called before the Keras backend computes anything.

        Raises:
            ConfigurationError: There are not so many devices, or the others do not come.
        """
        if self.distribute:
            return self._join(backend)
        if self.devices == 1:
            return Group()
        if backend == "tensorflow":
            from keras_alexnet.training.devices.tensorflow_group import mirror

            return mirror(self.devices)
        if backend == "jax":
            from keras_alexnet.training.devices.jax_group import divide

            return divide(self.devices)
        raise ConfigurationError(
            "torch takes a process for each device, which `keras_alexnet.training.devices.launch` "
            "starts, or torchrun (--distribute)"
        )

    def _join(self, backend: str) -> Group:
        if backend == "tensorflow":
            cluster = tensorflow_cluster()
            from keras_alexnet.training.devices.tensorflow_group import join_workers

            return join_workers(cluster, seconds=self.join_timeout)
        if backend == "jax":
            cluster = keras_cluster()
            from keras_alexnet.training.devices.jax_group import join_processes

            return join_processes(cluster, seconds=self.join_timeout)
        cluster = torchrun_cluster()
        from keras_alexnet.training.devices.torch_group import join_torchrun

        return join_torchrun(cluster, seconds=self.join_timeout)
