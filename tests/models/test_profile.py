"""What a Keras model costs: against the specs' arithmetic, and against torchvision's figures."""

import keras
import pytest
from helpers.models import BOTH

from keras_alexnet import create_model
from keras_alexnet.errors import ConfigurationError
from keras_alexnet.models.profile import profile_model
from keras_alexnet.specs import SPECS
from keras_alexnet.summary.profile import profile


@BOTH
@pytest.mark.parametrize("name", SPECS)
def test_our_networks_cost_what_their_specs_say(name: str, data_format: str) -> None:
    rows = {row.name: row for row in profile_model(create_model(name, data_format=data_format))}
    known = profile(SPECS[name])
    assert sum(row.macs for row in rows.values()) == known.totals.macs
    assert sum(row.parameters for row in rows.values()) == known.totals.parameters
    for layer in known.rows:
        row = rows[layer.name]
        assert (row.macs, row.parameters) == (layer.cost.macs, layer.cost.parameters), layer.name
        if layer.kind in ("Conv", "BatchNorm", "ReLU", "MaxPool", "Concat"):
            field = layer.receptive_field or "all"
            assert (row.receptive_field, row.jump) == (field, layer.jump), layer.name


def test_images_of_any_size() -> None:
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="conv")(image)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(image, keras.layers.Dense(2, name="head")(x), name="small")
    with pytest.raises(ConfigurationError, match=r"small takes images of any size: name one"):
        profile_model(model)
    conv, pool, head = profile_model(model, (9, 20))
    assert (conv.input, conv.output, conv.macs) == ("9x20x3", "5x10x4", 5 * 10 * 4 * 27)
    assert (conv.receptive_field, conv.jump) == (3, 2)
    assert (pool.output, pool.receptive_field, pool.jump) == ("4", "all", None)
    assert (head.parameters, head.macs) == (10, 8)


def test_weights_that_several_operations_share_count_once() -> None:
    image = keras.Input((8, 8, 3))
    layer = keras.layers.Conv2D(3, 1, use_bias=False)
    model = keras.Model(image, layer(layer(image)))
    assert [(row.parameters, row.macs) for row in profile_model(model)] == [(9, 576), (0, 576)]


@BOTH
def test_several_inputs(data_format: str) -> None:
    """An image, one of another size, and numbers that see nothing of either."""
    layers, last = keras.layers, data_format == "channels_last"
    image = keras.Input((None, None, 3) if last else (3, None, None), name="image")
    close_up, table = keras.Input((6, 8, 3) if last else (3, 6, 8)), keras.Input((4,))
    scores = [
        layers.GlobalAveragePooling2D(data_format=data_format)(
            layers.Conv2D(2, 3, name=name, data_format=data_format)(x)
        )
        for name, x in (("wide", image), ("near", close_up))
    ]
    scores.append(layers.Dense(2, name="dense")(table))
    model = keras.Model([image, close_up, table], layers.Add(name="sum")(scores), name="several")
    with pytest.raises(ConfigurationError, match="takes images of 6x8 pixels alone"):
        profile_model(model, (9, 9))
    rows = {row.name: row for row in profile_model(model, (6, 8))}
    assert rows["wide"].output == rows["near"].output == ("4x6x2" if last else "2x4x6")
    assert rows["near"].receptive_field == 3
    assert (rows["dense"].macs, rows["dense"].receptive_field) == (8, None)
    assert rows["sum"].receptive_field == "all"


def test_another_size_or_model_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="takes images of 28x28 pixels alone"):
        profile_model(create_model("lenet5"), (64, 64))
    x = keras.Input((4,))
    with pytest.raises(ConfigurationError, match="no functional model of images"):
        profile_model(keras.Model(x, keras.layers.Dense(2)(x)))
