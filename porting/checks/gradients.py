"""Gradients of a Keras model's weights in float64, on each backend."""

from typing import Any

import numpy as np

from keras_alexnet.core.backend import load_keras, require
from keras_alexnet.models.interface import MAIN_OUTPUT, named_outputs
from keras_alexnet.specs.shared import AUX_LOSS_WEIGHT
from porting.checks.inputs import gradient_labels


def weight_gradients(backend: str, model: Any, inputs: Any) -> list[np.ndarray]:
    """Return the gradient of the training loss by every trainable variable.

    Dropout is off and batch norm uses its stored statistics. `inputs` are as the model takes them,
    the labels those of `gradient_labels`. Of maps and other outputs than (N, classes), half the
    mean of their squares is the loss.
    """
    gradients = _GRADIENTS[backend](model, inputs)
    return [np.asarray(gradient) for gradient in gradients]


def _loss(outputs: Any) -> Any:
    total = 0.0
    for name, output in named_outputs(outputs).items():
        total += _loss_of(output) * (1 if name == MAIN_OUTPUT else AUX_LOSS_WEIGHT)
    return total


def _loss_of(output: Any) -> Any:
    keras = load_keras()
    if len(output.shape) != 2:
        return half_squares(output)
    images, classes = output.shape
    labels = gradient_labels(images) % classes
    losses = keras.losses.sparse_categorical_crossentropy(labels, output, from_logits=True)
    return keras.ops.mean(losses)


def half_squares(output: Any) -> Any:
    """Return half the mean square of an output, the loss of what is no scores of classes."""
    ops = load_keras().ops
    return ops.mean(ops.square(output)) / 2


def _tensorflow_gradients(model: Any, inputs: Any) -> list[Any]:
    tf = require("tensorflow")
    with tf.GradientTape() as tape:
        loss = _loss(model(inputs, training=False))
    variables = [variable.value for variable in model.trainable_variables]
    return [gradient.numpy() for gradient in tape.gradient(loss, variables)]


def _torch_gradients(model: Any, inputs: Any) -> list[Any]:
    keras = load_keras()
    tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)
    _loss(model(tensors, training=False)).backward()
    return [variable.value.grad.cpu().numpy() for variable in model.trainable_variables]


def _jax_gradients(model: Any, inputs: Any) -> list[Any]:
    jax = require("jax")
    fixed = [variable.value for variable in model.non_trainable_variables]

    def loss(trainable: list[Any]) -> Any:
        outputs, _ = model.stateless_call(trainable, fixed, inputs, training=False)
        return _loss(outputs)

    trainable = [variable.value for variable in model.trainable_variables]
    # Compiled once and run once: the compiler's optimisation would take most of the time.
    lowered = jax.jit(jax.grad(loss)).lower(trainable)
    return list(lowered.compile({"xla_backend_optimization_level": 0})(trainable))


_GRADIENTS = {
    "tensorflow": _tensorflow_gradients,
    "torch": _torch_gradients,
    "jax": _jax_gradients,
}
