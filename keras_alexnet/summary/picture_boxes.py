"""What the boxes of a picture say: which rows share one, of what kind it is, its lines of text.

A convolution or dense layer shares its box with the batch norm and activation behind it.
"""

from collections.abc import Mapping, Sequence

from keras_alexnet.specs import schema
from keras_alexnet.summary.profile import Profile

# What goes by the row's class alone: the kind of a box, and what it says of the rows that join it.
KINDS: Mapping[type[schema.Row], str] = {
    schema.Conv: "convolution",
    schema.MaxPool: "pooling",
    schema.AvgPool: "pooling",
    schema.AdaptiveAvgPool: "pooling",
    schema.BatchNorm: "normalisation",
    schema.LRN: "normalisation",
    schema.ReLU: "activation",
    schema.Sigmoid: "activation",
    schema.Concat: "concatenation",
    schema.Flatten: "flatten",
    schema.Dropout: "dropout",
    schema.Dense: "dense",
}
_FOLLOWERS: Mapping[type[schema.Row], str] = {
    schema.BatchNorm: "bn",
    schema.ReLU: "relu",
    schema.Sigmoid: "sigmoid",
}


def groups(rows: Sequence[schema.Row]) -> list[tuple[schema.Row, ...]]:
    """Join batch norm and activations to the convolution or dense layer before them."""
    found: list[tuple[schema.Row, ...]] = []
    for row in rows:
        if (
            type(row) in _FOLLOWERS
            and found
            and isinstance(found[-1][0], schema.Conv | schema.Dense)
        ):
            found[-1] += (row,)
        else:
            found.append((row,))
    return found


def label(network: Profile, group: tuple[schema.Row, ...]) -> tuple[str, ...]:
    """Return the lines of a box: name, what it does, and output shape."""
    first, *others = group
    does = ", ".join([_does(network, first), *(_FOLLOWERS[type(row)] for row in others)])
    name = schema.keras_name(first.name)
    return name, does, shape_text(network.by_name[name].output)


def _does(network: Profile, row: schema.Row) -> str:
    """Return a row's parameters, in the manner of the papers."""
    match row:
        case schema.Conv(filters=filters, kernel=kernel, stride=stride, padding=padding):
            text = f"{filters} @ {_window(kernel, stride)}"
            text += " same" if padding == "same" else f" p{padding}" if padding else ""
            return text + (f", {row.groups} groups" if row.groups > 1 else "")
        case schema.MaxPool(size=size, stride=stride, padding=padding):
            text = f"max {_window(size, stride)}" + (f" p{padding}" if padding else "")
            return text + (" ceil" if row.ceil else "")
        case schema.AvgPool(size=size, stride=stride):
            return f"average {_window(size, stride)}"
        case schema.AdaptiveAvgPool(size=size):
            return "global average" if size == 1 else f"average to {size}x{size}"
        case schema.LRN(size=size):
            return f"lrn over {size} channels"
        case schema.Dropout(rate=rate):
            return f"dropout {network.spec.dropout_rate if rate is None else rate:g}"
        case schema.Dense(units=units):
            return f"dense {network.classes if units is None else units}"
        case schema.Flatten():
            return "to a vector"
        case schema.Concat():
            return "concatenate channels"
    return _FOLLOWERS[type(row)]


def shape_text(shape: tuple[int, ...]) -> str:
    """Return a shape as 64 x 55 x 55."""
    return " x ".join(map(str, shape))


def _window(size: int, stride: int) -> str:
    return f"{size}x{size}" + (f" / {stride}" if stride > 1 else "")
