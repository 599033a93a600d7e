"""Weight tables against torchvision's keys and shapes, and files recognised by them."""

import pytest
from helpers.models import EACH, meta_shapes

from keras_alexnet.specs import SPECS
from porting.weights.spec_tables import fit, identify, weight_map
from porting.weights.table import Put


@pytest.mark.parametrize("classes", [1000, 10, 1])
@pytest.mark.parametrize(
    ("name", "aux_heads"), [("alexnet", False), ("googlenet", False), ("googlenet", True)]
)
def test_tables_have_torchvisions_keys_and_shapes(name: str, aux_heads: bool, classes: int) -> None:
    shapes = meta_shapes(name, classes=classes, aux_heads=aux_heads)
    table = weight_map(SPECS[name], classes, aux_heads=aux_heads)
    assert [entry.key for entry in table] == list(shapes)
    for entry in table:
        assert shapes[entry.key] == (entry.shape if isinstance(entry, Put) else ())

    found = fit(SPECS[name], shapes)
    assert found.problems == 0
    assert (found.name, found.classes, found.aux_heads) == (name, classes, aux_heads)
    best, *others = identify(shapes)
    assert best == found
    assert all(other.problems > 10 for other in others)


@EACH
def test_variables_are_unique(name: str) -> None:
    table = weight_map(SPECS[name], 1000)
    variables = [entry.variable for entry in table if isinstance(entry, Put)]
    assert len(set(variables)) == len(variables)
    assert len({entry.key for entry in table}) == len(table)


def test_fit_lists_what_differs() -> None:
    shapes = meta_shapes("alexnet")
    shapes["features.3.weight"] = (192, 64, 3, 3)
    shapes["more"] = (1,)
    del shapes["features.6.bias"]
    found = fit(SPECS["alexnet"], shapes)
    assert found.missing == ("features.6.bias",)
    assert found.unexpected == ("more",)
    wanted = "features.3.weight: file (192, 64, 3, 3), wanted (192, 64, 5, 5)"
    assert found.wrong_shape == (wanted,)
    assert found.problems == 3


def test_fit_without_head_or_counters() -> None:
    shapes = meta_shapes("googlenet")
    counters = [key for key in shapes if key.endswith("num_batches_tracked")]
    for key in ("fc.weight", "fc.bias", *counters):
        del shapes[key]
    found = fit(SPECS["googlenet"], shapes)
    assert found.classes is None
    assert found.missing == ("fc.weight", "fc.bias")
    assert not found.unexpected
    assert found.title == "googlenet"


def test_identify_nothing() -> None:
    assert all(found.problems for found in identify({}))
    assert all(found.problems > 1 for found in identify({"weight": (3, 3)}))


def test_fit_of_odd_shapes() -> None:
    """Files may hold anything under the head's key."""
    assert fit(SPECS["alexnet"], {"classifier.6.weight": ()}).problems > 1
    found = fit(SPECS["alexnet"], meta_shapes("alexnet") | {"classifier.6.weight": (0, 4096)})
    assert found.problems
