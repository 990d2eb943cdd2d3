"""The threat drift(t): the defended features may move a little, ||E_S(h + delta) - E_S(h)|| <= t ||E_S(h)||.

Source: arXiv 2606.18322 measures 0.131 and 0.108 after the fact; here it is a constraint, which the checker's
arithmetic proves of every recovery (theory/23-drift.md). What does not drift at all is admissible, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from sae_verify.attacks import Pgd
from sae_verify.attacks.drift import drift_of, share_of_code
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.instance import Batch, prepare
from sae_verify.problem import Problem
from sae_verify.study.ladder import Exact, Rung, climb, with_threat

__all__ = ["allowed_drift", "climb_drift", "drift_of"]


def allowed_drift(batch: Batch, t: float) -> Array:
    """t ||E_S(h)||, (B,), whatever the batch's own threat."""
    return share_of_code(batch, t)


def climb_drift(problem: Problem, t: float, budgets: Sequence[float], settings: Pgd, known: Rung, exact: Exact) -> Rung:
    """Attack under drift(t).

    Args:
        problem: the prompts; its own threat plays no part.
        t: the share that the defended features may move.
        budgets: radii in units of ||h||.
        settings: of the ascent.
        known: the rung of `defended`, all of which is admissible here.
        exact: the checker's arithmetic.

    """
    batch = prepare(with_threat(problem, "drift", t))
    rung = climb(batch, budgets, settings, exact)
    best = {
        budget: tuple(
            max(pair, key=lambda one: (one.admissible, one.value))
            for pair in zip(found, known.best[budget], strict=True)
        )
        for budget, found in rung.best.items()
    }
    shortest = tuple(
        min((one for one in pair if one is not None), key=lambda one: one.length, default=None)
        for pair in zip(rung.shortest, known.shortest, strict=True)
    )
    return Rung(batch, shortest, best)
