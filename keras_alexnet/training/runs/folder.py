"""The folder of a run: what lies where, and files in it that are never half-written."""

import contextlib
import csv
import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from keras_alexnet.core.files import READABLY, atomic_output
from keras_alexnet.errors import ConfigurationError, TrainingError

# What runs of earlier versions lack: of the training part without augmentation and of the test part
# (--clean-metrics), and memory.
ADDED_METRICS = ("clean_loss", "clean_accuracy", "test_loss", "test_accuracy", "memory_mb")
METRICS = (
    "epoch",
    "learning_rate",
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "val_top5",
    "val_macro_f1",
    "images_per_second",
    "seconds",
    *ADDED_METRICS,
)
CURVES, CONFUSION, RELIABILITY = "learning_curves.png", "confusion_matrix.png", "reliability.png"
EXAMPLES = "examples.png"  # training images, and what the network sees of them
FILTERS = "filters.png"  # the first convolution's kernels
STEPS = (
    *("step", "epoch", "batches", "loss", "accuracy", "loss_so_far", "learning_rate"),
    "images_per_second",
)


class RunFolder:
    """A run's folder; `create` makes a new one, `existing` checks one."""

    _existed = False  # before the run

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.environment = path / "environment.json"
        self.data = path / "data.json"
        self.metrics = path / "metrics.csv"
        self.steps = path / "steps.csv"
        self.summary = path / "summary.json"
        self.evaluation = path / "evaluation.json"
        self.checkpoint = path / "checkpoint.safetensors"
        self.best = path / "best.keras"
        self.log = path / "log.txt"

    @classmethod
    def create(cls, path: Path | None, name: str) -> "RunFolder":
        """Make a new folder, by default `runs/NAME-DATE-TIME`.

        Raises:
            ConfigurationError: It exists and is not empty, or cannot be made.
        """
        if path is None:
            path = Path("runs", f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
        if path.exists() and not path.is_dir():
            raise ConfigurationError(f"--output {path} is a file, not a folder")
        if path.is_dir() and any(path.iterdir()):
            raise ConfigurationError(
                f"--output {path} exists already and is not empty; nothing was changed. Name "
                f"another folder, or continue that run with --resume {path}"
            )
        folder = cls(path)
        folder._existed = path.is_dir()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"--output {path} cannot be made: {error.strerror or error}"
            ) from error
        return folder

    @classmethod
    def existing(cls, path: Path) -> "RunFolder":
        """Return the folder of a run that has begun.

        Raises:
            TrainingError: There is none.
        """
        folder = cls(path)
        if not path.is_dir():
            raise TrainingError(f"--resume {path}: no such folder")
        if not folder.config.is_file():
            raise TrainingError(f"--resume {path}: not the folder of a run (no config.json in it)")
        return folder

    def copy(self, path: Path) -> "RunFolder":
        """Return a new folder with all of this one's files.

        Raises:
            ConfigurationError: It exists and is not empty, or cannot be written.
        """
        new = self.create(path, "")
        try:
            shutil.copytree(self.path, path, dirs_exist_ok=True)
        except BaseException as error:
            new.discard()
            if isinstance(error, OSError):
                raise ConfigurationError(f"--output {path} cannot be written: {error}") from error
            raise
        return new

    def discard(self) -> None:
        """Remove the files of a run that never began, and the folder that was made for it."""
        if self._existed:
            for path in self.path.iterdir():
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
        else:
            shutil.rmtree(self.path, ignore_errors=True)

    def read_config(self) -> tuple[str | None, dict[str, Any]]:
        """Return the preset and the fields of the experiment.

        Raises:
            TrainingError: The file is damaged.
        """
        try:
            content = json.loads(self.config.read_text(encoding="utf-8"))
            return content["preset"], content["experiment"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{self.config}: damaged ({error!r})") from error

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write `metrics.csv` anew."""
        write_rows(self.metrics, rows, METRICS)

    def add_steps(self, row: Mapping[str, Any]) -> None:
        """Append a row to `steps.csv`.

        Raises:
            ConfigurationError: It cannot be written.
        """
        try:
            with self.steps.open("a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, STEPS, lineterminator="\n")
                if file.tell() == 0:
                    writer.writeheader()
                writer.writerow(row)
        except OSError as error:
            raise ConfigurationError(f"{self.steps} cannot be written: {error}") from error

    def drop_steps(self, epochs: int, batches: int) -> None:
        """Remove the rows of `steps.csv` that a run does again.

        It goes on behind so many epochs, and so many batches of the next one.
        """
        if not self.steps.is_file():
            return
        with self.steps.open(newline="", encoding="utf-8") as file:
            # Of a line that was cut off while it was written there is no last value.
            rows = [row for row in csv.DictReader(file) if row[STEPS[-1]]]
        done = epochs + 1, batches
        kept = [row for row in rows if (int(row["epoch"]), int(row["batches"])) <= done]
        write_rows(self.steps, kept, STEPS)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write a CSV file, completely or not at all."""
    with (
        atomic_output(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors=READABLY) as file,
    ):
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


class Log:
    """Says things on the console and in `log.txt`, or where there is no path on the console."""

    def __init__(self, path: Path | None, console: Console) -> None:
        self.console = console
        self._path = path

    def __call__(self, text: str) -> None:
        """Say a line, in the file with date and time."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
        if self._path is None:
            return
        try:
            with self._path.open("a", encoding="utf-8", errors=READABLY) as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        except OSError:
            # A full disk is reported by what must be written; the console has the line.
            pass

    @contextlib.contextmanager
    def hearing(self) -> Iterator[None]:
        """Within this block, say what modules of this package warn of."""
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: self(f"warning: {record.getMessage()}")  # type: ignore[method-assign]
        logger = logging.getLogger("keras_alexnet")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
