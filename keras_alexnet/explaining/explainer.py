"""A predictor together with what explains its guesses: photos in, arrays out."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from keras_alexnet.data.classes import class_called, words_of
from keras_alexnet.data.examples import unlabelled
from keras_alexnet.data.preprocessing import load_images
from keras_alexnet.errors import ConfigurationError, UnknownModelError, counted, similar
from keras_alexnet.explaining import attribution, layers
from keras_alexnet.explaining.gradients import Gradient, gradient_of, values_of
from keras_alexnet.explaining.methods import ExplanationDetail
from keras_alexnet.inference.predictor import Predictor
from keras_alexnet.layers import keras
from keras_alexnet.models.fast.quicken import quicken
from keras_alexnet.models.features import feature_extractor

# Indices of classes, (N,) or (N, K).
Classes = Sequence[int] | Sequence[Sequence[int]] | np.ndarray

BATCH_SIZE = 16  # gradients take several times the memory of a forward pass


class Explainer:
    """Explains what a model makes of photos: on every Keras backend, whatever its data format.

    Photos are uint8 (N, h, w, C) as the model sees them, R, G, B or grey: those of `load`. Classes
    are their indices: one for each photo, (N,), or as many for each, (N, K), which takes much less
    time than one after the other; results have one axis more then, (N, K, ...). What is explained
    is a class's logit, that before the softmax of a model that ends with one.

    Use one for as long as its model is in use, and as long as its weights stay: what the backend
    compiles is kept.

    Args:
        predictor: The model and what stands before it.
        batch_size: Images that the model computes at a time.

    Attributes:
        predictor: As given.
        explained: What the explained numbers are called: `"logit"`, or else `"probability"` of a
            model within a model that ends with a softmax, or the output of another activation.

    Example:
        >>> from keras_alexnet import Preprocessing, create_model
        >>> preprocessing = Preprocessing(28, (28, 28), mean=(0.0,), std=(1.0,), channels="L")
        >>> predictor = Predictor(create_model("lenet5"), preprocessing, normalized=False)
        >>> explainer = Explainer(predictor)
        >>> photos = np.zeros((2, 28, 28, 1), np.uint8)
        >>> explainer.grad_cam(photos, [3, 8]).shape
        (2, 10, 10)
        >>> explainer.grad_cam(photos, [[3, 0, 7], [8, 0, 7]]).shape
        (2, 3, 10, 10)
    """

    def __init__(self, predictor: Predictor, *, batch_size: int = BATCH_SIZE) -> None:
        self.predictor, self.batch_size = predictor, batch_size
        model = predictor.model
        scores, self.explained = layers.explained_scores(model)
        self._network = keras.Model(model.inputs[0], scores, name=model.name)
        self._values: dict[int, Callable[[np.ndarray], np.ndarray]] = {}
        self._gradients: dict[str | None, Gradient] = {}

    @classmethod
    def from_file(cls, path: str | Path, *, batch_size: int = BATCH_SIZE) -> Self:
        """Load a `.keras` file, as `Predictor.from_file` does.

        Raises:
            ModelFileError: The file is missing or damaged, or does not say how to use it.
        """
        return cls(Predictor.from_file(path, batch_size=batch_size), batch_size=batch_size)

    def load(self, files: Sequence[str | Path]) -> np.ndarray:
        """Return image files as the model sees them, uint8 (N, h, w, C).

        Raises:
            ImageFileError: A file cannot be decoded.
            ConfigurationError: There are none.
        """
        return load_images(files, self.predictor.preprocessing)

    def probabilities(self, photos: np.ndarray) -> np.ndarray:
        """Return the probabilities of the classes, float64 (N, classes)."""
        return self.predictor.probabilities(photos[:, None])

    def guesses(self, photos: np.ndarray) -> np.ndarray:
        """Return the most probable class of each photo, int64 (N,)."""
        return self.probabilities(photos).argmax(axis=1)

    def class_index(self, name: str) -> int:
        """Return the index of a class that is called by its name, by one of its words, or by index.

        The names of ImageNet's classes may be those of another list than the model's.

        Raises:
            UnknownModelError: The model has no such class; the message names the nearest ones.
        """
        labels, count = self.predictor.labels or (), self.predictor.classes
        if name not in labels and name.isdecimal() and int(name) < count:
            return int(name)
        if (found := class_called(name, labels)) is not None:
            return found
        near = [each for label in labels for each in (label, *words_of(label))]
        hint = similar(name, dict.fromkeys(near))
        raise UnknownModelError(
            f"{self._network.name} has no class {name!r}"
            + (f".{hint}" if labels else ": its file has no names of classes.")
            + f" A number from 0 to {count - 1} is taken as an index"
        )

    def class_name(self, index: int) -> str:
        """Return the name of a class, or its index where the model's file has no names."""
        return self.predictor.labels[index] if self.predictor.labels else str(index)

    def scores(self, photos: np.ndarray) -> np.ndarray:
        """Return the numbers that are explained, float32 (N, classes)."""
        return self._compute(self._network.outputs[0], photos)

    def grad_cam(
        self, photos: np.ndarray, classes: Classes, layer: str | None = None
    ) -> np.ndarray:
        """Return where a layer's maps speak for a class of each photo; see `attribution.grad_cam`.

        Args:
            photos: uint8 (N, h, w, C).
            classes: Indices (N,) or (N, K).
            layer: Name of a layer with maps, a stage or a torch module; by default `map_layer`.

        Returns:
            float32 (N, rows, columns) of the layer's maps, or (N, K, rows, columns), from 0 up.

        Raises:
            ConfigurationError: The layer is unknown, has no maps, or the scores do not depend on
                it, or the classes are none of the model's.
        """
        labels, layer = self._checked(photos, classes), layer or self.map_layer
        tensor = self._maps(layer)
        if layer not in self._gradients:
            # Paths around the layer begin at the image, which is an input too.
            tail = keras.Model([self._network.inputs[0], tensor], self._network.outputs[0])
            self._gradients[layer] = gradient_of(tail, of=1)
        maps = self._compute(tensor, photos)
        slopes = self._batched(self._gradients[layer], self._inputs(photos), maps, classes=labels)
        heat = attribution.grad_cam(self._last(maps)[:, None], self._last(slopes))
        return heat.reshape(*np.shape(classes), *heat.shape[2:])

    def integrated_gradients(
        self, photos: np.ndarray, classes: Classes, *, steps: int = ExplanationDetail.steps
    ) -> np.ndarray:
        """Return what each number of a photo adds to a class's score, beginning from black.

        See `attribution.integrated_gradients`.

        Args:
            photos: uint8 (N, h, w, C).
            classes: Indices (N,) or (N, K).
            steps: Points on the line from the black photo, at most 1000.

        Returns:
            float64 (N, h, w, C) or (N, K, h, w, C), in the order of the photo's channels. Those of
            a photo sum to its score less that of the black one, but for the error of as many steps.

        Raises:
            ConfigurationError: There are no steps or too many, or the classes are none of the
                model's.
        """
        ExplanationDetail(steps=steps)  # which says what is wrong with them
        if None not in self._gradients:
            self._gradients[None] = gradient_of(self._network)
        gradient = self._gradients[None]

        def explained(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
            return attribution.integrated_gradients(
                lambda line: gradient([line], np.tile(labels, (len(line), 1))),
                *(x, black),
                steps=steps,
                batch_size=self.batch_size,
            )

        black = self._inputs(np.zeros_like(photos[:1]))[0]
        labels = self._checked(photos, classes)
        parts = self._last(np.stack([*map(explained, self._inputs(photos), labels)]))
        parts = parts.reshape(*np.shape(classes), *parts.shape[2:])
        # A model with its own normalisation turns the channels round itself.
        return parts[..., ::-1] if self._reads_bgr and not self.predictor.normalized else parts

    def occlusion(
        self,
        photos: np.ndarray,
        classes: Classes,
        *,
        window: int | None = None,
        stride: int | None = None,
    ) -> np.ndarray:
        """Return how far a class's score drops where a square hides a photo.

        The square has the mean colour that the preprocessing subtracts; see
        `attribution.occlusion`.

        Args:
            photos: uint8 (N, h, w, C).
            classes: Indices (N,) or (N, K).
            window: Side of the square in pixels, by default a seventh of the shorter side.
            stride: Pixels between two places of it, by default half of it.

        Returns:
            float32 (N, h, w) or (N, K, h, w), in units of the score.

        Raises:
            ConfigurationError: The square is larger than the photo, or would leave pixels out, or
                the classes are none of the model's.
        """
        labels = self._checked(photos, classes)
        square = self.occluder(photos.shape[1:3], window, stride)

        def explained(photo: np.ndarray, labels: np.ndarray) -> np.ndarray:
            return attribution.occlusion(
                lambda images: self.scores(images)[:, labels],
                photo,
                batch_size=self.batch_size,
                **square,
            )

        drops = np.stack([*map(explained, photos, labels)])
        return drops.reshape(*np.shape(classes), *drops.shape[2:])

    def occluder(
        self, size: Sequence[int], window: int | None = None, stride: int | None = None
    ) -> dict[str, Any]:
        """Return what `occlusion` hides photos of a height and width with.

        Returns:
            `fill`, a colour, and `window` and `stride`, both in pixels.

        Raises:
            ConfigurationError: The square is larger than the photo, or would leave pixels out.
        """
        return attribution.occluder(self.predictor.preprocessing, size, window, stride)

    @cached_property
    def map_layer(self) -> str:
        """Name of the last layer with feature maps that is no pooling.

        Raises:
            ConfigurationError: The model has no feature maps.
        """
        return layers.map_layer(self._network)

    @cached_property
    def first_convolution(self) -> str:
        """Name of the convolution that stands nearest to the image.

        Raises:
            ConfigurationError: The model has none.
        """
        return layers.first_convolution(self._network)

    def filters(self) -> np.ndarray:
        """Return the first convolution's kernels as pictures, float32 (filters, h, w, C) in [0, 1].

        Each has its full contrast, and 0.5 where it is 0; channels are R, G, B or grey.

        Raises:
            ConfigurationError: There is none, or it does not read the image's channels.
        """
        layer = self._network.get_layer(self.first_convolution)
        return layers.filters(layer, self.predictor.preprocessing.channels)

    def feature_maps(self, photos: np.ndarray, layer: str | None = None) -> np.ndarray:
        """Return a layer's output, float32 (N, rows, columns, C).

        Args:
            photos: uint8 (N, h, w, C).
            layer: As of `grad_cam`; by default `first_convolution`.

        Raises:
            ConfigurationError: The layer is unknown or has no maps.
        """
        return self._last(self._compute(self._maps(layer or self.first_convolution), photos))

    def features(self, photos: np.ndarray) -> np.ndarray:
        """Return what the classifier reads, its last layer with a kernel: float32 (N, F)."""
        tensor = layers.classifier_input(self._network)
        return self._compute(tensor, photos).reshape(len(photos), -1)

    def features_of(self, files: Sequence[Path]) -> tuple[np.ndarray, list[Path]]:
        """Return the features of image files, (N, F), and which could be read, in their order.

        Raises:
            ConfigurationError: None could.
        """
        batches = self.predictor.batches(unlabelled(files))
        rows, read = [], list[Path]()
        for views, indices in batches:
            rows.append(self.features(views[:, 0]))
            read += [files[index] for index in indices]
        if not rows:
            raise ConfigurationError(
                f"none of {counted(len(files), 'image file')} can be read, such as {files[0]}: "
                f"{batches.skipped[files[0]]}"
            )
        return np.concatenate(rows), read

    @property
    def _reads_bgr(self) -> bool:
        return self.predictor.preprocessing.channels == "BGR"

    def _checked(self, photos: np.ndarray, classes: Classes) -> np.ndarray:
        """Return classes as an array (N, K), if there are as many for each photo, the model's."""
        labels, count = np.asarray(classes), self.predictor.classes
        fit = labels.ndim in (1, 2) and len(labels) == len(photos) and labels.size
        whole = np.issubdtype(labels.dtype, np.integer)
        if not (fit and whole and ((labels >= 0) & (labels < count)).all()):
            raise ConfigurationError(
                f"classes must be {counted(len(photos), 'whole number')}, one for each photo, from "
                f"0 to {count - 1}, or as many for each; got {classes!r}"
            )
        return labels.reshape(len(photos), -1)

    def _maps(self, layer: str) -> Any:
        """Return the Keras tensor of a layer that has maps, and that the scores depend on."""
        used = {operation.name for operation in self._network.operations}
        if layer not in used and layer in {each.name for each in self.predictor.model.layers}:
            raise ConfigurationError(
                f"the scores of {self._network.name} do not depend on {layer}, a layer of another "
                "output"
            )
        tensor = feature_extractor(self._network, [layer]).output[layer]
        shape = tuple(getattr(tensor, "shape", ()))
        if len(shape) != 4:
            raise ConfigurationError(
                f"{layer} of {self._network.name} puts out {shape}, no feature maps (N, h, w, C)"
            )
        return tensor

    def _inputs(self, photos: np.ndarray) -> np.ndarray:
        return np.asarray(self.predictor.inputs(photos), np.float32)

    def _last(self, maps: np.ndarray) -> np.ndarray:
        """Return the model's images or maps, of one class or more, as (..., h, w, C)."""
        return np.moveaxis(maps, -3, -1) if self.predictor.channels_first else maps

    def _compute(self, tensor: Any, photos: np.ndarray) -> np.ndarray:
        """Return a Keras tensor of the network for photos, in batches."""
        if id(tensor) not in self._values:
            part = quicken(keras.Model(self._network.inputs[0], tensor))
            self._values[id(tensor)] = values_of(part)
        values = self._values[id(tensor)]
        return self._batched(lambda arrays, _: values(arrays[0]), self._inputs(photos))

    def _batched(
        self, compute: Gradient, *arrays: np.ndarray, classes: np.ndarray | None = None
    ) -> np.ndarray:
        """Compute in batches of one size, for which alone a backend compiles."""
        count = len(arrays[0])
        classes = np.zeros((count, 1), np.int32) if classes is None else classes
        number, size = attribution.even_batches(count, self.batch_size)
        parts = []
        for start in range(0, number * size, size):
            rows = np.minimum(np.arange(start, start + size), count - 1)
            parts.append(compute([each[rows] for each in arrays], classes[rows]))
        return np.concatenate(parts)[:count]
