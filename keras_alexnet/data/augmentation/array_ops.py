"""Array functions under the names of `keras.ops`, for code that also runs where Keras cannot.

In a `tf.data` function only TensorFlow works, whatever Keras' backend. The table holds what
`resample` and `recolour` use, nothing more.
"""

import functools
from types import SimpleNamespace
from typing import Any

from keras_alexnet.core.backend import require


@functools.cache
def tensorflow_ops() -> Any:
    """Return the functions in TensorFlow; `MissingDependencyError` where it is not installed."""
    tf = require("tensorflow")

    def shape(x: Any) -> tuple[Any, ...]:
        """Return the static shape, completed from the dynamic one."""
        static = x.shape.as_list()
        if None not in static:
            return tuple(static)
        dynamic = tf.shape(x)
        return tuple(dynamic[i] if have is None else have for i, have in enumerate(static))

    return SimpleNamespace(
        abs=tf.abs,
        arange=tf.range,
        cast=tf.cast,
        clip=tf.clip_by_value,
        convert_to_tensor=tf.convert_to_tensor,
        floor=tf.floor,
        logical_and=tf.logical_and,
        matmul=tf.matmul,
        maximum=tf.maximum,
        mean=tf.reduce_mean,
        min=tf.reduce_min,
        minimum=tf.minimum,
        ones_like=tf.ones_like,
        reshape=tf.reshape,
        round=tf.round,
        shape=shape,
        sum=tf.reduce_sum,
        take=tf.gather,
        transpose=tf.transpose,
        where=tf.where,
    )
