"""Stock layers on PyTorch without its detours: one operation each, and no change of layout.

Keras on torch copies a batch of feature maps (N, H, W, C) to (N, C, H, W) and back around every
convolution and pooling. Seen through permuted axes, the same memory is what torch calls
`channels_last`, which its operations take and return as it is.

`METHODS` compute what a layer's own `call` computes. What torch's operation does not cover they
leave to that: symbolic and meta tensors, masks, other dtypes than the layer's, and paddings, axes
and options that the operation lacks. `COMPUTATIONS` are what they do behind these questions, for
whoever knows the answers.
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
# (input, training=None) -> output, of an input that is covered; of layers that merge, a list.
# Settings of the layer are those of the moment when it was made, weights those of the call.
Compute = Callable[..., Any]
# Of a batch: up to the largest map behind a network's first layers, 56 x 56, at a batch of one.
_FEW_PIXELS = 4096
_LINE = 16  # numbers of float32 in a line of the cache


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


def convolve(layer: Any, inputs: Any) -> Any:
    """Compute a `Conv2D` or `DepthwiseConv2D`."""
    compute = convolution(layer)
    if compute is None or not covers(layer, inputs, weighted=True):
        return type(layer).call(layer, inputs)
    return compute(inputs)


def multiply(layer: Any, inputs: Any, training: Any = None) -> Any:
    """Compute a `Dense` of vectors (N, I)."""
    if not covers(layer, inputs, rank=2, weighted=True):
        return type(layer).call(layer, inputs, training=training)
    return multiplication(layer)(inputs)


def normalize(layer: Any, inputs: Any, training: Any = None, mask: Any = None) -> Any:
    """Compute a `BatchNormalization` of feature maps."""
    compute = normalization(layer)
    if mask is not None or compute is None or not covers(layer, inputs):
        return type(layer).call(layer, inputs, training=training, mask=mask)
    return compute(inputs, training)


def pool(layer: Any, inputs: Any) -> Any:
    """Compute a `MaxPooling2D`, `AveragePooling2D` or `AdaptiveAveragePooling2D`."""
    compute = COMPUTATIONS[type(layer)](layer)
    if compute is None or not covers(layer, inputs):
        return type(layer).call(layer, inputs)
    return compute(inputs)


def convolution(
    layer: Any, *, padding: tuple[int, int] | None = None, then: Activation | None = None
) -> Compute | None:
    """Return what computes a `Conv2D` or `DepthwiseConv2D`, and `then` an activation of its result.

    `padding` has the rows and columns of zeros on either side of the maps, for a layer that pads
    none. Paddings that torch's operation lacks give None.
    """
    pads = padding or same_padding(layer, layer.kernel_size, layer.dilation_rate)
    if pads is None:
        return None
    kernel = _tensor(layer.kernel)  # (h, w, I / groups, O), or (h, w, I, multiplier)
    bias = _tensor(layer.bias) if layer.use_bias else None
    last, apart = layer.data_format == "channels_last", type(layer) is layers.DepthwiseConv2D
    size, strides, dilation = kernel.shape[:2], layer.strides, layer.dilation_rate
    groups = kernel.shape[2] if apart else layer.groups
    whole = last and groups == 1
    of_pixels = whole and size == strides == (1, 1) and not any(pads)
    of_windows = whole and dilation == (1, 1) and not of_pixels

    def compute(inputs: Any, training: Any = None) -> Any:
        # A product needs neither another layout of the kernel nor of its gradient.
        if of_pixels and _has_few_pixels(inputs):
            products = _products(inputs, kernel, bias)
        elif of_windows and (windows := _few_windows(inputs, kernel, strides, pads)) is not None:
            products = _products(windows, kernel, bias)
        else:
            if apart:  # (I multiplier, 1, h, w)
                filters = kernel.permute(2, 3, 0, 1).flatten(0, 1).unsqueeze(1)
            else:
                filters = _filters(kernel) if last else kernel.permute(3, 2, 0, 1)
            planes = _planes(inputs) if last else inputs
            products = functional.conv2d(planes, filters, bias, strides, pads, dilation, groups)
            products = _maps(products) if last else products
        return _activated(layer, products, then)

    return compute


def multiplication(layer: Any, *, then: Activation | None = None) -> Compute:
    """Return what computes a `Dense` of vectors (N, I), and `then` an activation of its result."""
    kernel, bias = _tensor(layer.kernel), None if layer.bias is None else _tensor(layer.bias)

    def compute(inputs: Any, training: Any = None) -> Any:
        return _activated(layer, _product(inputs, kernel, bias), then)

    return compute


def normalized_convolution(
    layer: Any,
    norm: Any,
    *,
    padding: tuple[int, int] | None = None,
    then: Activation | None = None,
) -> Compute | None:
    """Return what computes a convolution, the batch norm of its result and `then` an activation.

    `padding` is that of `convolution`; None is returned where either layer gives it.
    """
    first = convolution(layer, padding=padding)
    second = normalization(norm, then=then, fresh=True)
    if first is None or second is None:
        return None
    return lambda inputs, training=None: second(first(inputs), training)


def normalization(
    layer: Any, *, then: Activation | None = None, fresh: bool = False
) -> Compute | None:
    """Return what computes a `BatchNormalization` of maps, and `then` an activation of its result.

    Nobody else reads inputs that are `fresh`: where no gradient needs them, their memory is used.

    As in Keras, a layer that is not trainable normalises by its moving statistics, and the moving
    variance follows the biased variance of the batches, not torch's unbiased one. Axes and options
    that torch's operation lacks give None.
    """
    channels = 3 if layer.axis == -1 else layer.axis
    if layer.renorm or layer.synchronized or channels not in (1, 3):
        return None
    # Of 16 bits are the maps alone: statistics and parameters are used, as in Keras, in float32.
    wide = torch.promote_types(getattr(torch, layer.compute_dtype), torch.float32)
    mean, variance = _tensor(layer.moving_mean), _tensor(layer.moving_variance)
    gamma = _tensor(layer.gamma) if layer.scale else None
    beta = _tensor(layer.beta) if layer.center else None
    held = mean, variance, gamma, beta
    alike = all(each is None or each.dtype is wide for each in held)
    fast = channels == 3 and getattr(torch, layer.compute_dtype) is wide

    def compute(inputs: Any, training: Any = None) -> Any:
        mean, variance, gamma, beta = (
            held if alike else (None if each is None else each.to(wide) for each in held)
        )
        learns = bool(training and layer.trainable)
        if fast and not learns and not torch.is_grad_enabled() and _is_now_on_cpu(inputs):
            # What torch's operation computes there too, which takes twice as long.
            scale = (variance + layer.epsilon).rsqrt_()
            scale = scale if gamma is None else scale.mul_(gamma)
            shift = torch.addcmul(
                torch.zeros_like(mean) if beta is None else beta, mean, scale, value=-1
            )
            into = inputs if fresh else None
            return _apply(then, torch.addcmul(shift, inputs, scale, out=into), fresh=True)
        if learns:
            values = inputs.numel() // max(inputs.shape[channels], 1)  # of each channel
            if values < 2:  # of which torch has no variance
                return _apply(then, type(layer).call(layer, inputs, training=training))
            old = mean, variance
            mean, variance = torch.zeros_like(mean), torch.zeros_like(variance)
        outputs = torch.batch_norm(
            _planes(inputs) if channels == 3 else inputs,
            gamma,
            beta,
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
                layer.moving_mean.assign(old[0] * layer.momentum + mean * new)
                layer.moving_variance.assign(old[1] * layer.momentum + biased * new)
        outputs = _apply(then, outputs, fresh=True)
        return _maps(outputs) if channels == 3 else outputs

    return compute


def max_pooling(
    layer: Any, *, padding: tuple[int, int] | None = None, ceil: bool = False
) -> Compute | None:
    """Return what computes a `MaxPooling2D`, or None where torch's operation pads otherwise.

    For a layer that pads none, `padding` has the rows and columns on either side that no maximum is
    taken from, and `ceil` says whether windows that stick out at the bottom and the right count.
    """
    pads = padding or same_padding(layer, layer.pool_size)
    if pads is None:
        return None
    size, strides = layer.pool_size, layer.strides
    return _on_planes(layer, functional.max_pool2d, size, strides, pads, ceil_mode=ceil)


def average_pooling(layer: Any) -> Compute | None:
    """Return what computes an `AveragePooling2D`, or None for one that pads."""
    if layer.padding != "valid":
        return None
    return _on_planes(layer, functional.avg_pool2d, layer.pool_size, layer.strides)


def adaptive_pooling(layer: Any) -> Compute:
    """Return what computes an `AdaptiveAveragePooling2D`."""
    return _on_planes(layer, functional.adaptive_avg_pool2d, layer.output_size)


def global_pooling(layer: Any) -> Compute:
    """Return what computes a `GlobalAveragePooling2D`."""
    axes = (1, 2) if layer.data_format == "channels_last" else (2, 3)
    return lambda inputs, training=None: inputs.mean(axes, keepdim=layer.keepdims)


def addition(layer: Any, *, then: Activation | None = None) -> Compute:
    """Return what computes an `Add`, and `then` an activation of its result."""

    def compute(inputs: Any, training: Any = None) -> Any:
        first, *others = inputs
        if not others or any(x.shape != first.shape for x in others):
            return _apply(then, layer.call(inputs))
        total = first
        for each in others:
            total = total + each
        return _apply(then, total, fresh=True)

    return compute


def concatenation(layer: Any) -> Compute:
    """Return what computes a `Concatenate`."""
    return lambda inputs, training=None: torch.cat(inputs, layer.axis)


def flattening(layer: Any) -> Compute | None:
    """Return what computes a `Flatten`, or None for one that brings the channels to the end."""
    if layer.data_format == "channels_first":
        return None
    return lambda inputs, training=None: inputs.flatten(1)


def dropout(layer: Any) -> Compute:
    """Return what computes a `Dropout`."""
    return lambda inputs, training=None: (
        layer.call(inputs, training=training) if training else inputs
    )


def same_padding(
    layer: Any, size: tuple[int, int], dilation: tuple[int, int] = (1, 1)
) -> tuple[int, int] | None:
    """Return the padding of either side, or None where the sides differ or the input decides."""
    if layer.padding == "valid":
        return 0, 0
    both = [(n - 1) * d for n, d in zip(size, dilation, strict=True)]
    if layer.padding != "same" or layer.strides != (1, 1) or any(n % 2 for n in both):
        return None
    return both[0] // 2, both[1] // 2


# Class -> the function that computes its `call`.
METHODS: dict[type, Any] = {
    layers.Conv2D: convolve,
    layers.DepthwiseConv2D: convolve,
    layers.Dense: multiply,
    layers.BatchNormalization: normalize,
    layers.MaxPooling2D: pool,
    layers.AveragePooling2D: pool,
    layers.AdaptiveAveragePooling2D: pool,
}
# Class -> the function that returns what computes a layer of inputs that are covered, or None.
COMPUTATIONS: dict[type, Callable[[Any], Compute | None]] = {
    layers.Add: addition,
    layers.Concatenate: concatenation,
    layers.Conv2D: convolution,
    layers.DepthwiseConv2D: convolution,
    layers.Dense: multiplication,
    layers.Dropout: dropout,
    layers.Flatten: flattening,
    layers.BatchNormalization: normalization,
    layers.MaxPooling2D: max_pooling,
    layers.AveragePooling2D: average_pooling,
    layers.AdaptiveAveragePooling2D: adaptive_pooling,
    layers.GlobalAveragePooling2D: global_pooling,
}


def _tensor(variable: Any) -> Any:
    return keras.ops.convert_to_tensor(variable)


def _on_planes(layer: Any, operation: Any, *arguments: Any, **options: Any) -> Compute:
    """Return what applies an operation of (N, C, H, W) to maps in the layer's data format."""
    if layer.data_format == "channels_last":
        return lambda maps, training=None: _maps(operation(_planes(maps), *arguments, **options))
    return lambda planes, training=None: operation(planes, *arguments, **options)


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
    if torch.compiler.is_compiling():
        transposed = matrix.t().contiguous()
    elif torch.is_grad_enabled() and matrix.requires_grad:
        matrix.register_hook(lambda gradient: _transposed(gradient.t()))
        transposed = matrix.t().contiguous()
    else:
        transposed = _transposed(matrix)  # (O, h w I)
    return transposed.reshape(outputs, height, width, inputs).permute(0, 3, 1, 2)


def _transposed(matrix: Any) -> Any:
    """Return a matrix (R, C) as (C, R), laid out anew.

    On a CPU torch does so in one thread; by blocks of rows, whose second copy moves whole lines of
    the cache, it takes about half the time.
    """
    rows, columns = matrix.shape
    if rows % _LINE or matrix.device.type != "cpu":
        return matrix.t().contiguous()
    blocks = matrix.reshape(-1, _LINE, columns).mT.contiguous()  # (R / 16, C, 16)
    return blocks.transpose(0, 1).reshape(columns, rows)


def _is_now_on_cpu(tensor: Any) -> bool:
    """Return whether a CPU computes with a tensor's values, and no program is recorded of it.

    What is recorded must not depend on the size of a batch.
    """
    return (
        tensor.device.type == "cpu"
        and not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
    )


def _has_few_pixels(maps: Any) -> bool:
    """Return whether a product with each pixel of maps (N, H, W, I) is the faster convolution.

    On a CPU oneDNN's convolution takes 5 to 15 % less time than the product where a few thousand
    pixels make the kernel's other layout cheap; with fewer of them it takes up to twice as long.
    """
    return not _is_now_on_cpu(maps) or maps.shape[:3].numel() <= _FEW_PIXELS


def _few_windows(maps: Any, kernel: Any, strides: Any, pads: tuple[int, int]) -> Any:
    """Return a kernel's windows of maps (N, H, W, I) as (N, H', W', h, w, I), or None.

    Where there are fewer windows than filters, as in the last blocks of a network at a batch of
    one, a copy of the windows is smaller than one of the kernel: it takes less time than another
    layout of the kernel does, of which nothing can be kept, as weights may change. Windows of one
    pixel are as cheap as pixels. On a GPU cuDNN knows better, and gradients of windows that overlap
    take long.
    """
    if torch.is_grad_enabled() or not _is_now_on_cpu(maps):
        return None
    height, width, channels, filters = kernel.shape
    batch = maps.shape[0]
    rows, columns = (
        (n + 2 * pad - size) // stride + 1
        for n, pad, size, stride in zip(
            maps.shape[1:3], pads, (height, width), strides, strict=True
        )
    )
    most = _FEW_PIXELS if height * width == 1 else filters
    if rows < 1 or columns < 1 or batch * rows * columns > most:
        return None
    lines = maps.flatten(2)  # (N, H, W I)
    if any(pads):
        lines = functional.pad(lines, (pads[1] * channels, pads[1] * channels, pads[0], pads[0]))
    lines = lines.contiguous()
    image, line = lines.stride()[:2]
    return lines.as_strided(
        (batch, rows, columns, height, width, channels),
        (image, strides[0] * line, strides[1] * channels, line, channels, 1),
    )


def _products(parts: Any, kernel: Any, bias: Any) -> Any:
    """Return the products (N, H, W, O) of a kernel (h, w, I, O) and maps of its windows.

    The windows are (N, H, W, h, w, I), or (N, H, W, I) of one pixel.
    """
    return functional.linear(parts.flatten(3), kernel.flatten(0, 2).t(), bias)


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
