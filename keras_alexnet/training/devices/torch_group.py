"""torch: `DistributedDataParallel`, one process for each device, started by torchrun."""

import datetime
import os
import re
from typing import Any

import numpy as np

from keras_alexnet.core.backend import require
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.layers import keras
from keras_alexnet.training.devices.group import Group, moving_statistics
from keras_alexnet.training.devices.joining import Cluster

torch = require("torch")
dist = require("torch.distributed")

# The first process may prepare data, or evaluate, for as long as it likes.
_PATIENCE = datetime.timedelta(days=1)
_LOST = re.compile(r"gloo|nccl|connection (closed|reset)|broken pipe|timed out", re.I)


class ParallelModel(keras.Model):
    """A functional model whose training steps go through `DistributedDataParallel`.

    That averages the gradients while the rest of them are computed. It is made anew whenever the
    the model is compiled, as other layers may train then.

    Attributes:
        in_bfloat16: Whether gradients are rounded to bfloat16 before they are averaged.
    """

    in_bfloat16 = False

    def compile(self, *arguments: Any, **options: Any) -> None:
        """Compile as Keras does."""
        super().compile(*arguments, **options)
        parallel = torch.nn.parallel.DistributedDataParallel(self)
        if self.in_bfloat16:
            hooks = require("torch.distributed.algorithms.ddp_comm_hooks.default_hooks")
            parallel.register_comm_hook(None, hooks.bf16_compress_hook)
        # Past Keras and torch, which would take it for a layer of this model.
        self.__dict__["_parallel"] = parallel

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Compute the outputs; in a training step by way of the wrapper, which calls this again."""
        parallel = self.__dict__.get("_parallel")
        if parallel is None or not options.get("training") or not torch.is_grad_enabled():
            return super().__call__(*arguments, **options)
        self.__dict__["_parallel"] = None
        try:
            return parallel(*arguments, **options)
        finally:
            self.__dict__["_parallel"] = parallel


class TorchGroup(Group):
    """A process group of torch's, each process with one device."""

    batch_norm = "each device's part of the batch"

    def __init__(self, rank: int, processes: int) -> None:
        self.rank, self.processes, self.devices = rank, processes, processes
        self._in_bfloat16 = False

    def trained_model(self, inputs: Any, outputs: Any, name: str) -> Any:
        """Return a functional model that trains in parallel."""
        model = ParallelModel(inputs, outputs, name=name)
        model.in_bfloat16 = self._in_bfloat16
        return model

    def send_bfloat16(self) -> None:
        """Send gradients to the others in bfloat16."""
        self._in_bfloat16 = True

    def part_randomness(self, trainer: Any) -> None:
        """Add the rank to the seeds of dropout; metrics go on in the first process alone."""
        for state, (seed, count) in self._first_seeds(trainer):
            state.assign([seed + self.rank, count])
        if self.rank:
            trainer.reset_metrics()

    def settle(self, trainer: Any) -> None:
        """Average the moving statistics, and add the metrics up in the first process."""
        with torch.no_grad():
            for variable in moving_statistics(trainer):
                dist.all_reduce(variable.value)
                variable.value.div_(self.processes)
            for variable in trainer.metrics_variables:
                dist.reduce(variable.value, 0)
        if self.rank:
            trainer.reset_metrics()

    def explain(self, error: Exception) -> str | None:
        """Return that a connection broke; torchrun names the process."""
        if not isinstance(error, RuntimeError) or not _LOST.search(str(error)):
            return None
        return "another process was lost, or cannot be reached any more"

    def leave(self) -> None:
        """Part; torchrun waits for the first process."""
        dist.destroy_process_group()

    def _all_gather(self, array: np.ndarray) -> np.ndarray:
        own = torch.from_numpy(np.array(array))
        rows = [torch.empty_like(own) for _ in range(self.processes)]
        dist.all_gather(rows, own)
        return torch.stack(rows).numpy()


def join_torchrun(cluster: Cluster, *, seconds: float) -> TorchGroup:
    """Join the processes that torchrun has started, within so many seconds.

    Raises:
        ConfigurationError: They do not come in time, or there is no GPU for this process.
    """
    cuda = torch.cuda.is_available()
    if cuda:
        local = int(os.environ.get("LOCAL_RANK", cluster.rank))
        if local >= torch.cuda.device_count():
            raise ConfigurationError(
                f"process {cluster.rank} is to use GPU {local}, but torch sees "
                f"{torch.cuda.device_count()}; start fewer processes, or use --device cpu"
            )
        torch.cuda.set_device(local)
    # Whoever joins is waited for with one time limit, and from then on with another.
    limit = datetime.timedelta(seconds=seconds)
    try:
        meet = require("torch.distributed.rendezvous").rendezvous
        store, rank, size = next(meet("env://", timeout=limit))
        # Processes that torchrun starts again find what the lost ones have left in it.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"attempt {attempt}", store)
        store.set(f"joined/{rank}", "")
        store.wait([f"joined/{other}" for other in range(size)], limit)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=_PATIENCE,
        )
    except (RuntimeError, ValueError) as error:
        raise ConfigurationError(
            f"process {cluster.rank} of {cluster.processes} could not join the others at "
            f"{cluster.address} within {seconds:g} s: {str(error).splitlines()[0]}. Have all been "
            "started, and is the port free? --join-timeout sets the time"
        ) from error
    return TorchGroup(cluster.rank, cluster.processes)
