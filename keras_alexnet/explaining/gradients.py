"""What a model computes, and the gradients of its scores, by each backend's own means.

Nothing else in this folder knows which backend there is.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_alexnet.core.backend import require
from keras_alexnet.layers import keras
from keras_alexnet.models.interface import alone_or_list

# Inputs of a batch, (N, ...) each, and classes (N, K) -> gradients (N, K, ...).
Gradient = Callable[[Sequence[np.ndarray], np.ndarray], np.ndarray]
# Tensors of a batch, and weights of the scores (K, N, classes) -> gradients (N, K, ...).
_Backward = Callable[[Sequence[Any], Any], Any]


def values_of(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Return what computes the only output of a functional model of one input, for a batch."""
    if keras.backend.backend() != "tensorflow":
        return lambda x: np.asarray(model.predict_on_batch(x))
    # Compiled, each size of a batch would take as long as dozens of calls.
    return lambda x: model(keras.ops.convert_to_tensor(x), training=False).numpy()


def gradient_of(model: Any, *, of: int = 0) -> Gradient:
    """Return what computes the gradients of scores of classes, for each example of a batch.

    The model computes as in inference, with the weights that it has at each call, once for all
    classes; only the way back is gone for each. On JAX what is returned is compiled once for each
    shape: keep it.

    Args:
        model: Functional Keras model of one input or several to scores (N, classes).
        of: Number of the input by which the scores are differentiated; float32.
    """
    ops, backward = keras.ops, _BACKENDS[keras.backend.backend()](model, of)
    (scores,) = model.outputs

    def gradient(inputs: Sequence[np.ndarray], classes: np.ndarray) -> np.ndarray:
        tensors = [ops.convert_to_tensor(x, "float32") for x in inputs]
        # Examples do not depend on each other: the gradient of their sum is each one's own.
        weights = np.eye(scores.shape[-1], dtype=np.float32)[classes.T]  # (K, N, classes)
        return ops.convert_to_numpy(backward(tensors, ops.convert_to_tensor(weights, scores.dtype)))

    return gradient


def _tensorflow(model: Any, of: int) -> _Backward:
    tf = require("tensorflow")

    def backward(tensors: Sequence[Any], weights: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False, persistent=True) as tape:
            tape.watch(tensors[of])
            scores = model(alone_or_list([*tensors]), training=False)
        slopes = [tape.gradient(scores, tensors[of], output_gradients=each) for each in weights]
        return tf.stack(slopes, axis=1)

    return backward


def _torch(model: Any, of: int) -> _Backward:
    torch = require("torch")

    def backward(tensors: Sequence[Any], weights: Any) -> Any:
        with torch.enable_grad():
            tensors[of].requires_grad_()
            scores = model(alone_or_list([*tensors]), training=False)
        slopes = [
            torch.autograd.grad(scores, tensors[of], each, retain_graph=True)[0] for each in weights
        ]
        return torch.stack(slopes, dim=1)

    return backward


def _jax(model: Any, of: int) -> _Backward:
    jax = require("jax")

    def slopes(tensors: Sequence[Any], weights: Any, trained: Any, others: Any) -> Any:
        def scores(x: Any) -> Any:
            given = alone_or_list([*tensors[:of], x, *tensors[of + 1 :]])
            return model.stateless_call(trained, others, given, training=False)[0]

        back = jax.vjp(scores, tensors[of])[1]
        return jax.vmap(back, out_axes=1)(weights)[0]

    compiled = jax.jit(slopes)

    def backward(tensors: Sequence[Any], weights: Any) -> Any:
        trained = [variable.value for variable in model.trainable_variables]
        others = [variable.value for variable in model.non_trainable_variables]
        return compiled([*tensors], weights, trained, others)

    return backward


_BACKENDS: dict[str, Callable[[Any, int], _Backward]] = {
    "tensorflow": _tensorflow,
    "torch": _torch,
    "jax": _jax,
}
