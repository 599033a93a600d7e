"""Stock layers on PyTorch without its detours: one operation each, and no change of layout.

Keras on torch copies a batch of feature maps (N, H, W, C) to (N, C, H, W) and back around every
convolution and pooling. Seen through permuted axes, the same memory is what torch calls
`channels_last`, which its operations take and return as it is.

The functions here compute what a layer's own `call` computes. What torch's operation does not
cover they leave to that: symbolic and meta tensors, masks, other dtypes than the layer's, and
paddings, axes and options that the operation lacks.
"""

from collections.abc import Callable
from typing import Any

from keras_alexnet.core import backend
from keras_alexnet.core.keras_internals import has_mask

keras = backend.load_keras()
torch = backend.require("torch")

layers = keras.layers
functional = torch.nn.functional

# An activation of torch's: (tensor, inplace=False) -> tensor.
Activation = Callable[..., Any]


def covers(layer: Any, inputs: Any, rank: int = 4, *, weighted: bool = False) -> bool:
    """Return whether a layer's input is a tensor with values, of the layer's dtype and this rank.

    An input with a Keras mask is not covered, nor, for a layer with weights, one of other channels
    than theirs: Keras says what is wrong with it.
    """
    if weighted and isinstance(inputs, torch.Tensor) and inputs.ndim == rank:
        axis = 1 if getattr(layer, "data_format", None) == "channels_first" else -1
        if inputs.shape[axis] != layer.kernel.shape[-2] * getattr(layer, "groups", 1):
            return False
    return (
        isinstance(inputs, torch.Tensor)
        and inputs.ndim == rank
        and not inputs.is_meta
        and inputs.dtype is getattr(torch, layer.compute_dtype)
        and inputs.is_floating_point()
        and not has_mask(inputs)
    )


def convolve(
    layer: Any,
    inputs: Any,
    *,
    padding: tuple[int, int] | None = None,
    then: Activation | None = None,
) -> Any:
    """Compute a `Conv2D` or `DepthwiseConv2D`, and `then` an activation of its result.

    `padding` has the rows and columns of zeros on either side of the maps, for a layer that pads
    none and an input that is covered.
    """
    pads = padding or _same_padding(layer, layer.kernel_size, layer.dilation_rate)
    if pads is None or not covers(layer, inputs, weighted=True):
        return _apply(then, type(layer).call(layer, inputs))
    kernel = _tensor(layer.kernel)  # (h, w, I / groups, O), or (h, w, I, multiplier)
    bias = _tensor(layer.bias) if layer.use_bias else None
    last, apart = layer.data_format == "channels_last", type(layer) is layers.DepthwiseConv2D
    groups = kernel.shape[2] if apart else layer.groups
    if last and kernel.shape[:2] == layer.strides == (1, 1) and groups == 1 and not any(pads):
        # A product with each pixel, that needs neither another layout of the kernel nor of its
        # gradient, and takes less time.
        pixels = inputs.reshape(-1, inputs.shape[-1])  # (N H W, I)
        products = _product(pixels, kernel[0, 0], bias)  # (N H W, O)
        return _activated(layer, products.reshape(*inputs.shape[:-1], kernel.shape[-1]), then)
    if apart:
        filters = kernel.permute(2, 3, 0, 1).flatten(0, 1).unsqueeze(1)  # (I multiplier, 1, h, w)
    else:
        filters = _filters(kernel) if last else kernel.permute(3, 2, 0, 1)
    outputs = functional.conv2d(
        _planes(inputs) if last else inputs,
        filters,
        bias,
        layer.strides,
        pads,
        layer.dilation_rate,
        groups,
    )
    return _activated(layer, _maps(outputs) if last else outputs, then)


def multiply(
    layer: Any, inputs: Any, training: Any = None, *, then: Activation | None = None
) -> Any:
    """Compute a `Dense` of vectors (N, I), and `then` an activation of its result."""
    if not covers(layer, inputs, rank=2, weighted=True):
        return _apply(then, type(layer).call(layer, inputs, training=training))
    bias = None if layer.bias is None else _tensor(layer.bias)
    return _activated(layer, _product(inputs, _tensor(layer.kernel), bias), then)


def normalize(
    layer: Any,
    inputs: Any,
    training: Any = None,
    mask: Any = None,
    *,
    then: Activation | None = None,
) -> Any:
    """Compute a `BatchNormalization` of feature maps, and `then` an activation of its result.

    As in Keras, a layer that is not trainable normalises by its moving statistics, and the moving
    variance follows the biased variance of the batches, not torch's unbiased one.
    """
    channels = inputs.ndim - 1 if layer.axis == -1 else layer.axis
    values = inputs.numel() // max(inputs.shape[channels], 1)  # of each channel
    if (
        mask is not None
        or layer.renorm
        or layer.synchronized
        or channels not in (1, 3)
        or not covers(layer, inputs)
        or values < 2  # of which torch has no variance
    ):
        return _apply(then, type(layer).call(layer, inputs, training=training, mask=mask))
    # Of 16 bits are the maps alone: statistics and parameters are used, as in Keras, in float32.
    wide = torch.promote_types(inputs.dtype, torch.float32)
    mean, variance = _tensor(layer.moving_mean).to(wide), _tensor(layer.moving_variance).to(wide)
    learns = bool(training and layer.trainable)
    moving = mean, variance
    if learns:
        mean, variance = torch.zeros_like(mean), torch.zeros_like(variance)
    outputs = torch.batch_norm(
        _planes(inputs) if channels == 3 else inputs,
        _tensor(layer.gamma).to(wide) if layer.scale else None,
        _tensor(layer.beta).to(wide) if layer.center else None,
        mean,
        variance,
        learns,
        1.0,  # the weight of this batch in `mean` and `variance`: they become its own
        layer.epsilon,
        torch.backends.cudnn.enabled,
    )
    if learns:
        with torch.no_grad():
            new = 1.0 - layer.momentum
            biased = variance * ((values - 1) / values)
            layer.moving_mean.assign(moving[0] * layer.momentum + mean * new)
            layer.moving_variance.assign(moving[1] * layer.momentum + biased * new)
    outputs = _apply(then, outputs, fresh=True)
    return _maps(outputs) if channels == 3 else outputs


def max_pool(
    layer: Any, inputs: Any, *, padding: tuple[int, int] | None = None, ceil: bool = False
) -> Any:
    """Compute a `MaxPooling2D`.

    For a layer that pads none and an input that is covered, `padding` has the rows and columns on
    either side that no maximum is taken from, and `ceil` says whether windows that stick out at the
    bottom and the right count.
    """
    pads = padding or _same_padding(layer, layer.pool_size)
    if pads is None or not covers(layer, inputs):
        return type(layer).call(layer, inputs)
    size, strides = layer.pool_size, layer.strides
    return _pooled(layer, inputs, functional.max_pool2d, size, strides, pads, ceil_mode=ceil)


def average_pool(layer: Any, inputs: Any) -> Any:
    """Compute an `AveragePooling2D`."""
    if layer.padding != "valid" or not covers(layer, inputs):
        return type(layer).call(layer, inputs)
    return _pooled(layer, inputs, functional.avg_pool2d, layer.pool_size, layer.strides)


def adaptive_pool(layer: Any, inputs: Any) -> Any:
    """Compute an `AdaptiveAveragePooling2D`."""
    if not covers(layer, inputs):
        return type(layer).call(layer, inputs)
    return _pooled(layer, inputs, functional.adaptive_avg_pool2d, layer.output_size)


# Class -> the function that computes its `call`.
METHODS: dict[type, Any] = {
    layers.Conv2D: convolve,
    layers.DepthwiseConv2D: convolve,
    layers.Dense: multiply,
    layers.BatchNormalization: normalize,
    layers.MaxPooling2D: max_pool,
    layers.AveragePooling2D: average_pool,
    layers.AdaptiveAveragePooling2D: adaptive_pool,
}


def _tensor(variable: Any) -> Any:
    return keras.ops.convert_to_tensor(variable)


def _pooled(layer: Any, maps: Any, pool: Any, *arguments: Any, **options: Any) -> Any:
    """Apply an operation of (N, C, H, W) to feature maps in the layer's data format."""
    last = layer.data_format == "channels_last"
    outputs = pool(_planes(maps) if last else maps, *arguments, **options)
    return _maps(outputs) if last else outputs


def _planes(maps: Any) -> Any:
    """(N, H, W, C) as (N, C, H, W) in the same memory."""
    return maps.permute(0, 3, 1, 2)


def _maps(planes: Any) -> Any:
    """(N, C, H, W) as (N, H, W, C) in the same memory."""
    return planes.permute(0, 2, 3, 1)


def _filters(kernel: Any) -> Any:
    """(h, w, I, O) as (O, I, h, w) in the memory layout that torch wants: (O, h, w, I).

    Torch transposes matrices several times faster than tensors of four axes, so kernel and
    gradient go as matrices.
    """
    height, width, inputs, outputs = kernel.shape
    matrix = kernel.reshape(-1, outputs)  # (h w I, O)
    if matrix.requires_grad and not torch.compiler.is_compiling():
        matrix.register_hook(torch.Tensor.contiguous)
    transposed = matrix.t().contiguous()  # (O, h w I)
    return transposed.reshape(outputs, height, width, inputs).permute(0, 3, 1, 2)


def _product(rows: Any, matrix: Any, bias: Any) -> Any:
    return rows @ matrix if bias is None else torch.addmm(bias, rows, matrix)


def _activated(layer: Any, outputs: Any, then: Activation | None) -> Any:
    """Apply a layer's own activation to the operation's result, and `then` another one."""
    if layer.activation is not None and layer.activation is not keras.activations.linear:
        return _apply(then, layer.activation(outputs))
    return _apply(then, outputs, fresh=True)


def _apply(activation: Activation | None, outputs: Any, *, fresh: bool = False) -> Any:
    """Apply an activation; in the memory of what is `fresh` from an operation and no gradient's."""
    return outputs if activation is None else activation(outputs, inplace=fresh)


def _same_padding(
    layer: Any, size: tuple[int, int], dilation: tuple[int, int] = (1, 1)
) -> tuple[int, int] | None:
    """Return the padding of either side, or None where the sides differ or the input decides."""
    if layer.padding == "valid":
        return 0, 0
    both = [(n - 1) * d for n, d in zip(size, dilation, strict=True)]
    if layer.padding != "same" or layer.strides != (1, 1) or any(n % 2 for n in both):
        return None
    return both[0] // 2, both[1] // 2
