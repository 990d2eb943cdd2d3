"""The verified checker decides as the Python one does, up to the latter's rounding, and survives hostile input."""

from __future__ import annotations

import copy
import dataclasses
import re
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sae_verify.checker import Rejected
from sae_verify.checker.arithmetic import Ball
from sae_verify.checker.multipliers import read_multipliers
from sae_verify.checker.reader import Reader
from sae_verify.checker.sae import Sae, state
from sae_verify.checker.statements import Subject, quadratic
from sae_verify.checker.statements.check import prove
from sae_verify.checker.statements.linear import KIND, Question, read_question
from sae_verify.checker.statements.quadratic import MAX_ORDER
from sae_verify.checker.verified import BINARY, MAX_ENTRIES, check_verified, exact_text
from sae_verify.checker.whole import MAX_BITS, MAX_TERMS
from tests.support.tiny import tiny_sae

from .test_linear_statements import mutate, step_of

PROOFS = BINARY.parents[1]
needs_binary = pytest.mark.skipif(not BINARY.is_file(), reason="the verified checker is not built (proofs/checker)")
HELD = ("free", "preactivations", "defended", "code")
ROUNDING = 1e-9
"""Relative: more than the Python checker's rounding can make of the sizes below."""


def random_subject(rng: np.random.Generator, architecture: str, d: int = 8, m: int = 24) -> Subject:
    """Weights that take every branch: float32 and float64 entries, odd input scales, b_dec subtracted or not."""

    def numbers(*shape: int) -> np.ndarray:
        values = rng.normal(size=shape)
        return values.astype(np.float32).astype(np.float64) if rng.random() < 0.7 else values

    parameters = {"b_enc": numbers(m) - 0.3}
    if architecture == "jumprelu":
        parameters["threshold"] = 0.4 * numbers(m) + 0.2  # some are negative
    sae = Sae(
        architecture=architecture,
        W_enc=numbers(d, m) * d**-0.5,
        W_dec=numbers(m, d),
        b_dec=0.3 * numbers(d),
        parameters=parameters,
        subtract_b_dec=bool(rng.integers(2)),
        normalization="none",
        input_scale=float(rng.choice([1.0, 0.25, 0.37, 1.9, 3.0])),
        digest="",
    )
    return Subject(sae, numbers(2, d), Path())


def question_of(subject: Subject, step: dict[str, Any]) -> Question:
    return read_question(subject, Reader(step, "step", ("kind", "theorem", *KIND.keys)))


def random_step(rng: np.random.Generator, subject: Subject, held: str) -> dict[str, Any]:
    """A step with random multipliers and the least bound that the Python checker accepts."""
    point = int(rng.integers(len(subject.points)))
    now = state(subject.sae, Ball.exact(subject.points[point]))
    on, off = np.flatnonzero(now.on), np.flatnonzero(now.off)
    if held == "free":
        on = off = on[:0]
    if held == "preactivations":
        on, off = np.arange(subject.m), off[:0]
    equal, upper = (rng.permutation(pool)[: int(rng.integers(0, 7))] for pool in (on, off))
    named = sorted({*equal.tolist(), *upper.tolist(), *rng.permutation(subject.m)[:2].tolist()})
    step: dict[str, Any] = {
        "kind": "linear-worst-case",
        "theorem": "linear-dual",
        "point": point,
        "held": held,
        "features": named if held in ("preactivations", "defended") else None,
        "ball": {"norm": str(rng.choice(["l2", "linf"])), "radius": float(rng.choice([0.0, 0.1, 0.5])), "factor": None},
        "direction": (rng.normal(size=subject.d) * rng.choice([1.0, 1e-8, 1e5])).tolist(),
        "upper": 0.0,
        "multipliers": {
            "x": {
                "equal": {"features": equal.tolist(), "values": rng.normal(size=equal.size).tolist()},
                "upper": {"features": upper.tolist(), "values": rng.exponential(size=upper.size).tolist()},
                "decoder": {"features": [], "values": []},
            }
        },
        "lower": None,
        "delta": None,
    }
    step["upper"] = question_of(subject, step).upper(read_multipliers(step["multipliers"], "multipliers"))
    return step


def exact_dual_value(subject: Subject, step: dict[str, Any]) -> tuple[Fraction, Fraction]:
    """(cost, square or sum of the rest) in rationals, straight from the definition; every feature is assumed to fit."""
    sae, x = subject.sae, subject.points[step["point"]]
    scale, roles = Fraction(sae.input_scale), step["multipliers"]["x"]
    shift = sae.b_dec if sae.subtract_b_dec else 0 * sae.b_dec
    rest, cost = [Fraction(g) for g in step["direction"]], Fraction(0)
    for role in ("equal", "upper"):
        for j, value in zip(roles[role]["features"], roles[role]["values"], strict=True):
            w = [Fraction(v) for v in sae.W_enc[:, j].tolist()]
            if role == "upper":
                a = sum(wi * (scale * Fraction(xi) - Fraction(bi)) for wi, xi, bi in zip(w, x, shift, strict=True))
                a += Fraction(sae.parameters["b_enc"][j])
                theta = max(Fraction(0), Fraction(sae.parameters.get("threshold", np.zeros(subject.m))[j]))
                cost += Fraction(value) * max(Fraction(0), theta - a) / scale
            rest = [r - Fraction(value) * wi for r, wi in zip(rest, w, strict=True)]
    size = sum(r * r for r in rest) if step["ball"]["norm"] == "l2" else sum(map(abs, rest))
    return cost, Fraction(size)


def accepts(subject: Subject, step: dict[str, Any]) -> str | None:
    """None, or why the verified checker rejects."""
    try:
        check_verified(subject, step)
    except Rejected as reason:
        return str(reason)
    return None


def compare(subject: Subject, step: dict[str, Any]) -> bool:
    """Whether the verified checker accepts; the two may differ by the Python checker's rounding alone."""
    why, python = accepts(subject, step), None
    try:
        prove(subject, {**step, "lower": None, "delta": None}, "step")
    except Rejected as reason:
        python = str(reason)
    if python is None:
        assert why is None
    elif why is None:
        found = re.search(r"exceeds \S+ by (\S+)", python)
        size = abs(step["upper"]) + float(np.abs(step["direction"]).sum()) + 10.0
        assert "may be off" in python or (found and float(found[1]) <= ROUNDING * size), python
    return why is None


def agree(cases: int, seed: int) -> None:
    rng, mutants = np.random.default_rng(seed), {True: 0, False: 0}
    for i in range(cases):
        subject = random_subject(rng, ("relu", "jumprelu")[i % 2])
        step = random_step(rng, subject, HELD[i // 2 % 4])
        assert compare(subject, step)
        mutant = change(copy.deepcopy(step), rng, subject.m)
        mutants[compare(subject, mutant)] += 1
    assert min(mutants.values()) >= cases // 10


def change(step: dict[str, Any], rng: np.random.Generator, m: int) -> dict[str, Any]:
    """One thing is altered; what it proves, if anything, is for the checkers to say."""
    kind, roles = rng.integers(0, 7), step["multipliers"]["x"]
    role = roles[str(rng.choice(["equal", "upper"]))]
    if kind == 0 or not role["features"]:
        step["upper"] -= float(rng.choice([1e-3, 1e-15])) * (abs(step["upper"]) + 1e-9)
    elif kind == 1:
        role["values"][0] = -role["values"][0]
    elif kind == 2:
        role["features"][0] = int(rng.integers(0, m + 3))
    elif kind == 3:
        roles["equal"], roles["upper"] = roles["upper"], roles["equal"]
    elif kind == 4:
        step["ball"]["radius"] = float(rng.choice([2.0, -1.0, 0.0])) * step["ball"]["radius"]
    elif kind == 5:
        step["held"], step["features"] = str(rng.choice(["free", "code"])), None
    else:
        role["values"][0] = float(rng.choice([0.0, 1e300, 5e-324]))
    return step


@needs_binary
def test_it_decides_as_the_python_checker_does() -> None:
    agree(300, 0)


@needs_binary
@pytest.mark.slow
def test_it_decides_as_the_python_checker_does_thousands_of_times() -> None:
    agree(2000, 1)


@needs_binary
@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("architecture", ["relu", "jumprelu"])
def test_what_the_solvers_find(tmp_path: Path, architecture: str, held: str, norm: str) -> None:
    subject, step = step_of(tiny_sae(tmp_path / "sae", architecture), held, norm)
    check_verified(subject, step)
    rng, truth = np.random.default_rng(0), step["lower"]
    for _ in range(20 if step["multipliers"] else 0):
        mutant = mutate(copy.deepcopy(step), rng)
        same = all(mutant[key] == step[key] for key in ("held", "features", "ball", "direction", "point"))
        if accepts(subject, mutant) is None and same and truth is not None:
            assert mutant["upper"] >= truth


@needs_binary
@pytest.mark.parametrize("seed", range(12))
def test_the_least_bound_in_rationals(seed: int) -> None:
    """The floats on both sides of the exact dual value: one is accepted, the other is not."""
    rng = np.random.default_rng(seed)
    subject = random_subject(rng, ("relu", "jumprelu")[seed % 2])
    step = random_step(rng, subject, HELD[seed % 4])
    cost, size = exact_dual_value(subject, step)
    radius = Fraction(step["ball"]["radius"])

    def holds(bound: Fraction) -> bool:
        if step["ball"]["norm"] == "linf":
            return cost + radius * size <= bound
        return bound >= cost and radius**2 * size <= (bound - cost) ** 2

    low, high = -abs(step["upper"]) - 1.0, step["upper"]
    while (middle := 0.5 * (low + high)) not in (low, high):
        low, high = (low, middle) if holds(Fraction(middle)) else (middle, high)
    assert accepts(subject, {**step, "upper": high}) is None
    assert "exceeds" in str(accepts(subject, {**step, "upper": low}))


@needs_binary
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "rank"}, "must be one of"),
        ({"theorem": "pinned"}, "must be one of"),
        ({"upper": None, "multipliers": None}, "no upper side"),
        ({"held": "unreachable"}, "does not take held"),
        ({"held": "free"}, "gives no such constraint"),
        ({"point": 7}, "points"),
    ],
)
def test_what_it_does_not_take(change: dict[str, Any], reason: str) -> None:
    rng = np.random.default_rng(5)
    subject = random_subject(rng, "jumprelu")
    step = random_step(rng, subject, "code")
    assert step["multipliers"]["x"]["equal"]["features"]
    assert reason in str(accepts(subject, step | change))


def test_other_architectures_and_normalisations_are_refused() -> None:
    rng = np.random.default_rng(0)
    subject = random_subject(rng, "relu")
    step = random_step(rng, subject, "free")
    for changed, reason in (
        ({"architecture": "gated"}, "not gated"),
        ({"normalization": "layer_norm"}, "layer_norm"),
        ({"b_dec": np.full(8, np.inf), "subtract_b_dec": True}, "finite"),
    ):
        with pytest.raises(Rejected, match=reason):
            exact_text(dataclasses.replace(subject, sae=dataclasses.replace(subject.sae, **changed)), step)


def test_a_binary_that_is_not_there(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    subject = random_subject(rng, "relu")
    step = random_step(rng, subject, "free")
    with pytest.raises(Rejected, match="is not built"):
        check_verified(subject, step, tmp_path / "none")
    liar = tmp_path / "liar"
    liar.write_text("#!/bin/sh\necho yes\n")
    liar.chmod(0o755)
    with pytest.raises(Rejected, match="ended with 0"):
        check_verified(subject, step, liar)


@needs_binary
def test_the_lower_side_needs_exact_equalities() -> None:
    rng = np.random.default_rng(3)
    subject = random_subject(rng, "relu")
    delta = [0.25, *[0.0] * 7]
    step = random_step(rng, subject, "free") | {"delta": delta, "ball": {"norm": "l2", "radius": 0.25, "factor": None}}
    reached = 0.25 * step["direction"][0]
    check_verified(subject, step | {"lower": reached}, side="lower")
    for changed, reason in (
        ({"lower": float(np.nextafter(reached, np.inf))}, "does not reach"),
        ({"lower": reached, "ball": {"norm": "l2", "radius": 0.24, "factor": None}}, "outside the ball"),
        ({"lower": reached, "held": "code"}, "does not keep"),
    ):
        with pytest.raises(Rejected, match=reason):
            check_verified(subject, step | changed, side="lower")
    check_verified(subject, step | {"lower": 0.0, "delta": [0.0] * 8, "held": "code"}, side="lower")


def run(text: bytes, seconds: float = 60) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([str(BINARY)], input=text, capture_output=True, timeout=seconds, check=False)


GOOD = (
    b"sae-verified 1\nside upper\narchitecture relu\nheld code\nnorm l2\nexponents 0 0 0 0\nwidth 2\ncolumns 1\n"
    b"scale 1\nradius 2\npoint 1 0\nshift 0 0\ndirection 1 1\nbound 2\nequal 0 1\n1 0\nend\n"
)


@needs_binary
def test_every_truncation_is_rejected() -> None:
    assert run(GOOD).returncode == 0
    for length in range(len(GOOD)):
        done = run(GOOD[:length])
        assert done.returncode == 4
        assert done.stderr.startswith(b"rejected: ")


HOSTILE: dict[bytes, list[bytes]] = {
    b"bound 2": [b"bound " + v for v in b"1|-2|02|-0|+2|A|0x2|1e-3|2.5|2 | 2||\xff|2\0|2\r".split(b"|")],
    b"bound": [b"bound " + b"f" * 1201, b"bound " + b"f" * 2_000_000, b"b" * 1_000_000, b"bounds", b""],
    b"scale 1": [b"scale 0", b"scale -1"],
    b"radius 2": [b"radius -2"],
    b"columns 1": [b"columns " + v for v in (b"0", b"2", b"1048577", b"9" * 30, b"-1", b"")],
    b"width 2": [b"width " + v for v in (b"0", b"1", b"3", b"65537", b"9" * 30, b"-1", b"")],
    b"width 2\ncolumns 1": [b"width 65536\ncolumns 1048576"],
    b"exponents 0 0 0 0": [b"exponents 0 0 0", b"exponents 0 0 0 0 0", b"exponents 0 0 0 10001", b"exponents 0 0 0 -1"],
    b"equal 0 1": [b"upper 0 -1", b"equal -1 1", b"equal 0 0 1", b"equal 0", b"other 0 1", b"Equal 0 1"],
    b"held code": [b"held free", b"held " + b"c" * 1_000_000],
    b"norm l2": [b"norm l1", b"norm ellipsoid"],
    b"relu": [b"topk", b"jumprelu"],
    b"sae-verified 1": [b"sae-verified 2", b"\xef\xbb\xbfsae-verified 1"],
    b"side upper": [b"side lower"],
    b"end\n": [b"end\n\n", b"end\nx", b"1 0\nend\n", b"end"],
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
def test_random_bytes_are_rejected() -> None:
    rng = np.random.default_rng(0)
    assert run(b"").returncode == 4
    for _ in range(60):
        text = bytearray(GOOD)
        for _ in range(int(rng.integers(1, 4))):
            text[int(rng.integers(len(text)))] = int(rng.integers(256))
        assert run(bytes(text)).returncode in (0, 4)  # a changed digit may leave a true statement
        assert run(rng.bytes(200)).returncode == 4


@needs_binary
def test_the_largest_floats_fit() -> None:
    """Subnormal and huge numbers together stay within the limits of the format."""
    rng = np.random.default_rng(0)
    subject = random_subject(rng, "jumprelu")
    step = random_step(rng, subject, "preactivations")
    subject.points[:] = 5e-324
    subject.sae.W_enc[0, :] = 5e-324
    step["direction"][0], step["upper"], step["ball"]["radius"] = 5e-324, 1e300, 1.0
    step["multipliers"]["x"]["equal"]["values"] = [5e-324] * len(step["multipliers"]["x"]["equal"]["values"])
    check_verified(subject, step)


@needs_binary
@pytest.mark.slow
@pytest.mark.parametrize("n", [200, 2000])
def test_large_questions(n: int) -> None:
    """GPT-2's width; how long it takes is for benchmarks/verified_checker.py."""
    rng = np.random.default_rng(0)
    subject = random_subject(rng, "jumprelu", 768, n)
    subject.sae.W_enc[:] = subject.sae.W_enc.astype(np.float32)
    step = random_step(rng, subject, "preactivations")
    step["features"] = list(range(n))
    step["multipliers"]["x"]["equal"] = {"features": list(range(n)), "values": rng.normal(size=n).tolist()}
    step["upper"] = 1e9
    assert run(exact_text(subject, step)).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("coqc") is None, reason="Coq is not there")
@needs_binary
def test_the_proof_rests_on_nothing() -> None:
    done = subprocess.run(["make", "-s", "-C", str(PROOFS), "audit"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Closed under the global context") == 5


def test_the_page_names_what_is_there() -> None:
    """Theorems, definitions and limits that theory/verified_checker.md cites exist, and both sides share a limit."""
    page = (PROOFS.parents[1] / "theory" / "verified_checker.md").read_text(encoding="utf-8")
    coq = "".join(file.read_text(encoding="utf-8") for file in sorted(PROOFS.glob("*.v")))
    names = (
        "check_upper",
        "check_lower",
        "keeps",
        "small",
        "check_upper_sound",
        "check_upper_floats",
        "check_quadratic",
    )
    more = ("obeys", "within_reach", "quadratic_at", "check_quadratic_sound", "check_quadratic_floats")
    for name in (*names, *more):
        assert re.search(rf"`{name}\b", page)
        assert re.search(rf"\b(Theorem|Corollary|Definition) {name}\b", coq)
    text = (PROOFS / "text.ml").read_text(encoding="utf-8")
    limits = ("max_bytes", "max_digits", "max_width", "max_columns", "max_entries", "max_order", "max_factor_digits")
    for name in limits:
        assert f"`{name}`" in page
        assert f"let {name} = " in text
    shared = {"max_entries": MAX_ENTRIES, "max_order": MAX_ORDER, "max_factor_digits": MAX_BITS // 4}
    for name, value in shared.items():
        assert int(re.findall(rf"let {name} = ([\d_]+)", text)[0].replace("_", "")) == value
    assert quadratic.MAX_ENTRIES == MAX_ENTRIES
    assert MAX_ORDER <= MAX_TERMS
