"""The published optimiser leaves the held set and recovers no more than ours; its cost is for the benchmark."""

from __future__ import annotations

from benchmarks.published_attack import VIOLATION, compare


def test_ours_recovers_as_often_and_stays_inside(refusal):
    _, setup, _ = refusal
    row = compare(setup.problem(setup.flips, held="preactivations"), 0.2)
    assert row["ours"] >= row["published"]
    assert row["our_violation"] < VIOLATION < row["their_violation"]
