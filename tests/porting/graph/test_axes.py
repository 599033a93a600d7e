"""Axes as factors, against NumPy: whatever is done to a value, its numbers stay in place."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from porting.graph.axes import Factor, Mover, Value, axes_of, factors, length
from porting.graph.plan import ONE, Dim

MOVES: list[str] = []
MOVER = Mover(
    lambda x, shape: x.reshape([dim.static for dim in shape]),
    lambda x, order: x.transpose(order),
)
COUNTING = Mover(
    lambda x, shape: (MOVES.append("reshape"), MOVER.reshape(x, shape))[1],
    lambda x, order: (MOVES.append("transpose"), MOVER.transpose(x, order))[1],
)


@pytest.fixture(autouse=True)
def _no_moves() -> None:
    MOVES.clear()


def held(array: np.ndarray, order: tuple[int, ...] | None = None) -> Value:
    """An array as a value that is held in another order of its axes."""
    axes = axes_of(array.shape)
    order = tuple(range(array.ndim)) if order is None else order
    return Value(array.transpose(order), axes, tuple(axes[i] for i in order))


def numbers(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape, dtype=int)).reshape(shape)


def plain(value: Value) -> np.ndarray:
    return np.asarray(MOVER.plain(value).tensor)


@st.composite
def values(draw: st.DrawFn, rank: int = 5) -> tuple[np.ndarray, Value]:
    """An array, and a value that stands for it in some order."""
    shape = draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=rank))
    array = numbers(*shape)
    return array, held(array, tuple(draw(st.permutations(range(len(shape))))))


def _divisors(n: int) -> list[int]:
    return [k for k in range(1, n + 1) if n % k == 0]


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[str, Any]]:
    return draw(
        st.lists(
            st.tuples(
                st.sampled_from(["permute", "view", "isolate", "last", "settle"]),
                st.integers(0, 2**16),
            ),
            max_size=8,
        )
    )


@given(values(), steps())
def test_any_walk_keeps_the_numbers_in_place(
    pair: tuple[np.ndarray, Value], walk: list[tuple[str, int]]
) -> None:
    array, value = pair
    for step, seed in walk:
        rng = np.random.default_rng(seed)
        if step == "permute":
            order = rng.permutation(array.ndim)
            array, value = array.transpose(order), value.permuted(order.tolist())
        elif step == "view":
            shape, rest = [], array.size
            while rest > 1 and len(shape) < 5:
                shape.append(int(rng.choice(_divisors(rest))))
                rest //= shape[-1]
            shape.append(rest)
            array = array.reshape(shape)
            value = MOVER.view(value, tuple(map(Dim, shape)))
        elif step == "settle":
            value = MOVER.settled(value)
        else:
            i = int(rng.integers(array.ndim))
            if step == "isolate":
                value, at = MOVER.isolate(value, i)
                assert value.tensor.shape[at] == array.shape[i]
                assert value.order[at] == value.axes[i]
            elif value.axes[i]:
                value = MOVER.last(value, i)
                assert set(value.order[-1]) == set(value.axes[i])
                assert all(value.order)
        assert value.shape == tuple(map(Dim, array.shape))
        assert value.tensor.shape == tuple(length(axis).static for axis in value.order)
        np.testing.assert_array_equal(plain(value), array)


@given(values(), values(), st.data())
def test_broadcasting_is_numpys(
    first: tuple[np.ndarray, Value], second: tuple[np.ndarray, Value], data: st.DataObject
) -> None:
    a, x = first
    rank = min(a.ndim, second[0].ndim)
    # The second one has some of the first one's lengths, and 1 elsewhere.
    shape = [n if data.draw(st.booleans()) else 1 for n in a.shape[a.ndim - rank :]]
    b = numbers(*shape) * 1000
    y = held(b, tuple(data.draw(st.permutations(range(rank)))))
    if data.draw(st.booleans()):
        # Another bracketing of the same numbers must be found out.
        y = MOVER.view(MOVER.view(y, (Dim(b.size),)), tuple(map(Dim, shape)))
    for left, right, wanted in ((x, y, a + b), (y, x, b + a)):
        t, u, axes, order = MOVER.broadcast(left, right)
        np.testing.assert_array_equal(plain(Value(t + u, axes, order)), wanted)


def test_a_value_and_its_transpose_are_told_apart() -> None:
    """Both have the same factors; to take them for each other was a silent error."""
    a = numbers(4, 4)
    x = held(a)
    t, u, axes, order = MOVER.broadcast(x, x.permuted([1, 0]))
    np.testing.assert_array_equal(plain(Value(t + 10 * u, axes, order)), a + 10 * a.T)
    column, row = MOVER.view(held(a[0]), (Dim(4), ONE)), held(a[0])
    t, u, axes, order = MOVER.broadcast(column, row)
    wanted = a[0][:, None] + 10 * a[0]
    np.testing.assert_array_equal(plain(Value(t + 10 * u, axes, order)), wanted)


def test_no_factor_stands_twice() -> None:
    factor = Factor(Dim(3))
    with pytest.raises(AssertionError, match="a factor stands twice"):
        Value(numbers(3, 3), ((factor,), (factor,)), ((factor,), (factor,)))
    other = Factor(Dim(3))
    with pytest.raises(AssertionError, match="what is held is not what torch has"):
        Value(numbers(3), ((factor,),), ((other,),))


def test_what_networks_do_moves_nothing() -> None:
    """Flatten, heads of attention and windows are bracketed, not moved."""
    x = held(numbers(2, 6, 4, 4), (0, 2, 3, 1))  # (N, C, H, W) held as (N, H, W, C)
    tokens = COUNTING.view(x, (Dim(2), Dim(6), Dim(16))).permuted([0, 2, 1])
    heads = COUNTING.view(tokens, (Dim(2), Dim(16), Dim(2), Dim(3))).permuted([0, 2, 1, 3])
    back = COUNTING.view(heads.permuted([0, 2, 1, 3]), (Dim(2), Dim(16), Dim(6)))
    image = COUNTING.view(back.permuted([0, 2, 1]), (Dim(2), Dim(6), Dim(4), Dim(4)))
    assert MOVES == []
    np.testing.assert_array_equal(plain(image), numbers(2, 6, 4, 4))


def test_a_move_is_one_transpose_where_one_suffices() -> None:
    x = held(numbers(2, 3, 4, 5), (0, 2, 3, 1))
    COUNTING.plain(x)
    assert MOVES == ["transpose"]


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [((6,), (4,)), ((4, 6), (3, 8)), ((2, 3), (3, 2))],
    ids=["another number", "no common factors", "crossing"],
)
def test_lengths_without_common_factors(shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """They are reshaped, and what is no view of the same numbers fails."""
    value = held(numbers(*shape), tuple(range(len(shape)))[::-1])
    if np.prod(shape) != np.prod(wanted):
        with pytest.raises(ValueError, match="reshape"):
            COUNTING.view(value, tuple(map(Dim, wanted)))
        return
    found = COUNTING.view(value, tuple(map(Dim, wanted)))
    np.testing.assert_array_equal(plain(found), numbers(*shape).reshape(wanted))
    assert MOVES == ["transpose", "reshape"]


def test_unknown_lengths_are_bracketed_too() -> None:
    """The batch is folded into windows and taken out again without knowing it."""
    batch = Dim(1, ("batch",))
    axes = axes_of((batch, Dim(8), Dim(6)))
    x = Value(np.zeros((5, 8, 6)), axes, axes)
    windows = MOVER.view(x, (Dim(4, ("batch",)), Dim(2), Dim(6)))
    assert windows.shape == (Dim(4, ("batch",)), Dim(2), Dim(6))
    assert MOVER.view(windows, (batch, Dim(48))).shape == (batch, Dim(48))
    assert windows.tensor is x.tensor


def test_matched_values_share_the_factors_of_pairs_alone() -> None:
    a, b = held(numbers(4, 6)), held(numbers(6, 4)).relabelled()
    b = MOVER.view(b, (Dim(2), Dim(3), Dim(4)))
    b = MOVER.view(b, (Dim(6), Dim(4)))
    first, second = MOVER.matched(a, b, [(1, 0)])
    assert first.axes[1] == second.axes[0]
    assert len(first.axes[1]) == 2
    assert not set(factors(first.axes)) & set(second.axes[1])
