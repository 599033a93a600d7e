"""What a model makes of images: the most probable classes of each, or why there are none."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_alexnet.data.examples import Stored
from keras_alexnet.inference.predictor import Predictor


class Guess(NamedTuple):
    """A class that an image may be of."""

    label: int
    name: str
    probability: float


class Answer(NamedTuple):
    """What is known of an image: its best classes, or why it cannot be read."""

    file: Path
    guesses: list[Guess]
    error: str | None = None


def predictions(predictor: Predictor, examples: Stored, *, top: int) -> Iterator[Answer]:
    """Yield an answer for each image, in their order, a batch at a time."""
    batches = predictor.batches(examples)
    done = 0

    def unreadable(until: int) -> Iterator[Answer]:
        for index in range(done, until):
            place = examples.place(index)
            yield Answer(place, [], batches.skipped[place])

    for views, indices in batches:
        best = predictor.probabilities(views)
        order = np.argsort(-best, axis=1, kind="stable")[:, :top]  # (B, top)
        for row, classes, index in zip(best, order, indices, strict=True):
            yield from unreadable(index)
            names = predictor.labels
            guesses = [Guess(int(c), names[c] if names else str(c), float(row[c])) for c in classes]
            yield Answer(examples.place(index), guesses)
            done = int(index) + 1
    yield from unreadable(len(examples))
