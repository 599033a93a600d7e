"""The operations of a plan on PyTorch: channels-last memory, and oneDNN's own layout of weights.

Maps are (N, H, W, C), which torch's kernels of (N, C, H, W) see as their preferred order in memory.
"""

from collections.abc import Callable
from functools import cache, lru_cache, partial, reduce
from typing import Any

import numpy as np

from keras_alexnet.core.backend import require
from keras_alexnet.layers import keras
from keras_alexnet.optimizing import operations as op
from keras_alexnet.optimizing.plan import Plan

torch = require("torch")
F = torch.nn.functional

Step = Callable[..., Any]


class OnTorch:
    """What both engines on PyTorch share: the device, and what is a tensor on it."""

    def __init__(self, plan: Plan) -> None:
        self.channels_first = plan.data_format == "channels_first"
        # Where Keras' torch backend computes; the CPU beside another backend.
        device = keras.ops.zeros(()).device if keras.backend.backend() == "torch" else "cpu"
        self.device = torch.device(str(device))

    def tensor(self, array: np.ndarray) -> Any:
        """Return an array as a float32 tensor on the device."""
        return torch.tensor(np.asarray(array, np.float32), device=self.device)

    def given(self, x: Any) -> Any:
        """Return a batch, arrays or tensors in the model's layout, as a plan's value 0."""

        def placed(x: Any) -> Any:
            x = torch.as_tensor(x, device=self.device).to(torch.float32)
            if x.ndim == 4 and self.channels_first:
                x = x.permute(0, 2, 3, 1)  # (N, H, W, C)
            return x.contiguous()

        return keras.tree.map_structure(placed, x)

    def returned(self, values: Any, outputs: Any) -> Any:
        """Return those of a plan's values that are its outputs, in the model's layout."""

        def placed(number: int) -> Any:
            y = values[number]
            if y.ndim == 4 and self.channels_first:
                y = y.permute(0, 3, 1, 2)
            return y.contiguous()

        return keras.tree.map_structure(placed, outputs)

    def is_tensor(self, x: Any) -> bool:
        """Say whether `x` is a tensor of this framework."""
        return isinstance(x, torch.Tensor)

    def to_numpy(self, x: Any) -> np.ndarray:
        """Return a tensor as an array."""
        return x.cpu().numpy()


def _on_map(step: Step) -> Step:
    """Return a step of torch's (N, C, H, W) as one of (N, H, W, C), without a copy."""
    return lambda *maps: step(*[x.permute(0, 3, 1, 2) for x in maps]).permute(0, 2, 3, 1)


def _conv(each: op.Conv, engine: OnTorch) -> Step:
    kernel = engine.tensor(each.kernel.transpose(3, 2, 0, 1))  # (out, in, h, w)
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    bias, activate = engine.tensor(each.bias), _ACTIVATIONS[each.activation]

    def run(x: Any, *added: Any, padding: op.Pair) -> Any:
        y = F.conv2d(x, kernel, bias, each.strides, padding, 1, each.groups)
        return activate(y.add_(added[0]) if added else y)

    return _padded(each, run)


def _packed_conv(each: op.Conv, engine: OnTorch) -> Step:
    """As `_conv`, in oneDNN's own layout of the weights, all in the same pass."""
    bias = engine.tensor(each.bias)
    fused = torch.ops.mkldnn._convolution_pointwise
    after, numbers, kind = _POINTWISE[each.activation]
    # What is added has a rectifier or nothing behind it there.
    rest = _ACTIVATIONS["linear" if each.activation in ("linear", "relu") else each.activation]
    rectifier = "relu" if each.activation == "relu" else None

    # The best layout is one shape's. In any other every call would lay the weights out anew, which
    # takes up to ten times as long as the convolution. Two: full batches, and what is left.
    @lru_cache(maxsize=2)
    def packed(shape: tuple[int, ...], padding: op.Pair) -> Any:
        kernel = engine.tensor(each.kernel.transpose(3, 2, 0, 1))  # (out, in, h, w)
        return torch._C._nn.mkldnn_reorder_conv2d_weight(
            kernel.to_mkldnn(), padding, each.strides, (1, 1), each.groups, shape
        )

    def run(x: Any, *added: Any, padding: op.Pair) -> Any:
        weights, how = packed(tuple(x.shape), padding), (padding, each.strides, (1, 1), each.groups)
        if added:
            y = fused.binary(x, added[0], weights, bias, *how, "add", 1.0, rectifier, [], None)
            return rest(y)
        return fused.default(x, weights, bias, *how, after, numbers, kind)

    return _padded(each, run)


def _padded(each: op.Conv, run: Step) -> Step:
    """Return a convolution that pads in itself where both sides get the same."""
    even = _even(each.padding) if each.padding else None
    if even is not None:
        return _on_map(partial(run, padding=even))
    window = each.kernel.shape[0], each.kernel.shape[1]

    def padded(x: Any, *added: Any) -> Any:
        padding = each.padding or op.same_padding(tuple(x.shape[2:]), window, each.strides)
        return run(_zero_padded(x, padding), *added, padding=(0, 0))

    return _on_map(padded)


def _even(padding: op.Padding) -> op.Pair | None:
    """Return the padding of both sides, vertical and horizontal, or None where they differ."""
    (top, bottom), (left, right) = padding
    return (top, left) if (top, left) == (bottom, right) else None


def _zero_padded(x: Any, padding: Any, value: float = 0.0) -> Any:
    (top, bottom), (left, right) = padding
    return F.pad(x, (left, right, top, bottom), value=value)


def _dense(each: op.Dense, engine: OnTorch) -> Step:
    kernel, bias = engine.tensor(each.kernel.T).contiguous(), engine.tensor(each.bias)
    activate = _ACTIVATIONS[each.activation]
    return lambda x: activate(F.linear(x, kernel, bias))


def _pad(each: op.Pad, engine: OnTorch) -> Step:
    return _on_map(partial(_zero_padded, padding=each.padding))


def _max_pool(each: op.MaxPool, engine: OnTorch) -> Step:
    pool = partial(F.max_pool2d, kernel_size=each.size, stride=each.strides)
    outer = tuple(zip((0, 0), (s - 1 for s in each.strides), strict=True))

    def run(x: Any) -> Any:
        padding = each.padding or op.same_padding(tuple(x.shape[2:]), each.size, each.strides)
        even = _even(padding)
        if even is not None and all(2 * p <= s for p, s in zip(even, each.size, strict=True)):
            return pool(x, padding=even)
        # One pixel less than a stride behind the map is what ceil mode adds, without a copy.
        if padding == outer and each.strides <= each.size:
            return pool(x, ceil_mode=True)
        return pool(_zero_padded(x, padding, -float("inf")))

    return _on_map(run)


def _avg_pool(each: op.AvgPool, engine: OnTorch) -> Step:
    return _on_map(partial(F.avg_pool2d, kernel_size=each.size, stride=each.strides))


def _adaptive(each: op.AdaptiveAvgPool, engine: OnTorch) -> Step:
    return _on_map(partial(F.adaptive_avg_pool2d, output_size=each.size))


def _global_pool(each: op.GlobalPool, engine: OnTorch) -> Step:
    pool = torch.amax if each.largest else torch.mean
    return partial(pool, dim=(1, 2), keepdim=each.keepdims)


def _repeat(each: op.Repeat, engine: OnTorch) -> Step:
    height, width = each.factors
    return lambda x: x.repeat_interleave(height, 1).repeat_interleave(width, 2)


def _flatten(each: op.Flatten, engine: OnTorch) -> Step:
    return lambda x: x.flatten(1)


def _reshape(each: op.Reshape, engine: OnTorch) -> Step:
    return lambda x: x.reshape(each.shape)


def _concat(each: op.Concat, engine: OnTorch) -> Step:
    return lambda *parts: torch.cat(parts, -1)


def _affine(each: op.Affine, engine: OnTorch) -> Step:
    scale, offset = engine.tensor(each.scale), engine.tensor(each.offset)
    return lambda x: torch.addcmul(offset, x.flip(-1) if each.reverse else x, scale)


def _elementwise(each: op.Elementwise, engine: OnTorch) -> Step:
    function, activate = getattr(torch, each.function), _ACTIVATIONS[each.activation]
    return lambda *values: activate(reduce(function, values))


def _layer_norm(each: op.LayerNorm, engine: OnTorch) -> Step:
    gamma, beta = engine.tensor(each.gamma), engine.tensor(each.beta)
    return lambda x: F.layer_norm(x, gamma.shape, gamma, beta, each.epsilon)


def _constant(each: op.Constant, engine: OnTorch) -> Step:
    value = torch.tensor(each.value, device=engine.device)
    return lambda: value


def _own(each: op.Call | op.Part, engine: OnTorch) -> Step:
    return each.compute


def _lrn(each: op.LRN, engine: OnTorch) -> Step:
    @cache
    def band(channels: int) -> Any:
        return engine.tensor(op.lrn_band(channels, each))

    def run(x: Any) -> Any:
        d = torch.matmul(x.square(), band(x.shape[-1])).add_(each.k)
        return x * _inverse_power(d, each.beta)

    return run


def _inverse_power(d: Any, beta: float) -> Any:
    if beta == 0.75:
        return (d * d.sqrt()).rsqrt_()  # several times faster than the power
    return d.rsqrt_() if beta == 0.5 else d.pow_(-beta)


def _activation(each: op.Activation, engine: OnTorch) -> Step:
    return _LASTING[each.function]


# Of values that something else may read.
_LASTING: dict[str, Step] = {
    "linear": lambda x: x,
    "relu": torch.relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "softmax": partial(torch.softmax, dim=-1),
    "tanh": torch.tanh,
    "silu": F.silu,
    "hard_silu": F.hardswish,
    "hard_sigmoid": F.hardsigmoid,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}
# Of what an operation has just made: in its memory where torch has a kernel for that.
_ACTIVATIONS = _LASTING | {
    "relu": torch.relu_,
    "relu6": partial(F.relu6, inplace=True),
    "sigmoid": torch.sigmoid_,
    "tanh": torch.tanh_,
    "silu": partial(F.silu, inplace=True),
    "hard_silu": partial(F.hardswish, inplace=True),
    "hard_sigmoid": partial(F.hardsigmoid, inplace=True),
}
# How oneDNN calls them behind a convolution: name, numbers, kind.
_POINTWISE: dict[str, tuple[str, list[float], str]] = {
    "linear": ("none", [], ""),
    "relu": ("relu", [], ""),
    "relu6": ("hardtanh", [0.0, 6.0], ""),
    "sigmoid": ("sigmoid", [], ""),
    "tanh": ("tanh", [], ""),
    "silu": ("swish", [], ""),
    "hard_silu": ("hardswish", [], ""),
    "hard_sigmoid": ("hardsigmoid", [], ""),
    "gelu": ("gelu", [], "none"),
    "gelu_tanh": ("gelu", [], "tanh"),
}
MAKERS: dict[type[op.Operation], Callable[[Any, OnTorch], Step]] = {
    op.Affine: _affine,
    op.Conv: _conv,
    op.Dense: _dense,
    op.Pad: _pad,
    op.MaxPool: _max_pool,
    op.AvgPool: _avg_pool,
    op.AdaptiveAvgPool: _adaptive,
    op.GlobalPool: _global_pool,
    op.Repeat: _repeat,
    op.Flatten: _flatten,
    op.Concat: _concat,
    op.Reshape: _reshape,
    op.Elementwise: _elementwise,
    op.LayerNorm: _layer_norm,
    op.Constant: _constant,
    op.Call: _own,
    op.Part: _own,
    op.LRN: _lrn,
    op.Activation: _activation,
}
PACKED: dict[type[op.Operation], Callable[[Any, OnTorch], Step]] = {op.Conv: _packed_conv}
