"""Batch, layer and group norm, and dropout."""

from dataclasses import replace
from typing import Any

import numpy as np

from porting.graph.axes import Value
from porting.graph.ops.elementwise import combined
from porting.graph.plan import Parameter
from porting.weights.layouts import Transform, rearranged

_VECTOR = Transform("vector")


def _affine(call: Any, transform: Transform = _VECTOR) -> tuple[dict[str, Any], dict[str, bool]]:
    """Return the weights of a norm and whether it has them."""
    scale, shift = call.parameter("weight"), call.parameter("bias")
    weights: dict[str, tuple[Parameter, Transform]] = {}
    if scale is not None:
        weights["gamma"] = (scale, transform)
    if shift is not None:
        weights["beta"] = (shift, transform)
    return weights, {"scale": scale is not None, "center": shift is not None}


def _batch_norm(call: Any) -> Value:
    x, axis = call.mover.isolate(call.network_value("input"), 1)
    mean, variance = call.parameter("running_mean"), call.parameter("running_var")
    if mean is None or variance is None or call.get("training"):
        return _by_own_statistics(call, x, axis)
    weights, has = _affine(call)
    weights |= {"moving_mean": (mean, _VECTOR), "moving_variance": (variance, _VECTOR)}
    tensor = call.layer(
        "BatchNormalization",
        x.tensor,
        weights,
        axis=axis if axis < len(x.order) - 1 else -1,
        epsilon=call["eps"],
        momentum=1 - call["momentum"],  # torch counts what is new, Keras what stays
        **has,
    )
    return x.with_tensor(tensor)


def _by_own_statistics(call: Any, x: Value, axis: int) -> Value:
    """Normalise each channel by what it is here: kernels, or batches of which none is kept."""
    others = tuple(i for i in range(len(x.order)) if i != axis)
    centred = call.op("subtract", x.tensor, call.op("mean", x.tensor, axis=others, keepdims=True))
    variance = call.op("mean", call.op("square", centred), axis=others, keepdims=True)
    scale = call.op("rsqrt", call.op("add", variance, float(call["eps"])))
    x = x.with_tensor(call.op("multiply", centred, scale))
    for name, function in (("weight", "multiply"), ("bias", "add")):
        if call.raw(name) is not None:
            value = call.value(name)
            value = replace(value, axes=(*value.axes, *[()] * (len(x.axes) - 2)))
            x = combined(call, function, x, value)
    return x


def _layer_norm(call: Any) -> Value:
    if len(call["normalized_shape"]) != 1:
        raise call.fail("it normalises over several axes; that is not supported")
    x = call.network_value("input")
    axis = x.axes[-1]
    # Keras' layer computes over another axis than the last wrongly on torch.
    x = call.mover.last(x, len(x.axes) - 1)
    transform = _VECTOR
    if x.order[-1] != axis:
        sizes = [factor.dim.static for factor in axis]
        count = call["normalized_shape"][0]
        order = [axis.index(factor) for factor in x.order[-1]]
        transform = rearranged(sizes, order, (count,), (count,))
    weights, has = _affine(call, transform)
    tensor = call.layer(
        "LayerNormalization", x.tensor, weights, axis=-1, epsilon=call["eps"], **has
    )
    return x.with_tensor(tensor)


def _group_norm(call: Any) -> Value:
    x, axis = call.mover.isolate(call.network_value("input"), 1)
    weights, has = _affine(call)
    tensor = call.layer(
        "GroupNormalization",
        x.tensor,
        weights,
        groups=call["num_groups"],
        axis=axis if axis < len(x.order) - 1 else -1,
        epsilon=call["eps"],
        **has,
    )
    return x.with_tensor(tensor)


def _rms_norm(call: Any) -> Value:
    if len(call["normalized_shape"]) != 1:
        raise call.fail("it normalises over several axes; that is not supported")
    x, epsilon = call.network_value("input"), call.get("eps")
    x, axis = call.mover.isolate(x, len(x.axes) - 1)
    # As in torch, of the type of the numbers.
    epsilon = float(
        np.finfo(np.float64 if call.wide else np.float32).eps if epsilon is None else epsilon
    )
    squares = call.op("mean", call.op("square", x.tensor), axis=axis, keepdims=True)
    scale = call.op("rsqrt", call.op("add", squares, epsilon))
    x = x.with_tensor(call.op("multiply", x.tensor, scale))
    if call.raw("weight") is None:
        return x
    return combined(call, "multiply", x, call.value("weight"))


def _dropout(call: Any) -> Value:
    x = call.network_value("input")
    return _dropped(call, x, None) if call["p"] else x


def _feature_dropout(call: Any) -> Value:
    """Whole maps are dropped: one draw for each image and channel."""
    return _dropped_along(call, 2)


def _drop_path(call: Any) -> Value:
    """Whole images are dropped (stochastic depth), or in mode `batch` all of them."""
    return _dropped_along(call, 1 if call["mode"] == "row" else 0)


def _dropped_along(call: Any, count: int) -> Value:
    """Drop with one draw for each place along the first `count` axes of torch's."""
    x = call.network_value("input")
    if not call["p"]:
        return x
    drawn = {factor for axis in x.axes[:count] for factor in axis}
    x = call.mover.apart(x, drawn)
    sizes = x.tensor.shape
    return _dropped(
        call, x, [n if set(axis) & drawn else 1 for axis, n in zip(x.order, sizes, strict=True)]
    )


def _dropped(call: Any, x: Value, noise_shape: list[int | None] | None) -> Value:
    tensor = call.layer("Dropout", x.tensor, rate=call["p"], noise_shape=noise_shape)
    return x.with_tensor(tensor, nonnegative=x.nonnegative)


RULES = {
    "batch_norm": _batch_norm,
    # Behind functionalisation; it returns the statistics, too, which inference does not change.
    "_native_batch_norm_legit_no_training": lambda call: [_batch_norm(call)],
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "dropout": _dropout,
    "feature_dropout": _feature_dropout,
    "drop_path": _drop_path,
}
