"""The record of what corresponds to what: through JSON and back, and without any spec."""

import json

import keras
import numpy as np
import pytest
from helpers.sizes import ODD_SIZES

from keras_alexnet.specs import SPECS
from porting.errors import TransferError
from porting.weights.counterpart import Counterpart, LayerPair, Output
from porting.weights.layouts import Transform, rearranged
from porting.weights.recognition import variables_of
from porting.weights.spec_tables import counterpart
from porting.weights.table import Carried, Put
from porting.weights.transfer import fill

TABLE = (
    Put("first/kernel", "body.0.weight", Transform("depthwise_conv", (2,)), (4, 1, 3, 3)),
    Put("last/kernel", "body.1.weight", Transform("flat_dense", (4, 2, 2)), (3, 16)),
    Carried("body.2.num_batches_tracked"),
    Carried("aux.weight", counter=False),
)
OWN = Counterpart(
    TABLE,
    (
        LayerPair("first", "body.0", "Conv"),
        LayerPair("last", "body.1", "Dense", rearranged([-1, 3], [1, 0], [3, -1])),
    ),
    (Output("logits"),),
    None,
    ("head.weight",),
)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("whole", [True, False])
def test_json_and_back(name: str, whole: bool) -> None:
    spec, size = SPECS[name], ODD_SIZES.get(name)
    made = counterpart(spec, 7, aux_heads=whole, include_top=whole, size=size)
    assert Counterpart.from_json(json.loads(json.dumps(made.to_json()))) == made
    assert len(made.puts) + len(made.carried) == len(made.table)
    assert bool(made.ignored) == (not whole)
    assert [output.name for output in made.outputs[1:]] == [a.name for a in spec.aux if whole]


def test_a_graphs_record_is_json_too() -> None:
    assert Counterpart.from_json(json.loads(json.dumps(OWN.to_json()))) == OWN


def own_model() -> keras.Model:
    image = keras.Input((4, 4, 2))
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, name="first")(image)
    x = keras.layers.Dense(3, use_bias=False, name="last")(keras.layers.Flatten()(x))
    return keras.Model(image, x)


def test_a_model_of_no_spec_is_filled() -> None:
    rng = np.random.default_rng(0)
    arrays = {put.key: rng.normal(size=put.shape).astype("f") for put in OWN.puts}
    arrays |= {"head.weight": np.ones(3, "f"), "body.2.num_batches_tracked": np.array(5)}
    arrays["aux.weight"] = np.full((2, 2), np.nan, "f")  # nothing is computed with it
    model = own_model()
    report = fill(variables_of(model), OWN, arrays)
    assert report.loaded == ("body.0.weight", "body.1.weight")
    assert (report.carried, report.ignored) == (tuple(e.key for e in OWN.carried), ("head.weight",))
    first, last = model.get_weights()
    np.testing.assert_array_equal(first, TABLE[0].to_keras(arrays["body.0.weight"]))
    np.testing.assert_array_equal(last, TABLE[1].to_keras(arrays["body.1.weight"]))


def test_what_does_not_fit_is_listed_and_changes_nothing() -> None:
    model = own_model()
    before = model.get_weights()
    arrays = {"body.0.weight": np.ones((4, 1, 3, 2), "f"), "else": np.ones(1, "f")}
    with pytest.raises(TransferError, match="the weights do not fit the variables:") as caught:
        fill(variables_of(model), OWN, arrays)
    assert caught.value.problems == {
        "missing": ["body.1.weight"],
        "wrong shape": ["body.0.weight is (4, 1, 3, 2), wanted (4, 1, 3, 3)"],
        "unexpected": ["else"],
    }
    for found, wanted in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, wanted)
