"""What a functional Keras model costs, operation by operation, whatever it was made by.

Of an architecture of ours `summary.profile` says more, by arithmetic alone. `summary.costs` defines
what is counted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from keras_alexnet.core.keras_internals import graph_parts, run_node
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.layers import keras
from keras_alexnet.models.interface import is_channels_first
from keras_alexnet.summary.profile import View

Shape = tuple[int, ...]


@dataclass(frozen=True)
class OperationProfile:
    """One operation, for one image; shapes are Keras', without the image's axis.

    The receptive field is in pixels of the image, `"all"` where an output element sees all of it.
    It and the jump are None where positions in the image are not kept apart, as in tokens.
    """

    name: str
    kind: str  # class of the layer or of the operation of `keras.ops`
    input: str  # shapes of all that it reads
    output: str
    receptive_field: int | str | None
    jump: int | None
    parameters: int  # trainable numbers; 0 where an earlier operation has the same ones
    macs: int


def profile_model(model: Any, size: tuple[int, int] | None = None) -> tuple[OperationProfile, ...]:
    """Return the operations of a functional model in the order of computation.

    Args:
        model: It takes one image, or several inputs.
        size: Height and width of images in pixels, by default the model's.

    Raises:
        ConfigurationError: The model takes images of any size and none is named, or of another
            size; or it is no functional model of images.
    """
    parts = graph_parts()
    if parts is None:
        raise ConfigurationError(f"this Keras does not say what {model.name} is made of")
    inputs = getattr(model, "inputs", None) or ()
    if not any(len(each.shape) == 4 for each in inputs):
        raise ConfigurationError(f"{model.name} is no functional model of images")
    first = is_channels_first(model)
    values, views = {}, dict[int, View | None]()
    for each in inputs:
        is_image, shape = len(each.shape) == 4, tuple(each.shape[1:])
        shape = _image_shape(model.name, shape, size, first) if is_image else shape
        values[id(each)] = keras.Input(batch_shape=(1, *shape), dtype=each.dtype)
        views[id(each)] = View(1, 1) if is_image else _NOTHING
    start = 2 if first else 1

    def size_of(shape: Shape) -> Shape:
        return shape[start : start + 2]

    rows, seen = [], set[int]()
    for node in parts.nodes(model):
        run_node(node, node.operation, values)
        sources = node.arguments.keras_tensors
        reads, makes = (
            [tuple(values[id(tensor)].shape) for tensor in tensors]
            for tensors in (sources, node.outputs)
        )
        before = [views[id(tensor)] for tensor in sources]
        view = _view(node.operation, reads, makes[0], before, size_of)
        views |= dict.fromkeys(map(id, node.outputs), view)
        known = view if view is not None and view != _NOTHING else None
        weights = getattr(node.operation, "trainable_weights", ())
        own = [weight for weight in weights if id(weight) not in seen]
        seen |= set(map(id, own))
        rows.append(
            OperationProfile(
                node.operation.name,
                type(node.operation).__name__,
                _text(reads),
                _text(makes),
                None if known is None else known.field or "all",
                None if known is None else known.jump,
                sum(prod(weight.shape) for weight in own),
                _macs(node.operation, reads, makes[0]),
            )
        )
    return tuple(rows)


def _image_shape(
    name: str, known: tuple[int | None, ...], size: tuple[int, int] | None, first: bool
) -> tuple[int | None, ...]:
    channels, own = (known[0], known[1:]) if first else (known[-1], known[:-1])
    wanted_size = size or own
    if None in wanted_size:
        raise ConfigurationError(f"{name} takes images of any size: name one (input size)")
    if any(mine not in (None, wanted) for mine, wanted in zip(own, wanted_size, strict=True)):
        raise ConfigurationError(f"{name} takes images of {own[0]}x{own[1]} pixels alone")
    return (channels, *wanted_size) if first else (*wanted_size, channels)


def _text(shapes: Sequence[Shape]) -> str:
    inner = (shape[1:] if shape[:1] == (1,) else shape for shape in shapes)
    return ", ".join("x".join(map(str, shape)) or "1" for shape in inner)


def _einsum(operation: Any, reads: Sequence[Shape], output: Shape) -> int:
    """Return the product of the lengths of all axes, of products of two tensors."""
    terms = operation.subscripts.partition("->")[0].split(",")
    if len(terms) != 2 or len(reads) != 2:
        # One of them is a constant, whose axes that are summed are the other's.
        (read,) = reads[:1]
        text = next(term for term in terms if len(term) == len(read))
        lengths = dict(zip(text, read, strict=True))
        lengths |= dict(zip(operation.subscripts.partition("->")[2], output, strict=True))
        return prod(lengths.values())
    lengths = {}
    for term, shape in zip(terms, reads, strict=True):
        lengths |= dict(zip(term, shape, strict=True))
    return prod(lengths.values())


def _attention(operation: Any, reads: Sequence[Shape], output: Shape) -> int:
    (images, rows, heads, channels), (_, columns, *_), (*_, values) = reads[:3]
    return images * heads * rows * columns * (channels + values)


# Class of a layer or operation -> its multiply-accumulates, by the shapes that it reads and makes.
_MACS: Mapping[str, Callable[[Any, Sequence[Shape], Shape], int]] = {
    **dict.fromkeys(
        ("Conv1D", "Conv2D", "Dense"),
        lambda layer, _, output: prod(layer.kernel.shape[:-1]) * prod(output),
    ),
    **dict.fromkeys(
        ("DepthwiseConv1D", "DepthwiseConv2D"),
        lambda layer, _, output: prod(layer.kernel.shape[:-2]) * prod(output),
    ),
    **dict.fromkeys(
        ("Conv1DTranspose", "Conv2DTranspose"),
        lambda layer, reads, _: prod(layer.kernel.shape[:-1]) * prod(reads[0]),
    ),
    # Operations of `keras.ops` whose kernels are computed.
    "Conv": lambda _, reads, output: prod(reads[1][:-1]) * prod(output),
    "DepthwiseConv": lambda _, reads, output: prod(reads[1][:-2]) * prod(output),
    "Matmul": lambda _, reads, output: reads[0][-1] * prod(output),
    "Einsum": _einsum,
    "DotProductAttention": _attention,
}


def _macs(operation: Any, reads: Sequence[Shape], output: Shape) -> int:
    if isinstance(operation, keras.Model):
        return sum(row.macs for row in profile_model(operation))
    # Those that compute faster are kinds of the stock ones.
    kinds = (kind.__name__ for kind in type(operation).__mro__)
    count = next((_MACS[kind] for kind in kinds if kind in _MACS), None)
    return 0 if count is None else count(operation, reads, output)


# Operations whose result is no function of the image: where weights that an operation of
# `keras.ops` computes with come from.
_CONSTANT = {"ZerosLike", "OnesLike", "Embedding"}
# Operations that put zeros around a map.
_AROUND = {"ZeroPadding2D", "Pad"}
# Operations that keep each position of a map where it is.
_IN_PLACE = {
    *("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Relu", "Relu6", "Silu", "HardSilu"),
    *("Gelu", "Sigmoid", "HardSigmoid", "Tanh", "Softplus", "Mish", "Exp", "Sqrt", "Square"),
    *("BatchNormalization", "LayerNormalization", "Rescaling", "Normalization", "Cast", "Clip"),
    *("Dropout", "SpatialDropout2D", "Add", "Subtract", "Multiply", "Divide", "TrueDivide"),
    *("Maximum", "Minimum", "Negative", "Power", "Concatenate", "Identity", "Dense"),
    *("LocalResponseNormalization", "Absolute", "Reciprocal", "Rsqrt", "Log1p"),
    *("Sum", "Mean"),  # of channels, where the size of the map stays
}
_NOTHING, _EVERYTHING = View(0, None), View(None, None)


def _view(
    operation: Any,
    reads: Sequence[Shape],
    output: Shape,
    before: Sequence[View | None],
    size_of: Callable[[Shape], Shape],
) -> View | None:
    """Return what an element of an operation's output sees, None where positions are not kept.

    `size_of` tells the height and width of a map's shape.
    """
    kind = type(operation).__name__
    if kind in _CONSTANT or all(view == _NOTHING for view in before):
        return _NOTHING
    views = [view for view in before if view != _NOTHING]
    if _EVERYTHING in views or (kind == "Dense" and len(output) == 2):
        return _EVERYTHING
    if None in views:
        return None
    widest = max(filter(None, views), key=lambda view: view.field or 0)
    window = getattr(operation, "kernel_size", getattr(operation, "pool_size", None))
    if window is not None and "Transpose" not in kind:
        rates = getattr(operation, "dilation_rate", (1, 1))
        reach = max((n - 1) * rate + 1 for n, rate in zip(window, rates, strict=True))
        return widest.through(reach, max(operation.strides))
    if len(output) == 2:
        return None if kind in ("Flatten", "Reshape") else _EVERYTHING
    if len(output) != 4:
        return None
    sizes = {size_of(shape) for shape in reads if len(shape) == 4} - {(1, 1)}
    if kind in _AROUND or (kind in _IN_PLACE and sizes <= {size_of(output)}):
        return widest
    return _EVERYTHING if size_of(output) == (1, 1) else None
