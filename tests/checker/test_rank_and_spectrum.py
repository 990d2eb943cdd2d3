"""Statements about rank and singular values: what is proposed is accepted, and no false claim is."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from sae_verify.certificates.statements import write_statements
from sae_verify.checker import Rejected
from sae_verify.checker.files import digest_json
from sae_verify.checker.statements import Statement, check_statements
from sae_verify.checker.statements.check import prove
from sae_verify.errors import InputError, UnsupportedError
from sae_verify.geometry.rank import rank_step
from sae_verify.geometry.spectral_gap import resolution, singular_values_step
from sae_verify.sae import load_sae, save_sae

from .spectra import KINDS, D, claim_holds, judged, rows_of, sae_of, subject_of

# --- what is proposed is accepted -----------------------------------------------------------------------------------


@pytest.mark.parametrize("matrix", ["decoder", "encoder"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("features", [None, [], [3], [5, 0], [6, 4, 2, 0], [0, 1, 2, 3, 4, 5]])
def test_what_is_proposed_is_accepted_and_true(kind: str, matrix: Any, features: list[int] | None) -> None:
    rows = rows_of(kind, 1)
    sae, subject = sae_of(rows), subject_of(rows)
    steps = [rank_step(sae, features, matrix=matrix)]
    sides: list[Any] = [None, "directions"]
    for side in sides:
        try:
            steps.append(singular_values_step(sae, features, matrix=matrix, side=side))
        except UnsupportedError:
            assert kind in ("scales", "nearly", "deficient", "repeated")  # a value between the two sides
            steps.append(singular_values_step(sae, features, matrix=matrix, side=side, relative=1.0))
    for step in steps:
        assert judged(subject, step) is not None
        assert claim_holds(rows, step)


@given(st.sampled_from(KINDS), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e-6, 0.3, 1.0]))
@settings(max_examples=60)
def test_every_step_that_is_made_is_accepted(kind: str, seed: int, relative: float) -> None:
    rows = rows_of(kind, seed)
    sae, subject = sae_of(rows), subject_of(rows)
    try:
        step = singular_values_step(sae, relative=relative)
    except UnsupportedError:
        return
    assert judged(subject, step) is not None
    assert claim_holds(rows, step)


def test_the_text_says_what_is_proved() -> None:
    rows = rows_of("nearly", 0)
    sae, subject = sae_of(rows), subject_of(rows)
    said = judged(subject, singular_values_step(sae, relative=1e-3))
    assert said is not None
    values = np.linalg.svd(rows, compute_uv=False)
    at_most, lower = said.values["at_most"], said.values["at_least"]
    assert said.text == f"decoder rows (all 7): exactly 1 of 4 singular values <= {at_most!r}, the others >= {lower!r}"
    assert values[3] <= at_most <= 1.001 * values[3]
    assert 0.999 * values[2] <= lower <= values[2]
    full = judged(subject, rank_step(sae, [2, 5]))
    assert full is not None
    assert full.text == "decoder rows (2): rank >= 2 over the rationals, no more being possible"


def test_files_end_to_end(tmp_path: Path) -> None:
    sae = sae_of(rows_of("deficient", 0))
    save_sae(sae, tmp_path / "sae")
    stored = load_sae(tmp_path / "sae")
    steps = [rank_step(stored), singular_values_step(stored), singular_values_step(stored, [1, 2], matrix="encoder")]
    path = write_statements(stored, steps, tmp_path / "facts.json")
    accepted = check_statements(path)
    assert [s.kind for s in accepted.statements] == ["rank", "singular-values", "singular-values"]
    assert accepted.statements[0].values["rank"] == 3
    content = json.loads(path.read_text())
    content["steps"][0]["rank"] = 4
    del content["sha256"]
    path.write_text(json.dumps({**content, "sha256": digest_json(content)}))
    with pytest.raises(Rejected, match="4 different indices"):
        check_statements(path)


def test_a_value_between_the_sides_is_refused_with_a_reason() -> None:
    rows = np.diag([1.0, 1e-5, 1e-11, 1.0])
    with pytest.raises(UnsupportedError, match="can be proven above"):
        singular_values_step(sae_of(rows), relative=0.0)
    with pytest.raises(InputError, match="rows in"):
        singular_values_step(sae_of(rows_of("random", 0)), side="rows")


@pytest.mark.parametrize(("d", "n", "few"), [(4, 7, 0), (50, 60, 3), (300, 700, 2), (300, 700, 299), (64, 3000, 1)])
def test_the_resolution_that_the_search_assumes_is_the_checkers(d: int, n: int, few: int) -> None:
    """Just above it a lower side is proposed, and accepted."""
    rng = np.random.default_rng(d + n)
    left, right = np.linalg.qr(rng.normal(size=(n, d)))[0], np.linalg.qr(rng.normal(size=(d, d)))[0]
    values = np.sort(rng.uniform(0.5, 3.0, d))[::-1].copy()
    values[d - few :] = 0.0
    limit = resolution(values, n, few)
    assert limit < 1e-4
    values[d - few - 1] = 1.05 * limit
    rows = (left * values) @ right.T
    step = singular_values_step(sae_of(rows), relative=0.1 * limit)
    assert len(step["vectors"]) == few
    assert judged(subject_of(rows), step) is not None


def test_lower_claims_are_sharp_down_to_the_documented_resolution() -> None:
    rows = np.diag([1.0, 1.0, 1.0, 4e-7])
    rows = np.concatenate([rows, np.zeros((3, D))])
    step = singular_values_step(sae_of(rows), relative=1e-9)
    assert step["at_least"] > 3e-7
    assert judged(subject_of(rows), step) is not None


# --- attacks --------------------------------------------------------------------------------------------------------


@st.composite
def mutants(draw: st.DrawFn) -> tuple[np.ndarray, dict[str, Any]]:
    """A genuine step of some rows, and changes to its claim or its evidence."""
    rows = rows_of(draw(st.sampled_from(KINDS)), draw(st.integers(0, 50)))
    sae = sae_of(rows)
    features = draw(st.sampled_from([None, None, [0, 2], [1, 3, 5]]))
    if draw(st.booleans()):
        step = rank_step(sae, features)
        change = draw(st.sampled_from(["more", "other row", "other column", "prime", "features", "swap"]))
        if change == "more":
            free_rows = sorted(set(range(7 if features is None else len(features))) - set(step["chosen"]))
            free_columns = sorted(set(range(D)) - set(step["columns"]))
            step["rank"] += 1
            step["chosen"] += free_rows[:1] or [0]
            step["columns"] += free_columns[:1] or [0]
        elif change.startswith("other") and step["rank"]:
            key = "chosen" if change == "other row" else "columns"
            step[key][draw(st.integers(0, step["rank"] - 1))] = draw(st.integers(0, 7))
        elif change == "prime":
            step["prime"] = draw(st.sampled_from([3, 5, 7, 2**22 - 3]))
        elif change == "swap":
            step["chosen"], step["columns"] = step["columns"], step["chosen"]
        else:
            step["rows"]["features"] = draw(st.lists(st.integers(0, 6), unique=True, max_size=4))
        return rows, step
    relative = draw(st.sampled_from([0.0, 1e-6, 0.1, 0.5, 1.0]))
    side = "rows" if features is not None and draw(st.booleans()) else "directions"
    try:
        step = singular_values_step(sae, features, relative=relative, side=side)  # type: ignore[arg-type]
    except UnsupportedError:
        step = singular_values_step(sae, features, relative=1.0, side=side)  # type: ignore[arg-type]
    for _ in range(draw(st.integers(1, 2))):
        change = draw(st.sampled_from(["at_most", "at_least", "nudge", "drop", "double", "repeat", "scale", "other"]))
        vectors = step["vectors"]
        if change in ("at_most", "at_least") and step[change] is not None:
            factor = draw(st.sampled_from([0.0, 0.5, 0.99, 1 - 1e-4, 1 + 1e-4, 1.01, 2.0, 1e150, 1e-150]))
            step[change] = min(step[change] * factor, 1e300)
        elif change == "nudge" and vectors:
            size = draw(st.sampled_from([1e-16, 1e-9, 1e-3, 1.0, 1e150, 1e300]))
            vectors[draw(st.integers(0, len(vectors) - 1))][0] += size
        elif change == "drop" and vectors:
            vectors.pop()
        elif change == "double":
            size = len(vectors[0]) if vectors else (D if side == "directions" else len(features or range(7)))
            vectors.append([float(i == 0) for i in range(size)])
            step["at_most"] = step["at_most"] if step["at_most"] is not None else 0.5
        elif change == "repeat" and vectors:
            vectors.append(list(vectors[0]))
        elif change == "scale" and vectors:
            factor = draw(st.sampled_from([0.0, 0.5, 1 + 1e-7, 2.0, 1e-160, 1e160]))
            step["vectors"] = [[x * factor for x in row] for row in vectors]
        elif change == "other":
            step["rows"]["features"] = [0, 6]
    if step["at_most"] is not None and not step["vectors"] and draw(st.booleans()):
        step["at_most"] = None
    return rows, step


@given(mutants())
@settings(max_examples=400)
def test_no_false_claim_is_accepted(mutant: tuple[np.ndarray, dict[str, Any]]) -> None:
    rows, step = mutant
    if judged(subject_of(rows), step) is not None:
        assert claim_holds(rows, step)


def test_the_attacks_make_false_claims() -> None:
    """Otherwise the test above could not fail: a checker that believed its evidence would be caught."""
    for kind in ("rank", "singular-values"):
        find(
            mutants(),
            lambda mutant, kind=kind: mutant[1]["kind"] == kind and not claim_holds(*mutant),
            settings=settings(max_examples=500, phases=(Phase.generate,), suppress_health_check=list(HealthCheck)),
        )


def genuine() -> tuple[np.ndarray, dict[str, Any], dict[str, Any]]:
    rows = rows_of("nearly", 0)
    return rows, rank_step(sae_of(rows)), singular_values_step(sae_of(rows), relative=1e-3)


HOSTILE: list[tuple[str, Any]] = [
    *((key, value) for key in ("rank", "prime") for value in (-1, 1.5, True, None, "4", 2**39, [4])),
    *(("prime", value) for value in (0, 1, 2, 4, 9, 2047 * 2039, 2**22 + 15)),
    *((key, value) for key in ("chosen", "columns") for value in (None, 4, [0, 1, 2], [0, 1, 2, 2], [0, 1, 2, -1])),
    *((key, value) for key in ("chosen", "columns") for value in ([0, 1, 2, 7], [0, 1, 2, 2**39], [0.0, 1, 2, 3], [])),
    *(("rows", value) for value in (None, {}, {"matrix": "bias", "features": None}, {"matrix": "decoder"})),
    *(("rows", {"matrix": "decoder", "features": value}) for value in ([7], [0, 0], [-1], "all", [1.5])),
    *((key, v) for key in ("at_most", "at_least") for v in (-1.0, math.nan, math.inf, 10**400, "1", True, [1.0])),
    *(("side", value) for value in ("columns", None, 1, ["rows"])),
    ("side", "rows"),
    *(("vectors", value) for value in (None, [1.0], [[1.0]], [[1.0] * 5], [[math.nan] * 4], [["1"] * 4], {}, [None])),
    ("vectors", [[1.0, 0.0, 0.0, 0.0]] * 5),
    ("vectors", []),
    ("vectors", [[0.0] * 4]),
    ("vectors", [[1e300] * 4]),
    ("theorem", "linear-dual"),
]


@pytest.mark.parametrize(("key", "value"), HOSTILE, ids=lambda v: str(v)[:30])
def test_hostile_values_are_rejected(key: str, value: Any) -> None:
    rows, *steps = genuine()
    subject = subject_of(rows)
    met = 0
    for step in steps:
        if key in step:
            met += 1
            changed = copy.deepcopy(step)
            changed[key] = value
            with pytest.raises(Rejected):
                prove(subject, changed, "step")
    assert met


@pytest.mark.parametrize("index", [0, 1])
def test_missing_and_surplus_keys_are_rejected(index: int) -> None:
    rows, *steps = genuine()
    for key in steps[index]:
        with pytest.raises(Rejected):
            prove(subject_of(rows), {k: v for k, v in steps[index].items() if k != key}, "step")
    with pytest.raises(Rejected):
        prove(subject_of(rows), {**steps[index], "more": 1}, "step")


def test_sides_that_meet_or_are_missing_are_rejected() -> None:
    rows, _, step = genuine()
    subject = subject_of(rows)
    for change in (
        {"at_most": None, "at_least": None},
        {"at_least": step["at_most"]},
        {"vectors": []},
        {"vectors": np.eye(D).tolist(), "at_most": 100.0},
    ):
        with pytest.raises(Rejected):
            prove(subject, {**step, **change}, "step")
    for change in ({"at_most": None}, {"at_least": None}):
        one_sided = {**step, **change}
        said = prove(subject, one_sided, "step")
        assert "exactly" not in said.text
        assert claim_holds(rows, one_sided)


def test_weights_beyond_the_range_are_rejected() -> None:
    step = genuine()[2]
    for size in (1e200, 1e-200, math.inf, math.nan):
        with pytest.raises(Rejected, match="out of range"):
            prove(subject_of(rows_of("nearly", 0) * size), step, "step")


def test_weights_that_are_not_finite_have_no_rank() -> None:
    for size in (math.inf, -math.inf, math.nan):
        rows = rows_of("random", 0)
        step = rank_step(sae_of(rows))
        rows[step["chosen"][0], step["columns"][0]] = size
        with pytest.raises(Rejected, match="not finite"):
            prove(subject_of(rows), step, "step")


def spectral(rows: np.ndarray, vectors: Any, at_most: float | None, lower: float | None) -> Statement | None:
    step = {
        "kind": "singular-values",
        "theorem": "spectral-gap",
        "rows": {"matrix": "decoder", "features": None},
        "side": "directions",
        "vectors": np.asarray(vectors).tolist(),
        "at_most": at_most,
        "at_least": lower,
    }
    said = judged(subject_of(rows), step)
    assert said is None or claim_holds(rows, step)
    return said


@pytest.mark.parametrize("off", [0.5, 1e-3, 1e-9, 1e-13, 1e-15])
def test_claims_that_are_false_by_a_hair_are_rejected(off: float) -> None:
    assert spectral(np.eye(D), np.eye(D), 1.0 - off, None) is None
    assert spectral(np.eye(D), [], None, 1.0 + off) is None
    slack = max(off, 1e-13)
    assert spectral(np.eye(D), np.eye(D), 1.0 + slack, None) is not None
    assert spectral(np.eye(D), [], None, 1.0 - slack) is not None


@pytest.mark.parametrize("factor", [0.75, 0.9, 0.999999, 1.2])
def test_shortened_directions_gain_nothing(factor: float) -> None:
    """A V is shorter by the factor, and so is every y that it is compared with."""
    vectors = factor * np.eye(D)
    assert spectral(np.eye(D), vectors, 1.0 - 0.5 * abs(1.0 - factor), None) is None
    mixed = np.eye(D)
    mixed[0, 1] = 0.3  # not orthogonal: the sum of two directions is longer than its share, the difference shorter
    assert spectral(np.eye(D), mixed[:2], 0.999, None) is None


def test_dependent_directions_count_once() -> None:
    rows = np.diag([1.0, 1.0, 1.0, 0.0])
    last = [[0.0, 0.0, 0.0, 1.0]]
    assert spectral(rows, last, 1e-9, 0.9) is not None
    assert spectral(rows, last * 2, 1e-9, None) is None
    tilted = [[0.0, 0.0, 1e-9, 1.0], [0.0, 1e-9, 0.0, 1.0]]
    assert spectral(rows, tilted, 1e-6, None) is None


def test_nothing_is_proven_to_be_exactly_zero() -> None:
    vectors = [[0.0, 0.0, 0.0, 1.0]]
    for tiny in (1e-20, 1e-140):
        rows = np.diag([1.0, 1.0, 1.0, tiny])
        for claimed in (0.0, tiny / 2):
            assert spectral(rows, vectors, claimed, None) is None


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_product_that_cancels_in_floats_is_not_zero(place: int) -> None:
    """A V is computed as zero in some order of summation; the smallest singular value is some 2^-60 / 3."""
    first = np.roll([2.0**-60, 1.0, -1.0], place).tolist()
    rows = np.array([first, [1.0, -1.0, 0.0], [0.0, 1.0, -1.0]])
    vector = [[1.0 / math.sqrt(3.0)] * 3]
    assert spectral(rows, vector, 1e-25, None) is None
    assert spectral(rows, vector, 1e-13, 0.9) is not None


def test_the_side_of_the_rows_is_for_few_rows() -> None:
    rows = rows_of("random", 0)
    step = singular_values_step(sae_of(rows), [0, 1, 2], side="rows")
    assert judged(subject_of(rows), step) is not None
    step["rows"]["features"] = None
    with pytest.raises(Rejected, match="no more rows than dimensions"):
        prove(subject_of(rows), step, "step")
