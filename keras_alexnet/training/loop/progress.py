"""How far a run is and what its epochs came to: the books that a checkpoint carries."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from keras_alexnet.inference.evaluation import Evaluation

# Column of `metrics.csv` -> attribute of an evaluation.
VALIDATION = {
    "val_loss": "loss",
    "val_accuracy": "top1",
    "val_top5": "top5",
    "val_macro_f1": "macro_f1",
}

# Share of an epoch from which on waiting for images is worth a word.
_INPUT_BOUND = 0.1


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch: Epochs that are finished.
        batches: Batches of the next epoch that are done.
        position: Examples of the next epoch's order that these have consumed.
        seconds: Time spent so far.
        epoch_seconds: Time of these spent in the epoch that is under way.
        rows: A row of `metrics.csv` for each finished epoch.
        best_epoch: Epoch of the best model file, from 1; 0 while there is none.
        best_score: Its validation accuracy; without a validation part, its number.
        best_loss: Its validation loss, which decides between equal accuracies.
        lowest_loss: Lowest validation loss so far, of schedule `plateau`.
        waited: Epochs since then.
        skipped: Unreadable images and why, by path.
    """

    epoch: int = 0
    batches: int = 0
    position: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_score: float = -1.0
    best_loss: float = 0.0
    lowest_loss: float | None = None
    waited: int = 0
    skipped: dict[str, str] = field(default_factory=dict)

    def is_best(self, validation: Evaluation | None) -> bool:
        """Say whether the epoch that has just finished is the best so far, and note it if it is.

        Without a validation part the last epoch counts as the best.
        """
        score, loss = float(self.epoch), 0.0
        if validation is not None:
            score, loss = validation.top1, validation.loss
        is_best = (score, -loss) > (self.best_score, -self.best_loss)
        if is_best:
            self.best_score, self.best_loss, self.best_epoch = score, loss, self.epoch
        return is_best

    def is_stalled(self, validation: Evaluation | None, patience: int) -> bool:
        """Say whether more than `patience` epochs have passed without a lower validation loss.

        Args:
            validation: That of the epoch that has just finished, which is noted.
            patience: Epochs to wait; they are counted anew from each lower loss and each stall.
        """
        if validation is None:
            return False
        if self.lowest_loss is None or validation.loss < self.lowest_loss:
            self.lowest_loss, self.waited = validation.loss, 0
            return False
        self.waited += 1
        if self.waited <= patience:
            return False
        self.waited = 0
        return True

    def note_skipped(self, skipped: Mapping[Any, str]) -> dict[str, str]:
        """Note unreadable images, path -> why; return those that are new."""
        new = {str(p): why for p, why in skipped.items() if str(p) not in self.skipped}
        self.skipped |= new
        return new


def epoch_row(
    epoch: int,
    *,
    learning_rate: float,
    numbers: Mapping[str, float],
    images: int,
    seconds: float,
    validation: Evaluation | None,
    clean: Mapping[str, Evaluation | None],
    memory: int,
) -> dict[str, Any]:
    """Return an epoch's row of `metrics.csv`.

    Args:
        epoch: Its number, from 1.
        learning_rate: That of its last step.
        numbers: `loss` and `accuracy` of training.
        images: Images that it trained on.
        seconds: Time that it took, without validation.
        validation: Its validation, where there is a validation part.
        clean: Its evaluation by part, without augmentation, where that was asked for.
        memory: Bytes that were in use at most, so far in the run.
    """
    row: dict[str, Any] = {
        "epoch": epoch,
        "learning_rate": learning_rate,
        "train_loss": numbers["loss"],
        "train_accuracy": numbers["accuracy"],
        "images_per_second": images / seconds,
        "seconds": seconds,
        "memory_mb": round(memory / 1e6),
    }
    for part, name in (("train", "clean"), ("test", "test")):
        if (found := clean.get(part)) is not None:
            row |= {f"{name}_loss": found.loss, f"{name}_accuracy": found.top1}
    if validation is not None:
        row |= {column: getattr(validation, name) for column, name in VALIDATION.items()}
    return row


def sentence(row: Mapping[str, Any], epochs: int) -> str:
    """Return an epoch's row in one line, for people."""
    text = (
        f"epoch {row['epoch']}/{epochs}: loss {row['train_loss']:.4f}, "
        f"accuracy {row['train_accuracy']:.4f}"
    )
    if "val_loss" in row:
        text += f"; validation loss {row['val_loss']:.4f}, accuracy {row['val_accuracy']:.4f}"
    return text + f"; {speed(row['images_per_second'])}, {row['seconds']:.1f} s"


def input_note(waited: float | None, seconds: float) -> str | None:
    """Return what to say of an epoch of so many seconds, `waited` of which it waited for images.

    It is None where that is little, or unknown.
    """
    if waited is None or waited < _INPUT_BOUND * seconds:
        return None
    return (
        f"input bound: {100 * waited / seconds:.0f} % of the epoch's time went by waiting for "
        "images. Packed data are read and decoded faster (`keras-alexnet pack`, with --short-side, "
        "or --encode raw), and more processor cores decode more of them"
    )


def speed(rate: float) -> str:
    """Return images per second for people."""
    return f"{rate:,.0f} images/s" if rate >= 10 else f"{rate:.2g} images/s"
