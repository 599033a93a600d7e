"""The phases of a run: which layers learn, and the optimiser and learning rate that go with it."""

import contextlib
from collections.abc import Iterator
from typing import Any

from keras_alexnet.training.bodies import Body
from keras_alexnet.training.experiment import Experiment
from keras_alexnet.training.optim.optimizers import create_optimizer
from keras_alexnet.training.optim.schedules import Schedule, as_learning_rate


def phase_of(experiment: Experiment, epoch: int) -> int:
    """Return 0 while the body is frozen and 1 afterwards; epochs count from 0."""
    return 0 if epoch < experiment.freeze_epochs else 1


def set_trainable(model: Any, body: Body, phase: int) -> None:
    """Freeze or unfreeze the body of a model."""
    heads = body.heads(model)
    for layer in model.layers:
        layer.trainable = phase == 1 or layer.name in heads


def schedule_of(experiment: Experiment, phase: int, steps_per_epoch: int) -> Schedule:
    """Return the learning rate of a phase, 0 or 1, whose epochs have so many batches.

    A frozen phase has a constant one: the schedule is for the whole network.
    """
    updates = max(steps_per_epoch // experiment.accumulate, 1)
    if phase == 0:
        return Schedule("constant", experiment.learning_rate, experiment.freeze_epochs * updates)
    rate = experiment.learning_rate
    if experiment.freeze_epochs and experiment.unfrozen_learning_rate is not None:
        rate = experiment.unfrozen_learning_rate
    return Schedule(
        experiment.schedule,
        rate,
        (experiment.epochs - experiment.freeze_epochs) * updates,
        warmup=round(experiment.warmup_epochs * updates),
        every=experiment.step_epochs * updates,
        gamma=experiment.gamma,
    )


def optimizer_of(experiment: Experiment, schedule: Schedule) -> Any:
    """Return a new optimiser for a phase."""
    return create_optimizer(
        experiment.optimizer,
        as_learning_rate(schedule, accumulate=experiment.accumulate),
        momentum=experiment.momentum,
        nesterov=experiment.nesterov,
        weight_decay=experiment.weight_decay,
        decoupled=experiment.decoupled,
        clip_norm=experiment.clip_norm,
        accumulate=experiment.accumulate,
        ema=experiment.ema,
        loss_scaling=experiment.precision == "mixed_float16",
    )


@contextlib.contextmanager
def averaged(trainer: Any, experiment: Experiment) -> Iterator[None]:
    """Within this block a model has the moving average of its weights, where there is one.

    It must be compiled with `optimizer_of` the experiment.
    """
    if not experiment.ema:
        yield
        return
    optimizer = getattr(trainer.optimizer, "inner_optimizer", trainer.optimizer)
    optimizer.swap_averages(trainer.trainable_variables)
    try:
        yield
    finally:
        optimizer.swap_averages(trainer.trainable_variables)
