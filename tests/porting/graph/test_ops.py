"""One row an operation: torch's result from the Keras model, in both formats, on every backend."""

import functools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.graphs import Function, converted, filled, gap, images, output
from helpers.models import BOTH
from helpers.project import RunPython
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everybody calls it

import porting
from keras_alexnet.core.keras_internals import maker_of
from porting.errors import GraphError
from porting.graph.ops import RULES
from porting.graph.plan import Plan
from porting.graph.reader import read

SHAPE = (2, 6, 8, 9)
LIMIT = 2e-6


class Constants(nn.Module):
    """Parameters that are no layer's, in as many ways as networks have them."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)

        def normal(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=generator))

        self.token, self.position = normal(1, 1, 6), normal(1, 73, 6)
        self.scale, self.single, self.scalar = normal(6, 1, 1), normal(1), normal()
        self.table = normal(5, 6)
        self.register_buffer("places", torch.tensor([[0, 4, 2], [1, 1, 3]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * self.scale
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], 1) + self.position
        rows = self.table[self.places.view(-1)].view(2, 3, 6).mean((0, 1))
        return (tokens + rows) * self.single + self.scalar


class Attention(nn.Module):
    """As torchvision's vision transformer has it."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens, need_weights=False)[0]


def heads(x: torch.Tensor) -> torch.Tensor:
    """(N, heads, tokens, channels)."""
    return x.flatten(2).transpose(1, 2).reshape(x.shape[0], 72, 2, 3).permute(0, 2, 1, 3)


def longer_values(x: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(heads(x), heads(x), heads(x).repeat(1, 1, 1, 2)) * 2


def one_key(x: torch.Tensor) -> torch.Tensor:
    """One head of keys and values for all heads of queries, as MobileNetV5's."""
    key = heads(x * 2).mean(1, keepdim=True)
    return F.scaled_dot_product_attention(heads(x), key, key + 1)


def masked(x: torch.Tensor) -> torch.Tensor:
    mask = torch.linspace(-1, 1, 72 * 72).view(72, 72)
    return F.scaled_dot_product_attention(heads(x), heads(x * 2), heads(x + 1), mask)


def windows(x: torch.Tensor) -> torch.Tensor:
    """Shifted windows, as Swin's."""
    x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, 3, 0, 0)).roll((-1, -2), (1, 2))
    x = x.view(x.shape[0], 2, 4, 3, 4, 6).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, 6)
    x = x @ x.transpose(-2, -1) @ x
    x = x.view(-1, 2, 3, 4, 4, 6).permute(0, 1, 3, 2, 4, 5).reshape(-1, 8, 12, 6)
    return x[:, :, :9].permute(0, 3, 1, 2)


def shuffled(x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    return x.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w)


def halves(x: torch.Tensor) -> torch.Tensor:
    """Return (N, 2, C / 2, H, W)."""
    return x.unflatten(1, (2, -1))


class Halves(nn.Module):
    """Both halves of the channels, each selected from one value, or one of them alone."""

    def __init__(self, *places: int) -> None:
        super().__init__()
        self.places = places

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = halves(x)
        return torch.cat([parts.select(1, place) for place in self.places], 1)


def written_in_place(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[:, 1:3].mul_(0)
    y[:, 4:] = x[:, :2]
    return y.add_(1).relu_()


def norm(kind: type, *arguments: Any, **options: Any) -> nn.Module:
    """A norm whose numbers all matter."""
    module, generator = kind(*arguments, **options), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) + ("var" in name))
    return module


class Last(nn.Module):
    """A module over the last axis."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Standardised(nn.Module):
    """A convolution whose kernel is computed."""

    def __init__(self, groups: int = 1, outputs: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, outputs, 3, groups=groups)
        self.gain, self.groups = nn.Parameter(torch.linspace(0.5, 1, outputs)), groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.conv.weight
        scale = (weight.var((1, 2, 3), keepdim=True, unbiased=False) + 1e-4).rsqrt()
        weight = (weight - weight.mean((1, 2, 3), keepdim=True)) * scale
        weight = weight * self.gain.view(-1, 1, 1, 1)
        return F.conv2d(x, weight, self.conv.bias, 2, 1, groups=self.groups)


class Rows(nn.Module):
    """A module of the rows of maps, (N, C, H W)."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x.flatten(2))


class Affine(nn.Module):
    """A dense layer's function of computed weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 30).view(5, 6))
        self.bias = nn.Parameter(torch.linspace(-1, 1, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(2).transpose(1, 2)
        return F.linear(x, self.weight / self.weight.norm()) + F.linear(
            x, self.weight, self.bias.exp()
        )


Make = Callable[[], nn.Module]


def f(function: Any) -> Make:
    return lambda: Function(function)


# Operations that a case is for -> case -> what makes the module. Those in brackets come on the way.
CASES: dict[str, dict[str, Make]] = {
    "conv2d": {
        "plain": lambda: nn.Conv2d(6, 4, 3),
        "same": lambda: nn.Conv2d(6, 4, 3, padding=1, bias=False),
        "stride": lambda: nn.Conv2d(6, 4, 3, 2, 1),
        "uneven": lambda: nn.Conv2d(6, 4, (3, 5), (2, 1), (0, 3)),
        "dilated": lambda: nn.Conv2d(6, 4, 3, padding=2, dilation=2),
        "dilated stride": lambda: nn.Conv2d(6, 4, 3, 2, 2, dilation=2),
        "grouped": lambda: nn.Conv2d(6, 9, 3, padding=1, groups=3),
        "depthwise": lambda: nn.Conv2d(6, 6, 3, 2, 1, groups=6),
        "depthwise times 2": lambda: nn.Conv2d(6, 12, (3, 5), 1, (1, 2), groups=6),
        "depthwise, two strides": lambda: nn.Conv2d(6, 6, 3, (1, 2), 1, groups=6),
        "named padding": lambda: nn.Conv2d(6, 4, (3, 5), padding="same"),
        "named padding, even": lambda: nn.Conv2d(6, 4, (2, 4), padding="same"),
        "computed kernel": Standardised,
        "computed depthwise kernel": lambda: Standardised(6, 12),
        "computed grouped kernel": lambda: Standardised(3, 9),
    },
    "conv1d": {
        "pointwise": lambda: Rows(nn.Conv1d(6, 5, 1)),
        "padded": lambda: Rows(nn.Conv1d(6, 5, 3, 2, 2, bias=False)),
        "dilated": lambda: Rows(nn.Conv1d(6, 5, 3, dilation=2)),
    },
    "conv_transpose2d": {
        "plain": lambda: nn.ConvTranspose2d(6, 4, 3),
        "stride": lambda: nn.ConvTranspose2d(6, 4, 4, 2, 1),
        "uneven": lambda: nn.ConvTranspose2d(6, 4, (3, 2), (2, 1), (1, 0), (1, 0), bias=False),
        "short kernel": lambda: nn.ConvTranspose2d(6, 4, 2, 3, output_padding=1),
        "depthwise": lambda: nn.ConvTranspose2d(6, 6, 4, 2, 1, groups=6),
        "depthwise times 2": lambda: nn.ConvTranspose2d(6, 12, (2, 3), (3, 1), 1, (2, 0), groups=6),
    },
    "linear": {
        "flatten": lambda: nn.Sequential(nn.Flatten(), nn.Linear(6 * 8 * 9, 5)),
        "pooled": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)),
        "no bias": lambda: Last(nn.Linear(6, 5, bias=False)),
        "over rows": lambda: nn.Linear(9, 5),
        "after shuffling": lambda: nn.Sequential(
            Function(shuffled), nn.Flatten(), nn.Linear(6 * 8 * 9, 5)
        ),
        "computed": Affine,
    },
    "batch_norm": {
        "maps": lambda: norm(nn.BatchNorm2d, 6, eps=0.1),
        "no affine": lambda: norm(nn.BatchNorm2d, 6, affine=False),
        "no statistics": lambda: norm(nn.BatchNorm2d, 6, eps=0.1, track_running_stats=False),
        "vectors": lambda: nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), norm(nn.BatchNorm1d, 6)
        ),
    },
    "layer_norm": {
        "channels": lambda: Last(norm(nn.LayerNorm, 6, eps=0.1)),
        "rows": lambda: norm(nn.LayerNorm, 9),
        "no affine": lambda: Last(nn.LayerNorm(6, elementwise_affine=False)),
        "flattened": lambda: nn.Sequential(nn.Flatten(), norm(nn.LayerNorm, 6 * 8 * 9)),
    },
    "rms_norm": {
        "channels": lambda: Last(norm(nn.RMSNorm, 6, eps=0.1)),
        "no weight": lambda: nn.RMSNorm(9, elementwise_affine=False),
    },
    "group_norm": {
        "two": lambda: norm(nn.GroupNorm, 2, 6),
        "one": lambda: norm(nn.GroupNorm, 1, 6),
    },
    "_native_batch_norm_legit_no_training": {
        "functionalised": lambda: nn.Sequential(norm(nn.BatchNorm2d, 6), Function(written_in_place))
    },
    "dropout": {
        "in place": lambda: nn.Sequential(
            norm(nn.BatchNorm2d, 6), nn.Flatten(), nn.Dropout(0.2, inplace=True)
        ),
        "half": lambda: nn.Dropout(0.5),
        "none": lambda: nn.Dropout(0.0),
    },
    "feature_dropout": {"maps": lambda: nn.Dropout2d(0.5)},
    "max_pool2d": {
        "plain": lambda: nn.MaxPool2d(2),
        "ceil": lambda: nn.MaxPool2d(3, 2, ceil_mode=True),
        "padded": lambda: nn.MaxPool2d(3, 2, 1),
        "padded behind a ReLU": lambda: nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
        "ceil and padded": lambda: nn.MaxPool2d((3, 2), (2, 3), (1, 1), ceil_mode=True),
    },
    "avg_pool2d": {
        "plain": lambda: nn.AvgPool2d(2),
        "padded": lambda: nn.AvgPool2d(3, 1, 1),
        "not counted": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        "ceil": lambda: nn.AvgPool2d(3, 2, ceil_mode=True),
        "ceil and padded": lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True),
        "own divisor": lambda: nn.AvgPool2d(3, 2, 1, divisor_override=5),
    },
    "avg_pool1d": {"": f(lambda x: F.avg_pool1d(x.flatten(2), 3, 2))},
    "avg_pool3d": {"LRN": lambda: nn.LocalResponseNorm(5, 0.2, 0.75, 2.0)},
    "adaptive_avg_pool2d": {
        "one": lambda: nn.AdaptiveAvgPool2d(1),
        "divisor": lambda: nn.AdaptiveAvgPool2d((4, 3)),
        "uneven": lambda: nn.AdaptiveAvgPool2d((3, 5)),
        "same": lambda: nn.AdaptiveAvgPool2d((8, 9)),
    },
    "relu": {"module": nn.ReLU, "in place": lambda: nn.ReLU(inplace=True)},
    "relu6": {"function": f(torch.ops.aten.relu6)},
    "sigmoid": {"": nn.Sigmoid},
    "hardsigmoid": {"": nn.Hardsigmoid},
    "hardswish": {"": nn.Hardswish},
    "silu": {"": nn.SiLU},
    "tanh": {"": nn.Tanh},
    "mish": {"": nn.Mish},
    "selu": {"": nn.SELU},
    "log_sigmoid": {"": nn.LogSigmoid},
    "leaky_relu": {"": lambda: nn.LeakyReLU(0.3)},
    "elu": {"": lambda: nn.ELU(0.7)},
    "gelu": {"exact": nn.GELU, "tanh": lambda: nn.GELU("tanh")},
    "softplus": {"": nn.Softplus},
    "hardtanh": {"relu6": nn.ReLU6, "other": lambda: nn.Hardtanh(-0.5, 0.7)},
    "clamp": {
        "both": f(lambda x: x.clamp(-0.3, 0.6)),
        "one": f(lambda x: x.clamp(max=0.2)),
        "tensors": f(lambda x: x.clamp(torch.tensor(-0.3), torch.tensor(torch.inf))),
    },
    "clamp_min": {"": f(lambda x: torch.clamp_min(x, 0.1))},
    "clamp_max": {"": f(lambda x: torch.clamp_max(x, 0.1))},
    "exp": {"": f(torch.exp)},
    "log": {"": f(lambda x: (x.abs() + 1).log())},
    "sqrt": {"": f(lambda x: (x.abs() + 1).sqrt())},
    "rsqrt": {"": f(lambda x: (x.abs() + 1).rsqrt())},
    "neg": {"": f(torch.neg)},
    "abs": {"": f(torch.abs)},
    "square": {"": f(torch.square)},
    "sin": {"": f(torch.sin)},
    "cos": {"": f(torch.cos)},
    "erf": {"": f(torch.erf)},
    "reciprocal": {"": f(lambda x: (x.abs() + 1).reciprocal())},
    "zero": {"in place": f(written_in_place)},
    "add": {
        "maps": f(lambda x: x + x.flip(1)),
        "rows": f(lambda x: x + x.mean((1, 2), keepdim=True)),
        "number": f(lambda x: x + 2.5),
        "array": f(lambda x: x + torch.linspace(0, 1, 54).view(6, 1, 9)),
        "large array": f(lambda x: x + torch.linspace(0, 1, 3888).view(9, 6, 8, 9)[:1] + x[:, :1]),
        "transposed": f(lambda x: x[:, :, :, :8] + x[:, :, :, :8].transpose(2, 3)),
    },
    "addcmul": {
        "gate": f(lambda x: torch.addcmul(x, x.mean(1, True), x.flip(2))),
        "value": f(lambda x: torch.addcmul(torch.linspace(0, 1, 9), x, x, value=0.5)),
    },
    "sub": {"": f(lambda x: x - x.mean(1, keepdim=True))},
    "rsub": {"": f(lambda x: 2 - x)},
    "mul": {"excite": f(lambda x: x * x.mean((2, 3), keepdim=True)), "number": f(lambda x: x * 3)},
    "div": {"": f(lambda x: x / (x.abs().mean(3, keepdim=True) + 1))},
    "maximum": {"": f(lambda x: torch.maximum(x, x.flip(3)))},
    "minimum": {"": f(lambda x: torch.minimum(x, x.flip(2)))},
    "pow": {"": f(lambda x: x.abs().add(0.5).pow(1.5))},
    "mean": {"maps": f(lambda x: x.mean((2, 3))), "all": f(lambda x: x.flatten(1).mean(-1, True))},
    "sum": {"": f(lambda x: x.sum(1, keepdim=True))},
    "amax": {"": f(lambda x: x.amax((2, 3)))},
    "max": {"values": f(lambda x: x.max(1)[0].flatten(1))},
    "min": {"kept": f(lambda x: x.min(2, keepdim=True).values * x)},
    "amin": {"": f(lambda x: x.amin(1))},
    "var": {"": f(lambda x: x.var(1)), "biased": f(lambda x: x.var((2, 3), unbiased=False))},
    "linalg_vector_norm": {"": f(lambda x: F.normalize(x, dim=1))},
    "softmax": {"channels": f(lambda x: x.softmax(1)), "last": f(lambda x: x.softmax(-1))},
    "scaled_dot_product_attention": {
        "module": Attention,
        "masked": f(masked),
        "values": f(longer_values),
        "one key": f(one_key),
    },
    "matmul": {"windows": f(windows), "batches": f(lambda x: x @ x.transpose(2, 3))},
    "bmm": {"": f(lambda x: torch.bmm(x.flatten(2), x.flatten(2).transpose(1, 2)))},
    "einsum": {
        "outer": f(lambda x: torch.einsum("nchw, nchv -> nwcv", x, x * 2)),
        "CAPITALS": f(lambda x: torch.einsum("N C H W, N C V W -> N C H V", x, x.relu())),
    },
    "upsample_nearest2d": {
        "twice": lambda: nn.Upsample(scale_factor=2),
        "uneven": f(lambda x: F.interpolate(x, (12, 7))),
    },
    "_upsample_nearest_exact2d": {"": f(lambda x: F.interpolate(x, (12, 7), mode="nearest-exact"))},
    "upsample_bilinear2d": {
        "corners": f(lambda x: F.interpolate(x, (16, 5), mode="bilinear", align_corners=True)),
        "factor": f(lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear")),
        "rows": f(lambda x: F.interpolate(x, (20, 9), mode="bilinear")),
    },
    "upsample_bicubic2d": {"": f(lambda x: F.interpolate(x, (13, 21), mode="bicubic"))},
    "_upsample_bilinear2d_aa": {
        "": f(lambda x: F.interpolate(x, (3, 5), mode="bilinear", antialias=True))
    },
    "_upsample_bicubic2d_aa": {
        "large": f(lambda x: F.interpolate(x, (140, 50), mode="bicubic", antialias=True)),
    },
    "unfold": {"": f(lambda x: x.unfold(2, 4, 2).unfold(3, 3, 3).square())},
    "im2col": {
        "": lambda: nn.Unfold(3),
        "padded": lambda: nn.Unfold((3, 2), (1, 2), (1, 0), (2, 3)),
    },
    "col2im": {
        "": f(lambda x: F.fold(F.unfold(x, 3, padding=1).softmax(1), (8, 9), 3, padding=1)),
        "uneven": f(
            lambda x: F.fold(
                F.unfold(x, (3, 2), stride=(2, 3), dilation=2), (8, 9), (3, 2), 2, 0, (2, 3)
            )
        ),
    },
    "permute": {"": f(lambda x: x.permute(0, 3, 1, 2))},
    "transpose": {"": f(lambda x: x.transpose(1, 3))},
    "swapdims": {"": f(lambda x: x.swapdims(1, -1))},
    "mT": {"": f(lambda x: x.mT)},
    "movedim": {
        "": f(lambda x: x.movedim(1, -1)),
        "several": f(lambda x: x.movedim((3, 1), (1, 2))),
    },
    "moveaxis": {"": f(lambda x: x.moveaxis(-1, 1))},
    "swapaxes": {"": f(lambda x: x.swapaxes(1, 2))},
    "view": {"": f(lambda x: x.view(-1, 2, 27, 8))},
    "reshape": {"shuffled": f(shuffled), "crossing": f(lambda x: x.reshape(-1, 27, 4, 4))},
    "flatten": {"": nn.Flatten},
    "unflatten": {"": lambda: nn.Unflatten(1, (2, 3))},
    "unsqueeze": {"": f(lambda x: x.unsqueeze(2) * x.unsqueeze(1))},
    "squeeze": {"": f(lambda x: x.mean(1, keepdim=True).squeeze(1))},
    "expand": {"": f(lambda x: torch.cat([x.mean(1, True).expand(-1, 3, -1, -1), x], 1))},
    "expand_as": {"": f(lambda x: x.mean(2, True).expand_as(x).softmax(1))},
    "reshape_as": {"": f(lambda x: x.flatten(1).reshape_as(x) + x)},
    "tile": {"": f(lambda x: x.tile(2, 3, 1) + 1)},
    "repeat": {
        "": f(lambda x: x.mean(3, True).repeat(1, 2, 1, 3).square()),
        "batch": f(
            lambda x: torch.linspace(0, 1, 9).view(1, 1, 1, 9).repeat(x.shape[0], 1, 8, 1).sin() * x
        ),
    },
    "repeat_interleave": {
        "": f(lambda x: x.repeat_interleave(3, 1).square()),
        "images": f(
            lambda x: x.repeat_interleave(4, 0).view(-1, 4, 6, 8, 9) + torch.arange(9.0).square()
        ),
    },
    "cat": {
        "channels": f(lambda x: torch.cat([x, x.relu(), x[:, :2]], 1)),
        "rows": f(lambda x: torch.cat([x, x.flip(2)], 2)),
        "shuffled": f(lambda x: torch.cat([shuffled(x), x], 1)),
        "last": f(lambda x: torch.cat([x.permute(0, 2, 3, 1), x.permute(0, 2, 3, 1)], -1)),
    },
    "stack": {"": f(lambda x: torch.stack([x, x * 2], 2))},
    "slice": {"": f(lambda x: x[:, 1::2, :, -4:])},
    "select": {
        "": f(lambda x: x[:, :, 3] + x[:, :, -1]),
        "every place": lambda: Halves(-1, 0),
    },
    "split": {"": f(lambda x: torch.cat(x.split(4, 1)[::-1], 1))},
    "split_with_sizes": {"": f(lambda x: x.split([1, 5], 1)[1])},
    "chunk": {"": f(lambda x: torch.cat(x.chunk(2, 1)[::-1], 1))},
    "tensor_split": {"": f(lambda x: torch.tensor_split(x, 4, 3)[2])},
    "unbind": {
        "": f(lambda x: x.unbind(1)[4]),
        "axis of length 1": f(lambda x: x.mean(1, keepdim=True).unbind(1)[0]),
    },
    "roll": {"": f(lambda x: x.roll((1, -2), (2, 3)))},
    "flip": {"": f(lambda x: x.flip(1, 3))},
    "pad": {
        "zeros": f(lambda x: F.pad(x, (1, 2, 0, 3))),
        "value": f(lambda x: F.pad(x, (0, 0, 2, 0, 1, 1), value=0.5)),
        "cropped": f(lambda x: F.pad(x, (-1, 2, -3, 0))),
        "reflect": f(lambda x: F.pad(x, (1, 2, 0, 3), mode="reflect")),
        "replicate": f(lambda x: F.pad(x, (3, 0, 1, 2), mode="replicate")),
        "circular": f(lambda x: F.pad(x, (1, 2, 2, 0), mode="circular")),
    },
    "index": {"parameters": Constants, "channels": f(lambda x: x[:, torch.tensor([3, 0, -1])])},
    "index_select": {"": f(lambda x: x.index_select(2, torch.tensor([7, 0])))},
    "slice_scatter": {"": f(lambda x: x.slice_scatter(x[:, :2] * 2, 1, 3, 5))},
    "contiguous": {"": f(lambda x: x.permute(0, 2, 3, 1).contiguous())},
    "clone": {"": f(lambda x: x.clone())},
    "to": {"": f(lambda x: x.to(torch.float32))},
}
# What only other exports have, or other names of the same.
ELSEWHERE = {
    "numpy_T", "t", "_unsafe_view", "view_as", "constant_pad_nd", "_softmax", "_to_copy", "alias",
    "detach", "copy", "lift_fresh_copy", "type_as", "getitem", "drop_path",
}  # fmt: skip
ROWS = [
    pytest.param(make, id=f"{op} {case}".strip())
    for op, cases in CASES.items()
    for case, make in cases.items()
]
rows = pytest.mark.parametrize("make", ROWS)


def test_every_operation_has_a_row() -> None:
    assert CASES.keys() | ELSEWHERE == RULES.keys()
    assert not CASES.keys() & ELSEWHERE


def module_of(make: Make) -> nn.Module:
    torch.manual_seed(0)
    return make().eval()


@functools.cache
def followed(make: Make) -> tuple[nn.Module, Plan]:
    """A row's module and its plan."""
    module = module_of(make)
    return module, read(module, images(*SHAPE))


@rows
@BOTH
def test_an_operation_computes_what_torchs_does(make: Make, data_format: str) -> None:
    (module, plan), x = followed(make), images(*SHAPE)
    built = filled(module, plan, data_format)
    assert gap(module, built, x) <= LIMIT
    # Any number of images.
    more = images(5, *SHAPE[1:], seed=1)
    assert gap(module, built, more) <= LIMIT
    held = {put.key for put in built.counterpart.puts}
    assert held == {key for key, _ in module.named_parameters()} | {
        key for key, _ in module.named_buffers() if "running" in key
    }


@pytest.mark.parametrize(
    ("places", "wanted"),
    [((0, 1), {"Unstack": 1}), ((1, -2, 0), {"Unstack": 1}), ((1, 1), {"GetItem": 2})],
)
def test_places_that_are_all_selected_come_from_one_operation(
    places: tuple[int, ...], wanted: dict[str, int]
) -> None:
    """Its gradient puts them together; each alone would be an array of zeros to add."""
    module, x = Halves(*places).eval(), images(*SHAPE)
    built = filled(module, read(module, x))
    kinds = Counter(type(operation).__name__ for operation in built.model.operations)
    assert {kind: kinds[kind] for kind in ("Unstack", "GetItem") if kinds[kind]} == wanted
    assert gap(module, built, x) == 0


@rows
def test_gradients_are_torchs(make: Make) -> None:
    (module, plan), x = followed(make), images(*SHAPE)
    built = filled(module, plan)
    (returned,) = built.counterpart.outputs
    gradients = []

    def keras_output(t: torch.Tensor) -> Any:
        found = built.model(t, training=False)
        return found.permute(0, 3, 1, 2) if returned.is_map else found

    for compute, given in (
        (lambda t: module(t.clone()), x.clone()),
        (keras_output, x.permute(0, 2, 3, 1).clone()),
    ):
        given.requires_grad_(True)
        result = compute(given)
        if not result.requires_grad:
            return
        weights = torch.linspace(-1, 1, result.numel()).view(result.shape)
        (gradient,) = torch.autograd.grad((result * weights).sum(), given, allow_unused=True)
        gradients.append(torch.zeros_like(given) if gradient is None else gradient)
    wanted, found = gradients[0], gradients[1].permute(0, 3, 1, 2)
    assert (found - wanted).abs().max() <= 5e-5 * wanted.abs().max()


CHILD = """
import json, sys
import keras, numpy as np
folder = sys.argv[1]
gaps = {}
for name, wanted in np.load(f"{folder}/wanted.npz").items():
    model = keras.saving.load_model(f"{folder}/{name}.keras")
    images = np.load(f"{folder}/images.npy")
    found = np.asarray(model(images, training=False))
    gaps[name] = float(np.abs(found - wanted).max() / np.abs(wanted).max())
print(json.dumps(gaps))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of each row's model, and torch's results."""
    folder, wanted = tmp_path_factory.mktemp("files"), {}
    x = images(*SHAPE)
    np.save(folder / "images.npy", x.permute(0, 2, 3, 1).contiguous().numpy())
    for number, row in enumerate(ROWS):
        module, plan = followed(row.values[0])
        built = filled(module, plan)
        built.model.save(folder / f"{number}.keras")
        array, (returned,) = output(module, x), built.counterpart.outputs
        wanted[str(number)] = array.transpose(0, 2, 3, 1) if returned.is_map else array
    np.savez(folder / "wanted.npz", **wanted)
    return folder


@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=pytest.mark.slow)])
def test_files_open_elsewhere(backend: str, files: Path, run_python: RunPython) -> None:
    """By plain Keras in safe mode, without this package."""
    done = run_python(CHILD, files, on_path=False, KERAS_BACKEND=backend, CUDA_VISIBLE_DEVICES="")
    gaps = json.loads(done.stdout.splitlines()[-1])
    assert len(gaps) == len(ROWS)
    far = {str(ROWS[int(name)].id): gap for name, gap in gaps.items() if gap > LIMIT}
    assert far == {}


# What would be wrong in silence


class Shared(nn.Module):
    """One kernel in two ways."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 6 * 6 * 9).view(6, 6, 3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight, stride=2, padding=1).mean((2, 3)) + F.conv2d(
            x, self.weight
        ).mean((2, 3))


def test_weights_of_two_layers_are_refused() -> None:
    with pytest.raises(GraphError, match="weights that two kinds of layers share"):
        converted(Shared().eval(), images(*SHAPE))


def test_a_layer_that_is_called_twice_is_one() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 6, 3, padding=1)
    module, x = nn.Sequential(conv, nn.ReLU(), conv).eval(), images(*SHAPE)
    built = converted(module, x)
    assert gap(module, built, x) <= LIMIT
    assert len(built.model.weights) == 2
    # The state_dict has it under both names.
    back = porting.to_state_dict(porting.from_torch(nn.Sequential(module, nn.Flatten()), x))
    assert list(back) == ["0.0.weight", "0.0.bias", "0.2.weight", "0.2.bias"]
    assert torch.equal(back["0.2.weight"], conv.weight)


def seen_through_a_view(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    flat = y.flatten(1)  # shares its numbers with what is changed below
    y.relu_()
    return flat.unflatten(1, (6, 8, 9)) + y


def test_shared_numbers() -> None:
    module, x = Function(seen_through_a_view).eval(), images(*SHAPE)
    assert gap(module, converted(module, x), x) <= LIMIT


def test_ones_of_a_parameters_shape() -> None:
    class Ones(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.linspace(-1, 1, 6).view(6, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.ones_like(self.weight).cumsum(0) * self.weight

    module, x = Ones().eval(), images(*SHAPE)
    assert gap(module, converted(module, x), x) <= LIMIT


def test_whole_numbers_are_not_taken_for_others() -> None:
    module = Function(lambda x: x.to(torch.int32).to(torch.float32))
    with pytest.raises(GraphError, match="to of int32 numbers in the network itself"):
        read(module, images(*SHAPE))


def test_a_parameter_may_have_any_name() -> None:
    class Zero(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.zero = nn.Parameter(torch.linspace(-1, 1, 6).view(6, 1, 1))
            self.image = nn.Parameter(torch.linspace(1, 2, 9))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.zero + self.image

    module, x = Zero().eval(), images(*SHAPE)
    assert gap(module, converted(module, x), x) <= LIMIT


def test_a_module_keeps_its_modes() -> None:
    module = nn.Sequential(nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.Dropout(0.5)).train()
    module[1].eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    porting.from_torch(nn.Sequential(module, nn.Flatten()), images(2, 6, 8, 9))
    assert [m.training for m in module.modules()] == [True, True, False, True]
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), key


# Names, and what has no counterpart


def test_layers_are_called_after_modules() -> None:
    block = nn.Sequential()
    block.add_module("conv", nn.Conv2d(6, 6, 3, 2, 1))
    block.add_module("act", nn.ReLU())
    net = nn.Sequential(block, nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Linear(6 * 2 * 3, 3))
    built = converted(net, images(*SHAPE))
    names = [operation.name for operation in built.model.operations]
    assert names == ["image", "0_conv_pad", "0_conv", "0_act", "1_pad", "1", "3_reshape", "3"]
    pairs = {pair.module: pair.layer for pair in built.counterpart.pairs}
    assert pairs == {
        "0.conv": "0_conv",
        "0.act": "0_act",
        "0": "0_act",
        "1": "1",
        "2": "1",
        "3": "3",
    }
    assert maker_of(built.model.output)[0].name == "3"


def twice(x: torch.Tensor) -> torch.Tensor:
    return torch.matmul(x[0, 0], x[0, 0, 0])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: nn.MaxPool2d(3, dilation=2), "a max pool with dilation has no counterpart"),
        (lambda: nn.LayerNorm((8, 9)), "normalises over several axes"),
        (lambda: nn.Softplus(2), "a softplus with a beta"),
        (f(lambda x: torch.add(x, x, alpha=2)), "scales its second operand"),
        (f(lambda x: torch.div(x, 2, rounding_mode="floor")), "a division that rounds"),
        (f(lambda x: F.pad(x, (-1, 1, 1, 1), mode="circular")), "padding that cuts off"),
        (f(lambda x: torch.linalg.vector_norm(x, 1, 1)), "a norm of order 1"),
        (f(lambda x: torch.einsum("nchw -> nc", x)), "the equation 'nchw->nc' is of a kind"),
        (f(lambda x: x[:, torch.tensor([1]), torch.tensor([2])]), "indices other than constant"),
        (f(lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True)), "causal attention"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_has_no_counterpart_is_said(make: Make, text: str) -> None:
    module = module_of(make)
    with pytest.raises(GraphError, match=text) as caught:
        converted(module, images(*SHAPE))
    assert "in the network itself" in str(caught.value) or "in module" in str(caught.value)


def test_unknown_operations_are_listed_with_their_lines() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cummax(x, 1)[0] + torch.fft.fft(x).real

    module = Net()
    with pytest.raises(GraphError) as caught:
        read(module, images(*SHAPE))
    text = str(caught.value)
    assert "Net has operations without a counterpart here:" in text
    for op in ("cummax", "fft_fft"):
        assert f"  {op} in the network itself (test_ops.py:" in text
