"""Crop, resize and mirror in one step: a linear map of the columns, then another of the rows.

The filter is Pillow's triangle (`Image.Resampling.BILINEAR`, what torchvision's transforms use):
linear interpolation where the image grows, and where it shrinks a triangle as wide as two pixels
of the result, so that nothing aliases. Unlike Pillow, values are not rounded between the passes.
"""

import functools
import math
import operator
from typing import Any

# Neighbouring pixels of the result come from neighbouring pixels of the image, so the matrix of a
# map is a band. Blocks of at most so many rows skip most of its zeros; measured on CIFAR-10 to 224,
# 56 rows take half the time of the whole matrix, and of `tf.image.resize`.
_SMALLEST_BLOCK, _LARGEST_BLOCK = 8, 64

# A row that is the sum of so many needs no matrix product where loops are fused.
_MOST_TERMS = 4

# Keeps 0 / 0 out of rows that show nothing of the image.
_TINY = 1e-12


def resample(
    images: Any,
    geometry: Any,
    size: tuple[int, int],
    *,
    whole: tuple[int, int] | None,
    ops: Any,
    fused: bool = False,
) -> Any:
    """Cut a box of its own out of each image and resize it.

    Args:
        images: (B, H, W, C), values 0..255, any real dtype.
        geometry: float32 (B, 5), see `draws.crop_geometry`.
        size: (h, w) of the result.
        whole: Size that the whole image is resized to before the crop, see `draws.resized_size`:
            the filter then sees beyond the box. None where the crop comes first, which hides from
            the filter what lies outside the box; such a box must lie within the image.
        ops: `keras.ops`, or a namespace of `array_ops`.
        fused: Whether XLA compiles this. Then the rows of the result are sums of a few rows of the
            image, in one loop with whatever follows. A matrix product, whose result is written to
            memory and read again, takes 1.7 times as long.

    Returns:
        float32 (B, h, w, C), 0..255; black outside the image. Boxes of the result's size at whole
        pixels are copied exactly.
    """
    batch, rows, columns, channels = ops.shape(images)
    top, left, tall, wide, flip = (geometry[:, i : i + 1] for i in range(5))  # (B, 1) each
    whole_rows, whole_columns = whole or (None, None)
    # The columns first, on the fewer rows of a small image; the rows last, as their product comes
    # out in the order of pixels.
    x = ops.transpose(ops.cast(images, "float32"), (0, 2, 1, 3))  # (B, W, H, C)
    x = ops.reshape(x, (batch, columns, rows * channels))
    x = _map(x, left, wide, size[1], whole_columns, flip, ops)  # (B, w, H * C)
    x = ops.transpose(ops.reshape(x, (batch, size[1], rows, channels)), (0, 2, 1, 3))
    x = ops.reshape(x, (batch, rows, size[1] * channels))
    x = _map(x, top, tall, size[0], whole_rows, None, ops, fused)  # (B, h, w * C)
    return ops.reshape(x, (batch, *size, channels))


def _map(
    x: Any,
    start: Any,
    length: Any,
    want: int,
    whole: int | None,
    flip: Any,
    ops: Any,
    fused: bool = False,
) -> Any:
    """Resample the second axis: float32 (B, have, inner) -> (B, want, inner).

    `start` (B, 1) is the first pixel of the box and may be negative, `length` (B, 1) its pixels,
    `whole` those of the resized image that the result is cut from; None if it is the box. `flip`
    (B, 1) is 1 where the result is mirrored; None for never. For the rest see `resample`.
    """
    batch, have, inner = ops.shape(x)
    index = ops.cast(ops.arange(want), "float32")[None]  # (1, want)
    if flip is not None:
        index = ops.where(flip > 0.5, want - 1 - index, index)
    side = ops.cast(have, "float32")
    if whole is None:
        scale = length / want  # (B, 1)
        centre = start + (index + 0.5) * scale  # (B, want)
    else:
        scale = ops.ones_like(start) * (side / whole)
        # Rounded, since the box is given in pixels of the image, but starts at a whole pixel of
        # the resized one.
        centre = (ops.round(start / scale) + index + 0.5) * scale
    reach = ops.maximum(scale, 1.0)

    block, span = _blocks(have, want, whole or want, fused)
    centre = ops.reshape(centre, (batch, want // block, block))
    pixel = ops.cast(ops.arange(span), "float32")
    if span is have:
        x = x[:, None]  # (B, 1, have, inner)
    else:
        first = ops.floor(ops.min(centre, axis=-1) - reach + 0.5)  # (B, blocks)
        pixel = ops.clip(first, 0.0, float(have - span))[..., None] + pixel  # (B, blocks, span)
        image = ops.arange(batch)[:, None, None] * have
        place = ops.cast(pixel, "int32") + image
        x = ops.reshape(x, (batch * have, inner))
        if block > 1:
            x = ops.take(x, place, axis=0)  # (B, blocks, span, inner)
        pixel = pixel[:, :, None]  # (B, blocks, 1, span)
    pixel = pixel + 0.5
    # (B, blocks, block, span)
    weights = ops.maximum(1.0 - ops.abs(pixel - centre[..., None]) / reach[..., None, None], 0.0)
    if whole is None:
        low, high = start[..., None, None], (start + length)[..., None, None]
        weights = ops.where(ops.logical_and(pixel > low, pixel < high), weights, 0.0)
    total = ops.maximum(ops.sum(weights, axis=-1, keepdims=True), _TINY)
    if whole is not None:
        inside = ops.logical_and(centre > 0.0, centre < side)
        weights = weights * ops.cast(inside, "float32")[..., None]
    weights = weights / total
    if block == 1:
        terms = (
            weights[:, :, 0, i : i + 1] * ops.take(x, place[..., i], axis=0) for i in range(span)
        )
        return functools.reduce(operator.add, terms)
    return ops.reshape(ops.matmul(weights, x), (batch, want, inner))


def _blocks(have: Any, want: int, whole: int, fused: bool) -> tuple[int, Any]:
    """Return how many rows of a map's matrix are a block, and how many pixels those can reach.

    The latter is `have` itself where the matrix is best left whole; `have` is no int while it is
    unknown. `whole` is the pixels of the result if it showed the whole image; fewer pixels would do
    for a box.
    """
    if not isinstance(have, int):
        return want, have
    scale = have / whole
    few = math.ceil(2 * max(scale, 1))
    if fused and few <= _MOST_TERMS and few < have:
        return 1, few
    block = max(n for n in range(1, _LARGEST_BLOCK + 1) if want % n == 0)
    if block < _SMALLEST_BLOCK:
        return want, have
    span = math.ceil((block - 1) * scale + 2 * max(scale, 1))
    return (block, span) if 2 * span <= have else (want, have)
