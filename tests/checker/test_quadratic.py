"""Quadratic bounds: both checkers agree, exactly; what they accept is true; hostile input is survived."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sae_verify.certificates.quadratic import quadratic_evidence, quadratic_step
from sae_verify.certificates.statements import write_statements
from sae_verify.checker import Rejected
from sae_verify.checker.statements import check_statements
from sae_verify.checker.statements.check import prove, read_statements
from sae_verify.checker.statements.quadratic import Evidence, Quadratic, dual_value
from sae_verify.checker.verified import check_verified_quadratic, quadratic_text, verify_file
from sae_verify.checker.whole import Factor, Whole
from sae_verify.errors import InputError
from sae_verify.sae import load_sae
from tests.support.tiny import tiny_sae

from .test_verified import needs_binary, run

Array = np.ndarray


def random_question(rng: np.random.Generator, d: int | None = None) -> Quadratic:
    """Definite, indefinite and singular matrices of many sizes; zero is admissible."""
    d = int(rng.integers(1, 9)) if d is None else d
    a = rng.normal(size=(d, d))
    matrix = (
        (a + a.T) / 2 if rng.random() < 0.6 else float(rng.choice([-1.0, 1.0])) * (a[:, : d // 2] @ a[:, : d // 2].T)
    )
    matrix = (matrix + matrix.T) / 2 * float(rng.choice([1.0, 1e-3, 1e4]))
    equal = rng.random(int(rng.integers(0, 5))) < 0.3
    normals = rng.normal(size=(len(equal), d))
    if rng.random() < 0.5:
        matrix, normals = (matrix.astype(np.float32).astype(np.float64), normals.astype(np.float32).astype(np.float64))
    return Quadratic(
        matrix=matrix,
        linear=rng.normal(size=d) * float(rng.choice([0.0, 1.0, 1e-6, 1e3])),
        constant=float(rng.normal()),
        radius=float(rng.choice([0.0, 0.3, 1.0, 7.0])),
        normals=normals,
        levels=np.where(equal, 0.0, rng.exponential(size=len(equal))),
        equal=equal,
    )


def largest_found(q: Quadratic, rng: np.random.Generator, tries: int = 40) -> float:
    """The largest value at admissible points that were tried; up to float rounding."""
    d, best = len(q.linear), q.constant
    flat = np.linalg.svd(q.normals[q.equal])[2][int(q.equal.sum()) :] if q.equal.any() else np.eye(d)
    _, vectors = np.linalg.eigh(q.matrix)
    for y in (*rng.normal(size=(tries, d)), *vectors.T, *(-vectors.T), q.linear):
        y = flat.T @ (flat @ y)
        y = y * (q.radius / (np.linalg.norm(y) + 1e-300))
        for w, s in zip(q.normals[~q.equal], q.levels[~q.equal], strict=True):
            y = y * min(1.0, s / max(w @ y, 1e-300)) if w @ y > s else y
        best = max(best, float(q.constant + q.linear @ y + 0.5 * y @ q.matrix @ y))
    return best


def accepted(q: Quadratic, e: Evidence, upper: float) -> bool:
    """What the Python checker says."""
    try:
        return dual_value(q, e).at_most(upper)
    except Rejected:
        return False


def verified(q: Quadratic, e: Evidence, upper: float) -> bool:
    """What the program says."""
    try:
        check_verified_quadratic(q, e, upper)
    except Rejected:
        return False
    return True


def change(q: Quadratic, e: Evidence, upper: float, rng: np.random.Generator) -> tuple[Quadratic, Evidence, float]:
    """One thing is altered; what that proves, if anything, is for the checkers to say."""
    kind, d, k = int(rng.integers(0, 12)), len(q.linear), len(q.levels)
    i, j, factor = int(rng.integers(d)), int(rng.integers(d)), float(rng.choice([1e-3, 1e-9, 1.0, -1.0, 1e3]))
    scale = abs(upper) + 1e-3
    if kind == 0:
        return q, e, upper - abs(factor) * scale
    if kind == 1:
        return q, dataclasses.replace(e, shift=e.shift * (1 - factor)), upper
    if kind in (2, 3):
        lower = e.factor.copy()
        lower[max(i, j), min(i, j)] += factor * (float(np.abs(lower).max()) + 1e-3)
        return q, dataclasses.replace(e, factor=lower), upper
    if kind == 4:
        vector = e.vector.copy()
        vector[i] += factor
        return q, dataclasses.replace(e, vector=vector), upper + scale
    if kind in (5, 6):
        matrix = q.matrix.copy()
        matrix[i, j] += factor * (float(np.abs(matrix).max()) + 1e-3)
        if kind == 5:
            matrix[j, i] = matrix[i, j]
        return dataclasses.replace(q, matrix=matrix), e, upper + abs(factor)
    if kind == 7:
        return dataclasses.replace(q, radius=q.radius * (1 + factor)), e, upper
    if kind == 8:
        linear = q.linear.copy()
        linear[i] += factor
        return dataclasses.replace(q, linear=linear), e, upper
    if k and kind == 9:
        multipliers = e.multipliers.copy()
        multipliers[int(rng.integers(k))] += factor
        return q, dataclasses.replace(e, multipliers=multipliers), upper + scale
    if k and kind == 10:
        equal = q.equal.copy()
        at = int(rng.integers(k))
        equal[at] = ~equal[at]
        return dataclasses.replace(q, equal=equal), e, upper
    return dataclasses.replace(q, constant=q.constant + factor * 1e-9), e, upper


def agree(cases: int, seed: int) -> None:
    """Both checkers on certificates and mutants; an accepted one is never below what an admissible point reaches."""
    rng, mutants = np.random.default_rng(seed), {True: 0, False: 0}
    for _ in range(cases):
        q = random_question(rng)
        e = quadratic_evidence(q)
        upper = dual_value(q, e).rounded_up()
        for claim in ((q, e, upper), change(q, e, upper, rng), change(q, e, upper, rng)):
            says = accepted(*claim)
            assert verified(*claim) == says
            if claim[0] is q and claim[1] is e and claim[2] == upper:
                assert says
            else:
                mutants[says] += 1
            if says and np.array_equal(claim[0].matrix, claim[0].matrix.T):
                found = largest_found(claim[0], rng, 8)
                reach = np.abs(claim[0].matrix).sum() * claim[0].radius ** 2 + np.abs(claim[0].linear).sum() + 1.0
                assert found <= claim[2] + 1e-10 * (reach + abs(claim[2]))
    assert min(mutants.values()) >= cases // 4


@needs_binary
def test_both_checkers_agree() -> None:
    agree(250, 0)


@needs_binary
@pytest.mark.slow
def test_both_checkers_agree_a_thousand_times() -> None:
    agree(1000, 1)


def exact_value(q: Quadratic, e: Evidence) -> tuple[Fraction, Fraction]:
    """(twice the bound without the norm's part, the square of that part) in rationals, from the formula."""
    number = np.vectorize(Fraction, otypes=[object])
    matrix, linear, v, rows = number(q.matrix), number(q.linear), number(e.vector), number(q.normals)
    nu, m, radius = [Fraction(p) for p in e.multipliers], Fraction(e.shift), Fraction(q.radius)
    shifted = m * np.eye(len(linear), dtype=int).astype(object) - matrix
    a = linear - sum((p * row for p, row in zip(nu, rows, strict=True)), start=0 * linear)
    cost = Fraction(q.constant) + sum(p * Fraction(s) for p, s in zip(nu, q.levels, strict=True))
    rest = a - shifted.dot(v)
    return 2 * cost + m * radius**2 + v.dot(shifted).dot(v), 4 * radius**2 * rest.dot(rest)


def is_psd(matrix: Array) -> bool:
    """Whether a symmetric matrix of rationals is positive semidefinite: elimination with the pivots' signs."""
    rest = matrix.copy()
    while rest.size:
        pivot = rest[0, 0]
        if pivot < 0 or (pivot == 0 and any(rest[0, 1:] != 0)):
            return False
        below = rest[1:, 1:]
        rest = below - np.outer(rest[1:, 0], rest[0, 1:]) / pivot if pivot else below
    return True


@pytest.mark.parametrize("seed", range(40))
def test_the_least_bound_in_rationals(seed: int) -> None:
    """The shifted matrix is positive semidefinite; floats on both sides of the exact bound are told apart."""
    rng = np.random.default_rng(seed)
    q = random_question(rng)
    e = quadratic_evidence(q)
    shifted = np.vectorize(Fraction, otypes=[object])(-q.matrix)
    shifted[np.diag_indices(len(shifted))] += Fraction(e.shift)
    assert is_psd(shifted)
    fixed, square = exact_value(q, e)

    def holds(bound: float) -> bool:
        return 2 * Fraction(bound) >= fixed and square <= (2 * Fraction(bound) - fixed) ** 2

    value = dual_value(q, e)
    assert (value.fixed, value.square) == (fixed, square)
    high = value.rounded_up()
    assert holds(high)
    low = high - abs(high) * 1e-15 - 1e-300
    while (middle := 0.5 * (low + high)) not in (low, high):
        low, high = (low, middle) if holds(middle) else (middle, high)
    assert value.at_most(high)
    assert value.at_most(low) == holds(low)
    assert value.rounded_up() <= np.nextafter(high, np.inf)


@pytest.mark.parametrize("seed", range(12))
def test_the_bound_is_tight_without_constraints(seed: int) -> None:
    """Trust region duality has no gap over a ball: a point near the bound is found from the spectrum."""
    rng = np.random.default_rng(seed)
    q = random_question(rng, 6)
    q = dataclasses.replace(q, normals=np.zeros((0, 6)), levels=np.zeros(0), equal=np.zeros(0, dtype=bool), radius=1.0)
    e = quadratic_evidence(q)
    values, vectors = np.linalg.eigh(q.matrix)
    turned = vectors.T @ q.linear
    y = turned / np.maximum(e.shift - values, 1e-300)
    y *= min(1.0, 1.0 / np.linalg.norm(y)) if np.linalg.norm(y) > 0 else 1.0
    if e.shift > 1e-6:
        y[-1] += np.copysign(np.sqrt(max(0.0, 1.0 - y @ y)), turned[-1])  # the rest of the length, if any
        y /= max(1.0, np.linalg.norm(y))
    reached = q.constant + turned @ y + 0.5 * values @ y**2
    size = np.abs(values).max() + np.linalg.norm(turned) + 1.0
    upper = dual_value(q, e).rounded_up()
    assert reached - 1e-12 * size <= upper <= reached + 1e-5 * size


def test_half_spaces_help() -> None:
    """A cut n . y <= b of the ball: the bound falls below the ball's, and stays above what is reached."""
    rng = np.random.default_rng(0)
    for _ in range(10):
        q = random_question(rng, 6)
        none = dataclasses.replace(q, normals=np.zeros((0, 6)), levels=np.zeros(0), equal=np.zeros(0, dtype=bool))
        direction = none.linear + 1.0
        q = dataclasses.replace(none, radius=1.0, linear=direction, matrix=none.matrix / np.abs(none.matrix).max())
        cut = dataclasses.replace(q, normals=direction[None], levels=np.zeros(1), equal=np.zeros(1, dtype=bool))
        whole, half = (dual_value(p, quadratic_evidence(p)).rounded_up() for p in (q, cut))
        assert largest_found(cut, rng, 400) <= half + 1e-9 * (1 + abs(half))
        assert half < whole - 0.1


def test_a_sign_or_a_shape_that_proves_nothing() -> None:
    rng = np.random.default_rng(4)
    q = dataclasses.replace(random_question(rng, 5), radius=1.0)
    e = quadratic_evidence(q)
    asymmetric = q.matrix.copy()
    asymmetric[0, 1] += 1e-9
    fine = e.factor.copy()
    fine[4, 0] = 1e-30
    for question, evidence, reason in (
        (dataclasses.replace(q, radius=-1.0), e, "radius is negative"),
        (q, dataclasses.replace(e, shift=-1.0), "shift is negative"),
        (dataclasses.replace(q, matrix=asymmetric), e, "not symmetric"),
        (q, dataclasses.replace(e, factor=e.factor.T.copy()), "not lower triangular"),
        (q, dataclasses.replace(e, factor=10 * e.factor), "not diagonally dominant"),
        (q, dataclasses.replace(e, factor=fine), "round it"),
        (q, dataclasses.replace(e, vector=e.vector + np.nan), "finite"),
    ):
        with pytest.raises(Rejected, match=reason):
            dual_value(question, evidence)
    with pytest.raises(InputError, match="not symmetric"):
        quadratic_evidence(dataclasses.replace(q, matrix=asymmetric))
    with pytest.raises(InputError, match="proves"):
        quadratic_step(q, e, Path(), "x", dual_value(q, e).rounded_up() - 1e-3)


def test_exact_arithmetic() -> None:
    """Whole arrays and the products by limbs against Python's rationals."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = (rng.normal(size=(3, 4)) * 2.0 ** rng.integers(-60, 60, size=(3, 4)) for _ in range(2))
        a[0, 0], b[0, 0] = 0.0, float(rng.choice([5e-324, 1e300, 1.0]))
        exact = (np.vectorize(Fraction, otypes=[object])(x) for x in (a, b))
        fa, fb = exact
        left, right = Whole.of(a), Whole.of(b)
        for got, want in ((left + right, fa + fb), (left - right, fa - fb), (left * right, fa * fb)):
            assert np.array_equal(got.integers, want * Fraction(2) ** got.exponent)
        product = left @ Whole.of(b.T)
        assert np.array_equal(product.integers, fa.dot(fb.T) * Fraction(2) ** product.exponent)
        bits = int(rng.integers(1, 60))
        whole = [[int(rng.integers(-(2**bits) + 1, 2**bits)) >> 7 << 7 for _ in range(5)] for _ in range(4)]
        matrix = np.array(whole, dtype=np.float64) * 2.0**-9
        integers = np.vectorize(Fraction, otypes=[object])(matrix)
        gram = Factor.of(matrix).gram_rows(slice(1, 3))
        assert np.array_equal(gram.integers, integers[1:3].dot(integers.T) * Fraction(2) ** gram.exponent)


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, dict[str, Any], Quadratic]:
    """A statement file of one quadratic bound with both kinds of constraints."""
    where = tiny_sae(tmp_path / "sae", "relu")
    rng = np.random.default_rng(2)
    q = random_question(rng, 6)
    q = dataclasses.replace(
        q, normals=rng.normal(size=(3, 6)), levels=np.array([0.0, 0.5, 0.1]), equal=np.array([False, True, False])
    )
    step = quadratic_step(q, quadratic_evidence(q), tmp_path, "tail")
    path = write_statements(load_sae(where).to(torch.float64), [step], tmp_path / "facts.cert")
    return path, step, q


def test_a_statement_file(written: tuple[Path, dict[str, Any], Quadratic]) -> None:
    path, step, q = written
    (statement,) = check_statements(path).statements
    assert statement.kind == "quadratic"
    assert statement.values == {
        "upper": step["upper"],
        "radius": q.radius,
        "order": 6,
        "halfspaces": 2,
        "equalities": 1,
    }
    assert "2 half-spaces and 1 equalities" in statement.text
    (path.parent / "tail.factor.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(Rejected, match="is not the one"):
        check_statements(path)


@needs_binary
def test_the_program_decides_it(written: tuple[Path, dict[str, Any], Quadratic]) -> None:
    path, _, _ = written
    assert verify_file(path) == (1, 1)
    content = json.loads(path.read_text())
    low = {**content["steps"][0], "upper": content["steps"][0]["upper"] - 1e-6}
    from sae_verify.checker.files import digest_json

    unsigned = {key: value for key, value in content.items() if key != "sha256"} | {"steps": [low]}
    path.write_text(json.dumps(unsigned | {"sha256": digest_json(unsigned)}))
    with pytest.raises(Rejected, match="exceeds the bound"):
        verify_file(path)
    with pytest.raises(Rejected, match="does not prove"):
        check_statements(path)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"theorem": "linear-dual"}, "must be trust-region"),
        ({"linear": []}, "must be 1 to"),
        ({"vector": [0.0]}, "must be 6 numbers"),
        ({"multipliers": {"halfspaces": [0.0], "equalities": [0.0]}}, "must be 2 numbers"),
        ({"multipliers": {"halfspaces": [-1.0, 0.0], "equalities": [0.0]}}, "negative multiplier"),
        ({"halfspaces": None}, "must be 0 numbers"),
        ({"shift": None}, "float64"),
        ({"matrix": {"path": "../tail.matrix.npy", "sha256": ""}}, "plain name"),
        ({"extra": 0}, "expected the keys"),
    ],
)
def test_malformed_steps(written: tuple[Path, dict[str, Any], Quadratic], changed: dict[str, Any], reason: str) -> None:
    path, step, _ = written
    _, subject, _ = read_statements(path, None)
    prove(subject, step, "step")
    with pytest.raises(Rejected, match=reason):
        prove(subject, step | changed, "step")


# y^T [[1, 1], [1, 1]] y / 2 over ||y|| <= 2 and y_0 + y_1 <= 3, shifted by 2: [[1, -1], [-1, 1]] = L L^T.
GOOD = (
    b"sae-verified 1\nkind quadratic\nexponents 0 0 0\norder 2\nconstraints 1\nradius 2\nconstant 0\nbound 4\n"
    b"linear 0 0\nshift 2\ngain 1\ncentre 0 0\nupper 3 0\n1 1\nmatrix\n1 1\n1\nfactor\n1\n-1 0\nend\n"
)


@needs_binary
def test_every_truncation_is_rejected() -> None:
    assert run(GOOD).returncode == 0
    for length in range(len(GOOD)):
        done = run(GOOD[:length])
        assert done.returncode == 4
        assert done.stderr.startswith(b"rejected: ")


HOSTILE: dict[bytes, list[bytes]] = {
    b"bound 4": [b"bound 3", b"bound -4", b"bound 04", b"bound x", b"bound 4.0", b"bound " + b"f" * 1201, b"bound"],
    b"radius 2": [b"radius -2", b"radius 3"],
    b"shift 2": [b"shift -2", b"shift 1", b"shift 3"],
    b"gain 1": [b"gain -1", b"gain 2"],
    b"order 2": [b"order " + v for v in (b"0", b"1", b"3", b"4097", b"9" * 30, b"-1", b"")],
    b"constraints 1": [b"constraints " + v for v in (b"0", b"2", b"1048577", b"-1", b"")],
    b"order 2\nconstraints 1": [b"order 4096\nconstraints 1048576"],
    b"exponents 0 0 0": [b"exponents 0 0", b"exponents 0 0 0 0", b"exponents 0 0 10001"],
    b"upper 3 0": [b"upper 3 -1", b"lower 3 0", b"upper 3", b"upper 3 0 0", b"equal 3"],
    b"centre 0 0": [b"centre 0", b"centre 0 0 0", b"centre 0 a."],
    b"matrix\n1 1\n1\n": [
        b"matrix\n1 1\n",
        b"matrix\n1\n1 1\n",
        b"matrix\n1 1\n1 1\n",
        b"1 1\n1\n",
        b"matrix\n1 2\n1\n",
    ],
    b"factor\n1\n-1 0\n": [
        b"",
        b"factor\n1\n",
        b"factor\n1\n1 0\n",
        b"factor\n1 0\n-1 0\n",
        b"factor\n1\n-1 0\n0 0 0\n",
    ],
    b"-1 0": [b"-" + b"f" * 16 + b" 0", b"-1 " + b"f" * 1_000_000, b"-1 \xff", b"-1 0 0"],
    b"kind quadratic": [b"kind cubic", b"side upper", b"kind " + b"q" * 1_000_000],
    b"end\n": [b"end\n\n", b"end\nx", b"end", b"0\nend\n"],
}


@needs_binary
@pytest.mark.parametrize(("old", "new"), [(old, new) for old, every in HOSTILE.items() for new in every])
def test_hostile_input(old: bytes, new: bytes) -> None:
    assert old in GOOD
    done = run(GOOD.replace(old, new, 1), 10)
    assert done.returncode == 4
    assert done.stdout == b""
    assert done.stderr.startswith(b"rejected: ")


@needs_binary
def test_random_bytes_never_break_it() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        text = bytearray(GOOD)
        for _ in range(int(rng.integers(1, 4))):
            text[int(rng.integers(len(text)))] = int(rng.integers(256))
        assert run(bytes(text)).returncode in (0, 4)  # a changed digit may leave a true statement


@needs_binary
def test_the_largest_floats_fit() -> None:
    """Subnormal and huge numbers together stay within the limits of the format."""
    q = Quadratic(
        matrix=np.diag([5e-324, -1.0]),
        linear=np.array([5e-324, 0.0]),
        constant=-1e300,
        radius=1.0,
        normals=np.array([[5e-324, 1.0]]),
        levels=np.array([1.0]),
        equal=np.array([False]),
    )
    e = Evidence(1.0, np.diag([1.0 - 2.0**-20, 1.0]), np.zeros(2), np.array([2.0**-30]))
    assert accepted(q, e, 0.0)
    assert verified(q, e, 0.0)
    assert run(quadratic_text(q, e, -1e301)).returncode == 4
