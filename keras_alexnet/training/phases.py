"""The phases of a run: which layers learn, and the optimiser and learning rate that go with it."""

import contextlib
from collections.abc import Collection, Iterator
from typing import Any

from keras_alexnet.errors import ConfigurationError, listed
from keras_alexnet.models.features import names_in
from keras_alexnet.training.bodies import Body
from keras_alexnet.training.experiment import Experiment
from keras_alexnet.training.optim.optimizers import create_optimizer
from keras_alexnet.training.optim.schedules import Schedule, as_learning_rate

_MOST_LISTED = 20


def phase_of(experiment: Experiment, epoch: int) -> int:
    """Return 0 while the body is frozen and 1 afterwards; epochs count from 0."""
    return 0 if epoch < experiment.freeze_epochs else 1


def constant_layers(model: Any) -> frozenset[str]:
    """Return the layers of a new model that do not learn: a converted network's constants."""
    return frozenset(layer.name for layer in model.layers if not layer.trainable)


def frozen_layers(model: Any, body: Body, freeze: str | None) -> frozenset[str]:
    """Return the layers that an experiment's `freeze` names.

    Raises:
        ConfigurationError: A name begins no layer's, or the classifier's.
    """
    fixed, heads = set[str](), body.heads(model)
    for part in filter(None, (freeze or "").split(",")):
        found = set(names_in(part.strip(), (layer.name for layer in model.layers)))
        if not found:
            beginnings = dict.fromkeys(
                layer.name.partition("_")[0] for layer in model.layers if layer.weights
            )
            raise ConfigurationError(
                f"freeze: {model.name} has no layer {part!r}, and none that begins so; there are "
                f"{listed(beginnings, _MOST_LISTED)}"
            )
        if found & heads:
            raise ConfigurationError(f"freeze: {part!r} is the classifier, which has to learn")
        fixed |= found
    return frozenset(fixed)


def set_trainable(model: Any, body: Body, phase: int, fixed: Collection[str]) -> None:
    """Freeze or unfreeze the body of a model, but for the layers that never learn."""
    heads = body.heads(model)
    for layer in model.layers:
        learns = phase == 1 or layer.name in heads
        layer.trainable = learns and layer.name not in fixed


@contextlib.contextmanager
def as_new(model: Any, constants: Collection[str]) -> Iterator[None]:
    """Within this block, all layers of a model learn but its constants, as when it was new.

    A file of it would else say of whatever is frozen that it never learns.
    """
    learning = [layer.trainable for layer in model.layers]
    for layer in model.layers:
        layer.trainable = layer.name not in constants
    try:
        yield
    finally:
        for layer, learns in zip(model.layers, learning, strict=True):
            layer.trainable = learns


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
