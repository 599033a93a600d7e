"""The loop of a run: epochs of `fit`, each validated and saved."""

import math
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.core.machine import peak_memory
from keras_alexnet.inference.evaluation import Evaluation, evaluate
from keras_alexnet.inference.predictor import Predictor
from keras_alexnet.layers import keras
from keras_alexnet.training.bodies import body_of
from keras_alexnet.training.devices.group import Group
from keras_alexnet.training.devices.replicas import Replicas
from keras_alexnet.training.experiment import Experiment
from keras_alexnet.training.loop.checkpoint import load_progress
from keras_alexnet.training.loop.hooks import (
    ProgressBar,
    StepHook,
    StepNote,
    StopSignal,
    as_numbers,
    fit_epoch,
)
from keras_alexnet.training.loop.progress import Progress, epoch_row, input_note, sentence, speed
from keras_alexnet.training.loop.saving import Keeper
from keras_alexnet.training.loop.tensorboard import Scalars
from keras_alexnet.training.network import build_network, compile_training, for_heads, start_from
from keras_alexnet.training.phases import (
    as_new,
    averaged,
    constant_layers,
    frozen_layers,
    optimizer_of,
    phase_of,
    schedule_of,
    set_trainable,
)
from keras_alexnet.training.preparation import Prepared, training_batches
from keras_alexnet.training.runs.folder import Log, RunFolder

# Batches between two questions whether some process wants the run to end.
_ASKED_STEPS = 10
# Batches between rows of `steps.csv` where the user has not said how many.
_NOTED_STEPS = 100


class Engine:
    """A run: its model, its batches and how far it is.

    `resume` says whether to go on from the folder's checkpoint. Of the group's processes the first
    alone writes files.

    Raises:
        ConfigurationError: The experiment cannot be run on these data.
        TrainingError: There is no checkpoint to resume from, or it belongs to other data.
    """

    def __init__(
        self,
        experiment: Experiment,
        prepared: Prepared,
        folder: RunFolder,
        log: Log,
        *,
        resume: bool,
        group: Group,
    ) -> None:
        self.experiment, self.prepared, self.folder, self.log = experiment, prepared, folder, log
        self.group = group
        self.body = body_of(experiment)
        self.progress = Progress()
        if resume:
            self.progress = load_progress(folder.checkpoint, identity=prepared.identity)
            if group.is_first:
                folder.drop_steps(self.progress.epoch, self.progress.batches)
        self._must_restore = resume
        self.model = build_network(experiment, self.classes, prepared.preprocessing)
        if experiment.weights is not None and not resume:
            classes = prepared.data.classes
            log(start_from(self.model, experiment.weights, self.body, classes))
        # Counted while no part is frozen.
        self.parameters = sum(math.prod(w.shape) for w in self.model.trainable_weights)
        self._constants = constant_layers(self.model)
        self._frozen = frozen_layers(self.model, self.body, experiment.freeze)
        self.batches = training_batches(
            experiment,
            prepared,
            len(prepared.preprocessing.channels),
            keras.backend.backend(),
            group.shard,
        )
        self._replicas = Replicas(self.model, experiment, prepared, self.batches, group)
        self.trainer = self._replicas.trainer
        self._predictor = Predictor(
            self.model,
            prepared.preprocessing,
            normalized=True,
            batch_size=experiment.batch_size,
            views=experiment.val_views,
        )
        self._keeper = Keeper(folder, experiment, prepared, group)
        self._phase: int | None = None
        self._epoch_began = self._began = 0.0
        self._said_what_bounds = False

    @property
    def backend(self) -> str:
        """Name of the Keras backend."""
        return keras.backend.backend()

    @property
    def steps(self) -> int:
        """Number of batches that the run has done."""
        return self.progress.epoch * self.batches.steps + self.progress.batches

    @property
    def classes(self) -> int:
        """Number of classes of the data."""
        return len(self.prepared.data.classes)

    def train(self, stop: StopSignal, scalars: Scalars) -> bool:
        """Run the epochs that are left, unless the user wants the run to end.

        Returns:
            Whether all are done; otherwise the run was stopped, and is saved.

        Raises:
            TrainingError: The loss is not finite.
            ConfigurationError: A file cannot be written; the last checkpoint is untouched.
        """
        self._began = time.monotonic() - self.progress.seconds
        while self.progress.epoch < self.experiment.epochs:
            self.enter_phase()
            numbers = self._fit_epoch(stop, scalars)
            if numbers is None:
                return False
            self._finish_epoch(numbers)
            self._save(0)
            row = self.progress.rows[-1]
            scalars.add_epoch(self.steps, row)
            self.log(sentence(row, self.experiment.epochs))
            if self.group.any(stop.received is not None):
                break
        return self.progress.epoch >= self.experiment.epochs

    def enter_phase(self) -> None:
        """Compile the model for the epoch that comes, where another phase of training begins."""
        experiment, epoch = self.experiment, self.progress.epoch
        phase = phase_of(experiment, epoch)
        if phase == self._phase:
            return
        self._phase = phase
        set_trainable(self._replicas.network, self.body, phase, self._constants | self._frozen)
        schedule = schedule_of(experiment, phase, self.batches.steps)
        if experiment.freeze_epochs:
            all_ = "all other layers" if experiment.freeze else "all layers"
            who = f"{all_} train" if phase else "only the classifiers train"
            self.log(f"epoch {epoch + 1}: {who}, learning rate {schedule.peak:g}")
        with self.group.scope():
            optimizer = optimizer_of(experiment, schedule)
            compile_training(self.trainer, experiment, optimizer)
            optimizer.build(self.trainer.trainable_variables)
        self.group.part_randomness(self.trainer)

    def _fit_epoch(self, stop: StopSignal, scalars: Scalars) -> dict[str, float] | None:
        """Train what is left of an epoch; return its numbers, or None if it was stopped."""
        progress = self.progress
        self._first_batch, self._first_position = progress.batches, progress.position
        self._epoch_began = time.monotonic() - progress.epoch_seconds
        before = progress.epoch * self.batches.steps
        bar = ProgressBar(
            self.log.console,
            f"epoch {progress.epoch + 1}/{self.experiment.epochs}",
            done=progress.batches,
            total=self.batches.steps,
        )

        restore = partial(self._keeper.restore, self.trainer, progress)
        hook = StepHook(
            bar,
            partial(self._must_stop, stop),
            batch_size=self.experiment.batch_size,
            done=progress.batches,
            checkpoint_steps=self.experiment.checkpoint_steps,
            more=self._more_batches,
            save=self._save,
            note=partial(self._note_steps, before, scalars),
            note_steps=self.experiment.log_every or _NOTED_STEPS,
            restore=restore if self._must_restore else None,
        )
        self._must_restore = False
        batches = for_heads(
            self.batches.epoch(progress.epoch, progress.position), list(self.trainer.output)
        )
        with bar, self.group.scope():
            try:
                fit_epoch(self.trainer, self.group.batches(batches), progress.epoch, hook)
            except Exception:
                if self.batches.failure is not None:
                    raise self.batches.failure from None
                raise
        for skipped in self.group.gather({str(p): w for p, w in self.batches.skipped.items()}):
            self._note_skipped(skipped)
        if hook.stopped:
            self._save(hook.done)
            return None
        self.group.settle(self.trainer)
        return self.group.gather(as_numbers(self.trainer.get_metrics_result()))[0]

    def _note_steps(self, before: int, scalars: Scalars, note: StepNote) -> None:
        """Keep what is to be known of some steps; `before` is the run's number of the first."""
        step = before + note.batches
        scalars.add_loss(step, note.loss_so_far)
        if self.group.is_first:
            self.folder.add_steps(
                {"step": step, "epoch": self.progress.epoch + 1, **note._asdict()}
            )
        if self.experiment.log_every:
            self.log(
                f"epoch {self.progress.epoch + 1}, batch {note.batches}/{self.batches.steps}: "
                f"loss {note.loss:.4f}, accuracy {note.accuracy:.4f}; "
                f"{speed(note.images_per_second)}"
            )

    def _must_stop(self, stop: StopSignal, done: int) -> bool:
        """Return whether the run stops behind so many batches: at the same one everywhere."""
        if self.group.processes == 1:
            return stop.received is not None
        return done % _ASKED_STEPS == 0 and self.group.any(stop.received is not None)

    def _more_batches(self, done: int) -> bool:
        """Return whether the epoch under way goes on behind so many batches."""
        position = self.batches.position(done - self._first_batch)
        return done < self.batches.steps and position < len(self.prepared.train)

    def _keep(self, path: Path) -> None:
        """Write the model as it is now as a file."""
        with as_new(self.model, self._constants):
            self._keeper.save_model(self.model, path, epoch=self.progress.epoch)

    def _finish_epoch(self, numbers: dict[str, float]) -> None:
        """Validate, note the epoch, and keep the model if it is the best so far."""
        experiment, progress = self.experiment, self.progress
        seconds = time.monotonic() - self._epoch_began
        progress.epoch += 1
        if not self._said_what_bounds:
            self._said_what_bounds = True
            if note := input_note(self.batches.waited, seconds):
                self.log(note)
        rate = self.trainer.optimizer.learning_rate
        with averaged(self.trainer, experiment):
            self._replicas.refresh()
            validation = self._evaluated("val")
            clean = {}
            if experiment.clean_metrics:
                clean = {part: self._evaluated(part) for part in ("train", "test")}
            if progress.is_best(validation):
                self._keep(self.folder.best)
            if experiment.keep_every and progress.epoch % experiment.keep_every == 0:
                self._keep(self.folder.path / f"epoch-{progress.epoch:03}.keras")
        row = epoch_row(
            progress.epoch,
            # The shortest number that float32 rounds to the rate.
            learning_rate=float(str(np.float32(keras.ops.convert_to_numpy(rate)))),
            numbers=numbers,
            images=min(len(self.prepared.train), self.batches.steps * experiment.batch_size),
            seconds=seconds,
            validation=validation,
            clean=clean,
            memory=peak_memory(),
        )
        progress.rows.append(row)
        if self.group.is_first:
            self.folder.write_metrics(progress.rows)
        plateau = experiment.schedule == "plateau" and self._phase == 1
        if plateau and progress.is_stalled(validation, experiment.patience):
            rate.assign(rate * experiment.gamma)

    def _evaluated(self, part: str) -> Evaluation | None:
        """Evaluate on a part of the data as it is, where there is that part."""
        examples = self.prepared.data.parts().get(part)
        if examples is None:
            return None
        group = self.group
        result = evaluate(
            self._predictor,
            examples,
            self.prepared.data.classes,
            rank=group.rank,
            processes=group.processes,
            gather=group.gather,
        )
        self._note_skipped(result.skipped)
        return result

    def _save(self, batches: int) -> None:
        """Write a checkpoint behind so many batches of the epoch under way."""
        progress, now = self.progress, time.monotonic()
        progress.batches = batches
        progress.position = batches and self.batches.position(batches - self._first_batch)
        progress.epoch_seconds = now - self._epoch_began if batches else 0.0
        progress.seconds = now - self._began
        self._keeper.save(self.trainer, progress)

    def _note_skipped(self, skipped: Mapping[Any, str]) -> None:
        for path, reason in self.progress.note_skipped(skipped).items():
            self.log(f"skipped {path}: {reason}")
