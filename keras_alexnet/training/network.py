"""The model of an experiment: built, started from other weights, put behind the augmentation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.data.augmentation.layer import Augment
from keras_alexnet.data.classes import same_classes
from keras_alexnet.errors import ConfigurationError, listed
from keras_alexnet.layers import keras, ops
from keras_alexnet.models.initialization import weights_will_follow
from keras_alexnet.models.interface import input_of, is_preprocessing, named_outputs
from keras_alexnet.models.record import read_record, save_model
from keras_alexnet.models.weights import copy_by_name, load_model
from keras_alexnet.specs.preprocessing import Preprocessing
from keras_alexnet.training.bodies import Body, body_of
from keras_alexnet.training.experiment import Experiment
from keras_alexnet.training.optim.losses import Accuracy, CrossEntropy, ExampleLoss


def input_preprocessing(experiment: Experiment) -> Preprocessing:
    """Return the evaluation preprocessing of an experiment, without the data's statistics."""
    own = body_of(experiment).preprocessing
    size = experiment.input_size
    crop = own.crop_size if size is None else (size, size)
    # Images are resized as in training, where the ratio of their sides stays.
    preprocessing = replace(own.at_size(*crop), squash=False)
    resize = experiment.eval_resize or experiment.augmentation.resize
    if resize is None and experiment.augmentation.crop != "random-resized":
        resize = max(crop)
    if resize is not None:
        if resize < max(crop):
            raise ConfigurationError(
                f"images are resized to {resize} pixels, less than the model's input of {max(crop)}"
            )
        preprocessing = replace(preprocessing, resize_size=resize)
    channels = len(own.channels)
    if experiment.mean is not None and experiment.std is not None:
        if len(experiment.mean) != channels:
            raise ConfigurationError(f"{experiment.model} reads {channels} channel(s); mean has 3")
        return replace(preprocessing, mean=experiment.mean, std=experiment.std, scale=255.0)
    if experiment.normalize == "none":
        return replace(preprocessing, mean=(0.0,) * channels, std=(1.0,) * channels, scale=255.0)
    return preprocessing


def build_network(
    experiment: Experiment, classes: int, preprocessing: Preprocessing, *, dtype: str | None = None
) -> Any:
    """Build the model of an experiment: R, G, B (or grey) of 0..255 to logits.

    It holds the normalisation of `preprocessing`; `dtype` is by default the experiment's precision.
    """
    return body_of(experiment).build(
        experiment, classes, preprocessing, dtype or experiment.precision
    )


def start_from(model: Any, path: Path, body: Body, classes: tuple[str, ...]) -> str:
    """Fill a model from a `.keras` file; return a sentence about its classifier.

    The classifier is kept where the file's classes are the same by name, in whatever order, or have
    no names but are as many. Otherwise it is drawn anew.

    Raises:
        ModelFileError: The file is unreadable or lacks weights of the model's other layers.
    """
    source = load_model(path)
    labels = input_of(source, read_record(path)).labels
    places = None if labels is None else same_classes(classes, labels)
    other = labels is not None and (places is None or len(labels) != len(classes))
    of_classes, heads = body.class_layers(model), body.heads(model)
    kept = copy_by_name(
        source,
        model,
        may_differ=heads,
        leave=lambda layer: is_preprocessing(layer) or (other and layer.name in of_classes),
        what=str(path),
        hint=f"Only classifiers ({', '.join(sorted(heads))}) may differ.",
    )
    drawn = [layer.name for layer in model.layers if layer.name in kept] or (
        [layer.name for layer in model.layers if layer.weights and layer.name in of_classes] * other
    )
    if drawn:
        whose = f", whose classes are {listed(map(repr, labels or ()), 3)}" * (labels is not None)
        return f"started from {path}{whose}; drawn anew: {', '.join(drawn)}"
    if places is None:
        return (
            f"started from {path}, whose {len(classes)} classes have no names: taken for those of "
            "the data, in the same order; drawn anew: nothing"
        )
    if places == list(range(len(places))):
        return f"started from {path}, whose classes are the same; drawn anew: nothing"
    for layer in model.layers:
        for weight in layer.weights if layer.name in of_classes else ():
            weight.assign(np.take(keras.ops.convert_to_numpy(weight), places, axis=-1))
    return (
        f"started from {path}, whose classes are the same in another order: its classifier was "
        "put into the data's; drawn anew: nothing"
    )


def training_model(
    model: Any,
    experiment: Experiment,
    inputs: Mapping[str, tuple[tuple[int, ...], str]],
    *,
    size: tuple[int, int],
    pca: Any = None,
    make: Callable[..., Any] = keras.Model,
) -> Any:
    """Put a model behind the augmentation of what the input pipeline yields.

    The result, a Keras model, goes from the inputs by name to a dict of logits by name.

    Args:
        model: The network.
        experiment: Whose augmentation it is.
        inputs: Name -> shape without the batch, and dtype.
        size: Height and width of the network's input in pixels.
        pca: Eigenvalues and eigenvectors of the colours.
        make: Makes a functional model of inputs, outputs and `name`.
    """
    tensors = {
        name: keras.Input(shape, dtype=dtype, name=name) for name, (shape, dtype) in inputs.items()
    }
    augment = Augment(experiment.augmentation, size, data_format=experiment.data_format, pca=pca)
    return make(tensors, named_outputs(model(augment(tensors))), name=f"{model.name}_training")


def for_heads(batches: Any, heads: Sequence[str]) -> Any:
    """Give every head its labels, and its weights where there are any.

    (inputs, labels, ...) becomes (inputs, {head: labels}, ...).
    """

    def for_each(inputs: Any, *others: Any) -> tuple[Any, ...]:
        return inputs, *(dict.fromkeys(heads, values) for values in others)

    if hasattr(batches, "map"):  # a tf.data.Dataset
        return batches.map(for_each)
    return (for_each(*batch) for batch in batches)


def compile_training(trainer: Any, experiment: Experiment, optimizer: Any) -> None:
    """Give a training model its losses, its accuracy and its optimiser."""
    heads = list(trainer.output)
    trainer.compile(
        optimizer=optimizer,
        loss={name: CrossEntropy(experiment.label_smoothing) for name in heads},
        loss_weights={n: 1.0 if n == "logits" else experiment.aux_weight for n in heads},
        # Weighted, as examples that only fill a batch up are to count for nothing.
        weighted_metrics={
            "logits": [
                Accuracy(name="accuracy"),
                ExampleLoss(CrossEntropy(experiment.label_smoothing), name="example_loss"),
            ]
        },
        # XLA makes training slower on TensorFlow's CPU; JAX is nothing without it.
        jit_compile=keras.backend.backend() == "jax",
        auto_scale_loss=False,
    )
    # Keras makes its metrics with the first batch; a checkpoint fills them before.
    labels = {name: ops.zeros((1,), "int32") for name in heads}
    logits = {name: ops.zeros((1, *trainer.output[name].shape[1:])) for name in heads}
    trainer.compute_loss(y=labels, y_pred=logits)
    trainer.compute_metrics(None, labels, logits)
    trainer.reset_metrics()


def save_trained(
    model: Any,
    path: Path,
    experiment: Experiment,
    classes: tuple[str, ...],
    preprocessing: Preprocessing,
    source: Mapping[str, Any],
) -> None:
    """Write a trained model in float32, with the record that evaluation and prediction read."""
    saved = model
    if experiment.precision != "float32":
        with weights_will_follow():
            saved = build_network(experiment, len(classes), preprocessing, dtype="float32")
        saved.set_weights(model.get_weights())
    own, arrays = body_of(experiment).record(model, len(classes))
    record = {
        **own,
        "model": {
            **own["model"],
            "classes": len(classes),
            "include_preprocessing": True,
            "aux_heads": experiment.aux_heads,
            "input_shape": list(model.input_shape[1:]),
        },
        "source": dict(source),
        "preprocessing": asdict(preprocessing),
        "labels": list(classes),
    }
    save_model(saved, path, record, arrays)
