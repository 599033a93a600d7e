"""PyTorch as the engine: channels-last memory, weights laid out once for oneDNN where it computes.

Maps are (N, C, H, W) in the order of channels last, which torch's kernels prefer.
"""

from collections.abc import Callable
from functools import cache, partial
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

    def __init__(self) -> None:
        # Where Keras' torch backend computes; the CPU beside another backend.
        device = keras.ops.zeros(()).device if keras.backend.backend() == "torch" else "cpu"
        self._device = torch.device(str(device))

    def tensor(self, array: np.ndarray) -> Any:
        """Return an array as a float32 tensor on the device."""
        return torch.tensor(np.asarray(array, np.float32), device=self._device)

    def is_tensor(self, x: Any) -> bool:
        """Say whether `x` is a tensor of this framework."""
        return isinstance(x, torch.Tensor)

    def to_numpy(self, x: Any) -> np.ndarray:
        """Return a tensor as an array."""
        return x.cpu().numpy()


class TorchEngine(OnTorch):
    """A plan on PyTorch."""

    fixed_batches = False

    def __init__(self, model: Any, plan: Plan, batch_size: int | None) -> None:
        super().__init__()
        self._plan = plan
        # What torch.compile makes of a convolution on a CPU; no public function leads to it.
        packing = (
            self._device.type == "cpu"
            and torch.backends.mkldnn.is_available()
            and hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")
            and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        )
        makers = MAKERS | (_PACKED if packing else {})
        with torch.inference_mode():
            self._steps = [
                (makers[type(each)](each, self), each.inputs) for each in plan.operations
            ]
        last_read = {value: i for i, (_, inputs) in enumerate(self._steps) for value in inputs}
        self._last = [
            [value for value, last in last_read.items() if last == i]
            for i in range(len(self._steps))
        ]

    def __call__(self, x: Any) -> Any:
        """Run a batch, an array or tensor in the model's layout; return a tensor in that."""
        with torch.inference_mode():
            x = torch.as_tensor(x, device=self._device).to(torch.float32)
            if self._plan.data_format == "channels_last":
                x = x.permute(0, 3, 1, 2)  # (N, C, H, W)
            values = {0: x.contiguous(memory_format=torch.channels_last)}
            for i, (step, inputs) in enumerate(self._steps):
                values[i + 1] = step(*[values[j] for j in inputs])
                for value in self._last[i]:
                    del values[value]
            y = values[len(self._steps)]
            if y.ndim == 4 and self._plan.data_format == "channels_last":
                y = y.permute(0, 2, 3, 1)
            return y.contiguous()


def _conv(each: op.Conv, engine: OnTorch) -> Step:
    kernel = engine.tensor(each.kernel.transpose(3, 2, 0, 1))  # (out, in, h, w)
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    bias = engine.tensor(each.bias)

    def run(x: Any, padding: op.Pair) -> Any:
        y = F.conv2d(x, kernel, bias, each.strides, padding, 1, each.groups)
        return y.relu_() if each.relu else y

    return _padded(each, run)


def _packed_conv(each: op.Conv, engine: OnTorch) -> Step:
    """As `_conv`, in oneDNN's own layout of the weights and with the ReLU in the same pass."""
    kernel = engine.tensor(each.kernel.transpose(3, 2, 0, 1))  # (out, in, h, w)
    bias = engine.tensor(each.bias)
    padding = _even(each.padding or op.NO_PADDING) or (0, 0)
    packed = torch._C._nn.mkldnn_reorder_conv2d_weight(
        kernel.to_mkldnn(), padding, each.strides, (1, 1), each.groups, None
    )
    fused = torch.ops.mkldnn._convolution_pointwise.default
    after = "relu" if each.relu else "none"

    def run(x: Any, padding: op.Pair) -> Any:
        return fused(x, packed, bias, padding, each.strides, (1, 1), each.groups, after, [], "")

    return _padded(each, run)


def _padded(each: op.Conv, run: Step) -> Step:
    """Return a convolution that pads in itself where both sides get the same."""
    even = _even(each.padding) if each.padding else None
    if even is not None:
        return partial(run, padding=even)
    window = each.kernel.shape[0], each.kernel.shape[1]

    def padded(x: Any) -> Any:
        padding = each.padding or op.same_padding(tuple(x.shape[2:]), window, each.strides)
        return run(_zero_padded(x, padding), padding=(0, 0))

    return padded


def _even(padding: op.Padding) -> op.Pair | None:
    """Return the padding of both sides, vertical and horizontal, or None where they differ."""
    (top, bottom), (left, right) = padding
    return (top, left) if (top, left) == (bottom, right) else None


def _zero_padded(x: Any, padding: Any, value: float = 0.0) -> Any:
    (top, bottom), (left, right) = padding
    return F.pad(x, (left, right, top, bottom), value=value)


def _dense(each: op.Dense, engine: OnTorch) -> Step:
    kernel, bias = engine.tensor(each.kernel.T).contiguous(), engine.tensor(each.bias)

    def run(x: Any) -> Any:
        y = F.linear(x, kernel, bias)
        return y.relu_() if each.relu else y

    return run


def _pad(each: op.Pad, engine: OnTorch) -> Step:
    return partial(_zero_padded, padding=each.padding)


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

    return run


def _avg_pool(each: op.AvgPool, engine: OnTorch) -> Step:
    return partial(F.avg_pool2d, kernel_size=each.size, stride=each.strides)


def _adaptive(each: op.AdaptiveAvgPool, engine: OnTorch) -> Step:
    return partial(F.adaptive_avg_pool2d, output_size=each.size)


def _global_pool(each: op.GlobalPool, engine: OnTorch) -> Step:
    reduce = torch.amax if each.largest else torch.mean
    return partial(reduce, dim=(2, 3), keepdim=each.keepdims)


def _repeat(each: op.Repeat, engine: OnTorch) -> Step:
    height, width = each.factors
    return lambda x: x.repeat_interleave(height, 2).repeat_interleave(width, 3)


def _flatten(each: op.Flatten, engine: OnTorch) -> Step:
    return lambda x: x.permute(0, 2, 3, 1).flatten(1)


def _concat(each: op.Concat, engine: OnTorch) -> Step:
    return lambda *parts: torch.cat(parts, 1)


def _affine(each: op.Affine, engine: OnTorch) -> Step:
    scale, offset = engine.tensor(each.scale), engine.tensor(each.offset)

    def run(x: Any) -> Any:
        x = x.flip(1) if each.reverse else x
        shape = (-1, *(1,) * (x.ndim - 2))
        return torch.addcmul(offset.view(shape), x, scale.view(shape))

    return run


def _lrn(each: op.LRN, engine: OnTorch) -> Step:
    @cache
    def band(channels: int) -> Any:
        return engine.tensor(op.lrn_band(channels, each))

    def run(x: Any) -> Any:
        rows = x.permute(0, 2, 3, 1)  # (N, H, W, C), contiguous
        d = torch.matmul(rows.square(), band(rows.shape[-1])).add_(each.k)
        return (rows * _inverse_power(d, each.beta)).permute(0, 3, 1, 2)

    return run


def _inverse_power(d: Any, beta: float) -> Any:
    if beta == 0.75:
        return (d * d.sqrt()).rsqrt_()  # several times faster than the power
    return d.rsqrt_() if beta == 0.5 else d.pow_(-beta)


def _activation(each: op.Activation, engine: OnTorch) -> Step:
    function = getattr(torch, each.function)
    return partial(function, dim=1) if each.function == "softmax" else function


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
    op.LRN: _lrn,
    op.Activation: _activation,
}
_PACKED: dict[type[op.Operation], Callable[[Any, OnTorch], Step]] = {op.Conv: _packed_conv}
