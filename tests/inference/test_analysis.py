"""Calibration, confusions and mistakes against sums by hand."""

import numpy as np
import pytest

from keras_alexnet.inference.analysis import (
    ConfusedPair,
    calibration,
    confident_mistakes,
    confused_pairs,
    worst_and_best,
)


def test_calibration_by_hand() -> None:
    """Two bins: three images of 0.6, 0.8, 1.0 with two right, and one of 0.4, which is right."""
    found = calibration(np.array([0.6, 0.4, 0.8, 1.0]), np.array([True, True, False, True]), 2)
    low, high = found.bins
    assert (low.low, low.high, high.low, high.high) == (0.0, 0.5, 0.5, 1.0)
    assert (low.images, low.confidence, low.accuracy) == (1, 0.4, 1.0)
    assert (high.images, high.confidence, high.accuracy) == (3, pytest.approx(0.8), 2 / 3)
    assert found.ece == pytest.approx((1 * 0.6 + 3 * (0.8 - 2 / 3)) / 4)


def test_calibration_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    confidences = rng.uniform(0.1, 1, 1000)
    right = rng.uniform(size=1000) < confidences**2
    found = calibration(confidences, right)
    assert len(found.bins) == 15
    assert sum(each.images for each in found.bins) == 1000
    error = 0.0
    for each in found.bins:
        inside = (confidences > each.low) & (confidences <= each.high)
        assert each.images == inside.sum()
        if each.images:
            assert each.confidence == pytest.approx(confidences[inside].mean())
            assert each.accuracy == pytest.approx(right[inside].mean())
            error += inside.mean() * abs(confidences[inside].mean() - right[inside].mean())
        else:
            assert each.confidence is each.accuracy is None
    assert 0.1 < found.ece == pytest.approx(error)


def test_who_is_as_sure_as_right_has_no_error() -> None:
    found = calibration(np.full(4, 0.75), np.array([True, True, True, False]))
    assert found.ece == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("confidence", "place"), [(0.0, 0), (0.2, 0), (0.2001, 1), (1 + 1e-9, 4)])
def test_ends_of_bins(confidence: float, place: int) -> None:
    """The upper end belongs to a bin; what rounding lifts above 1 is in the last one."""
    found = calibration(np.array([confidence]), np.array([True]), 5)
    assert [each.images for each in found.bins].index(1) == place


CONFUSION = np.array([[5, 0, 3, 0], [2, 1, 0, 0], [3, 0, 9, 1], [0, 0, 0, 0]])


def test_confused_pairs() -> None:
    """By images, and of as many first the larger share of the class."""
    assert confused_pairs(CONFUSION, 3) == (
        ConfusedPair(0, 2, 3, 3 / 8),
        ConfusedPair(2, 0, 3, 3 / 13),
        ConfusedPair(1, 0, 2, 2 / 3),
    )
    assert confused_pairs(CONFUSION, 99)[-1] == ConfusedPair(2, 3, 1, 1 / 13)
    assert confused_pairs(np.diag([3, 0]), 5) == ()


@pytest.mark.parametrize(
    ("count", "worst", "best"),
    [(1, (3,), (4,)), (2, (3, 0), (4, 1)), (9, (3, 0), (4, 1)), (0, (), ())],
)
def test_worst_and_best(count: int, worst: tuple[int, ...], best: tuple[int, ...]) -> None:
    """Of four classes with images none is both, however many are asked for."""
    assert worst_and_best((0.5, 0.75, None, 0.25, 1.0), count) == (worst, best)


def test_classes_of_the_same_accuracy_keep_their_order() -> None:
    assert worst_and_best((1.0, 1.0, 0.5, 1.0, 1.0), 2) == ((2, 0), (3, 4))


def test_worst_and_best_of_one_class() -> None:
    assert worst_and_best((0.5, None), 3) == ((), ())


def test_confident_mistakes() -> None:
    confidences = np.array([0.9, 0.5, 0.7, 0.99, 0.7])
    right = np.array([False, False, False, True, False])
    assert confident_mistakes(confidences, right, 3).tolist() == [0, 2, 4]
    assert confident_mistakes(confidences, right, 9).tolist() == [0, 2, 4, 1]
    assert confident_mistakes(confidences, np.ones(5, bool), 3).tolist() == []
