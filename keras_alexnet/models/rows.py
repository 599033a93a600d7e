"""Rows of a spec as Keras layers, with torch's semantics.

They are Keras' own layers but for local response normalisation: a model without it loads with
`keras.saving.load_model` and no import of this package.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keras_alexnet.errors import ConfigurationError
from keras_alexnet.layers import LocalResponseNormalization, keras
from keras_alexnet.models.initialization import built_on, initializers
from keras_alexnet.specs import schema

layers = keras.layers


@dataclass(frozen=True)
class Settings:
    """What every layer of one model shares."""

    data_format: str  # "channels_last" or "channels_first", already resolved
    dtype: Any  # Keras dtype policy of the layers, or None for the global one
    classes: int
    dropout_rate: float  # of the dropout rows without a rate of their own
    init: schema.Init

    @property
    def channel_axis(self) -> int:
        """Axis of the channels in a batch of feature maps."""
        return -1 if self.data_format == "channels_last" else 1

    def of(self, name: str) -> dict[str, Any]:
        """Return the arguments that every layer takes, for the row of this name."""
        return {"name": schema.keras_name(name), "dtype": self.dtype}

    def of_maps(self, name: str) -> dict[str, Any]:
        """Return those that layers of feature maps take."""
        return {**self.of(name), "data_format": self.data_format}

    def spatial(self, x: Any) -> tuple[int | None, int | None]:
        """Return height and width of a batch of feature maps, None where they vary."""
        shape = x.shape[1:3] if self.data_format == "channels_last" else x.shape[2:4]
        return shape[0], shape[1]


def apply_rows(
    rows: tuple[schema.Row, ...], x: Any, settings: Settings, outputs: dict[str, Any]
) -> Any:
    """Run `x` through rows, entering every row's output into `outputs` under its name."""
    for row in rows:
        if isinstance(row, schema.Concat):
            branches = [apply_rows(branch, x, settings, outputs) for branch in row.branches]
            x = layers.Concatenate(axis=settings.channel_axis, **settings.of(row.name))(branches)
        else:
            x = _BUILDERS[type(row)](row, x, settings)
        outputs[row.name] = x
    return x


def _conv(row: schema.Conv, x: Any, settings: Settings) -> Any:
    """A convolution that pads zeros symmetrically, as torch does, or by TensorFlow's "same".

    Keras' "same" is symmetric too at stride 1 and an odd kernel; with a stride it pads the bottom
    and the right first, so there torch's padding is a layer of its own.
    """
    if row.padding and not row.is_same:
        x = _zero_pad(x, row.padding, f"{row.name}.pad", settings)
    channels = x.shape[settings.channel_axis]
    if channels % row.groups:
        raise ConfigurationError(
            f"{row.name} has {row.groups} groups, which do not divide its {channels} channels"
        )
    convolution = layers.Conv2D(
        row.filters,
        row.kernel,
        strides=row.stride,
        padding="same" if row.is_same else "valid",
        groups=row.groups,
        use_bias=row.bias,
        **settings.of_maps(row.name),
        **initializers(row.init or settings.init, channels // row.groups * row.kernel**2),
    )
    return built_on(convolution, x)


def _batch_norm(row: schema.BatchNorm, x: Any, settings: Settings) -> Any:
    normalization = layers.BatchNormalization(
        axis=settings.channel_axis,
        epsilon=row.eps,
        momentum=1 - row.momentum,  # Keras weighs the old statistics, torch the new ones.
        **settings.of(row.name),
    )
    return normalization(x)


def _max_pool(row: schema.MaxPool, x: Any, settings: Settings) -> Any:
    """Max pooling of a non-negative map (every pool of ours follows a ReLU).

    There a zero is as neutral as the -inf that torch pads with. Ceil mode with a window one pixel
    wider than the stride, or as wide as it at stride 2, is the valid pooling of a map with one
    row and column of zeros more, at every size.
    """
    if row.ceil and (row.padding or row.stride != 2 or row.size not in (2, 3)):
        raise ValueError(f"ceil-mode pooling {row} is not covered by the padding rule")
    same = row.padding > 0 and row.stride == 1 and 2 * row.padding == row.size - 1
    if row.ceil:
        x = _zero_pad(x, ((0, 1), (0, 1)), f"{row.name}.pad", settings)
    elif row.padding and not same:
        x = _zero_pad(x, row.padding, f"{row.name}.pad", settings)
    padding = "same" if same else "valid"
    arguments = settings.of_maps(row.name)
    return layers.MaxPooling2D(row.size, row.stride, padding=padding, **arguments)(x)


def _adaptive_avg_pool(row: schema.AdaptiveAvgPool, x: Any, settings: Settings) -> Any:
    """Adaptive average pooling from the cheapest stock layer that is exact at this size.

    Keras' `AdaptiveAveragePooling2D` refuses maps one pixel wide on TensorFlow; such an axis is
    only repeated, and is repeated here before.
    """
    shared = settings.of_maps(row.name)
    if row.size == 1:
        return layers.GlobalAveragePooling2D(keepdims=True, **shared)(x)
    height, width = settings.spatial(x)
    if 1 in (height, width):
        factors = (row.size if height == 1 else 1, row.size if width == 1 else 1)
        x = layers.UpSampling2D(factors, **settings.of_maps(f"{row.name}_repeat"))(x)
        height, width = settings.spatial(x)
    if height is not None and width is not None and height % row.size == width % row.size == 0:
        window = (height // row.size, width // row.size)
        return layers.AveragePooling2D(window, **shared)(x)
    return layers.AdaptiveAveragePooling2D((row.size, row.size), **shared)(x)


def _dense(row: schema.Dense, x: Any, settings: Settings) -> Any:
    dense = layers.Dense(
        settings.classes if row.units is None else row.units,
        **settings.of(row.name),
        **initializers(row.init or settings.init, fan_in=x.shape[-1]),
    )
    return built_on(dense, x)


_BUILDERS: dict[type[schema.Row], Callable[[Any, Any, Settings], Any]] = {
    schema.Conv: _conv,
    schema.BatchNorm: _batch_norm,
    schema.LRN: lambda row, x, settings: LocalResponseNormalization(
        row.size, row.alpha, row.beta, row.k, **settings.of_maps(row.name)
    )(x),
    schema.ReLU: lambda row, x, settings: layers.ReLU(**settings.of(row.name))(x),
    schema.Sigmoid: lambda row, x, settings: layers.Activation("sigmoid", **settings.of(row.name))(
        x
    ),
    schema.MaxPool: _max_pool,
    schema.AvgPool: lambda row, x, settings: layers.AveragePooling2D(
        row.size, row.stride, **settings.of_maps(row.name)
    )(x),
    schema.AdaptiveAvgPool: _adaptive_avg_pool,
    # Keras moves the channels last before it flattens, so both formats share one dense kernel.
    schema.Flatten: lambda row, x, settings: layers.Flatten(**settings.of_maps(row.name))(x),
    schema.Dropout: lambda row, x, settings: layers.Dropout(
        settings.dropout_rate if row.rate is None else row.rate, **settings.of(row.name)
    )(x),
    schema.Dense: _dense,
}


def _zero_pad(x: Any, padding: Any, name: str, settings: Settings) -> Any:
    return layers.ZeroPadding2D(padding, **settings.of_maps(name))(x)
