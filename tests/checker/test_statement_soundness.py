"""What an audit of the statements found, as tests: rounding that differs between calls, printed digits, factors."""

from __future__ import annotations

import contextlib
import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sae_verify.checker import Rejected
from sae_verify.checker.arithmetic import Ball
from sae_verify.checker.sae import Sae
from sae_verify.checker.statements import Subject
from sae_verify.checker.statements.check import prove

HERE = Path(__file__).parent


def relu(W: Any, b: Any) -> Sae:
    columns = np.asfortranarray(np.array(W, dtype=np.float64))
    parameters = {"b_enc": np.array(b, dtype=np.float64)}
    return Sae("relu", columns, columns.T.copy(), np.zeros(len(columns)), parameters, False, "none", 1.0, "")


def sparse(features: Any, values: Any) -> dict[str, Any]:
    return {"features": list(features), "values": [float(v) for v in values]}


@pytest.mark.parametrize("seed", range(340, 380))
def test_rooms_of_two_calls_are_not_mixed(seed: int) -> None:
    """Two enclosures of one room may differ by more than the room: the cell reaches 1, and 0.9991 was once accepted."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(6, 40))
    W = np.zeros((d, d + 1))
    W[: d - 1, : d - 1] = np.eye(d - 1)
    W[: d - 1, d - 1] = 1e4 * rng.standard_normal(d - 1)
    W[d - 1, d - 1], W[d - 1, d] = 1.0, -1.0
    x = np.append(1e8 * rng.standard_normal(d - 1), 0.0)
    b = np.append(np.abs(x[: d - 1]) * 4 + 1, [0.0, -1.0])
    exact = sum(Fraction(float(w)) * Fraction(float(v)) for w, v in zip(W[:, d - 1], x, strict=True))
    b[d - 1] = -float(exact) - 0.01
    step = {
        "kind": "cell-bounded",
        "theorem": "cell-size",
        "point": 0,
        "held": "code",
        "features": None,
        "radius": 0.9999,
        "multipliers": {
            "x": {
                "equal": sparse(range(d - 1), -W[: d - 1, d - 1]),
                "upper": sparse([d - 1, d], [1.0, 1.0]),
                "decoder": sparse([], []),
            }
        },
    }
    with pytest.raises(Rejected):
        prove(Subject(relu(W, b), x[None], HERE), step, "step")


def test_printed_numbers_claim_no_more_than_was_proved() -> None:
    """-e_1 keeps the code up to length 1.000000003, which nine digits would print as 1."""
    reach = 1.000000003
    sae = relu([[-1.0, 1.0]], [-reach, -5.0])
    step = {
        "kind": "linear-worst-case",
        "theorem": "linear-dual",
        "point": 0,
        "held": "free",
        "features": None,
        "ball": {"norm": "l2", "radius": reach, "factor": None},
        "direction": [1.0],
        "upper": 1.0000000031,
        "multipliers": {},
        "lower": None,
        "delta": None,
    }
    text = prove(Subject(sae, np.zeros((1, 1)), HERE), step, "step").text
    assert "1.0000000031" in text
    assert "radius 1.000000003:" in text


@pytest.mark.parametrize(
    ("array", "name"),
    [
        (np.array([[1 + 1000j]]), "factor.npy"),
        (np.array([["1.0"]]), "factor.npy"),
        (np.array([[1]]), "factor.npy"),
        (np.array([[np.nan]]), "factor.npy"),
        (np.ones((2, 1)), "factor.npy"),
        (np.ones((1, 1)), "../factor.npy"),
        (np.ones((60, 60)), "factor.npy"),
    ],
)
def test_factors_are_plain_float_files_beside_the_statements(tmp_path: Path, array: Any, name: str) -> None:
    import hashlib

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    place = tmp_path / "here"
    place.mkdir()
    (place / name).write_bytes(buffer.getvalue())
    step = {
        "kind": "linear-worst-case",
        "theorem": "linear-dual",
        "point": 0,
        "held": "free",
        "features": None,
        "ball": {
            "norm": "ellipsoid",
            "radius": 1.0,
            "factor": {"path": name, "sha256": hashlib.sha256(buffer.getvalue()).hexdigest()},
        },
        "direction": [1.0],
        "upper": 1e9,
        "multipliers": {},
        "lower": None,
        "delta": None,
    }
    with pytest.raises(Rejected):
        prove(Subject(relu([[1.0]], [0.0]), np.zeros((1, 1)), place), step, "step")


def test_a_quotient_by_a_tiny_ball_is_enclosed() -> None:
    """The product of midpoint and radius vanished before it was divided by the divisor."""
    divisor = Ball(np.asarray(-3.03e-163), np.asarray(1.51e-163))
    found = Ball.exact(-5e-324) / divisor
    for end in (-3.03e-163 - 1.51e-163, -3.03e-163 + 1.51e-163):
        exact = Fraction(-5e-324) / Fraction(end)
        assert Fraction(float(found.low)) <= exact <= Fraction(float(found.high))


@pytest.mark.parametrize("kind", ["cell-inner-radius", "cell-unbounded"])
def test_an_empty_held_set_is_no_crash(kind: str) -> None:
    step: dict[str, Any] = {"kind": kind, "theorem": "cell-size", "point": 0, "held": "unreachable", "features": []}
    step |= (
        {"radius": 1.0, "centre": None, "beyond": None}
        if kind == "cell-inner-radius"
        else {"direction": [1.0], "still": []}
    )
    with contextlib.suppress(Rejected):
        prove(Subject(relu([[1.0]], [0.0]), np.zeros((1, 1)), HERE), step, "step")
