"""Training images as they are, and as the network sees them."""

from dataclasses import dataclass

import numpy as np

from keras_alexnet.data.augmentation.layer import Augment, keras
from keras_alexnet.data.batches.plan import BatchSettings
from keras_alexnet.data.batches.training import TrainingBatches
from keras_alexnet.data.choosing import EXAMPLES, choose_examples
from keras_alexnet.training.experiment import Experiment
from keras_alexnet.training.preparation import Prepared


@dataclass(frozen=True, eq=False)
class Preview:
    """Some training images of an experiment.

    Attributes:
        originals: As they are, uint8 (h, w, C) each.
        seen: After augmentation and before normalisation, uint8 (N, height, width, C).
        names: Their classes' names.
    """

    originals: list[np.ndarray]
    seen: np.ndarray
    names: list[str]


def preview(experiment: Experiment, prepared: Prepared, count: int = EXAMPLES) -> Preview:
    """Choose images of as many classes as possible, by the experiment's seed, and augment them.

    The random numbers are those of an epoch of its own: the same each time.

    Raises:
        DataError: As `TrainingBatches`.
        MissingDependencyError: A package that augments them is not installed.
    """
    chosen, originals = choose_examples(prepared.train, count, seed=experiment.seed)
    preprocessing = prepared.preprocessing
    settings = BatchSettings(
        experiment.augmentation,
        preprocessing.crop_size,
        batch_size=len(chosen),
        seed=experiment.seed,
        shuffle=False,
        place="device",
        channels=len(preprocessing.channels),
        pca=prepared.pca,
    )
    batches = TrainingBatches(
        prepared.train.subset(chosen), settings, framework=keras.backend.backend()
    )
    inputs, *_ = next(iter(batches.epoch(0)))
    augment = Augment(
        experiment.augmentation,
        preprocessing.crop_size,
        data_format="channels_last",
        pca=prepared.pca,
    )
    seen = keras.ops.convert_to_numpy(
        augment({name: keras.ops.convert_to_tensor(value) for name, value in inputs.items()})
    )
    names = [prepared.data.classes[label] for label in prepared.train.labels[chosen]]
    return Preview(originals, np.rint(np.clip(seen, 0, 255)).astype(np.uint8), names)
