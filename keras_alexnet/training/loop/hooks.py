"""An epoch of `fit`, and what happens between its steps: progress, checkpoints, interruptions."""

import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from types import FrameType
from typing import Any, NamedTuple, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from keras_alexnet.core.backend import load_keras
from keras_alexnet.errors import TrainingError
from keras_alexnet.training.loop.progress import speed

keras = load_keras()

_PATIENCE = 3.0  # seconds
_REFRESH = 0.5  # seconds; reading the loss waits for the device


class Callbacks(keras.callbacks.CallbackList):  # type: ignore[name-defined]
    """A list that hands the logs on as they are: turning them into numbers waits for the device."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Call every callback."""
        for callback in self.callbacks:
            callback.on_train_batch_end(batch, logs)


class StopSignal:
    """Notes Ctrl-C and SIGTERM for the end of a step; a second one ends the process.

    A step may take minutes, and Python calls no handler meanwhile. So a thread answers: the first
    signal with words, a second one, where the interruption has not come through after
    `_PATIENCE` seconds, with the end.

    Args:
        say: Says a line.
    """

    def __init__(self, say: Callable[[str], None] = lambda _: None) -> None:
        self.received: signal.Signals | None = None
        self._say = say
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        threading.Thread(target=self._answer, daemon=True).start()
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._writer)  # which ends the thread

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)

    def _answer(self) -> None:
        """Answer to signals, whose numbers the interpreter writes as bytes."""
        stops = 0
        with os.fdopen(self._reader, "rb", buffering=0) as numbers:
            while number := numbers.read(1):
                if number[0] not in self._before:
                    continue
                stops += 1
                if stops == 1:
                    self._say("stopping behind this step, and saving; once more ends it at once")
                elif stops == 2:
                    end = threading.Timer(_PATIENCE, os._exit, [128 + number[0]])
                    end.daemon = True
                    end.start()


class ProgressBar:
    """A bar for one epoch, where the console is a terminal."""

    def __init__(self, console: Console, title: str, *, done: int, total: int) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID = self._bar.add_task(title, total=total, completed=done, state="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def show(self, done: int, loss: float, accuracy: float, rate: float) -> None:
        """Show where the epoch is."""
        state = f"loss {loss:.4f}  accuracy {accuracy:.4f}  {speed(rate)}"
        self._bar.update(self._task, completed=done, state=state)


class StepNote(NamedTuple):
    """What is to be known of some steps of training.

    Attributes:
        batches: Steps of the epoch that are done.
        loss: Mean loss of these steps.
        accuracy: Their accuracy, in [0, 1].
        loss_so_far: Mean loss of the epoch so far.
        learning_rate: That of the last step.
        images_per_second: How fast they were.
    """

    batches: int
    loss: float
    accuracy: float
    loss_so_far: float
    learning_rate: float
    images_per_second: float


class StepHook(keras.callbacks.Callback):  # type: ignore[name-defined]
    """Follows one call of `fit`.

    Args:
        bar: Where to show progress.
        stop: Says whether the run is to stop behind so many steps of the epoch.
        batch_size: Images of a step.
        done: Steps of the epoch before this call.
        checkpoint_steps: Steps between checkpoints; 0 for none.
        more: Says whether the epoch goes on behind so many steps.
        save: Writes a checkpoint behind so many steps of the epoch.
        note: Takes what there is to know of the steps since it was told last, a `StepNote`.
        note_steps: Steps between two of them.
        restore: Fills the variables before the first step; None where there is nothing to restore.
    """

    def __init__(
        self,
        bar: ProgressBar,
        stop: Callable[[int], bool],
        *,
        batch_size: int,
        done: int,
        checkpoint_steps: int,
        more: Callable[[int], bool],
        save: Callable[[int], None],
        note: Callable[[StepNote], None],
        note_steps: int,
        restore: Callable[[], None] | None,
    ) -> None:
        super().__init__()
        self._bar, self._stop = bar, stop
        self._batch_size, self._first, self.done = batch_size, done, done
        self._checkpoint_steps = checkpoint_steps
        self._more, self._save, self._note, self._restore = more, save, note, restore
        self._note_steps = note_steps
        self._noted = done, dict[str, float]()  # steps, and the means over them
        self.stopped = False
        self._began = self._shown = self._noted_at = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Restore the state, now that Keras has made and reset its metrics."""
        if self._restore is not None:
            self._restore()
            if self.done:
                self._noted = self.done, as_numbers(self.model.get_metrics_result())

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count the step; show, save or stop where it is time to."""
        self.done = self._first + batch + 1
        now = time.monotonic()
        if now - self._shown > _REFRESH:
            self._shown = now
            values = as_numbers(logs)
            rate = (batch + 1) * self._batch_size / (now - self._began)
            self._bar.show(self.done, values["loss"], values["accuracy"], rate)
        if self.done % self._note_steps == 0:
            self._take_note(as_numbers(logs))
        if self._stop(self.done) and self._more(self.done):
            self.stopped = self.model.stop_training = True
        elif self._checkpoint_steps and self.done % self._checkpoint_steps == 0:
            as_numbers(logs)  # weights that are not finite would replace good ones
            # JAX's step keeps the values to itself, until a callback asks for its model.
            _ = self.model
            self._save(self.done)

    def _take_note(self, so_far: dict[str, float]) -> None:
        """Say what is to be known of the last steps; Keras' numbers are means over the epoch."""
        before, known = self._noted
        count, now = self.done - before, time.monotonic()
        recent = {
            name: (value * self.done - known.get(name, 0.0) * before) / count
            for name, value in so_far.items()
        }
        rate = self.model.optimizer.learning_rate
        note = StepNote(
            self.done,
            recent["loss"],
            recent["accuracy"],
            so_far["loss"],
            float(keras.ops.convert_to_numpy(rate)),
            count * self._batch_size / (now - self._noted_at),
        )
        self._noted, self._noted_at = (self.done, so_far), now
        self._note(note)


def fit_epoch(trainer: Any, batches: Iterable[Any], epoch: int, hook: Any) -> None:
    """Train a compiled model on the batches of one epoch, or on those that are left of it.

    Epochs count from 0. The hook is a Keras callback, such as `StepHook`: at the end of a step it
    gets tensors, as numbers would have to be waited for.
    """
    with warnings.catch_warnings():
        # Skipped images may make an epoch shorter than it was to be.
        warnings.filterwarnings("ignore", message=".*ran out of data")
        warnings.filterwarnings("ignore", message=".*shuffle=True")
        trainer.fit(
            batches,
            initial_epoch=epoch,
            epochs=epoch + 1,
            callbacks=Callbacks([hook], add_history=True, model=trainer),
            verbose=0,
        )


def as_numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """Return the logs of a step or epoch as numbers: `loss` and `accuracy` of the classifier.

    Raises:
        TrainingError: The loss is not finite.
    """
    numbers = {key: float(value) for key, value in logs.items()}
    total = numbers["loss"]
    if not math.isfinite(total):
        raise TrainingError(
            f"the loss is {total}: training has diverged. The last checkpoint is from before. Try "
            "a lower --learning-rate, --clip-norm 1, --warmup-epochs 1, or --precision float32"
        )
    # With auxiliary heads Keras names what belongs to one output.
    return {
        name: next(value for key, value in numbers.items() if key.endswith(end))
        for name, end in (("loss", "example_loss"), ("accuracy", "accuracy"))
    }
