"""A model together with all that stands between images and probabilities."""

import contextlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from keras_alexnet.core.keras_internals import MissingPartError, maker_of
from keras_alexnet.data.examples import Examples
from keras_alexnet.data.preprocessing import normalize
from keras_alexnet.errors import ModelFileError
from keras_alexnet.inference.views import ViewBatches, Views
from keras_alexnet.layers import keras
from keras_alexnet.models.record import Use, read_record, use_of
from keras_alexnet.models.weights import load_model
from keras_alexnet.specs import SPECS
from keras_alexnet.specs.preprocessing import Preprocessing

BATCH_SIZE = 64
# The smallest normal float32: what a softmax inside a model rounds to 0 may lie anywhere below.
_TINY = float(np.finfo(np.float32).tiny)


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
        self._network = keras.Model(model.inputs[0], scores, name=model.name)
        if keras.backend.backend() == "tensorflow":
            # XLA takes longer to compile, and then computes no faster.
            self._network.jit_compile = False
        self._channels_first = _is_channels_first(model, preprocessing)
        self._normalized, self._rows = normalized, 0
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
            use = _implied(model) if record is None else use_of(record)
            preprocessing = use.preprocessing
            height, width = _size(model, preprocessing)
            if height and width and (height, width) != preprocessing.crop_size:
                preprocessing = preprocessing.at_size(height, width)
            if resize_size is not None:
                preprocessing = replace(preprocessing, resize_size=resize_size)
            return cls(
                model,
                preprocessing,
                normalized=use.normalized,
                labels=use.labels,
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

    def _compute_batch(self, images: np.ndarray) -> np.ndarray:
        inputs = images if self._normalized else normalize(images, self.preprocessing)
        if self._channels_first:
            inputs = np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))  # (N, C, h, w)
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
    # A Sequential has no `output`, and of a Functional it alone has the names.
    structure = getattr(model, "output", outputs[0])
    scores = structure.get("logits") if isinstance(structure, dict) else structure
    shape: tuple[int | None, ...] = getattr(scores, "shape", ())
    if len(shape) != 2 or shape[-1] is None:
        raise ModelFileError(
            f"{model.name} gives no scores of classes: a classifier's output is (N, classes), or "
            f"a dict of them with 'logits'; this model's is "
            f"{keras.tree.map_structure(lambda tensor: tuple(tensor.shape), structure)}"
        )
    name = _activation(model, scores)
    if name in ("sigmoid", "tanh"):
        raise ModelFileError(
            f"{model.name} ends with {name!r}: its outputs are no probabilities of classes that "
            "exclude each other"
        )
    return scores, name == "softmax"


def _activation(model: Any, scores: Any) -> str:
    """Return the name of the activation that a model's output comes from."""
    layer = _maker(model, scores)
    while isinstance(layer, keras.Model):  # a model in a model
        layer = _maker(layer, layer.outputs[0])
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    return getattr(getattr(layer, "activation", None), "__name__", "linear")


def _maker(model: Any, tensor: Any) -> Any:
    """Return the operation of a model that makes a tensor."""
    with contextlib.suppress(MissingPartError):
        return maker_of(tensor)[0]
    operations = getattr(model, "operations", model.layers)
    return next(o for o in operations if any(x is tensor for x in keras.tree.flatten(o.output)))


def _is_channels_first(model: Any, preprocessing: Preprocessing) -> bool:
    shape, channels = model.inputs[0].shape[1:], len(preprocessing.channels)
    if len(shape) != 3 or channels not in (shape[0], shape[-1]):
        raise ModelFileError(
            f"{model.name} takes {tuple(shape)}, not images of {channels} channels "
            f"({preprocessing.channels})"
        )
    return shape[-1] != channels


def _size(model: Any, preprocessing: Preprocessing) -> tuple[int | None, int | None]:
    """Return height and width that a model takes, None where they are free."""
    shape = model.inputs[0].shape
    height, width = shape[2:] if _is_channels_first(model, preprocessing) else shape[1:3]
    return height, width


def _implied(model: Any) -> Use:
    """Return how to use a model that was saved without a record."""
    holds_it = any(layer.name.startswith("preprocessing_") for layer in model.layers)
    if model.name not in SPECS or not holds_it:
        raise ModelFileError(
            "it was saved without a record of its preprocessing, so what to do with images before "
            f"the model {model.name!r} is not known. Files of `keras-alexnet train` and `python -m "
            "porting convert` have one; in Python, save with keras_alexnet.save_model, or make a "
            "keras_alexnet.Predictor with the preprocessing"
        )
    return Use(SPECS[model.name].preprocessing, normalized=True, labels=None)
