"""What a run asks of the devices that train together, and a device that trains alone."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_alexnet.data.batches.shards import Shard
from keras_alexnet.errors import ConfigurationError, TrainingError


def moving_statistics(model: Any) -> list[Any]:
    """Return the variables that batch norm layers keep of the batches they have seen."""
    return [v for v in model.variables if v.name in ("moving_mean", "moving_variance")]


class Group:
    """The devices that train one model, as one of their processes sees them.

    Each has a copy of the model and sees a part of each batch; the backend's own engine averages
    their gradients. This class is one device alone; its subclasses are the engines.

    Attributes:
        devices: Devices of all processes together.
        processes: Number of processes.
        rank: Number of this process, from 0. The first one alone writes files.
        batch_norm: What the statistics of a batch norm layer are taken from.
        copies_model: Whether the engine trains a copy of the model, made within `scope`.
    """

    devices = 1
    processes = 1
    rank = 0
    batch_norm = "the whole batch"
    copies_model = False

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.rank == 0

    @property
    def shard(self) -> Shard:
        """What this process sees of each batch."""
        return Shard(self.rank, self.processes, self.devices)

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which the trained model is built, compiled and fitted."""
        return contextlib.nullcontext()

    def trained_model(self, inputs: Any, outputs: Any, name: str) -> Any:
        """Return a functional model whose training steps all devices do together."""
        from keras_alexnet.layers import keras

        return keras.Model(inputs, outputs, name=name)

    def send_bfloat16(self) -> None:
        """Send gradients to the others in bfloat16.

        Raises:
            ConfigurationError: This engine cannot.
        """
        raise ConfigurationError(
            "gradients travel in bfloat16 between devices of torch (--gradients bfloat16): name "
            "--backend torch and several --devices, or leave it out"
        )

    def batches(self, batches: Any) -> Any:
        """Return what `fit` takes, of this process's shares of the batches."""
        return batches

    def part_randomness(self, trainer: Any) -> None:
        """Let dropout draw other numbers on each device, as far as the engine does not itself.

        To be called behind each compilation, and whenever variables were loaded.
        """

    def settle(self, trainer: Any) -> None:
        """Let the first process's variables stand for all: metrics, moving statistics.

        To be called by every process, before they are read.
        """

    def gather(self, value: Any) -> list[Any]:
        """Return what the processes have called this with, by rank: values that JSON can hold."""
        if self.processes == 1:
            return [value]
        content = np.frombuffer(json.dumps(value).encode(), np.uint8)
        sizes = self._all_gather(np.array([len(content)], np.int32))[:, 0]
        rows = self._all_gather(np.pad(content, (0, sizes.max() - len(content))))
        return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]

    def any(self, flag: bool) -> bool:
        """Return whether some process has called this with True."""
        if self.processes == 1:
            return flag
        return bool(self._all_gather(np.array([flag], np.uint8)).any())

    @contextlib.contextmanager
    def first_process_first(self) -> Iterator[None]:
        """Let the first process do something before the others do it, as filling a cache.

        Raises:
            TrainingError: It failed in the first process; the others do not try.
        """
        if self.rank and (reason := self.gather(None)[0]) is not None:
            raise TrainingError(f"process 0: {reason}")
        try:
            yield
        except Exception as error:
            if self.is_first:
                self.gather(str(error))
            raise
        if self.is_first:
            self.gather(None)

    def _first_seeds(self, trainer: Any) -> list[tuple[Any, list[int]]]:
        """Return the states of a model's random generators, and what they are on device 0."""
        states = [v for v in trainer.variables if v.name == "seed_generator_state"]
        values = self.gather([np.asarray(v.numpy()).tolist() for v in states])[0]
        return list(zip(states, values, strict=True))

    def explain(self, error: Exception) -> str | None:
        """Return what an error says about a process that was lost, or None if it is another."""
        return None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Within this block, say in one sentence that a process was lost.

        Raises:
            TrainingError: It was.
        """
        try:
            yield
        except TrainingError:
            raise
        except Exception as error:
            text = self.explain(error) if self.processes > 1 else None
            if text is None:
                raise
            raise TrainingError(text) from error

    def leave(self) -> None:
        """End the part of this process, once the first one has written everything."""

    def _all_gather(self, array: np.ndarray) -> np.ndarray:
        """Return the arrays of all processes behind a first axis of ranks.

        They are uint8 or int32 (n,) and have one shape.
        """
        raise NotImplementedError
