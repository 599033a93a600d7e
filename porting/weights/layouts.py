"""Array layouts of torch and Keras, and the way between them. Pure NumPy.

Axes: O and I are output and input channels, H and W a kernel's or a map's height and width, N and D
attention heads and their size, M the outputs of each channel in a depthwise convolution.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

# Channels, height and width of a feature map.
CHW = tuple[int, int, int]

# Columns whose rows stay in a processor's cache while they are written.
_BLOCK = 64


def contiguous(view: np.ndarray) -> np.ndarray:
    """Return a transposed view as an array in C order.

    In blocks of the last axis it takes a quarter of NumPy's time for a large array.
    """
    if view.flags.c_contiguous or not any(view.strides):  # one number, repeated, has any order
        return view
    array = np.empty(view.shape, view.dtype)
    for start in range(0, view.shape[-1], _BLOCK):
        array[..., start : start + _BLOCK] = view[..., start : start + _BLOCK]
    return array


def conv_to_keras(kernel: np.ndarray) -> np.ndarray:
    """Convolution kernel, (O, I, H, W) -> (H, W, I, O)."""
    return kernel.transpose(2, 3, 1, 0)


def conv_to_torch(kernel: np.ndarray) -> np.ndarray:
    """Convolution kernel, (H, W, I, O) -> (O, I, H, W)."""
    return kernel.transpose(3, 2, 0, 1)


def dense_to_keras(kernel: np.ndarray) -> np.ndarray:
    """Dense kernel, (O, I) -> (I, O)."""
    return kernel.transpose(1, 0)


def dense_to_torch(kernel: np.ndarray) -> np.ndarray:
    """Dense kernel, (I, O) -> (O, I)."""
    return kernel.transpose(1, 0)


def flat_dense_to_keras(kernel: np.ndarray, chw: CHW) -> np.ndarray:
    """Kernel of the dense layer after a flatten of a feature map, (O, C*H*W) -> (H*W*C, O)."""
    c, h, w = chw
    view = kernel.reshape(-1, c, h, w).transpose(2, 3, 1, 0)
    return contiguous(view).reshape(h * w * c, -1)


def flat_dense_to_torch(kernel: np.ndarray, chw: CHW) -> np.ndarray:
    """Kernel of the dense layer after a flatten of a feature map, (H*W*C, O) -> (O, C*H*W)."""
    c, h, w = chw
    return kernel.reshape(h, w, c, -1).transpose(3, 2, 0, 1).reshape(-1, c * h * w)


def nchw_to_nhwc(batch: np.ndarray) -> np.ndarray:
    """Batch of feature maps, (N, C, H, W) -> (N, H, W, C)."""
    return batch.transpose(0, 2, 3, 1)


def nhwc_to_nchw(batch: np.ndarray) -> np.ndarray:
    """Batch of feature maps, (N, H, W, C) -> (N, C, H, W)."""
    return batch.transpose(0, 3, 1, 2)


def depthwise_to_keras(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Depthwise convolution kernel, (I * M, 1, H, W) -> (H, W, I, M).

    In torch's layout output channel i * M + m reads input channel i.
    """
    _, _, h, w = kernel.shape
    return kernel.reshape(channels, -1, h, w).transpose(2, 3, 0, 1)


def depthwise_to_torch(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Depthwise convolution kernel, (H, W, I, M) -> (I * M, 1, H, W)."""
    h, w, _, _ = kernel.shape
    return kernel.transpose(2, 3, 0, 1).reshape(-1, 1, h, w)


def flipped_depthwise_to_keras(kernel: np.ndarray) -> np.ndarray:
    """Transposed depthwise convolution's kernel, (I, M, H, W), as a plain one, (H, W, I, M)."""
    return kernel[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)


def flipped_depthwise_to_torch(kernel: np.ndarray) -> np.ndarray:
    """Plain depthwise convolution's kernel, (H, W, I, M), as a transposed one, (I, M, H, W)."""
    return kernel.transpose(2, 3, 0, 1)[:, :, ::-1, ::-1]


def heads_to_keras(kernel: np.ndarray, heads: int) -> np.ndarray:
    """Projection onto attention heads, (N * D, I) -> (I, N, D)."""
    return kernel.reshape(heads, -1, kernel.shape[1]).transpose(2, 0, 1)


def heads_to_torch(kernel: np.ndarray, heads: int) -> np.ndarray:
    """Projection onto attention heads, (I, N, D) -> (N * D, I)."""
    return kernel.transpose(1, 2, 0).reshape(-1, kernel.shape[0])


def from_heads_to_keras(kernel: np.ndarray, heads: int) -> np.ndarray:
    """Projection of attention heads, (O, N * D) -> (N, D, O)."""
    return kernel.reshape(kernel.shape[0], heads, -1).transpose(1, 2, 0)


def from_heads_to_torch(kernel: np.ndarray, heads: int) -> np.ndarray:
    """Projection of attention heads, (N, D, O) -> (O, N * D)."""
    return kernel.transpose(2, 0, 1).reshape(kernel.shape[2], -1)


def rearranged_to_keras(array: np.ndarray, *parameters: int) -> np.ndarray:
    """Array whose axes are taken apart, put into another order and merged; see `rearranged`."""
    parts, order, keras_shape, _ = _unpacked(parameters)
    return array.reshape(parts).transpose(order).reshape(keras_shape)


def rearranged_to_torch(array: np.ndarray, *parameters: int) -> np.ndarray:
    """Array of Keras back in torch's order; see `rearranged`."""
    parts, order, _, torch_shape = _unpacked(parameters)
    back = [order.index(i) for i in range(len(order))]
    return array.reshape([parts[i] for i in order]).transpose(back).reshape(torch_shape)


def _unpacked(numbers: Sequence[int]) -> list[list[int]]:
    """Return the lists that `rearranged` put behind each other, each behind its length."""
    lists, rest = [], list(numbers)
    while rest:
        count = rest.pop(0)
        lists.append(rest[:count])
        rest = rest[count:]
    return lists


class _Way(NamedTuple):
    """A change of layout and its inverse; both take an array and as many further `parameters`.

    None stands for any number of them. `in_blocks` says whether slices of the first axis in torch
    are slices of the last one in Keras.
    """

    to_keras: Callable[..., np.ndarray]
    to_torch: Callable[..., np.ndarray]
    parameters: int | None = 0
    in_blocks: bool = True


_WAYS: Mapping[str, _Way] = {
    "vector": _Way(lambda array: array, lambda array: array),
    "conv": _Way(conv_to_keras, conv_to_torch),
    # A transposed convolution has (I, O, H, W) in torch and (H, W, O, I) in Keras.
    "transposed_conv": _Way(conv_to_keras, conv_to_torch),
    "depthwise_conv": _Way(depthwise_to_keras, depthwise_to_torch, parameters=1, in_blocks=False),
    "flipped_depthwise_conv": _Way(
        flipped_depthwise_to_keras, flipped_depthwise_to_torch, in_blocks=False
    ),
    "dense": _Way(dense_to_keras, dense_to_torch),
    "flat_dense": _Way(
        lambda array, *chw: flat_dense_to_keras(array, chw),
        lambda array, *chw: flat_dense_to_torch(array, chw),
        parameters=3,
    ),
    "heads": _Way(heads_to_keras, heads_to_torch, parameters=1, in_blocks=False),
    "from_heads": _Way(from_heads_to_keras, from_heads_to_torch, parameters=1),
    "rearranged": _Way(rearranged_to_keras, rearranged_to_torch, parameters=None, in_blocks=False),
}
TRANSFORMS = tuple(_WAYS)


@dataclass(frozen=True)
class Transform:
    """A change of layout by name, with what it must know beside the array.

    Attributes:
        name: One of `TRANSFORMS`.
        parameters: `flat_dense` takes the (C, H, W) of the flattened map, `depthwise_conv` the
            input channels, `heads` and `from_heads` the number of heads, `rearranged` what the
            function of this name says; the others take nothing.

    Raises:
        ValueError: There is no such transform, or it takes other parameters.
    """

    name: str
    parameters: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in _WAYS:
            raise ValueError(f"unknown transform {self.name!r}; known: {', '.join(_WAYS)}")
        wanted = _WAYS[self.name].parameters
        if wanted is not None and len(self.parameters) != wanted:
            raise ValueError(
                f"the transform {self.name!r} takes {wanted} parameters, got {self.parameters}"
            )

    @property
    def in_blocks(self) -> bool:
        """Whether slices of the first axis in torch are slices of the last one in Keras."""
        return _WAYS[self.name].in_blocks

    def to_keras(self, array: np.ndarray) -> np.ndarray:
        """Change an array of a state_dict to the Keras variable's layout."""
        return _WAYS[self.name].to_keras(array, *self.parameters)

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        """Change a Keras variable's value to the state_dict's layout."""
        return _WAYS[self.name].to_torch(array, *self.parameters)


def rearranged(
    parts: Sequence[int],
    order: Sequence[int],
    keras_shape: Sequence[int],
    torch_shape: Sequence[int] | None = None,
) -> Transform:
    """Return the transform of arrays whose axes consist of parts that Keras has in another order.

    Args:
        parts: Lengths of the parts in torch's order; one may be -1.
        order: Which of them comes first, second, ... in Keras.
        keras_shape: The shape in Keras; one length may be -1.
        torch_shape: The shape in torch, by default that of the parts.
    """
    lists = (parts, order, keras_shape, parts if torch_shape is None else torch_shape)
    return Transform("rearranged", tuple(n for each in lists for n in (len(each), *each)))


def as_model_input(inputs: Iterable[np.ndarray], data_format: str, dtype: Any) -> Any:
    """Return what torch reads as a Keras model takes it: a list, or the only input itself.

    Images, (N, C, H, W), come into the data format; everything is of the NumPy `dtype`.
    """
    last = data_format == "channels_last"
    placed = (nchw_to_nhwc(x) if last and x.ndim == 4 else x for x in inputs)
    given = [np.ascontiguousarray(x, dtype) for x in placed]
    return given if len(given) > 1 else given[0]
