"""Chooses some examples to be shown."""

import numpy as np

from keras_alexnet.data.examples import Arrays, Examples
from keras_alexnet.errors import ImageFileError

EXAMPLES = 10  # images of a picture


def choose_examples(
    examples: Examples, count: int, *, seed: int = 0
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Choose images that can be read, of as many classes as possible.

    Returns:
        Their indices, int64 (N,), and their pixels, uint8 (h, w, C) each.
    """
    order = np.random.default_rng(seed).permutation(len(examples))
    labels = examples.labels[order]
    # How many of its class come before each one.
    turns = np.zeros(len(order), np.int64)
    for label in np.unique(labels):
        turns[labels == label] = np.arange(np.count_nonzero(labels == label))
    chosen: list[int] = []
    originals: list[np.ndarray] = []
    for index in order[np.argsort(turns, kind="stable")].tolist():
        if len(chosen) == count:
            break
        if isinstance(examples, Arrays):
            originals.append(examples.images[index])
        else:
            try:
                originals.append(examples.pixels(index))
            except ImageFileError:
                continue  # a survey and a run's log name it
        chosen.append(index)
    return np.array(chosen, np.int64), originals
