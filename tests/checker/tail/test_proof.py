"""Trees of regions from hostile certificates: rejected, quickly, with a message."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sae_verify.checker import Rejected
from sae_verify.checker.arithmetic import Array
from sae_verify.checker.tail.proof import MAX_DEPTH, MAX_NODES, Cut, Done, Node, Split, read_node, verify, write_node

from .test_sandwich import make

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # `check` silences them

X, Y = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]


def read(value: Any) -> Any:
    return read_node(value, "regions", 3, [MAX_NODES])


def split(parts: Any, at: Any = (), axis: Any = None, normal: Any = None) -> dict[str, Any]:
    return {"axis": axis, "normal": normal, "at": at if isinstance(at, (str, dict)) else list(at), "parts": parts}


def cut(normal: Any = X, then: Any = "done") -> dict[str, Any]:
    return {"cut": normal, "then": then}


WRONG: dict[str, Any] = {
    "nothing": None,
    "a number": 3,
    "a flag": True,
    "another word": "finished",
    "a list": [],
    "a list of nodes": ["done"],
    "no keys": {},
    "a key more": {**cut(), "bound": -1.0},
    "a key less": {"cut": X},
    "both kinds": {**split(["done"]), **cut()},
    "a normal that is text": cut("X"),
    "a normal too short": cut([1.0, 0.0]),
    "a normal too long": cut([*X, 0.0]),
    "no normal": cut([]),
    "half a normal": cut([0.5, 0.0, 0.0]),
    "twice a normal": cut([2.0, 0.0, 0.0]),
    "zero": cut([0.0, 0.0, 0.0]),
    "not a number": cut([float("nan"), 1.0, 0.0]),
    "infinite": cut([float("inf"), 0.0, 0.0]),
    "huge": cut([1e300, 0.0, 0.0]),
    "flags": cut([True, False, False]),
    "nested": cut([[1.0], [0.0], [0.0]]),
    "then nothing": cut(X, None),
    "no parts": split([]),
    "parts as text": split("done"),
    "parts as an object": split({"0": "done"}),
    "too many parts": split(["done"] * 17, range(16), normal=X),
    "an axis below zero": split(["done"], axis=-1),
    "an axis that is a flag": split(["done"], axis=True),
    "an axis that is a fraction": split(["done"], axis=0.5),
    "points as text": split(["done"], "0.0", normal=X),
    "points that are not numbers": split(["done", "done"], [float("nan")], normal=X),
    "points beyond floats": split(["done", "done"], [10**400], normal=X),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_types(name: str) -> None:
    with pytest.raises(Rejected) as error:
        read(WRONG[name])
    assert 0 < len(str(error.value)) < 500


def nested(depth: int, wrap: Any) -> Any:
    node: Any = "done"
    for _ in range(depth):
        node = wrap(node)
    return node


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 500, 5000, 100_000])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda node: split([node]),
        lambda node: split(["done", node], [0.0], normal=X),
        lambda node: cut(X, split([node])),
        lambda node: split([cut(X, node)]),
    ],
)
def test_depth(depth: int, wrap: Any) -> None:
    with pytest.raises(Rejected, match=r"splits within each other|nodes"):
        read(nested(depth, wrap))


def test_chains_of_cuts_are_not_deep() -> None:
    node = read(nested(900, lambda node: cut(X, node)))
    for _ in range(900):
        assert isinstance(node, Cut)
        node = node.then
    assert isinstance(node, Done)
    with pytest.raises(Rejected, match="nodes"):
        read(nested(100_000, lambda node: cut(X, node)))


def test_too_many_nodes() -> None:
    part: Any = "done"
    for _ in range(5):
        part = split([part] * 16, range(15), normal=X)  # shared in memory: a million nodes
    with pytest.raises(Rejected, match="nodes"):
        read(part)


def test_what_is_read_is_what_was_written() -> None:
    tree = split(["done", cut(Y, "done"), split(["done"], axis=0)], [-0.5, 0.5], normal=X)
    assert write_node(read(tree)) == tree


TREES: dict[str, Any] = {
    "an axis that is not there": Split(0, None, (0.0,), (Done(), Done())),
    "an axis far out": Split(10**9, None, (), (Done(),)),
    "no axis": Split(None, None, (), (Done(),)),
    "an axis below zero": Split(-1, None, (), (Done(),)),
    "a part missing": Split(None, np.array(X), (0.0,), (Done(),)),
    "a part more": Split(None, np.array(X), (0.0,), (Done(), Done(), Done())),
    "out of order": Split(None, np.array(X), (0.5, -0.5), (Done(), Done(), Done())),
    "not a number": Split(None, np.array(X), (float("nan"),), (Done(), Done())),
    "the same axis twice": Split(None, np.array(X), (), (Split(None, np.array(X), (), (Done(),)),)),
    "oblique axes": Split(None, np.array(X), (), (Split(None, np.array([0.6, 0.8, 0.0]), (), (Done(),)),)),
    "more axes than dimensions": Split(
        None,
        np.array(X),
        (),
        (Split(None, np.array(Y), (), (Split(None, np.eye(3)[2], (), (Split(None, np.array(X), (), (Done(),)),)),)),),
    ),
    "all axes": Split(
        None, np.array(X), (), (Split(None, np.array(Y), (), (Split(None, np.eye(3)[2], (), (Done(),)),)),)
    ),
    "a long normal": Cut(np.array([3.0, 0.0, 0.0]), Done()),
    "a normal of nothing": Cut(np.full(3, np.nan), Done()),
    "done": Done(),
}


def lifted(node: Node, basis: Array) -> Node:
    """A tree whose directions are given in the free coordinates, with directions of the residual stream."""
    if isinstance(node, Cut):
        return Cut(basis @ node.normal, lifted(node.then, basis))
    if isinstance(node, Split):
        normal = None if node.normal is None else basis @ node.normal
        return Split(node.axis, normal, node.at, tuple(lifted(part, basis) for part in node.parts))
    return node


@pytest.mark.parametrize("name", TREES)
def test_trees_that_prove_nothing(name: str) -> None:
    """At a level that is false at the centre: whatever the tree, it is a rejection and no other error."""
    case = make(0, "gpt2", 1, d=4, held=1)
    with pytest.raises(Rejected) as error:
        verify(case.relaxation, case.readout, 0.5, case.value() - 0.1, lifted(TREES[name], case.relaxation.basis))
    assert str(error.value)


@pytest.mark.parametrize("width", [1, 2])
def test_few_dimensions(width: int) -> None:
    """Cuts and splits whose axes come to span the space."""
    case = make(0, "llama", 1, d=4, held=4 - width)
    assert case.relaxation.width == width
    everything: Any = Done()
    for axis in case.relaxation.basis.T:
        everything = Split(None, axis, (-0.01, 0.0, 0.01), (everything,) * 4)
    alone = Cut(case.relaxation.basis[:, 0], everything)
    tau = case.value() + 0.5
    verify(case.relaxation, case.readout, 0.02, tau, everything)
    with pytest.raises(Rejected):
        verify(case.relaxation, case.readout, 0.02, case.value() - 0.5, everything)
    with pytest.raises(Rejected):
        verify(case.relaxation, case.readout, 0.02, case.value() - 0.5, alone)
