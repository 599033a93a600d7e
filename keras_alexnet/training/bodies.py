"""What an experiment trains: one of our architectures, or the network of a `.keras` file."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from keras_alexnet.core.keras_internals import maker_of
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.layers import keras
from keras_alexnet.models.builder import build, input_layers
from keras_alexnet.models.copies import copied
from keras_alexnet.models.fast.quicken import quicken
from keras_alexnet.models.interface import input_of, is_preprocessing, main_output
from keras_alexnet.models.record import read_arrays, read_record, use_of
from keras_alexnet.models.weights import load_model
from keras_alexnet.specs import find_spec
from keras_alexnet.specs.preprocessing import Preprocessing
from keras_alexnet.specs.schema import Dense, ModelSpec, keras_name
from keras_alexnet.training.experiment import Experiment, is_file

# Transforms of a record's counterpart that hold for any number of classes.
_OF_ANY_CLASSES = ("dense", "flat_dense", "vector")


class Body(Protocol):
    """A network without the classes that it will tell apart."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def preprocessing(self) -> Preprocessing:
        """What it expects of photos, at its own size."""

    def build(
        self, experiment: Experiment, classes: int, preprocessing: Preprocessing, dtype: str
    ) -> Any:
        """Return the model of an experiment: R, G, B (or grey) of 0..255 to logits."""

    def class_layers(self, model: Any) -> frozenset[str]:
        """Return the layers of a model of it that have a value for each class."""

    def heads(self, model: Any) -> frozenset[str]:
        """Return the layers of all its classifiers that depend on the classes or follow those."""

    def record(self, model: Any, classes: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the entries of its own in a trained model's record, and what belongs to them."""


def body_of(experiment: Experiment) -> Body:
    """Return the network that an experiment trains.

    Raises:
        UnknownModelError: No model has this name.
        ModelFileError: Its file is missing or damaged.
        ConfigurationError: Its file does not say how it sees photos, and the experiment neither.
    """
    if not is_file(experiment.model):
        return SpecBody(find_spec(experiment.model), _expects_transform(experiment))
    path = Path(experiment.model)
    record = read_record(path)
    if record is None:
        raise ConfigurationError(
            f"{path}: it was saved without a record of its preprocessing; files of `python -m "
            "porting convert` and of training runs have one"
        )
    preprocessing, _, _ = use_of(record)
    if preprocessing is None:
        if experiment.mean is None or experiment.std is None:
            raise ConfigurationError(
                f"{path}: nobody says how its images are normalised: name --mean and --std"
            )
        preprocessing = Preprocessing(mean=experiment.mean, std=experiment.std)
        shape = record.get("model", {}).get("input_shape") or ()
        size = shape[:-1] if shape[-1:] == [len(preprocessing.channels)] else shape[1:]
        if size and None not in size:
            preprocessing = preprocessing.at_size(*size)
    return FileBody(path, preprocessing, record)


def _expects_transform(experiment: Experiment) -> bool:
    """Return whether the weights that the experiment starts from expect torchvision's affine."""
    if experiment.weights is None:
        return False
    record = read_record(experiment.weights) or {}
    return bool(record.get("model", {}).get("transform_input", False))


@dataclass(frozen=True)
class SpecBody:
    """One of our architectures; `transform_input` is GoogLeNet's."""

    spec: ModelSpec
    transform_input: bool = False

    @property
    def name(self) -> str:
        """Its name."""
        return self.spec.name

    @property
    def preprocessing(self) -> Preprocessing:
        """What it expects of photos, at its own size."""
        return self.spec.preprocessing.at_size(*self.spec.default_size)

    def build(
        self, experiment: Experiment, classes: int, preprocessing: Preprocessing, dtype: str
    ) -> Any:
        """Return the model of an experiment, see `Body`."""
        spec = replace(self.spec, preprocessing=preprocessing)
        shape = (*preprocessing.crop_size, spec.channels)
        if experiment.data_format == "channels_first":
            shape = (spec.channels, *preprocessing.crop_size)
        return build(
            spec,
            classes=classes,
            input_shape=shape,
            aux_heads=experiment.aux_heads,
            dropout_rate=experiment.dropout_rate,
            include_preprocessing=True,
            transform_input=self.transform_input,
            classifier_activation=experiment.classifier_activation,
            data_format=experiment.data_format,
            dtype=dtype,
        )

    def class_layers(self, model: Any = None) -> frozenset[str]:
        """Return the layers that have a value for each class."""
        found = []
        for rows in (self.spec.head, *(aux.rows for aux in self.spec.aux)):
            names = itertools.dropwhile(
                lambda r: not isinstance(r, Dense) or r.units is not None, rows
            )
            found += [keras_name(row.name) for row in names]
        return frozenset(found)

    def heads(self, model: Any = None) -> frozenset[str]:
        """Return the layers of the classifiers; auxiliary ones whole, as they may be missing."""
        whole = {keras_name(row.name) for aux in self.spec.aux for row in aux.rows}
        return self.class_layers() | whole

    def record(self, model: Any, classes: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return what a trained model's record says of it."""
        return {"model": {"name": self.name, "transform_input": self.transform_input}}, {}


@dataclass(frozen=True)
class FileBody:
    """The network of a `.keras` file of one image, whose last layer is its classifier."""

    path: Path
    preprocessing: Preprocessing
    origin: Mapping[str, Any] = field(repr=False)  # the file's record

    @property
    def name(self) -> str:
        """The name of its file."""
        return self.path.stem

    def build(
        self, experiment: Experiment, classes: int, preprocessing: Preprocessing, dtype: str
    ) -> Any:
        """Return the model of an experiment, see `Body`.

        Raises:
            ConfigurationError: The file's network cannot be had as the experiment wants it.
        """
        source = load_model(self.path)
        takes = input_of(source, dict(self.origin))
        first = "channels_first" if takes.channels_first else "channels_last"
        if experiment.data_format != first:
            raise ConfigurationError(f"{self.path} is {first}: name --data-format {first}")
        if experiment.classifier_activation is not None:
            raise ConfigurationError(f"{self.path}: leave classifier_activation out")
        height, width = takes.shape[1:] if takes.channels_first else takes.shape[:2]
        wanted = preprocessing.crop_size
        if (height or wanted[0], width or wanted[1]) != wanted:
            raise ConfigurationError(
                f"{self.path} takes images of {height} x {width} pixels, not {wanted[0]} x "
                f"{wanted[1]}; leave --input-size out, or convert it with --input-size any"
            )
        head = self._head(source)
        normalised = [layer for layer in source.layers if is_preprocessing(layer)]
        image = keras.Input(source.inputs[0].shape[1:], name="image")
        x = copied(
            source,
            input_layers(image, first, preprocessing, transform_input=False),
            first=normalised[-1].output if normalised else source.inputs[0],
            last=head.input,
            dtype=dtype,
        )
        if experiment.dropout_rate is not None:
            x = keras.layers.Dropout(experiment.dropout_rate, name="classifier_dropout")(x)
        logits = keras.layers.Dense(classes, name=head.name, dtype=dtype)(x)
        return quicken(keras.Model(image, logits, name=source.name))

    def _head(self, model: Any) -> Any:
        """Return the dense layer that gives a model's scores."""
        output = main_output(model)
        layer: Any = None if output is None else maker_of(output)[0]
        while isinstance(layer, keras.layers.Softmax | keras.layers.Activation):
            layer = maker_of(layer.input)[0]
        if not isinstance(layer, keras.layers.Dense):
            kind = "several outputs" if layer is None else f"a {type(layer).__name__}"
            raise ConfigurationError(
                f"{self.path} ends with {kind}, not with the dense layer of a classifier, so no "
                "other one can be put in its place"
            )
        return layer

    def class_layers(self, model: Any) -> frozenset[str]:
        """Return the layer that has a value for each class."""
        return frozenset([self._head(model).name])

    def heads(self, model: Any) -> frozenset[str]:
        """Return the classifier."""
        return self.class_layers(model)

    def record(self, model: Any, classes: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return what a trained model's record says of it: the way back to torch, too."""
        origin = self.origin
        known = origin["model"]
        own = {"model": {name: known[name] for name in ("name", "target") if name in known}}
        counterpart = _of_classes(origin.get("counterpart"), self._head(model).name, classes)
        if counterpart is None:
            return own, {}
        own |= {"counterpart": counterpart, "num_batches_tracked": origin["num_batches_tracked"]}
        return own, read_arrays(self.path)


def _of_classes(counterpart: Any, head: str, classes: int) -> Any:
    """Return a record's counterpart for another number of classes, None where there is none."""
    if counterpart is None:
        return None
    rows = [dict(row) for row in counterpart["table"]]
    for row in rows:
        if row.get("variable", "").startswith(f"{head}/"):
            if row["transform"]["name"] not in _OF_ANY_CLASSES:
                return None
            row["shape"] = [classes, *row["shape"][1:]]
    pairs = [pair for pair in counterpart["pairs"] if pair["layer"] != head]
    return {**counterpart, "table": rows, "pairs": pairs}
