"""What a model computes, and the gradients of its scores, by each backend's own means.

Nothing else in this folder knows which backend there is.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_alexnet.core.backend import require
from keras_alexnet.layers import keras
from keras_alexnet.models.interface import alone_or_list

# Inputs of a batch, (N, ...) each, and classes (N,) -> gradients (N, ...).
Gradient = Callable[[Sequence[np.ndarray], np.ndarray], np.ndarray]
_Backward = Callable[[Sequence[Any], Any], Any]  # the same of tensors


def values_of(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Return what computes the only output of a functional model of one input, for a batch."""
    if keras.backend.backend() != "tensorflow":
        return lambda x: np.asarray(model.predict_on_batch(x))
    # Compiled, each size of a batch would take as long as dozens of calls.
    return lambda x: model(keras.ops.convert_to_tensor(x), training=False).numpy()


def gradient_of(model: Any, *, of: int = 0) -> Gradient:
    """Return what computes the gradient of the score of a class, for each example of a batch.

    The model computes as in inference, with the weights that it has at each call. On JAX what is
    returned is compiled once for each shape: keep it.

    Args:
        model: Functional Keras model of one input or several to scores (N, classes).
        of: Number of the input by which the scores are differentiated; float32.
    """
    ops, backward = keras.ops, _BACKENDS[keras.backend.backend()](model, of)

    def gradient(inputs: Sequence[np.ndarray], classes: np.ndarray) -> np.ndarray:
        tensors = [ops.convert_to_tensor(x, "float32") for x in inputs]
        return ops.convert_to_numpy(backward(tensors, ops.convert_to_tensor(classes, "int32")))

    return gradient


def _total(scores: Any, classes: Any) -> Any:
    """Return the sum of each example's score of its class: examples do not depend on each other."""
    return keras.ops.sum(keras.ops.take_along_axis(scores, classes[:, None], axis=1))


def _tensorflow(model: Any, of: int) -> _Backward:
    tf = require("tensorflow")

    def backward(tensors: Sequence[Any], classes: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensors[of])
            total = _total(model(alone_or_list([*tensors]), training=False), classes)
        return tape.gradient(total, tensors[of])

    return backward


def _torch(model: Any, of: int) -> _Backward:
    torch = require("torch")

    def backward(tensors: Sequence[Any], classes: Any) -> Any:
        with torch.enable_grad():
            tensors[of].requires_grad_()
            total = _total(model(alone_or_list([*tensors]), training=False), classes)
            return torch.autograd.grad(total, tensors[of])[0]

    return backward


def _jax(model: Any, of: int) -> _Backward:
    jax = require("jax")

    def total(x: Any, tensors: Sequence[Any], classes: Any, trained: Any, others: Any) -> Any:
        given = alone_or_list([*tensors[:of], x, *tensors[of + 1 :]])
        scores, _ = model.stateless_call(trained, others, given, training=False)
        return _total(scores, classes)

    compiled = jax.jit(jax.grad(total))

    def backward(tensors: Sequence[Any], classes: Any) -> Any:
        trained = [variable.value for variable in model.trainable_variables]
        others = [variable.value for variable in model.non_trainable_variables]
        return compiled(tensors[of], [*tensors], classes, trained, others)

    return backward


_BACKENDS: dict[str, Callable[[Any, int], _Backward]] = {
    "tensorflow": _tensorflow,
    "torch": _torch,
    "jax": _jax,
}
