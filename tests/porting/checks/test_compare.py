"""Measures of difference, and what is said of the first layer that diverges."""

import numpy as np
import pytest

from porting.checks.compare import Compared, agreement, compare, difference, first_divergence, worst
from porting.tolerances import TOLERANCES


def test_difference_of_known_arrays() -> None:
    gap = difference(np.array([3.0, -4.0]), np.array([3.0, -3.0]))
    assert gap.max_abs == 1
    assert gap.mean_abs == 0.5
    assert gap.relative == 0.25
    assert gap.cosine == pytest.approx(21 / (5 * 18**0.5), rel=1e-12)


def test_equal_arrays_are_zero_apart() -> None:
    gap = difference(np.ones(3), np.ones(3))
    assert (gap.max_abs, gap.relative) == (0, 0)
    assert gap.cosine == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_never_passes(value: float) -> None:
    compared = compare("x", "Conv", np.ones(4), np.array([1, 1, 1, value]), "layer")
    assert not compared.passed
    assert compared.difference is not None
    assert compared.difference.max_abs == np.inf


def test_anything_differs_from_a_zero_reference() -> None:
    assert difference(np.zeros(2), np.array([0, 1e-30])).relative == np.inf
    assert difference(np.zeros(2), np.zeros(2)).relative == 0


def test_other_shapes_and_missing_outputs_fail_with_a_reason() -> None:
    reshaped = compare("pool", "MaxPool", np.ones((1, 3)), np.ones((1, 4)), "layer")
    assert not reshaped.passed
    assert reshaped.detail == "shape (1, 4) where the reference has (1, 3)"
    assert compare("pool", "MaxPool", np.ones(3), None, "layer").detail == (
        "missing in the candidate"
    )


def _layers(*relative: float) -> list[Compared]:
    kinds = ("Input", "Conv", "BatchNorm", "MaxPool", "Dense")
    reference = np.ones(2)
    return [
        compare(f"layer{i}", kinds[i], reference, reference + np.array([gap, 0]), "layer")
        for i, gap in enumerate(relative)
    ]


@pytest.mark.parametrize(
    ("gaps", "layer", "cause"),
    [
        ((1e-3, 1, 1, 1, 1), "layer0", "BGR"),
        ((0, 1e-3, 0, 0, 0), "layer1", "padding"),
        ((0, 1e-6, 1e-3, 1, 1), "layer2", "eps"),
        ((0, 0, 0, 1e-3, 1), "layer3", "ceil mode"),
        ((0, 0, 0, 0, 1e-3), "layer4", "H, W, C order"),
    ],
)
def test_the_first_divergence_is_named_with_its_usual_cause(
    gaps: tuple[float, ...], layer: str, cause: str
) -> None:
    found = first_divergence("noise", _layers(*gaps))
    assert found is not None
    assert found.layer == layer
    assert cause in found.cause


@pytest.mark.parametrize("gap", [np.ones(2), np.ones(3)])
def test_the_first_divergence_of_a_kind_without_a_known_cause(gap: np.ndarray) -> None:
    """As the operators of converted graphs."""
    found = first_divergence("noise", [compare("norm", "LayerNorm", np.zeros(2), gap, "layer")])
    assert found is not None
    assert (found.layer, found.kind) == ("norm", "LayerNorm")
    assert found.cause.endswith("the arguments and weights of this LayerNorm")


def test_no_divergence_within_the_tolerance() -> None:
    assert first_divergence("noise", _layers(0, 1e-6, 2e-6, 0, 1e-5)) is None


def test_worst_prefers_a_wrong_shape() -> None:
    layers = _layers(0, 1.0)
    shaped = compare("odd", "Conv", np.ones(2), np.ones(3), "layer")
    assert worst([*layers, shaped]) is shaped
    assert worst(layers) is layers[1]
    assert worst([]) is None


def test_agreement_excuses_only_ties_within_the_difference() -> None:
    reference = np.array([[2.0, 1.0, 0.0], [1.0, 1.0 - 1e-7, 0.0], [0.0, 2.0, 0.5]])
    candidate = np.array([[2.0, 1.0, 0.0], [1.0 - 2e-7, 1.0, 0.0], [0.0, 1.1, 1.2]])
    found = agreement(reference, candidate)
    assert found.images == 3
    assert found.ties == 1
    assert found.top1 == pytest.approx(2 / 3)
    assert found.top5 == 1


def test_logits_of_another_class_count_never_agree() -> None:
    assert agreement(np.ones((2, 5)), np.ones((2, 4))).top1 == 0


def test_every_tolerance_has_a_reason() -> None:
    assert all(row.reason and row.unit and row.limit >= 0 for row in TOLERANCES.values())
    # The least wrong of the negative controls, another eps, is at 4e-2.
    assert all(row.limit < 4e-3 for row in TOLERANCES.values())
