"""What may be held, exhaustively: small integer SAEs, full of ties, against the encoder on a grid of perturbations.

Every number is a small multiple of a power of two, so that float64 is exact and ties at thresholds and cut-offs are
ties.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from sae_verify.checker import Rejected
from sae_verify.checker.admissible import constraints_at
from sae_verify.checker.arithmetic import Ball
from sae_verify.checker.files import Tensor
from sae_verify.checker.format import Certificate, Clamp, Problem, Readout, Threat
from sae_verify.checker.model import Head
from sae_verify.checker.multipliers import Multipliers, Sparse
from sae_verify.checker.sae import Sae
from sae_verify.checker.setting import Setting

D, M = 3, 7
GRID = np.array(list(product(np.arange(-4, 5) * 0.5, repeat=D)))  # (729, 3)
KINDS = ("relu", "jumprelu", "topk", "topk-rescaled", "gated")
NONE = Sparse(np.zeros(0, dtype=np.intp), np.zeros(0))


def random_sae(rng: np.random.Generator, kind: str) -> Sae:
    def whole(*shape: int) -> np.ndarray:
        return rng.integers(-2, 3, shape).astype(np.float64)

    directions = np.array([[3.0, 4.0, 0.0], [0.0, 2.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.5], [2.0, -1.0, 2.0]])
    parameters: dict[str, Any] = {
        "relu": lambda: {"b_enc": whole(M)},
        "jumprelu": lambda: {"b_enc": whole(M), "threshold": whole(M)},
        "topk": lambda: {"b_enc": whole(M), "k": int(rng.integers(1, M)), "rescale": False},
        "topk-rescaled": lambda: {"b_enc": whole(M), "k": int(rng.integers(1, M)), "rescale": True},
        "gated": lambda: {"b_gate": whole(M), "b_mag": whole(M), "r_mag": np.zeros(M)},
    }[kind]()
    encoder = whole(D, M)
    if rng.random() < 0.5:
        encoder[:, 1] = encoder[:, 0]  # the same direction twice
    return Sae(
        architecture=kind.removesuffix("-rescaled"),
        W_enc=encoder,
        W_dec=directions[rng.integers(0, len(directions), M)],
        b_dec=whole(D),
        parameters=parameters,
        subtract_b_dec=bool(rng.random() < 0.5),
        normalization="none",
        input_scale=float(rng.choice([0.5, 1.0, 2.0])),
        digest="",
    )


def encode(sae: Sae, y: np.ndarray) -> np.ndarray:
    """The code of each row of y, (n, M), exactly, from the format's definition."""
    p = sae.parameters
    product_ = (y * sae.input_scale - (sae.b_dec if sae.subtract_b_dec else 0.0)) @ sae.W_enc
    if sae.architecture == "gated":
        return np.where(product_ + p["b_gate"] > 0, np.maximum(product_ + p["b_mag"], 0.0), 0.0)
    a = product_ + p["b_enc"]
    if sae.architecture == "relu":
        return np.maximum(a, 0.0)
    if sae.architecture == "jumprelu":
        return np.where(a > p["threshold"], np.maximum(a, 0.0), 0.0)
    score = a * (np.linalg.norm(sae.W_dec, axis=1) if p["rescale"] else 1.0)
    order = np.argsort(-score, axis=1, kind="stable")[:, : p["k"]]  # ties go to the lowest index
    chosen = np.zeros(score.shape, dtype=bool)
    np.put_along_axis(chosen, order, values=True, axis=1)
    return np.where(chosen, np.maximum(score, 0.0), 0.0)


def setting_of(sae: Sae, x: np.ndarray, held: str, at: str, features: tuple[int, ...] | None, clamp: Clamp) -> Setting:
    rows = Tensor("F64", (2, D), np.eye(2, D).astype("<f8").view(np.uint8).ravel())
    head = Head(False, Ball.exact(np.ones(D)), np.zeros(D), 0.01, rows, 1, "")
    threat = Threat(1.0, "absolute", held, at, features)
    problem = Problem("", 0, "resid_post", (0,), clamp, threat, Readout("logit-difference", 0, 1), 0.0)
    return Setting(Certificate("", "", "", None, "", "", problem, x, np.zeros((0, D)), (), (), ""), sae, head)


@pytest.mark.parametrize("held", ["preactivations", "defended", "code"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_used_is_true_and_what_is_demanded_is_enough(kind: str, held: str) -> None:
    rng = np.random.default_rng(0)
    used = demanded = 0
    for _ in range(60):
        sae, x = random_sae(rng, kind), rng.integers(-2, 3, D).astype(np.float64)
        at = str(rng.choice(["x", "h", "both"]))
        chosen = tuple(sorted(rng.choice(M, rng.integers(1, M), replace=False).tolist()))
        clamp = Clamp("add", (int(rng.integers(M)),), (float(rng.integers(-2, 3)),), "all")
        setting = setting_of(sae, x, held, at, None if held == "code" else chosen, clamp)
        unit = np.linalg.norm(sae.W_dec[clamp.features[0]]) if sae.parameters.get("rescale") else 1.0
        h = x + clamp.values[0] / unit * sae.W_dec[clamp.features[0]] / sae.input_scale
        if unit in (3.0, 5.0):
            continue  # a division that is not exact
        places = [y for name, y in (("x", x), ("h", h)) if name in setting.cell.points]
        which = list(range(M)) if held == "code" else list(chosen)
        if held == "preactivations":
            kept = (GRID @ sae.W_enc[:, which] == 0).all(axis=1)
        else:
            kept = np.ones(len(GRID), dtype=bool)
            for y in places:
                kept &= (encode(sae, y + GRID)[:, which] == encode(sae, y[None])[:, which]).all(axis=1)
        # Whatever inequality the checker lets a bound use holds for every perturbation that keeps what is held.
        for point, feature, sign, role in product(setting.cell.points, range(M), (1.0, -1.0), ("equal", "upper")):
            entry = Sparse(np.array([feature]), np.array([sign]))
            roles = (entry, NONE, NONE) if role == "equal" else (NONE, entry, NONE)
            try:
                v, cost = setting.cell.span(Multipliers({point: roles}))
            except Rejected:
                continue
            used += 1
            assert (GRID[kept] @ v.mid <= cost.high).all(), (sae, x, point, feature, role)
        # Whatever passes as an admissible witness keeps what is held.
        admitted = np.ones(len(GRID), dtype=bool)
        for part in (part for point in setting.cell.points for part in constraints_at(setting.cell, point)):
            moved = GRID @ part.upper.T
            good = (moved < part.room) if part.strict else (moved <= part.room)
            admitted &= (GRID @ part.equal.T == 0).all(axis=1) & (good | ~part.upper.any(axis=1)).all(axis=1)
        demanded += int(admitted.sum())
        assert kept[admitted].all(), (sae, x, chosen)
        assert admitted[len(GRID) // 2] or kind.startswith("topk")  # zero itself
    assert used > 100
    assert demanded > 60


def test_a_defended_set_may_be_empty() -> None:
    rng = np.random.default_rng(1)
    for kind in KINDS:
        setting = setting_of(
            random_sae(rng, kind), np.ones(D), "defended", "h", None, Clamp("drop-error", (), (), "all")
        )
        for part in constraints_at(setting.cell, "h"):
            assert part.equal.shape[0] == 0 or kind.startswith("topk")


def test_scores_beyond_the_range_of_floats_are_not_ranked() -> None:
    """A feature whose score overflows is not taken for certain to beat, or to be beaten by, another."""
    sae = random_sae(np.random.default_rng(2), "topk")
    huge = Sae(**{**sae.__dict__, "W_enc": sae.W_enc * 1e200})
    setting = setting_of(huge, np.array([1e150, -1e150, 1e150]), "code", "x", None, Clamp("add", (0,), (0.0,), "all"))
    with np.errstate(all="ignore"):
        state = setting.cell.full_state("x")
        unbounded = ~(np.isfinite(state.value.mid) & np.isfinite(state.value.rad))
        assert not (state.on & unbounded).any()
        assert unbounded.any()
