"""From an experiment to its data: found, limited, divided, measured, in batches."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from keras_alexnet.core.machine import gpus
from keras_alexnet.data.batches.plan import BatchSettings
from keras_alexnet.data.batches.shards import WHOLE, Shard
from keras_alexnet.data.batches.training import TrainingBatches
from keras_alexnet.data.examples import DataSet, Examples, fingerprint, stratified_split
from keras_alexnet.data.sources.registry import find_data
from keras_alexnet.data.statistics import channel_statistics, colour_components
from keras_alexnet.errors import DataError
from keras_alexnet.specs.preprocessing import Preprocessing
from keras_alexnet.training.experiment import Experiment
from keras_alexnet.training.network import input_preprocessing


@dataclass(frozen=True, eq=False)
class Prepared:
    """The data of an experiment, ready for its pipelines.

    Attributes:
        data: Training, validation and test part.
        identity: SHA-256 of who is in which part.
        preprocessing: What the model holds and evaluation does.
        pca: Eigenvalues and eigenvectors of the training images' colours, where they are needed.
    """

    data: DataSet
    train: Examples
    identity: str
    preprocessing: Preprocessing
    pca: Any


def prepare(experiment: Experiment, cache: Path) -> Prepared:
    """Find, limit, divide and measure the data of an experiment.

    Statistics that take a pass over the data are kept in the folder `cache`.

    Raises:
        DataError: The data are missing, damaged or too few.
        ConfigurationError: Data and experiment contradict each other.
    """
    data = find_data(experiment.data, experiment.data_dir)
    if data.train is None:
        raise DataError(f"{data.name} has no training part")
    data = replace(data, train=_limited(data.train, experiment.train_limit, experiment.seed))
    if experiment.val_fraction:
        data = data.with_validation(experiment.val_fraction, seed=experiment.seed)
    limited: dict[str, Any] = {
        part: _limited(examples, experiment.eval_limit, experiment.seed)
        for part, examples in data.parts().items()
        if part != "train"
    }
    data = replace(data, **limited)
    assert data.train is not None
    preprocessing = input_preprocessing(experiment)
    if experiment.normalize == "data" and experiment.mean is None:
        mean, std = channel_statistics(data.train, cache, channels=preprocessing.mode)
        preprocessing = replace(
            preprocessing, mean=tuple(map(float, mean)), std=tuple(map(float, std)), scale=255.0
        )
    pca = colour_components(data.train, cache) if experiment.augmentation.pca else None
    return Prepared(data, data.train, fingerprint(data), preprocessing, pca)


def training_batches(
    experiment: Experiment,
    prepared: Prepared,
    channels: int,
    framework: Literal["tensorflow", "torch", "jax"],
    shard: Shard = WHOLE,
) -> TrainingBatches:
    """Return the batches that a run trains on, epoch by epoch.

    The network reads so many channels, the Keras backend `framework` computes, and this process
    sees the part `shard` of each batch.
    """
    settings = BatchSettings(
        experiment.augmentation,
        prepared.preprocessing.crop_size,
        batch_size=experiment.batch_size,
        seed=experiment.seed,
        shuffle=experiment.shuffle,
        drop_remainder=experiment.drop_remainder,
        place=experiment.augment_on,
        channels=channels,
        pca=prepared.pca,
        shard=shard,
        cuts_only=experiment.augment_on == "device" and bool(gpus()),
    )
    return TrainingBatches(prepared.train, settings, framework=framework)


def _limited(examples: Examples, limit: int | None, seed: int) -> Examples:
    if limit is None or limit >= len(examples):
        return examples
    _, chosen = stratified_split(examples.labels, limit / len(examples), seed=seed)
    return examples.subset(chosen)
