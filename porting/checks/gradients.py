"""Gradients of a Keras model's weights in float64, on each backend."""

from typing import Any

import numpy as np

from keras_alexnet.core.backend import load_keras, require
from keras_alexnet.models.interface import named_outputs
from keras_alexnet.specs.shared import AUX_LOSS_WEIGHT


def weight_gradients(
    backend: str, model: Any, images: np.ndarray, labels: np.ndarray
) -> list[np.ndarray]:
    """Return the gradient of the training loss by every trainable variable.

    Dropout is off and batch norm uses its stored statistics. `images` are in the model's data
    format, and `labels` their classes.
    """
    gradients = _GRADIENTS[backend](model, images, labels)
    return [np.asarray(gradient) for gradient in gradients]


def _loss(outputs: Any, labels: np.ndarray) -> Any:
    keras = load_keras()
    total = 0.0
    for output, logits in named_outputs(outputs).items():
        losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        total += keras.ops.mean(losses) * (1 if output == "logits" else AUX_LOSS_WEIGHT)
    return total


def _tensorflow_gradients(model: Any, images: np.ndarray, labels: np.ndarray) -> list[Any]:
    tf = require("tensorflow")
    with tf.GradientTape() as tape:
        loss = _loss(model(images, training=False), labels)
    variables = [variable.value for variable in model.trainable_variables]
    return [gradient.numpy() for gradient in tape.gradient(loss, variables)]


def _torch_gradients(model: Any, images: np.ndarray, labels: np.ndarray) -> list[Any]:
    keras = load_keras()
    _loss(model(keras.ops.convert_to_tensor(images), training=False), labels).backward()
    return [variable.value.grad.cpu().numpy() for variable in model.trainable_variables]


def _jax_gradients(model: Any, images: np.ndarray, labels: np.ndarray) -> list[Any]:
    jax = require("jax")
    fixed = [variable.value for variable in model.non_trainable_variables]

    def loss(trainable: list[Any]) -> Any:
        outputs, _ = model.stateless_call(trainable, fixed, images, training=False)
        return _loss(outputs, labels)

    trainable = [variable.value for variable in model.trainable_variables]
    # Compiled once and run once: the compiler's optimisation would take most of the time.
    lowered = jax.jit(jax.grad(loss)).lower(trainable)
    return list(lowered.compile({"xla_backend_optimization_level": 0})(trainable))


_GRADIENTS = {
    "tensorflow": _tensorflow_gradients,
    "torch": _torch_gradients,
    "jax": _jax_gradients,
}
