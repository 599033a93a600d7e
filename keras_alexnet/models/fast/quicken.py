"""Faster ways to compute what stock layers compute. They live in memory and are in no file."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import MethodType
from typing import Any

from keras_alexnet.core import backend

keras = backend.load_keras()


def quicken(layer: Any) -> Any:
    """Let a layer or a model compute the same in less time, as far as the backend leaves room.

    Only methods of this one object, which is returned, and of a model's layers change: weights,
    shapes, configuration and what is saved stay as they are. A layer that has no faster way is left
    alone.
    """
    # Every way is its backend's own, and imports that backend.
    name = keras.backend.backend()
    for inner in getattr(layer, "layers", ()):
        quicken(inner)
    if name == "torch":
        from keras_alexnet.models.fast.torch_graph import quicken_model
        from keras_alexnet.models.fast.torch_layers import METHODS

        _replace_call(layer, METHODS)
        quicken_model(layer)
    elif name in ("tensorflow", "jax"):
        from keras_alexnet.models.fast.grouped_conv import split_groups

        split_groups(layer)
        if name == "tensorflow":
            from keras_alexnet.models.fast.tensorflow_layers import METHODS

            for each in (layer, *getattr(layer, "operations", ())):
                _replace_call(each, METHODS)
        else:
            from keras_alexnet.models.fast.jax_layers import quicken_jax

            quicken_jax(layer)
    return layer


def restore(layer: Any, kind: type) -> None:
    """Let the layers of one class, of this one or in it, compute by Keras' own call again."""
    for inner in getattr(layer, "layers", ()):
        restore(inner, kind)
    if type(layer) is kind:
        vars(layer).pop("call", None)


def sparing_memory(model: Any) -> AbstractContextManager[None]:
    """Within this block, let a stock model keep no output of a layer longer than it is read.

    It computes by Keras' own calls. What a backend compiles keeps nothing anyway.
    """
    if keras.backend.backend() != "torch":
        return nullcontext()
    from keras_alexnet.models.fast.torch_graph import forgetting

    return forgetting(model)


def _replace_call(layer: Any, methods: Mapping[type, Callable[..., Any]]) -> None:
    """Let a layer, or an operation, compute by the function of its class.

    A subclass may compute something else, and is left alone.
    """
    method = methods.get(type(layer))
    if method is not None:
        layer.call = MethodType(method, layer)
