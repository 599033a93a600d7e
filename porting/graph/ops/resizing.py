"""Resizing of maps.

Along each axis it is a product with a matrix that does not depend on the image, which torch itself
writes down while a network is read: filters, corners and factors are then torch's own, on every
backend. Where only the images tell the size, the model computes the matrix.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from porting.graph.axes import Value, image_order
from porting.graph.plan import Dim

# Operation -> whether each number of its result is one of those that it reads.
RESIZINGS = {
    "upsample_nearest2d": True,
    "_upsample_nearest_exact2d": True,
    "upsample_bilinear2d": False,
    "upsample_bicubic2d": False,
    "_upsample_bilinear2d_aa": False,
    "_upsample_bicubic2d_aa": False,
}


def _resized(call: Any) -> Value:
    x = call.image("input")
    picks = RESIZINGS[call.node.op]
    if (factors := _factors(call)) is not None:
        tensor = call.layer(
            "UpSampling2D",
            x.tensor,
            size=factors,
            interpolation="nearest",
            data_format=call.data_format,
        )
        return call.map_of(tensor, x, x.axes[1], nonnegative=x.nonnegative)
    if call.raw("rows") is None:
        matrices = {letter: _computed(call, x, i) for letter, i in (("h", 2), ("w", 3))}
    else:
        matrices = {
            letter: call.value(name).tensor
            for letter, name in (("h", "rows"), ("w", "columns"))
            if _times(call.raw(name)) != 1
        }
    held = "nhwc" if call.data_format == "channels_last" else "nchw"
    tensor = multiplied(call, x.tensor, held, matrices)
    return call.map_of(tensor, x, x.axes[1], nonnegative=picks and x.nonnegative)


def multiplied(call: Any, tensor: Any, held: str, matrices: Mapping[str, Any]) -> Any:
    """Return maps whose rows or columns are multiplied by matrices (in, out).

    `held` has a letter for each axis of the maps, such as `nhwc`; each matrix is that of a letter.
    """
    for letter, matrix in matrices.items():
        equation = f"{held},{letter}z->{held.replace(letter, 'z')}"
        tensor = call.op("einsum", equation, tensor, call.array(matrix))
    return tensor


def _factors(call: Any) -> tuple[int, int] | None:
    """Return how often rows and columns are repeated, None where that is not all."""
    if not RESIZINGS[call.node.op]:
        return None
    if call.raw("rows") is not None:
        first, second = (_times(call.raw(name)) for name in ("rows", "columns"))
        return None if first is None or second is None else (first, second)
    scales = call.get("scale_factors")
    if call.node.op != "upsample_nearest2d" or not scales or any(s % 1 for s in scales):
        return None
    return int(scales[0]), int(scales[1])


def _times(matrix: np.ndarray) -> int | None:
    """Return how often a matrix (in, out) repeats each place, None where it does something else."""
    inputs, outputs = matrix.shape
    times, rest = divmod(outputs, inputs)
    if rest or not times:
        return None
    return times if (np.repeat(np.eye(inputs), times, axis=1) == matrix).all() else None


# Resizings whose matrix a model can compute.
_COMPUTED = ("upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d")


def _computed(call: Any, x: Value, i: int) -> Any:
    """Return the matrix (in, out) of rows, `i` = 2, or columns, 3, as the model computes it.

    The formulas are those of ATen's native/UpSample.h.
    """
    kind = call.node.op
    if kind not in _COMPUTED:
        raise call.fail(
            f"{kind} of maps whose size only the images tell is not supported; convert for images "
            "of one size"
        )

    def op(function: str, *arguments: Any, **options: Any) -> Any:
        if any(map(call.build.keras.backend.is_keras_tensor, arguments)):
            return call.op(function, *map(call.array, arguments), aside=True, **options)
        return getattr(np, function)(*arguments, **options)

    def places(length: Dim) -> tuple[Any, Any]:
        """Return 0, 1, 2 ... for each place, and how many these are."""
        ones = _ones(call, op, x, i, length)
        return op("subtract", op("cumsum", ones, axis=0), 1.0), op("sum", ones, keepdims=True)

    (sources, many), (wanted, count) = places(x.shape[i]), places(call.shape[i])
    sources, last = op("expand_dims", sources, axis=1), op("subtract", many, 1.0)
    scales, corners = call.get("scale_factors"), call.get("align_corners")
    if kind == "upsample_bilinear2d":
        # Where a place lies among the sources, and how far from each: of whole numbers but for one
        # division, as places rounded to float32 are off by a share of their distance from 0.
        if corners:
            steps = op("maximum", op("subtract", count, 1.0), 1.0)
            apart = op("subtract", op("multiply", wanted, last), op("multiply", sources, steps))
        else:
            ratio = (1.0, scales[i - 2]) if scales else (many, count)
            middle = op("add", op("multiply", wanted, 2.0), 1.0)
            steps = op("multiply", _number(ratio[1]), 2.0)
            begin = op("subtract", op("multiply", middle, ratio[0]), ratio[1])
            apart = op("subtract", begin, op("multiply", sources, steps))
        distance = op("divide", apart, steps)
        distance = op("maximum", distance, op("subtract", 0.0, sources))
        distance = op("minimum", distance, op("subtract", last, sources))
    else:
        # As torch rounds it, which decides where two sources are equally far.
        scale = _number(1 / scales[i - 2]) if scales else op("divide", many, count)
        middle = wanted if kind == "upsample_nearest2d" else op("add", wanted, 0.5)
        where = op("minimum", op("floor", op("multiply", middle, scale)), last)
        distance = op("subtract", where, sources)
    # Each place reads those that are less than 1 from where it is: two, or one.
    return op("maximum", op("subtract", 1.0, op("abs", distance)), 0.0)


def _number(value: Any) -> Any:
    """Return a number as an array of float32, a tensor as it is."""
    return np.array([value], np.float32) if isinstance(value, float) else value


def _ones(call: Any, op: Any, x: Value, i: int, length: Dim) -> Any:
    """Return so many ones, taken from rows or columns of which there are as many, or a share."""
    if not length.unknown:
        return np.ones(length.static, np.float32)
    for value in _maps(call, x):
        times = length.over(value.shape[i])
        if times is not None and not times.unknown:
            held = value.order.index(value.axes[i])
            line = tuple(slice(None) if axis == held else 0 for axis in range(4))
            # Whatever the policy: in bfloat16 there is no 257.
            dtype = "float64" if call.wide else "float32"
            ones = op("ones_like", op("get_item", value.tensor, line), dtype=dtype)
            return op("repeat", ones, times.static, axis=0) if times.static > 1 else ones
    raise call.fail(
        "nothing that was computed before has as many rows or columns as it makes; convert for "
        "images of one size"
    )


def _maps(call: Any, x: Value) -> Iterator[Value]:
    """Return a map and all others that were computed before."""
    yield x
    for value in call.build.results.values():
        if (
            isinstance(value, Value)
            and len(value.axes) == 4
            and not isinstance(value.tensor, np.ndarray)
            and value.order == image_order(value.axes, call.data_format)
        ):
            yield value


RULES = dict.fromkeys(RESIZINGS, _resized)
