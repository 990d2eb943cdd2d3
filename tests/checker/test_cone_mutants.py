"""Mutated statements about codes: each is rejected, or what it then claims is true, decided without the checker."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog
from theorems.exact import Vector, add, dot
from theorems.exact_cones import combination, nearest_square, reaches_everything

from sae_verify.checker.statements.check import KINDS
from sae_verify.geometry.cone import reach
from sae_verify.geometry.cone_reference import reach_reference
from sae_verify.geometry.sparse_code import opposite, sparse_code
from sae_verify.geometry.whole_cone import whole_cone

from .test_cones import Array, Step, accepted, exactly, question, subject_of

ROWS = np.array([[2, 1, 0], [0, 2, -1], [1, -1, 1], [-1, 1, 2], [1, 0, 0], [0, -1, 1], [0, 0, 0]], dtype=float)
SPANNING = np.array([[2, 1], [-1, 1], [0, -3], [1, 1], [3, -1]], dtype=float)
OBTUSE = np.array([[3, 0, 0], [0, 5, -1], [0, 0, 2]], dtype=float)
X = [1.0, -2.0, 0.5]
VALUES: list[Any] = [
    *(None, True, False, "1", [], {}, [[]], 0, -1, 1, 2, 0.5, -0.0, 5e-324, 1e-300, 1e300, -1e300, 2**53 + 1, 10**400),
    *(float("nan"), float("inf"), -float("inf"), [0.0] * 3, [None] * 7, [1.0] * 7, [0] * 7),
]
FACTORS = (-1.0, 0.5, 0.99, 1 - 1e-9, 1 + 1e-9, 1.01, 2.0, 1e6)


def recipes() -> dict[str, tuple[Array, Step]]:
    """Real steps by name."""
    upper = np.array([0.2, 0.1, 0.1, 0.0, 0.5, 0.1, np.inf])
    named = {
        "cone": reach(ROWS, np.array(X)),
        "support": reach(ROWS, np.array(X), [0, 2, 4]),
        "box": reach(ROWS, np.array(X), upper=upper),
        "sum": reach(ROWS, np.array(X), upper=0.4, total=0.5),
        "few in a box": sparse_code(ROWS, np.array(X), 2, upper=0.3),
        "one": sparse_code(ROWS, np.array(X), 1),
        "few": sparse_code(OBTUSE, np.arange(1.0, 4.0), 2, cosine=opposite(OBTUSE)),
    }
    found = {}
    for name, answer in named.items():
        rows = OBTUSE if name == "few" else ROWS
        for step in answer.steps():
            found[f"{name}: {step['kind']}"] = (rows, step)
    (whole,) = whole_cone(SPANNING).steps()
    return {**found, "whole": (SPANNING, whole)}


RECIPES = recipes()


def mutants(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Places in a step, and what to put there."""
    for other in VALUES:
        yield path, other
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        for factor in FACTORS:
            yield path, value * factor
        yield path, math.nextafter(value, math.inf)
        yield path, math.nextafter(value, -math.inf)
        yield path, value + 1
    elif isinstance(value, list):
        yield path, value[::-1]
        yield path, value + value[:1]
        yield path, value[1:]
        for i, inner in enumerate(value):
            yield from mutants(inner, (*path, i))
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from mutants(inner, (*path, key))


def put(step: Step, path: tuple[Any, ...], value: Any) -> Step:
    changed: Any = copy.deepcopy(step)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return changed


@cache
def least_distance(rows: bytes, shape: tuple[int, int], x: Vector, upper: Any, total: Any, active: Any) -> float:
    """The least distance by interior point, over all supports."""
    matrix = np.frombuffer(rows).reshape(shape)
    scale = max(map(abs, x)) or 1.0
    point, bound = np.array(x) / scale, np.array([np.inf if u is None else u for u in upper]) / scale
    count = len(bound) if active is None else min(active, len(bound))
    values = [float(np.linalg.norm(point))]
    for chosen in combinations(range(len(bound)), count):
        index = list(chosen)
        limit = None if total is None or total > 1e6 * scale else total / scale
        limit = 0.0 if limit is not None and limit < 1e-9 else limit  # beyond these the solver's own scaling fails
        values.append(reach_reference(matrix[index], point, upper=bound[index], total=limit).value)
    return min(values) * scale


def judge(rows: Array, points: Array, step: Step) -> None:
    """That an accepted step is true."""
    features = step["rows"]["features"]
    names = list(range(len(rows))) if features is None else features
    matrix = rows[names]  # those of the encoder are the same here
    if step["kind"] == "whole-cone":
        judge_whole(matrix, step["total"])
        return
    x = points[step["point"]].tolist() if step["vector"] is None else step["vector"]
    upper = step["upper"] if isinstance(step["upper"], list) else [step["upper"]] * len(names)
    if step["kind"] == "cone-member":
        f = exactly(step["values"])
        used = [names.index(j) for j in step["features"]]
        assert all(v >= 0 for v in f)
        assert all(upper[j] is None or v <= Fraction(upper[j]) for j, v in zip(used, f, strict=True))
        assert step["total"] is None or sum(f) <= Fraction(step["total"])
        assert step["active"] is None or sum(v > 0 for v in f) <= step["active"]
        written = combination([exactly(row) for row in matrix[used]], f, len(x))
        rest = add(exactly(x), written, -1)
        assert step["residual"] >= 0
        assert dot(rest, rest) <= Fraction(step["residual"]) ** 2
        return
    best = least_distance(matrix.tobytes(), matrix.shape, tuple(x), tuple(upper), step["total"], step["active"])
    assert step["distance"] <= best + 1e-6 * (1 + max(map(abs, x)))
    if all(u is None for u in upper) and step["total"] is None and step["distance"] > 0:
        exact = nearest_square([exactly(row) for row in matrix], exactly(x), step["active"])
        assert Fraction(step["distance"]) ** 2 <= exact


def judge_whole(matrix: Array, total: float | None) -> None:
    d = matrix.shape[1]
    assert reaches_everything([exactly(row) for row in matrix], d)
    for angle in np.linspace(0, 2 * np.pi, 73) if total is not None else ():
        x = np.array([np.cos(angle), np.sin(angle)])
        least = linprog(np.ones(len(matrix)), A_eq=matrix.T, b_eq=x, bounds=(0, None))
        assert least.status == 0
        assert least.fun <= total * (1 + 1e-9)


@pytest.mark.parametrize("name", RECIPES)
def test_a_mutant_is_rejected_or_true(name: str) -> None:
    rows, step = RECIPES[name]
    subject = subject_of(rows)
    assert accepted(subject, step) is not None
    judge(rows, subject.points, step)
    every = [(path, value) for path, value in mutants(step) if path and path[0] not in ("kind", "theorem")]
    chosen = random.Random(0).sample(every, min(400, len(every)))
    kept = 0
    for path, value in chosen:
        changed = put(step, path, value)
        if accepted(subject, changed) is not None:
            kept += 1
            judge(rows, subject.points, changed)
    assert kept < 0.7 * len(chosen)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_all_mutants_and_pairs_of_them(name: str) -> None:
    rows, step = RECIPES[name]
    subject = subject_of(rows)
    every = [(path, value) for path, value in mutants(step) if path and path[0] not in ("kind", "theorem")]
    rng = random.Random(1)
    for changes in [[m] for m in every] + [rng.sample(every, 2) for _ in range(1500)]:
        changed = step
        try:
            for path, value in changes:
                changed = put(changed, path, value)
        except (KeyError, IndexError, TypeError):
            continue  # the second place went with the first change
        if accepted(subject, changed) is not None:
            judge(rows, subject.points, changed)


STRONGER: list[tuple[str, Callable[[Step], Step]]] = [
    ("cone: cone-member", lambda s: {**s, "residual": s["residual"] * (1 - 1e-9)}),
    ("cone: cone-distance", lambda s: {**s, "distance": s["distance"] * (1 + 1e-9)}),
    ("support: cone-distance", lambda s: {**s, "rows": {**s["rows"], "features": None}}),
    ("box: cone-distance", lambda s: {**s, "upper": None}),
    ("box: cone-distance", lambda s: {**s, "upper": [None if u is None else 30 * u for u in s["upper"]]}),
    ("sum: cone-distance", lambda s: {**s, "total": 2 * s["total"]}),
    ("sum: cone-distance", lambda s: {**s, "level": 0.0, "upper": None}),
    ("few in a box: cone-distance", lambda s: {**s, "active": None}),
    ("few in a box: cone-distance", lambda s: {**s, "active": 3}),
    ("few in a box: cone-member", lambda s: {**s, "active": 1}),
    ("one: sparse-distance", lambda s: {**s, "active": 2}),
    ("one: sparse-distance", lambda s: {**s, "active": None}),
    ("one: sparse-distance", lambda s: {**s, "distance": s["distance"] * (1 + 1e-9)}),
    ("few: sparse-distance", lambda s: {**s, "active": 3}),
    ("whole", lambda s: {**s, "total": 1e-3 * s["total"]}),
    ("whole", lambda s: {**s, "features": s["features"][:2], "weights": s["weights"][:2]}),
    ("whole", lambda s: {**s, "weights": [1.0] * len(s["weights"])}),
    ("whole", lambda s: {**s, "rows": {"matrix": "decoder", "features": s["features"][1:]}}),
]


@pytest.mark.parametrize(("name", "change"), STRONGER, ids=lambda v: v if isinstance(v, str) else "")
def test_stronger_claims_are_rejected(name: str, change: Callable[[Step], Step]) -> None:
    rows, step = RECIPES[name]
    assert accepted(subject_of(rows), change(copy.deepcopy(step))) is None


HOSTILE = [
    np.full((3, 2), 1e300),
    np.full((3, 2), 5e-324),
    np.array([[1e300, 1.0], [-1e300, 1.0], [0.0, -1e-300]]),
    np.array([[1e308, 1e308], [-1e308, -1e308], [1.0, 0.0]]),
    np.zeros((3, 2)),
]


@pytest.mark.parametrize("rows", HOSTILE, ids=range(len(HOSTILE)))
def test_extreme_weights_end_in_a_verdict(rows: Array) -> None:
    subject = subject_of(rows)
    for scale in (1e-300, 1.0, 1e300):
        x = [scale, -scale]
        steps = [
            question(kind="cone-distance", vector=x, direction=[1.0, -1.0], level=0.0, distance=10 * scale),
            question(kind="cone-distance", vector=x, upper=1e300, direction=[1e300, -1e300], level=0.0, distance=2e300),
            question(kind="cone-member", vector=x, features=[0], values=[1e300], residual=0.5 * scale),
            *(question(kind="sparse-distance", vector=x, active=k, distance=10 * scale) for k in (0, 1, 2)),
        ]
        for step in steps:
            assert accepted(subject, step) is None  # each claims more than the vector's length, or nearly nothing
    rows_key = {"matrix": "decoder", "features": None}
    whole = {"kind": "whole-cone", "theorem": "whole-cone", "rows": rows_key, "features": [0, 1, 2], "total": None}
    for weights in ([1.0, 1.0, 1.0], [1e300] * 3, [5e-324] * 3, [1.0, 1.0, 2.0]):
        assert accepted(subject, {**whole, "weights": weights}) is None


def test_the_kinds_are_registered() -> None:
    assert {"cone-member", "cone-distance", "sparse-distance", "whole-cone"} <= KINDS.keys()
