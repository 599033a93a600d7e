"""Resizing of maps.

Along each axis it is a product with a matrix that does not depend on the image, which torch itself
writes down while a network is read: filters, corners and factors are then torch's own, on every
backend.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from porting.graph.axes import Value

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
        raise call.fail(
            "a resize of maps whose size only the images tell is not supported, but for nearest "
            "neighbours by whole factors; convert for images of one size"
        )
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


RULES = dict.fromkeys(RESIZINGS, _resized)
