"""The threat drift(t), exhaustively: small integer SAEs, full of ties and zeros, against the encoder on a grid.

Theorem drift (features). Numbers are small multiples of powers of two, so squares of lengths are exact in float64.
"""

from __future__ import annotations

import numpy as np
import pytest

from sae_verify.checker import Rejected
from sae_verify.checker.admissible import admissible_within
from sae_verify.checker.arithmetic import Ball
from sae_verify.checker.cell import Cell
from sae_verify.checker.drift import confined, limit, stays_on
from sae_verify.checker.multipliers import Multipliers, Sparse
from sae_verify.checker.sae import Sae

from .test_held_sets import GRID, KINDS, NONE, D, M, encode, random_sae

SHARES = (0.0, 0.25, 0.5, 1.0, 2.0, 100.0)


def drifting(sae: Sae, y: np.ndarray, chosen: tuple[int, ...], share: float) -> Cell:
    return Cell(sae, {"h": Ball.exact(y)}, "drift", chosen, (), {}, share)


def kept(sae: Sae, y: np.ndarray, chosen: tuple[int, ...], share: float) -> np.ndarray:
    """Which rows of the grid move the code of the chosen features by at most the share of its length."""
    before, after = encode(sae, y[None])[:, list(chosen)], encode(sae, y + GRID)[:, list(chosen)]
    allowed = share**2 * (before**2).sum()
    return ((after - before) ** 2).sum(axis=1) <= allowed * (1 + 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_every_inequality_that_may_be_used_holds_for_all_that_drifts_so_far(kind: str) -> None:
    rng = np.random.default_rng(3)
    used = priced = attained = admitted = 0
    for _ in range(20):
        sae, y = random_sae(rng, kind), rng.integers(-2, 3, D).astype(np.float64)
        chosen = tuple(sorted(rng.choice(M, rng.integers(1, M), replace=False).tolist()))
        for share in SHARES:
            cell, good = drifting(sae, y, chosen, share), kept(sae, y, chosen, share)
            assert good[len(GRID) // 2]
            on = stays_on(cell.state_of("h", np.array(chosen)), limit(cell, "h"))
            for _ in range(5):
                equal = np.array(chosen)[on & (rng.random(len(on)) < 0.8)]
                upper = np.setdiff1d(chosen, equal)[: 0 if kind.startswith("topk") else int(rng.integers(M))]
                mu, nu = Sparse(equal, rng.normal(size=len(equal))), Sparse(upper, rng.random(len(upper)))
                v, cost = cell.span(Multipliers({"h": (mu, nu, NONE)}))
                used += 1
                reach = GRID[good] @ v.mid
                assert (reach <= cost.high + 1e-12 * (1 + np.abs(reach))).all(), (kind, share, chosen)
                priced += bool(cost.high > 0)
                attained += bool(cost.high > 0 and reach.max() > 0.7 * cost.high)
            for row in rng.choice(len(GRID), 6, replace=False):
                try:
                    itself = admissible_within(cell, Ball.exact(GRID[row])) == 0.0  # else some point near it is
                except Rejected:
                    continue
                admitted += itself
                assert good[row] or not itself, (kind, share, chosen, GRID[row])
    assert used > 200
    assert priced > 50
    assert attained > 10
    assert admitted > 30


@pytest.mark.parametrize("kind", KINDS)
def test_no_drift_is_what_defended_holds(kind: str) -> None:
    rng = np.random.default_rng(4)
    for _ in range(30):
        sae, y = random_sae(rng, kind), rng.integers(-2, 3, D).astype(np.float64)
        chosen = tuple(range(M))
        still, held = drifting(sae, y, chosen, 0.0), Cell(sae, {"h": Ball.exact(y)}, "defended", chosen, ())
        assert limit(still, "h").high == 0
        assert (still.fixed_rows() == held.fixed_rows()).all()
        for feature in range(M):
            for sign in (1.0, -1.0):
                one = Sparse(np.array([feature]), np.array([sign]))
                for roles in ((one, NONE, NONE), (NONE, one, NONE)):
                    said = []
                    for cell in (still, held):
                        try:
                            said.append(float(cell.span(Multipliers({"h": roles}))[1].high))
                        except Rejected:
                            said.append(None)
                    assert said[0] == said[1] or said[0] == pytest.approx(said[1], rel=1e-12, abs=1e-100)


def unit_sae(bias: float = 0.0, threshold: float | None = None) -> Sae:
    """Three features that read a coordinate each."""
    parameters = {"b_enc": np.full(3, bias)} | ({} if threshold is None else {"threshold": np.full(3, threshold)})
    eye = np.eye(3)
    return Sae("relu" if threshold is None else "jumprelu", eye, eye, np.zeros(3), parameters, False, "none", 1.0, "")


def span_cost(cell: Cell, equal: list[int], upper: list[int]) -> float:
    parts = [Sparse(np.array(f, dtype=np.intp), np.ones(len(f))) for f in (equal, upper)]
    return float(cell.span(Multipliers({"h": (parts[0], parts[1], NONE)}))[1].high)


def test_what_drifts_is_shared_by_all_features() -> None:
    cell = drifting(unit_sae(), np.array([3.0, 4.0, -1.0]), (0, 1, 2), 0.5)  # T = 2.5
    assert span_cost(cell, [0, 1], []) == pytest.approx(2.5 * np.sqrt(2))
    assert span_cost(cell, [0, 1], [2]) == pytest.approx(1.0 + 2.5 * np.sqrt(3))
    with pytest.raises(Rejected, match="as an equality and as a half-space"):
        span_cost(cell, [0], [0])
    with pytest.raises(Rejected, match="may turn off"):
        span_cost(drifting(unit_sae(), np.array([3.0, 4.0, -1.0]), (0, 1, 2), 0.6), [0], [])  # T = 3, a tie


def test_a_threshold_above_the_drift_lets_nothing_turn_on() -> None:
    y = np.array([4.0, 3.0, 0.5])
    assert span_cost(drifting(unit_sae(0.0, 2.0), y, (0, 1, 2), 0.2), [], [2]) == pytest.approx(1.5)  # T = 1
    assert span_cost(drifting(unit_sae(0.0, 2.0), y, (0, 1, 2), 0.6), [], [2]) == pytest.approx(1.5 + 1.0)  # T = 3


@pytest.mark.parametrize("weight", [0.0, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("kind", KINDS)
def test_what_drifts_lies_in_the_ellipsoid(kind: str, weight: float) -> None:
    """Of every admissible row of the grid: y = B^-1 delta is as short as it says, and delta = B y up to the slip."""
    rng = np.random.default_rng(5)
    held = shorter = 0
    for _ in range(25):
        sae, y = random_sae(rng, kind), rng.integers(-2, 3, D).astype(np.float64)
        chosen, share = tuple(range(M)), float(rng.choice([0.25, 0.5]))
        cell = drifting(sae, y, chosen, share)
        basis, slip, stretch, spread = confined(cell, weight, D)
        assert (basis == basis.T).all()
        delta = GRID[kept(sae, y, chosen, share)]
        moved = np.linalg.solve(basis, delta.T).T
        assert np.linalg.norm(moved @ basis - delta, axis=1) == pytest.approx(0.0, abs=slip * 10 + 1e-9)
        reach = np.hypot(stretch * np.linalg.norm(delta, axis=1), spread)
        assert (np.linalg.norm(moved, axis=1) <= reach * (1 + 1e-9)).all(), (kind, weight)
        everywhere, allowed = np.linalg.solve(basis, GRID.T).T, np.hypot(np.linalg.norm(GRID, axis=1), spread)
        outside = np.linalg.norm(everywhere, axis=1) > allowed
        held, shorter = held + (spread > 0), shorter + bool(outside.any())
    assert weight == 0 or held > 3
    assert weight == 0 or shorter > 3  # it leaves something out


def test_a_weight_that_rounding_would_decide_is_refused() -> None:
    cell = drifting(unit_sae(), np.array([3.0, 4.0, 5.0]), (0, 1, 2), 0.1)
    confined(cell, 1e4, 3)
    for weight in (1e15, 1e300):
        with pytest.raises(Rejected, match="too large"):
            confined(cell, weight, 3)


def test_what_drifts_pins_nothing() -> None:
    y = np.array([3.0, 4.0, 5.0])
    for share, moves in ((0.0, False), (0.1, True)):
        cell = drifting(unit_sae(), y, (0, 1, 2), share)
        assert cell.moves == moves
        assert len(cell.fixed_rows()) == (0 if moves else 3)
    silent = drifting(unit_sae(-9.0), y, (0, 1, 2), 100.0)  # nothing is on: a share of nothing
    assert not silent.moves
