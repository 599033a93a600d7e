"""A model together with all that stands between images and probabilities."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from keras_alexnet.data.examples import Examples
from keras_alexnet.data.preprocessing import normalize
from keras_alexnet.errors import ModelFileError
from keras_alexnet.inference.views import ViewBatches, Views
from keras_alexnet.layers import keras
from keras_alexnet.models.fast.quicken import quicken
from keras_alexnet.models.interface import input_of, is_channels_first, last_activation, main_output
from keras_alexnet.models.record import read_record
from keras_alexnet.models.weights import load_model
from keras_alexnet.specs.preprocessing import Preprocessing

BATCH_SIZE = 64
# The smallest normal float32: what a softmax inside a model rounds to 0 may lie anywhere below.
_TINY = float(np.finfo(np.float32).tiny)

_NO_RECORD = (
    "it was saved without a record of its preprocessing, so what to do with images before the "
    "model {!r} is not known. Files of `keras-alexnet train` and `python -m porting convert` have "
    "one; in Python, save with keras_alexnet.save_model, or make a keras_alexnet.Predictor with "
    "the preprocessing"
)


class Predictor:
    """Computes the probabilities of classes for images.

    Use one for as long as its model is in use: each compiles the model anew (TensorFlow, JAX). It
    reads the weights at each call, so that they may change in between.

    Args:
        model: Functional Keras model of one image to scores (N, classes), or to a dict of them
            with `"logits"`. Scores are logits, or probabilities where it ends with a softmax.
        preprocessing: What happens to images before the model.
        normalized: Whether the model holds its own normalisation and takes 0..255.
        labels: Names of the classes by index, where they are known.
        batch_size: Images that the model computes at a time.
        views: Views of an image whose probabilities are averaged.

    Attributes:
        model: The model as it was given.
        normalized: As given.
        channels_first: Whether it takes images as (C, h, w).
        classes: Number of classes.

    Raises:
        ModelFileError: The model is none that can be used so.
        ConfigurationError: The preprocessing leaves no room for the views.
    """

    def __init__(
        self,
        model: Any,
        preprocessing: Preprocessing,
        *,
        normalized: bool,
        labels: tuple[str, ...] | None = None,
        batch_size: int = BATCH_SIZE,
        views: Views | str = Views.CENTER,
    ) -> None:
        scores, self._softmax = _scores(model)
        self._network = quicken(keras.Model(model.inputs[0], scores, name=model.name))
        if keras.backend.backend() == "tensorflow":
            # XLA takes longer to compile, and then computes no faster.
            self._network.jit_compile = False
        self.model, self.channels_first = model, _is_channels_first(model, preprocessing)
        self.normalized, self._rows = normalized, 0
        self.preprocessing, self.labels, self.batch_size = preprocessing, labels, batch_size
        self.views = Views(views)
        self.views.check(preprocessing)
        self.classes = int(scores.shape[-1])
        if labels is not None and len(labels) != self.classes:
            raise ModelFileError(
                f"{model.name} has {self.classes} classes, but there are {len(labels)} labels"
            )

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        batch_size: int = BATCH_SIZE,
        views: Views | str = Views.CENTER,
        resize_size: int | None = None,
    ) -> Self:
        """Load a `.keras` file and what its record says about its use.

        A file without a record will do if its model is one of ours and holds its normalisation:
        sizes are then those of the architecture.

        Args:
            path: The file.
            batch_size: As in the constructor.
            views: As in the constructor.
            resize_size: Short side of images before the crop, in pixels; by default the record's.

        Raises:
            ModelFileError: The file is missing or damaged, or does not say how to use it.
            ConfigurationError: The preprocessing leaves no room for the views.
        """
        path = Path(path)
        record = read_record(path)
        model = load_model(path)
        try:
            takes = input_of(model, record)
            preprocessing = takes.preprocessing
            if preprocessing is None:
                raise ModelFileError(_NO_RECORD.format(model.name))
            if resize_size is not None:
                preprocessing = replace(preprocessing, resize_size=resize_size)
            return cls(
                model,
                preprocessing,
                normalized=takes.pixels,
                labels=takes.labels,
                batch_size=batch_size,
                views=views,
            )
        except ModelFileError as error:
            raise ModelFileError(f"{path}: {error}") from error

    def batches(self, examples: Examples) -> ViewBatches:
        """Return the views of examples in batches: (uint8 (B, V, h, w, C), int64 indices (B,))."""
        return ViewBatches(
            examples,
            self.preprocessing,
            self.views,
            batch_size=max(self.batch_size // self.views.number, 1),
        )

    def probabilities(self, views: np.ndarray) -> np.ndarray:
        """Return the probabilities of classes, the mean over each image's views.

        Args:
            views: uint8 (B, V, h, w, C), as `batches` yields them: R, G, B, or grey.

        Returns:
            float64 (B, classes); each row sums to 1.

        Raises:
            ModelFileError: The model computes numbers that are not finite.
        """
        return np.exp(self.log_probabilities(views))

    def log_probabilities(self, views: np.ndarray) -> np.ndarray:
        """Return the natural logarithm of `probabilities`, without rounding any to 0."""
        count, several = views.shape[:2]
        scores = self._compute(views.reshape(count * several, *views.shape[2:]))
        if self._softmax:
            scores = np.log(np.maximum(scores, _TINY))
        if not np.isfinite(scores).all():
            raise ModelFileError(
                f"{self._network.name}: its outputs are not finite; the weights are damaged, or "
                "their training diverged"
            )
        logs = scores - _log_sum_exp(scores)[..., None]
        logs = logs.reshape(count, several, self.classes)
        return _log_sum_exp(logs.swapaxes(1, 2)) - math.log(several)

    def _compute(self, images: np.ndarray) -> np.ndarray:
        """Return the model's scores, float64 (N, classes), of uint8 (N, h, w, C)."""
        parts = [
            self._compute_batch(images[start : start + self.batch_size])
            for start in range(0, len(images), self.batch_size)
        ]
        return np.concatenate(parts)

    def inputs(self, images: np.ndarray) -> np.ndarray:
        """Return what the model takes of images (N, h, w, C), R, G, B or grey, 0..255."""
        inputs = images if self.normalized else normalize(images, self.preprocessing)
        if self.channels_first:
            inputs = np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))  # (N, C, h, w)
        return inputs

    def _compute_batch(self, images: np.ndarray) -> np.ndarray:
        inputs = self.inputs(images)
        # One shape is compiled: a smaller batch is filled up to the one before.
        count, self._rows = len(inputs), max(self._rows, len(inputs))
        if count < self._rows:
            inputs = np.pad(inputs, [(0, self._rows - count), (0, 0), (0, 0), (0, 0)])
        return np.asarray(self._network.predict_on_batch(inputs)[:count], np.float64)


def _log_sum_exp(x: np.ndarray) -> np.ndarray:
    """Return log(sum(exp(x))) over the last axis."""
    highest = x.max(axis=-1, keepdims=True)
    return np.log(np.exp(x - highest).sum(axis=-1)) + highest[..., 0]


def _scores(model: Any) -> tuple[Any, bool]:
    """Return the output of a model that holds the scores, and whether a softmax made it."""
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs or len(inputs) != 1:
        raise ModelFileError(f"{model.name} is no functional or sequential model of one image")
    scores = main_output(model)
    shape: tuple[int | None, ...] = getattr(scores, "shape", ())
    if len(shape) != 2 or shape[-1] is None:
        made = getattr(model, "output", model.outputs)
        raise ModelFileError(
            f"{model.name} gives no scores of classes: a classifier's output is (N, classes), or "
            f"a dict of them with 'logits'; this model's is "
            f"{keras.tree.map_structure(lambda tensor: tuple(tensor.shape), made)}"
        )
    name = last_activation(model, scores)
    if name in ("sigmoid", "tanh"):
        raise ModelFileError(
            f"{model.name} ends with {name!r}: its outputs are no probabilities of classes that "
            "exclude each other"
        )
    return scores, name == "softmax"


def _is_channels_first(model: Any, preprocessing: Preprocessing) -> bool:
    if len(model.inputs[0].shape) != 4:
        shape = tuple(model.inputs[0].shape[1:])
        raise ModelFileError(f"{model.name} takes {shape}, not images")
    return is_channels_first(model, preprocessing.channels)
