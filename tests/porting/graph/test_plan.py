"""Plans as data."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.graphs import filled, gap, images
from hypothesis import given, strategies as st
from torch import nn

from porting.errors import GraphError
from porting.graph import plan as plans
from porting.graph.builder import build
from porting.graph.plan import Dim, Node, Plan, Ref, product
from porting.graph.reader import read

DIMS = st.builds(
    lambda size, names: Dim(size, tuple(sorted(names))),
    st.integers(1, 12),
    st.lists(st.sampled_from(["batch", "height", "width"]), max_size=3),
)


@given(DIMS, DIMS)
def test_what_is_taken_out_of_a_length_makes_it_whole(a: Dim, b: Dim) -> None:
    assert (a * b).over(b) == a
    left = a.over(b)
    assert left is None or left * b == a
    assert product([a, b, Dim()]) == a * b
    assert Dim.from_json(a.to_json()) == a


def test_a_plan_is_a_file(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))
    x = images(2, 3, 6, 6)
    plan = read(module, x)
    file = tmp_path / "plan.npz"
    plan.save(file)
    again = Plan.load(file)
    assert again == plan
    assert gap(module, filled(module, again), x) < 1e-6


def test_arguments_of_every_kind_survive(tmp_path: Path) -> None:
    arguments = {
        "a": [Ref("x"), None, 2],
        "b": Dim(2, ("batch",)),
        "c": -math.inf,
        "d": "same",
        "e": [[True], 0.5],
    }
    node = Node("n", "pad", arguments, ((Dim(3), Dim(1, ("batch",))),), "a.b", "net.py:3: pad(x)")
    plan = Plan("Net", {"x": (Dim(3),)}, (node,), {}, {"k": np.eye(2)}, {"logits": "n"}, (), ())
    plan.save(tmp_path / "plan.npz")
    again = Plan.load(tmp_path / "plan.npz")
    assert (again.nodes, again.inputs) == (plan.nodes, plan.inputs)
    np.testing.assert_array_equal(again.constants["k"], np.eye(2))


def _repeated(ops: Sequence[str], times: int) -> Plan:
    """A plan that repeats operations of one value, of which `add` adds what was first."""
    shape = (Dim(1, ("batch",)), Dim(3), Dim(), Dim())
    nodes: list[Node] = []
    last = "x"
    for block in range(times):
        first = last
        for op in ops:
            name = f"{op}{block}"
            arguments = {"input": Ref(last), **({"other": Ref(first)} if op == "add" else {})}
            nodes.append(Node(name, op, arguments, (shape,)))
            last = name
    return Plan("Deep", {"x": shape}, tuple(nodes), {}, {}, {"logits": last}, (), ())


def test_networks_are_as_deep_as_python_allows() -> None:
    """Keras follows a graph by recursion: along residuals, where there are some."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 5000))  # as some libraries raise it
    model = build(_repeated(["relu", "sin", "tanh", "add"], 300), "channels_last").model
    x = wanted = images(2, 3, 1, 1)
    for _ in range(300):
        wanted = wanted + torch.tanh(torch.sin(torch.relu(wanted)))
    found = model.predict_on_batch(x.permute(0, 2, 3, 1).numpy())
    np.testing.assert_allclose(found, wanted.permute(0, 2, 3, 1).numpy(), rtol=1e-4)
    with pytest.raises(GraphError, match="Deep is a chain of more operations than Keras can"):
        build(_repeated(["relu"], 1100), "channels_last")
    assert sys.getrecursionlimit() >= 5000
    sys.setrecursionlimit(before)


def test_a_plan_of_another_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "plan.npz"
    monkeypatch.setattr(plans, "FORMAT", 99)
    Plan("Net", {"x": ()}, (), {}, {}, {}, (), ()).save(file)
    monkeypatch.undo()
    with pytest.raises(GraphError, match="plan of another version"):
        Plan.load(file)
