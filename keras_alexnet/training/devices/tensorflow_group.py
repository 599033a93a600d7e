"""TensorFlow's strategies: `MirroredStrategy`, and `MultiWorkerMirroredStrategy`."""

import re
from typing import Any

import numpy as np

from keras_alexnet.core.backend import require
from keras_alexnet.core.keras_internals import StepHooks
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.layers import keras
from keras_alexnet.training.devices.group import Group, moving_statistics
from keras_alexnet.training.devices.joining import Cluster, time_limit

tf = require("tensorflow")

# How long a process may be silent until the others take it for lost, in milliseconds.
_HEARTBEAT = 20_000
_TASK = re.compile(r"/job:worker/(?:replica:\d+/)?task:(\d+)")


class StrategyModel(StepHooks, keras.Model):
    """A functional model whose training steps run under its strategy.

    Keras' own step averages what it reports over the workers, which fails for numbers (Keras 3.15);
    and it builds its metrics from a first batch, which it takes from the data and loses. Here they
    exist already, see `network.compile_training`, and each process sees its first device's numbers
    until the end of the epoch.
    """

    train_function: Any

    def make_train_function(self, force: bool = False) -> None:
        """Make what `fit` calls for each step."""
        if self.train_function is not None and not force:
            return
        strategy = self.distribute_strategy

        @tf.function(reduce_retracing=True, autograph=False)
        def train(data: Any) -> Any:
            outputs = strategy.run(self.train_step, args=(data,))
            return tf.nest.map_structure(
                lambda value: strategy.experimental_local_results(value)[0], outputs
            )

        # Not within the function: at the end of the data, what does not depend on them, such as
        # the count of steps, would have happened before they are found missing.
        self.train_function = lambda iterator: train(next(iterator))


class TensorFlowGroup(Group):
    """A strategy of TensorFlow's and its devices."""

    batch_norm = "each device's part of the batch"
    copies_model = True

    def __init__(self, strategy: Any, *, rank: int = 0, processes: int = 1) -> None:
        self._strategy = strategy
        self.rank, self.processes = rank, processes
        self.devices = strategy.num_replicas_in_sync

    def scope(self) -> Any:
        """Return the scope of the strategy."""
        return self._strategy.scope()

    def trained_model(self, inputs: Any, outputs: Any, name: str) -> Any:
        """Return a functional model that trains under the strategy."""
        return StrategyModel(inputs, outputs, name=name)

    def batches(self, batches: Any) -> Any:
        """Divide the shares of a `tf.data.Dataset` among the devices of this process."""
        local = self.devices // self.processes

        def parts(*share: Any) -> Any:
            divided = tf.nest.map_structure(
                lambda x: tf.reshape(x, tf.concat([[local, -1], tf.shape(x)[1:]], 0)), share
            )
            shaped = tf.nest.map_structure(
                lambda x, whole: tf.ensure_shape(x, [local, None, *whole.shape[1:]]), divided, share
            )
            return tf.data.Dataset.from_tensor_slices(shaped)

        divided = batches if local == 1 else batches.flat_map(parts).prefetch(local)
        return self._strategy.distribute_datasets_from_function(lambda context: divided)

    def part_randomness(self, trainer: Any) -> None:
        """Add a device's number to the seed of its dropout."""
        states = self._first_seeds(trainer)

        def part() -> None:
            device = tf.distribute.get_replica_context().replica_id_in_sync_group
            for state, (seed, count) in states:
                number = tf.cast(device, state.value.dtype)
                state.value.assign(tf.stack([number + seed, tf.cast(count, number.dtype)]))

        if states:
            self._strategy.run(tf.function(part, autograph=False))

    def settle(self, trainer: Any) -> None:
        """Average the moving statistics; metrics are added up by TensorFlow itself."""
        moving = [variable.value for variable in moving_statistics(trainer)]
        if not moving:
            return

        def average() -> None:
            context = tf.distribute.get_replica_context()
            for variable, mean in zip(
                moving, context.all_reduce(tf.distribute.ReduceOp.MEAN, moving), strict=True
            ):
                variable.assign(mean)

        self._strategy.run(tf.function(average, autograph=False))

    def explain(self, error: Exception) -> str | None:
        """Name the process that others have not heard of."""
        lost = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.InternalError)
        if not isinstance(error, lost):
            return None
        _, _, unhealthy = str(error).partition("unhealthy")
        # Where the connection broke before a heartbeat was missed, the text names its two ends.
        named = [int(n) for n in _TASK.findall(unhealthy) or _TASK.findall(str(error))]
        others = [number for number in named if number != self.rank]
        who = f"process {others[0]} (worker {others[0]})" if others else "another process"
        return f"{who} was lost, or cannot be reached any more"

    def leave(self) -> None:
        """Wait for the first process."""
        self.gather(None)

    def _all_gather(self, array: np.ndarray) -> np.ndarray:
        content = tf.constant(array.astype(np.int32))

        def gather() -> Any:
            return tf.distribute.get_replica_context().all_gather(content[None], axis=0)

        result = self._strategy.run(tf.function(gather, autograph=False))
        rows = self._strategy.experimental_local_results(result)[0].numpy()
        return rows[:: self.devices // self.processes].astype(array.dtype)


def mirror(devices: int) -> TensorFlowGroup:
    """Return the first GPUs of this host, or where it has none, as many parts of its CPU.

    Raises:
        ConfigurationError: There are not so many, or TensorFlow has been in use.
    """
    gpus = tf.config.list_logical_devices("GPU") if tf.config.list_physical_devices("GPU") else []
    if gpus:
        if len(gpus) < devices:
            raise ConfigurationError(
                f"{devices} devices were asked for, but TensorFlow sees {len(gpus)} GPU(s)"
            )
        return TensorFlowGroup(tf.distribute.MirroredStrategy([g.name for g in gpus[:devices]]))
    cpu = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration() for _ in range(devices)]
    try:
        tf.config.set_logical_device_configuration(cpu, parts)
    except RuntimeError as error:
        raise ConfigurationError(
            f"the CPU cannot be divided into {devices} devices once TensorFlow has been in use; "
            "train in a process of its own"
        ) from error
    return TensorFlowGroup(tf.distribute.MirroredStrategy([f"CPU:{n}" for n in range(devices)]))


def join_workers(cluster: Cluster, *, seconds: float) -> TensorFlowGroup:
    """Join the workers that `TF_CONFIG` names, within so many seconds.

    Raises:
        ConfigurationError: This worker cannot be reached under its own address.
    """
    context = require("tensorflow.python.eager.context")
    # As the strategy would do it, but that a process is taken for lost before a minute is over.
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader="/job:worker/replica:0/task:0",
        heartbeat_timeout_in_ms=_HEARTBEAT,
        coordinated_jobs=[
            context.coordination_config_pb2.CoordinatedJob(
                name="worker", num_tasks=cluster.processes
            )
        ],
    )
    try:
        with time_limit(seconds, cluster):
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.OpError as error:
        raise ConfigurationError(
            f"worker {cluster.rank} cannot be started at {cluster.address}: "
            f"{str(error).splitlines()[0]}. Is its port in use, or the address not this host's? "
            "See TF_CONFIG"
        ) from error
    return TensorFlowGroup(strategy, rank=cluster.rank, processes=cluster.processes)
