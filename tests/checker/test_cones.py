"""Statements about codes: real ones are accepted, and whatever else is accepted is true, decided in rationals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import tiny_sae
from theorems.exact import Vector, add, dot, root
from theorems.exact_cones import combination, nearest_square

from sae_verify.certificates.statements import write_statements
from sae_verify.checker import Rejected
from sae_verify.checker.sae import Sae
from sae_verify.checker.statements import Statement, Subject, check_statements
from sae_verify.checker.statements.check import prove
from sae_verify.checker.statements.cone_distance import stays_below
from sae_verify.checker.statements.sparse_distance import most_negative
from sae_verify.geometry.cone import reach
from sae_verify.geometry.sparse_code import opposite, sparse_code
from sae_verify.geometry.whole_cone import whole_cone
from sae_verify.sae import load_sae

Step = dict[str, Any]
Array = Any


def subject_of(rows: Array) -> Subject:
    rows = np.asarray(rows, dtype=np.float64)
    m, d = rows.shape
    parts = (np.ascontiguousarray(rows.T), rows, np.zeros(d), {"b_enc": np.zeros(m)})
    return Subject(Sae("relu", *parts, False, "none", 1.0, "digest"), np.arange(1.0, d + 1)[None, :], Path())


def accepted(subject: Subject, step: Step) -> Statement | None:
    try:
        return prove(subject, step, "step")
    except Rejected:
        return None


def question(**changes: Any) -> Step:
    """The keys that steps about codes share."""
    rows = {"matrix": "decoder", "features": None}
    keys: Step = {"theorem": "cone-membership", "rows": rows, "point": None, "vector": None}
    return {**keys, "upper": None, "total": None, "active": None, **changes}


# --- real statements ------------------------------------------------------------------------------------------------


def test_a_file_about_an_sae_on_disk(tmp_path: Path) -> None:
    sae = load_sae(tiny_sae(tmp_path / "sae", d=6, m=40)).to(torch.float64)
    points = np.random.default_rng(0).normal(size=(3, 6))
    steps = [*whole_cone(sae).steps()]
    for i, x in enumerate(points):
        steps += reach(sae, x).steps(i) + reach(sae, x, list(range(5))).steps(i) + reach(sae, x, upper=0.1).steps()
        steps += reach(sae, x, total=0.3, matrix="encoder").steps(i)
        for k in range(4):
            steps += sparse_code(sae, x, k, list(range(20)), cosine=opposite(sae, range(20))).steps(i)
            steps += sparse_code(sae, x, k, upper=np.linspace(0.0, 0.3, 40)).steps(i)
    path = write_statements(sae, steps, tmp_path / "cones.json", points)
    proved = check_statements(path).statements
    assert len(proved) == len(steps)
    assert {s.kind for s in proved} == {"cone-member", "cone-distance", "sparse-distance", "whole-cone"}
    steps[-1]["residual" if steps[-1]["kind"] == "cone-member" else "distance"] *= 1 - 1e-6
    wrong = write_statements(sae, [{**steps[1], "residual": 0.0}], tmp_path / "wrong.json", points)
    with pytest.raises(Rejected, match="residual"):
        check_statements(wrong)


def questions(seed: int) -> Iterator[tuple[Array, list[Step]]]:
    """Dictionaries of all sorts with the steps that the search gives."""
    rng = np.random.default_rng(seed)
    for turn in range(40):
        d, m = int(rng.integers(1, 6)), int(rng.integers(1, 16))
        rows = rng.normal(size=(m, d)) if turn % 2 else rng.integers(-2, 3, (m, d)).astype(float)
        rows *= (1.0, 1e-90, 1e90)[turn % 3]
        x = rng.normal(size=d) * (1.0, 1e-80, 1e80)[turn % 3]
        upper = (None, 0.3, rng.choice([0.0, 0.2, 1.0, np.inf], m))[turn // 2 % 3]
        steps = reach(rows, x, upper=upper).steps() + reach(rows, x, upper=upper, total=0.7).steps()
        for k in range(3):
            steps += sparse_code(rows, x, k, upper=upper, cosine=opposite(rows)).steps()
        yield rows, steps + whole_cone(rows).steps()


@pytest.mark.parametrize("seed", range(3))
def test_every_step_of_the_search_is_accepted(seed: int) -> None:
    for rows, steps in questions(seed):
        subject = subject_of(rows)
        for step in steps:
            prove(subject, step, "step")


# --- what evidence proves, exactly ----------------------------------------------------------------------------------


def exactly(values: Any) -> Vector:
    return [Fraction(float(v)) for v in np.ravel(values)]


def distance_proven(rows: Array, step: Step) -> Fraction | None:
    """The distance that a direction proves by the theorem, to 50 digits; None for none."""
    y, x, level = exactly(step["direction"]), exactly(step["vector"]), Fraction(step["level"])
    upper = step["upper"] if isinstance(step["upper"], list) else [step["upper"]] * len(rows)
    over = []
    for row, u in zip(rows, upper, strict=True):
        above = dot(exactly(row), y) - level
        if u is not None:
            over.append(Fraction(u) * max(above, Fraction(0)))
        elif above > 0 and step["active"] != 0:
            return None
    over.sort(reverse=True)
    h = sum(over[: step["active"]], Fraction(0))  # None: all
    h += level * Fraction(step["total"]) if step["total"] is not None and step["active"] != 0 else Fraction(0)
    value = dot(x, y) - h
    return value / root(dot(y, y), up=value > 0)


def test_a_direction_proves_its_distance_and_no_more() -> None:
    rng = np.random.default_rng(0)
    proven = refused = 0
    for turn in range(300):
        d, m = int(rng.integers(1, 5)), int(rng.integers(1, 7))
        rows = rng.integers(-3, 4, (m, d)).astype(float) if turn % 2 else rng.normal(size=(m, d))
        y = rng.integers(-2, 3, d).astype(float) if turn % 2 else rng.normal(size=d)
        if not y.any():
            continue
        upper = [None if v == 0 else v / 2 for v in rng.integers(0, 4, m).tolist()]
        total = [None, 1.5][turn // 2 % 2]
        product = rows @ y
        level = 0.0 if total is None else max(0.0, *product.tolist()) * float(rng.choice([0.5, 1.0, 1 + 1e-9]))
        if total is None and turn % 4 < 2:
            upper = [1.0 if p > 0 else u for p, u in zip(product.tolist(), upper, strict=True)]
        x = rng.normal(size=d) + 2 * y
        active = [None, 0, 1, 2][turn // 4 % 4]
        step = question(kind="cone-distance", vector=x.tolist(), upper=upper, total=total, active=active)
        step |= {"direction": y.tolist(), "level": level}
        exact = distance_proven(rows, {**step, "distance": 0})
        subject = subject_of(rows)
        if exact is None:
            assert accepted(subject, {**step, "distance": -1e9}) is None
            refused += 1
            continue
        near = abs(float(exact)) * 1e-12 + 1e-12
        assert accepted(subject, {**step, "distance": float(exact) - near}) is not None
        above = float(exact)
        while Fraction(above) <= exact:
            above = math.nextafter(above, math.inf)
        assert accepted(subject, {**step, "distance": above}) is None
        proven += 1
    assert proven > 100
    assert refused > 10


def test_the_exact_comparison() -> None:
    assert stays_below(np.array([1.0, 1.0]), np.array([1.0, -1.0]), 0.0)
    assert not stays_below(np.array([1.0, 2.0**-1000]), np.array([1.0, 1.0]), 1.0)
    assert stays_below(np.array([1.0, -(2.0**-1000)]), np.array([1.0, 1.0]), 1.0)
    assert not stays_below(np.array([5e-324]), np.array([5e-324]), 0.0)
    assert stays_below(np.array([1e300, -1e300]), np.array([1e300, 1e300]), 0.0)


def test_many_rows_in_doubt_are_no_endless_work() -> None:
    rows = np.ones((1200, 1024))
    rows[:, ::2] = -1.0
    step = question(kind="cone-distance", vector=[1.0] * 1024, direction=[1.0] * 1024, level=0.0, distance=1.0)
    with pytest.raises(Rejected, match="not proven to stay below"):
        prove(subject_of(rows), step, "step")
    few = question(kind="cone-distance", vector=[1.0] * 1024, direction=[1.0] * 1024, level=0.0, distance=31.9)
    assert accepted(subject_of(rows[:20]), few) is not None


def test_the_residual_of_a_code_and_no_less() -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        d, m = int(rng.integers(1, 5)), int(rng.integers(1, 7))
        rows, x, f = rng.normal(size=(m, d)), rng.normal(size=d), rng.random(m)
        rest = add(exactly(x), combination([exactly(row) for row in rows], exactly(f), d), -1)
        exact = root(dot(rest, rest), up=False)
        step = question(kind="cone-member", vector=x.tolist(), features=list(range(m)), values=f.tolist())
        subject = subject_of(rows)
        assert accepted(subject, {**step, "residual": float(exact) * (1 + 1e-12) + 1e-14}) is not None
        assert accepted(subject, {**step, "residual": math.nextafter(float(exact), 0.0)}) is None


def test_one_feature_exactly() -> None:
    """The least claim that is true is the greatest that is accepted, but for rounding."""
    rng = np.random.default_rng(2)
    for turn in range(80):
        d, m = int(rng.integers(1, 5)), int(rng.integers(1, 7))
        rows = rng.integers(-3, 4, (m, d)).astype(float) if turn % 2 else rng.normal(size=(m, d))
        rows[0] *= 10.0 ** int(rng.integers(-60, 60))
        x = rng.normal(size=d)
        if turn % 5 == 0:
            x = 0.3 * rows[-1] + 1e-9 * x
        upper = [None, 0.2][turn // 2 % 2]
        least = dot(exactly(x), exactly(x))
        for row in rows:
            d_j = exactly(row)
            if any(d_j):
                t = max(Fraction(0), dot(exactly(x), d_j) / dot(d_j, d_j))
                t = t if upper is None else min(t, Fraction(upper))
                rest = add(exactly(x), d_j, -t)
                least = min(least, dot(rest, rest))
        exact = float(root(least, up=False))
        step = question(kind="sparse-distance", vector=x.tolist(), upper=upper, active=1)
        subject, size = subject_of(rows), float(np.linalg.norm(x))
        low = exact * (1 - 1e-10) - 1e-13 * size
        if low > 0:
            assert accepted(subject, {**step, "distance": low}) is not None
        assert accepted(subject, {**step, "distance": exact * (1 + 1e-15) + 5e-324}) is None


def test_few_features_by_cosines_are_true() -> None:
    rng = np.random.default_rng(3)
    useful = 0
    for turn in range(60):
        d, m = 3, int(rng.integers(1, 6))
        rows = rng.integers(0 if turn % 2 else -1, 4, (m, d)).astype(float)
        x, k = rng.integers(-3, 4, d).astype(float), int(rng.integers(2, 4))
        square = nearest_square([exactly(row) for row in rows], exactly(x), k)
        subject = subject_of(rows)
        step = question(kind="sparse-distance", vector=x.tolist(), active=k)
        for share in (1.0, 0.9, 0.5, 0.1):
            claim = share * float(np.linalg.norm(x))
            if accepted(subject, {**step, "distance": claim}) is not None:
                assert Fraction(claim) ** 2 <= square
                useful += share < 1.0
        assert accepted(subject, {**step, "distance": math.nextafter(math.sqrt(square), math.inf) + 1e-300}) is None
    assert useful > 10


def test_the_most_negative_cosine() -> None:
    rng = np.random.default_rng(4)
    for turn in range(10):
        rows = rng.normal(size=(int(rng.integers(1, 400)), 5)) * 10.0 ** rng.integers(-30, 30)
        rows[:: turn + 2] = 0.0
        kept = rows[rows.any(axis=1)]
        unit = kept / np.linalg.norm(kept, axis=1)[:, None]
        cosines = unit @ unit.T
        np.fill_diagonal(cosines, 0.0)
        exact = max(0.0, -float(cosines.min(initial=0.0)))
        assert exact <= most_negative(rows) <= exact + 1e-12
    with pytest.raises(Rejected):
        most_negative(np.array([[1e-200, 0.0], [1.0, 0.0]]))
    with pytest.raises(Rejected, match="more than is computed"):
        most_negative(np.zeros((2**15, 2**11)))
