"""Axes as factors: how a tensor is held in another order than the one that torch computes in.

Torch's networks compute in (N, C, H, W); the Keras tensor that stands for a value may have its axes
in any order. Every axis of torch's is a tuple of factors, and so is every axis of the tensor's:
`view`, `permute`, `flatten` and `squeeze` only bracket the factors anew, and a reshape or a
transpose is computed where a consumer needs the tensor in another order. Between the convolutions
of a network that is nowhere, and a flatten becomes another order of the dense layer's rows.

Factors are compared by identity and mean something within one value only. None stands twice in a
value: everything here relies on it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Any

from porting.graph.plan import ONE, Dim, Shape, product


@dataclass(frozen=True, eq=False)
class Factor:
    """A part of an axis, never of length 1."""

    dim: Dim


# The factors of an axis from the slowest to the fastest; an axis of length 1 has none.
Axis = tuple[Factor, ...]
Axes = tuple[Axis, ...]
_Table = Mapping[Factor, Axis]


def axis_of(dim: Dim) -> Axis:
    """Return a new axis of some length."""
    return () if dim == ONE else (Factor(dim),)


def axes_of(shape: Sequence[int | Dim]) -> Axes:
    """Return new axes of a shape."""
    return tuple(axis_of(dim if isinstance(dim, Dim) else Dim(dim)) for dim in shape)


def length(axis: Axis) -> Dim:
    """Return the length of an axis."""
    return product([factor.dim for factor in axis])


def factors(axes: Axes) -> tuple[Factor, ...]:
    """Return all factors, in order."""
    return tuple(chain.from_iterable(axes))


def image_order(axes: Axes, data_format: str) -> Axes:
    """Return the order in which a feature map of axes (N, C, ...) is held."""
    batch, channels, *size = axes
    last = data_format == "channels_last"
    return (batch, *size, channels) if last else (batch, channels, *size)


@dataclass(frozen=True)
class Value:
    """What stands for a tensor of torch's.

    Attributes:
        tensor: A Keras tensor or a NumPy array.
        axes: Torch's axes.
        order: The tensor's axes, of the same factors. Axes of length 1 may stand anywhere.
        nonnegative: Whether no number in it is negative, so that zeros pad a max pool.
    """

    tensor: Any
    axes: Axes
    order: Axes
    nonnegative: bool = False

    def __post_init__(self) -> None:
        mine, held = factors(self.axes), factors(self.order)
        assert len(set(mine)) == len(mine), "a factor stands twice"
        assert len(set(held)) == len(held), "a factor is held twice"
        assert set(held) == set(mine), "what is held is not what torch has"

    @property
    def shape(self) -> Shape:
        """Torch's shape."""
        return tuple(map(length, self.axes))

    def with_tensor(self, tensor: Any, *, nonnegative: bool = False) -> "Value":
        """Return a value of the same axes."""
        return replace(self, tensor=tensor, nonnegative=nonnegative)

    def permuted(self, order: Sequence[int]) -> "Value":
        """Return it with torch's axes in another order."""
        return replace(self, axes=tuple(self.axes[i] for i in order))

    def relabelled(self) -> "Value":
        """Return it with factors of its own, which no other value has."""
        return self.substituted({factor: (Factor(factor.dim),) for factor in factors(self.axes)})

    def substituted(self, table: _Table) -> "Value":
        """Return it with factors replaced by others, or taken apart."""
        return replace(
            self,
            axes=tuple(_substituted(axis, table) for axis in self.axes),
            order=tuple(_substituted(axis, table) for axis in self.order),
        )


def _substituted(axis: Axis, table: _Table) -> Axis:
    parts = (_substituted(table[f], table) if f in table else (f,) for f in axis)
    return tuple(chain.from_iterable(parts))


def separated(order: Axes, chosen: Collection[Factor]) -> Axes:
    """Take axes apart where some of their factors are among the chosen ones and some are not."""
    parts: list[Axis] = []
    for axis in order:
        part: list[Factor] = []
        for factor in axis:
            if part and (part[-1] in chosen) != (factor in chosen):
                parts.append(tuple(part))
                part = []
            part.append(factor)
        parts.append(tuple(part))
    return tuple(parts)


def _gathered(order: Axes, axis: Axis) -> Axes:
    """Return an order in which the factors of an axis are one, where the last of them lies."""
    last = max(axis, key=factors(order).index)
    gathered: list[Axis] = []
    for part in separated(order, axis):
        if not set(part) & set(axis):
            gathered.append(part)
        elif last in part:
            gathered.append(axis)
    return tuple(gathered)


def _matched(parts: Sequence[Factor], shape: Shape) -> tuple[_Table, Axes] | None:
    """Bracket factors to a shape, some taken apart; None where lengths have no common factors."""
    rest, table, axes = list(reversed(parts)), dict[Factor, Axis](), list[Axis]()
    for dim in shape:
        axis, missing = list[Factor](), dim
        while missing != ONE:
            if not rest:
                return None
            factor = rest.pop()
            if (left := missing.over(factor.dim)) is not None:
                axis.append(factor)
                missing = left
            elif (left := factor.dim.over(missing)) is not None:
                table[factor] = head, tail = Factor(missing), Factor(left)
                axis.append(head)
                rest.append(tail)
                missing = ONE
            else:
                return None
        axes.append(tuple(axis))
    return None if rest else (table, tuple(axes))


def _refined(a: Axis, b: Axis) -> tuple[_Table, _Table] | None:
    """Return tables that give two axes of one length the same factors, those of `a`."""
    mine, others = list(reversed(a)), list(reversed(b))
    first, second = dict[Factor, Axis](), dict[Factor, Axis]()
    while mine and others:
        p, q = mine.pop(), others.pop()
        if p.dim == q.dim:
            second[q] = (p,)
        elif (left := p.dim.over(q.dim)) is not None:
            first[p] = head, tail = Factor(q.dim), Factor(left)
            mine.append(tail)
            second[q] = (head,)
        elif (left := q.dim.over(p.dim)) is not None:
            tail = Factor(left)
            second[q] = (p, tail)
            others.append(tail)
        else:
            return None
    return None if mine or others else (first, second)


@dataclass(frozen=True)
class Mover:
    """What changes the order in which a tensor is held, where it must.

    Attributes:
        reshape: Gives a tensor another shape.
        transpose: Gives a tensor another order of its axes.
    """

    reshape: Callable[[Any, Shape], Any]
    transpose: Callable[[Any, tuple[int, ...]], Any]

    def arrange(self, value: Value, order: Axes) -> Value:
        """Return a value whose tensor is held in an order of its own factors."""
        if value.order == order:
            return value
        tensor, held = value.tensor, value.order
        if factors(held) != factors(order):
            if sorted(map(_identities, held)) == sorted(map(_identities, order)):
                steps = list(held)
            else:  # runs of factors that stay together
                steps = _runs(factors(held), factors(order))
                tensor = self._bracket(tensor, held, tuple(steps))
            permutation = _permutation(steps, factors(order))
            tensor = self.transpose(tensor, permutation)
            held = tuple(steps[i] for i in permutation)
        return replace(value, tensor=self._bracket(tensor, held, order), order=order)

    def _bracket(self, tensor: Any, held: Axes, order: Axes) -> Any:
        if held == order:
            return tensor
        return self.reshape(tensor, tuple(map(length, order)))

    def plain(self, value: Value) -> Value:
        """Return a value that is held in torch's order."""
        return self.arrange(value, value.axes)

    def settled(self, value: Value) -> Value:
        """Return a value that is held in torch's order, each axis one new factor."""
        axes = axes_of(value.shape)
        return replace(self.plain(value), axes=axes, order=axes)

    def isolate(self, value: Value, i: int) -> tuple[Value, int]:
        """Return a value that holds torch's axis `i` as an axis, and which one that is."""
        axis = value.axes[i]
        if not axis:
            at = min(i, len(value.order))
            return self.arrange(value, (*value.order[:at], (), *value.order[at:])), at
        value = self.arrange(value, _gathered(value.order, axis))
        return value, value.order.index(axis)

    def last(self, value: Value, i: int) -> Value:
        """Return a value that holds the factors of axis `i` as its last axis, in any order.

        Axes of length 1 are gone.
        """
        axis = value.axes[i]
        rest = [part for part in separated(value.order, axis) if part and not set(part) & set(axis)]
        held = factors(value.order)
        end = held[len(held) - len(axis) :]
        return self.arrange(value, (*rest, end if set(end) == set(axis) else axis))

    def apart(self, value: Value, chosen: Collection[Factor]) -> Value:
        """Return a value none of whose held axes has factors among the chosen ones and others."""
        return self.arrange(value, separated(value.order, chosen))

    def view(self, value: Value, shape: Shape) -> Value:
        """Return a value of another shape."""
        if found := _matched(factors(value.axes), shape):
            table, axes = found
            return replace(value.substituted(table), axes=axes)
        axes = axes_of(shape)
        tensor = self.reshape(self.plain(value).tensor, shape)
        return replace(value, tensor=tensor, axes=axes, order=axes)

    def align(self, a: Value, b: Value) -> tuple[Value, Value]:
        """Return two values that broadcast: as many axes, and the same factors in equal ones."""
        rank = max(len(a.axes), len(b.axes))
        a, b = (replace(v, axes=((),) * (rank - len(v.axes)) + v.axes) for v in (a, b.relabelled()))
        return self.matched(a, b, [(i, i) for i in range(rank) if a.axes[i] and b.axes[i]])

    def matched(self, a: Value, b: Value, pairs: Sequence[tuple[int, int]]) -> tuple[Value, Value]:
        """Return two values with the same factors in pairs of equal axes, and else none in common.

        `b` has factors of its own before.
        """
        first, second = dict[Factor, Axis](), dict[Factor, Axis]()
        for i, j in pairs:
            found = _refined(a.axes[i], b.axes[j])
            if found is None:
                if length(a.axes[i]) != length(b.axes[j]):
                    raise ValueError(f"axes of {a.shape[i]} and {b.shape[j]} have no common length")
                return self.matched(self.settled(a), self.settled(b), pairs)
            first |= found[0]
            second |= found[1]
        return a.substituted(first), b.substituted(second)

    def broadcast(self, a: Value, b: Value) -> tuple[Any, Any, Axes, Axes]:
        """Return two tensors that broadcast against each other, and the result's axes and order."""
        a, b = self.align(a, b)
        axes = tuple(x or y for x, y in zip(a.axes, b.axes, strict=True))
        mine, others = set(factors(a.axes)), set(factors(b.axes))
        if mine >= others:
            a, small = self._beside(a, b, others)
            return a.tensor, small, axes, a.order
        if others > mine:
            b, small = self._beside(b, a, mine)
            return small, b.tensor, axes, b.order
        return self.plain(a).tensor, self.plain(b).tensor, axes, axes

    def _beside(self, large: Value, small: Value, common: Collection[Factor]) -> tuple[Value, Any]:
        """Return the larger value, and the smaller one's tensor in an order that broadcasts."""
        large = self.apart(large, common)
        order = tuple(axis if set(axis) <= set(common) else () for axis in large.order)
        while order and not order[0]:
            order = order[1:]
        return large, self.arrange(small, order).tensor


def _identities(axis: Axis) -> list[int]:
    return [id(factor) for factor in axis]


def _runs(held: Sequence[Factor], wanted: Sequence[Factor]) -> list[Axis]:
    """Return the factors as they are held, in runs that follow each other in both orders."""
    follower = dict(pairwise(wanted))
    runs: list[list[Factor]] = []
    for factor in held:
        if runs and follower.get(runs[-1][-1]) is factor:
            runs[-1].append(factor)
        else:
            runs.append([factor])
    return [tuple(run) for run in runs]


def _permutation(steps: Sequence[Axis], wanted: Sequence[Factor]) -> tuple[int, ...]:
    """Return the order of axes that brings their factors into the wanted order."""
    # Axes of length 1 go to the front; the reshape behind places them.
    place = {factor: i for i, factor in enumerate(wanted)}
    return tuple(sorted(range(len(steps)), key=lambda i: place[steps[i][0]] if steps[i] else -1))
