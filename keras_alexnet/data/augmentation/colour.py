"""Colour augmentation of batches: torchvision's jitter and grayscale, and Krizhevsky's PCA noise.

torchvision's operations on float images, with one set of random numbers for each image.
"""

from typing import Any

import numpy as np

from keras_alexnet.data.augmentation.draws import colour_columns
from keras_alexnet.data.augmentation.record import Augmentation

# Luma of ITU-R BT.601, as in torchvision.transforms.functional.rgb_to_grayscale.
LUMA = (0.2989, 0.587, 0.114)

# What turns the hues of red, green and blue to red's, in turns.
_HUES = np.asarray([0, 2 / 3, 1 / 3], np.float32)


def recolour(
    images: Any,
    colours: Any,
    augmentation: Augmentation,
    *,
    ops: Any,
    pca: tuple[np.ndarray, np.ndarray] | None = None,
) -> Any:
    """Change the colours of each image: jitter, then grayscale, then PCA noise.

    A long chain of small operations: compiled by XLA, as in `tf.function(..., jit_compile=True)`,
    TensorFlow takes a quarter of the time.

    Args:
        images: float32 (B, H, W, 3), 0..255.
        colours: float32 (B, K), the columns of `draws.colour_columns`.
        augmentation: Which operations there are.
        ops: `keras.ops`, or a namespace of `array_ops`.
        pca: Eigenvalues (3,) and eigenvectors (3, 3), one a column, of the covariance of RGB values
            in 0..1: `statistics.colour_components`.

    Returns:
        float32 (B, H, W, 3). Jittered values are clipped to 0..255 after each operation as
        torchvision does; PCA noise, which comes last, may leave that range by a few units.

    Raises:
        ConfigurationError: The images are grey, or the principal components are missing.
    """
    augmentation.check(channels=images.shape[-1], pca=pca)
    columns = {
        name: colours[:, i][:, None, None, None]  # (B, 1, 1, 1)
        for i, name in enumerate(colour_columns(augmentation))
    }
    x = _jitter(images, columns, augmentation.jitters, ops)
    if augmentation.grayscale:
        x = ops.where(columns["grayscale"] > 0.5, _gray(x), x)
    if pca is not None and augmentation.pca:
        values, vectors = pca
        shift = ops.convert_to_tensor(np.asarray(255 * vectors * values, np.float32))
        x = x + sum(columns[f"alpha_{i + 1}"] * shift[:, i] for i in range(3))
    return x


def _jitter(x: Any, columns: dict[str, Any], jitters: tuple[str, ...], ops: Any) -> Any:
    """Apply the jitters in each image's own order.

    All but the hue are blends, of which only the target and the factor differ between images. The
    hue costs most, so it is turned once for all: the blends that precede it in an image come
    before, and those that follow it after, with a factor of 1 where an image has none.
    """
    blends = [name for name in jitters if name != "hue"]

    def blend_at(slot: int, x: Any, now: Any) -> Any:
        chosen = {
            name: ops.cast(ops.abs(columns[f"{name}_rank"] - slot) < 0.5, "float32")
            for name in blends
        }
        factor = 1.0 + sum(chosen[name] * (columns[name] - 1.0) for name in blends)
        return _blend(x, chosen, factor if now is None else ops.where(now, factor, 1.0), ops)

    if "hue" not in jitters:
        for slot in range(len(blends)):
            x = blend_at(slot, x, None)
        return x
    rank = columns["hue_rank"]
    for slot in range(len(blends)):
        x = blend_at(slot, x, rank > slot)
    x = _turn(x, columns["hue"], ops)
    for slot in range(1, len(jitters)):
        x = blend_at(slot, x, rank < slot)
    return x


def _blend(x: Any, chosen: dict[str, Any], factor: Any, ops: Any) -> Any:
    """Return factor * x + (1 - factor) * target, in range.

    The target is black for the brightness, the mean of the grey image for the contrast, the grey
    image for the saturation; `chosen` holds 1 for the one that is meant, and 0 for the others.
    """
    target: Any = 0.0
    if "contrast" in chosen or "saturation" in chosen:
        gray = _gray(x)
        if "saturation" in chosen:
            target = target + chosen["saturation"] * gray
        if "contrast" in chosen:
            target = target + chosen["contrast"] * ops.mean(gray, axis=(1, 2), keepdims=True)
    return ops.clip(factor * x + (1.0 - factor) * target, 0.0, 255.0)


def _gray(x: Any) -> Any:
    """Return (..., 1), the brightness of RGB values."""
    return LUMA[0] * x[..., 0:1] + LUMA[1] * x[..., 1:2] + LUMA[2] * x[..., 2:3]


def _turn(x: Any, turns: Any, ops: Any) -> Any:
    """Turn the hue of RGB values by so many turns, with value and saturation of HSV kept."""
    red, green, blue = x[..., 0:1], x[..., 1:2], x[..., 2:3]
    value = ops.maximum(ops.maximum(red, green), blue)
    chroma = value - ops.minimum(ops.minimum(red, green), blue)
    most_red, most_green = value == red, value == green
    away = ops.where(most_red, green - blue, ops.where(most_green, blue - red, red - green))
    away = away / ops.where(chroma > 0.0, chroma, 1.0)
    sixths = ops.where(most_red, away, ops.where(most_green, away + 2.0, away + 4.0))
    hue = sixths / 6.0 + turns + ops.convert_to_tensor(_HUES)  # (B, H, W, 3)
    hue = hue - ops.floor(hue)
    # Each channel falls from `value` by up to `chroma` as the hue turns away from its own.
    return value - chroma * ops.clip(2.0 - ops.abs(6.0 * hue - 3.0), 0.0, 1.0)
