"""The threat drift(t) after the last block: worst cases against cvxpy, verdicts against samples, two limits."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from support.tiny import tiny_model, tiny_sae

from sae_verify.attacks.drift import allowed_drift, drift_of
from sae_verify.checker import Rejected, check
from sae_verify.checker.files import digest_json
from sae_verify.errors import ThreatError
from sae_verify.geometry.drift import Drift
from sae_verify.geometry.drift_worst_case import drift_worst_case, least_drift_norm
from sae_verify.geometry.instance import prepare
from sae_verify.model import load_model
from sae_verify.pipeline import certify
from sae_verify.problem import AtMost, Clamp, ErrorBall, Held, LogitDifference, Problem
from sae_verify.sae import load_sae
from sae_verify.verdict import Result

S = tuple(range(12))
KINDS = (
    ("llama", "relu"),
    ("gpt2", "jumprelu"),
    ("gemma2", "gated"),
    ("llama", "topk"),
    ("gpt2", "topk-rescaled"),
)


def drift_part(rng: np.random.Generator, d: int, n: int, most: float) -> Drift:
    fixed = rng.random(n) < 0.5
    share = np.where(fixed, 1.0, rng.choice([1.0, 1.0, 0.4, 0.0], size=n))
    room = np.where(fixed, 0.0, rng.choice([0.0, 0.1, 0.3, 5.0], size=n))
    return Drift("h", most, np.arange(n), rng.normal(size=(n, d)), np.exp(0.5 * rng.normal(size=n)), fixed, room, share)


def by_cvxpy(drift: Drift, g: np.ndarray, radius: float) -> float:
    x, u = cp.Variable(len(g)), cp.Variable(len(drift.features))
    kept: list[Any] = [cp.norm(x) <= radius, cp.norm(u) <= drift.most]
    for i, row in enumerate(drift.normals):
        moved = drift.share[i] * u[i] / drift.gain[i]
        kept.append(row @ x == moved if drift.fixed[i] else row @ x <= drift.room[i] + moved)
    found: Any = cp.Problem(cp.Maximize(g @ x), kept).solve()
    return float(found)


def test_linear_worst_cases_are_those_of_a_cone_solver() -> None:
    rng = np.random.default_rng(0)
    for _ in range(15):
        d, n = int(rng.integers(3, 20)), int(rng.integers(1, 10))
        drift = drift_part(rng, d, n, 10 ** rng.uniform(-3, 1.5))
        g, radius = rng.normal(size=d), 10 ** rng.uniform(-1, 1)
        found, expected = drift_worst_case(drift, g, radius), by_cvxpy(drift, g, radius)
        assert found.dual == pytest.approx(expected, rel=1e-6)
        assert found.value == pytest.approx(found.dual, rel=1e-6)
        assert np.linalg.norm(found.delta) <= radius * (1 + 1e-9)
        rounded = dataclasses.replace(drift, room=drift.room + 1e-7 * radius)
        assert rounded.least_move(found.delta * (1 - 1e-9)) <= drift.most * (1 + 1e-6)
        shortest = least_drift_norm(drift, g, 0.7 * found.value, radius)
        assert shortest is not None
        assert g @ shortest == pytest.approx(0.7 * found.value, rel=1e-5)
        assert by_cvxpy(drift, g, 0.999 * float(np.linalg.norm(shortest))) < 0.7 * found.value


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drift")


def problem(made: Path, family: str, architecture: str, threat: ErrorBall, tau: float = 0.0) -> Problem:
    model, sae = made / f"{family}-{architecture}", made / f"sae-{family}-{architecture}"
    if not model.exists():
        tiny_model(model, family)
        tiny_sae(sae, architecture, hook="blocks.0.hook_resid_post", bias=-0.3, m=24)
    clamp, readout = Clamp.set({1: 1.0, 2: 0.0, 5: 0.5}), LogitDifference(1, 2)
    return Problem(load_model(model), load_sae(sae), [[3, 5, 7, 2], [1, 2, 9]], clamp, threat, readout, AtMost(tau))


def decided(
    made: Path, kind: tuple[str, str], held: Held, drift: float | None, radius: float, tau: float = 0.0
) -> list[Result]:
    features = None if held == "free" else S
    return list(certify(problem(made, *kind, ErrorBall(radius, held=held, features=features, drift=drift), tau)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("drift", [0.05, 1.0])
def test_no_sampled_perturbation_is_above_the_bound(made: Path, kind: tuple[str, str], drift: float) -> None:
    """Random ones, and all that the attack's own projection makes of them, with their drift measured by the SAE."""
    threat = ErrorBall(0.3, held="drift", features=S, drift=drift)
    asked = problem(made, *kind, threat)
    results = list(certify(asked))
    batch = prepare(asked)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 3000, batch.h.shape[1]))
    size = rng.random((2, 3000, 1)) * batch.radii[:, None, None]
    delta = noise / np.linalg.norm(noise, axis=2, keepdims=True) * size
    delta *= np.where(rng.random((2, 3000, 1)) < 0.5, 0.1, 1.0)
    good = drift_of(batch, delta) <= allowed_drift(batch)[:, None]
    assert good.sum() > 20
    import torch

    values = batch.readout(batch.h[:, None] + torch.from_numpy(delta)).numpy()
    for result, mine, ok in zip(results, values, good, strict=True):
        assert mine[ok].max(initial=-np.inf) <= result.upper + 1e-9
        assert result.lower <= result.upper + 1e-6
        assert result.verdict.name != "unsupported"


@pytest.mark.parametrize("kind", [KINDS[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:3])])
def test_no_drift_is_defended_and_much_drift_is_free(made: Path, kind: tuple[str, str]) -> None:
    def uppers(held: Held, drift: float | None) -> np.ndarray:
        return np.array([result.upper for result in decided(made, kind, held, drift, 0.2)])

    none, much, most = (uppers("drift", drift) for drift in (0.0, 0.1, 1e6))
    assert none == pytest.approx(uppers("defended", None), abs=1e-9)
    assert most == pytest.approx(uppers("free", None), abs=1e-6)
    assert (none <= much + 1e-9).all()
    assert (much <= most + 1e-9).all()
    assert (none < most - 1e-3).any()


def test_witnesses_drift_by_no_more_than_they_may(made: Path, tmp_path: Path) -> None:
    threat = ErrorBall(0.5, held="drift", features=S, drift=0.1)
    asked = problem(made, "llama", "relu", threat)
    results = list(certify(asked, out=tmp_path))
    assert all(result.verdict.name == "refuted" for result in results)
    batch = prepare(asked)
    for result, allowed in zip(results, allowed_drift(batch), strict=True):
        assert result.certificate is not None
        content = json.loads(result.certificate.read_text())
        deltas = np.array([w["delta"] for w in content["witnesses"]])
        one = batch.select([results.index(result)])
        assert (drift_of(one, deltas[None])[0] <= allowed).all()
        assert drift_of(one, deltas[None]).max() > 0.9 * allowed  # and the constraint is used
        # The same witness under a smaller drift is refused, whatever the rest of the file says.
        content["problem"]["threat"]["drift"] = 0.01
        with pytest.raises(Rejected):
            check(restamped(content, tmp_path / "less.cert"))


def test_a_bound_is_refused_where_more_may_drift(made: Path, tmp_path: Path) -> None:
    threat = ErrorBall(0.2, held="drift", features=S, drift=0.02)
    result = list(certify(problem(made, "gpt2", "jumprelu", threat, -1.0), out=tmp_path))[1]
    assert result.verdict.name == "certified"
    assert result.certificate is not None
    content = json.loads(result.certificate.read_text())
    content["witnesses"] = []
    assert check(restamped(content, tmp_path / "same.cert")).verdict == "certified"
    content["problem"]["threat"]["drift"] = 0.2
    with pytest.raises(Rejected, match=r"misses|may turn off"):
        check(restamped(content, tmp_path / "more.cert"))


def restamped(content: dict, path: Path) -> Path:
    """The content with digests that fit it, as a forger would write it."""
    identity = {key: content[key] for key in ("problem", "x", "context")} | {
        "sae": content["weights"]["sae"]["sha256"],
        "input_scale": content["weights"]["sae"]["input_scale"],
        "model": content["weights"]["model"]["sha256"],
    }
    rest = {key: value for key, value in content.items() if key != "sha256"} | {"digest": digest_json(identity)}
    path.write_text(json.dumps({**rest, "sha256": digest_json(rest)}))
    return path


def test_what_cannot_be_asked_is_refused() -> None:
    wrongs: tuple[dict[str, Any], ...] = (
        {"held": "drift"},
        {"held": "defended", "drift": 0.1},
        {"held": "drift", "drift": -0.1},
        {"held": "drift", "drift": float("nan")},
        {"held": "drift", "drift": 0.1, "at": "both"},
        {"held": "drift", "drift": 0.1, "positions": 2},
    )
    for wrong in wrongs:
        with pytest.raises(ThreatError):
            ErrorBall(0.1, **wrong)
    asked = ErrorBall(0.1, held="drift", drift=1)
    assert (asked.at, asked.drift) == ("h", 1.0)
    assert dataclasses.replace(asked, drift=0.5).drift == 0.5


def test_through_a_block_a_drift_is_between_held_and_free(made: Path, tmp_path: Path) -> None:
    """Certified radii, each accepted by the checker; and evidence for a weight is none without it."""
    model = tiny_model(made / "two-blocks", "llama", layers=2)
    sae = tiny_sae(made / "two-blocks-sae", "relu", hook="blocks.0.hook_resid_post", bias=0.4, m=24)
    threat = ErrorBall(0.02, held="defended", features=S)
    clamp, readout = Clamp.set({1: 1.0, 2: 0.0}), LogitDifference(1, 2)
    asked = Problem(load_model(model), load_sae(sae), [[3, 5, 7, 2]], clamp, threat, readout)
    asked = dataclasses.replace(asked, claim=AtMost(prepare(asked).instances[0].defended + 0.1))
    certified, radii = {}, []
    for drift in (0.0, 0.002, 1e6):
        threat = ErrorBall(0.02, held="drift", features=S, drift=drift)
        (result,) = certify(dataclasses.replace(asked, threat=threat, title=f"drift {drift}"), out=tmp_path, effort=1)
        assert result.radius.certified is not None
        assert result.radius.attacked is None or result.radius.attacked > result.radius.certified
        assert result.certificate is not None
        certified[drift] = result.certificate
        radii.append(result.radius.certified)
    assert radii[0] > 1.02 * radii[1]
    assert radii[1] > 1.02 * radii[2]
    content = json.loads(certified[0.002].read_text())
    content["witnesses"] = []
    assert any("weight" in step for step in content["bounds"])
    check(restamped(content, tmp_path / "same.cert"))
    for step in content["bounds"]:
        step.pop("weight", None)
    with pytest.raises(Rejected, match="below the claim"):
        check(restamped(content, tmp_path / "weightless.cert"))
