"""Learning rates as functions of the step, the same in NumPy and inside a compiled step."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from keras_alexnet.errors import ConfigurationError

Kind = Literal["constant", "step", "cosine", "one-cycle", "plateau"]

# torch.optim.lr_scheduler.OneCycleLR's defaults: where it starts and ends, as divisors.
_START_DIVISOR = 25.0
_END_DIVISOR = 1e4


@dataclass(frozen=True)
class Schedule:
    """How the learning rate changes over one phase of training.

    Attributes:
        kind: `constant`; `step`: times `gamma` every `every` steps; `cosine`: down to 0;
            `one-cycle`: from peak / 25 up and down to peak / 250,000 along cosines; `plateau`:
            constant here, the run lowers `peak` itself.
        peak: Highest learning rate.
        steps: Updates of the phase.
        warmup: Updates over which the rate rises in a line to its value; for `one-cycle` the
            length of its rise.
        every: Updates between two steps of `step`.
        gamma: Factor of a step.
    """

    kind: Kind
    peak: float
    steps: int
    warmup: int = 0
    every: int = 0
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if self.kind == "step" and self.every < 1:
            raise ConfigurationError("schedule 'step' needs step_epochs: epochs between two steps")
        if self.warmup >= self.steps > 0:
            raise ConfigurationError(
                f"the warm-up takes {self.warmup} updates of a phase of {self.steps}; "
                "shorten warmup_epochs"
            )

    def at(self, step: Any, xp: Any) -> Any:
        """Return the learning rate of an update.

        Args:
            step: Its number from 0, of a float type.
            xp: `numpy` or `keras.ops`.
        """
        if self.kind == "one-cycle":
            return self._one_cycle(step, xp)
        rate: Any = self.peak
        if self.kind == "step":
            rate = self.peak * self.gamma ** xp.floor(step / self.every)
        elif self.kind == "cosine":
            rest = (step - self.warmup) / max(self.steps - self.warmup, 1)
            rate = self.peak * _falling(xp.clip(rest, 0.0, 1.0), xp)
        if self.warmup:
            rate = rate * xp.minimum((step + 1.0) / self.warmup, 1.0)
        return rate + 0.0 * step

    def _one_cycle(self, step: Any, xp: Any) -> Any:
        low, end = self.peak / _START_DIVISOR, self.peak / _START_DIVISOR / _END_DIVISOR
        # torch counts the steps between the first update and the last.
        turn = max(self.warmup - 1, 1)
        down = max(self.steps - 1 - turn, 1)
        rising = self.peak + (low - self.peak) * _falling(xp.clip(step / turn, 0.0, 1.0), xp)
        falling = end + (self.peak - end) * _falling(xp.clip((step - turn) / down, 0.0, 1.0), xp)
        return xp.where(step < turn, rising, falling)


def _falling(share: Any, xp: Any) -> Any:
    """Return half a cosine, from 1 to 0 as `share` goes from 0 to 1."""
    return 0.5 * (1.0 + xp.cos(math.pi * share))


def as_learning_rate(schedule: Schedule, *, accumulate: int = 1) -> Any:
    """Return what a Keras optimiser takes: a number where the rate does not change by itself.

    Keras' optimisers count batches, of which an update takes `accumulate`.
    """
    from keras_alexnet.training.optim.optimizers import keras

    if schedule.kind in ("constant", "plateau") and not schedule.warmup:
        return schedule.peak

    class _LearningRate(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> Any:
            updates = keras.ops.floor_divide(step, accumulate)
            return schedule.at(keras.ops.cast(updates, "float32"), keras.ops)

        def get_config(self) -> dict[str, Any]:
            return dict(vars(schedule))

    return _LearningRate()
