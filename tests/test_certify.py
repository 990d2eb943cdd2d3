"""The pipeline on the bundled models: verdicts, evidence, and what must never happen."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from support.tiny import tiny_model, tiny_sae

import sae_verify as sv
from sae_verify import checker
from sae_verify.attacks import Replay
from sae_verify.bounds.diagnosis import diagnose
from sae_verify.certificates import locate_weights, open_problem
from sae_verify.certificates.replay import replay_certificate
from sae_verify.checker.files import digest_json
from sae_verify.errors import InputError, PromptError, SoundnessError
from sae_verify.geometry.instance import prepare
from sae_verify.pipeline.search import check_sandwich, search
from sae_verify.problem import Problem
from sae_verify.verdict import Certified, Refuted, Undecided, Unsupported

CASES = Path(__file__).parent.parent / "examples" / "cases"
QUICK = sv.Pgd(steps=10, restarts=1)


def some(problem: Problem, count: int, **changes: object) -> Problem:
    """The first prompts of a problem, with other fields replaced."""
    return dataclasses.replace(
        problem, prompts=list(problem.prompts)[:count], readout=list(problem.readouts)[:count], **changes
    )


@pytest.fixture(scope="module")
def last() -> Problem:
    return sv.load_problem(CASES / "indirect_object" / "problem_last.toml")


@pytest.fixture(scope="module")
def early() -> Problem:
    return sv.load_problem(CASES / "indirect_object" / "problem_early.toml")


@pytest.mark.parametrize("case", ["indirect_object", "refusal", "unlearning"])
def test_last_layer_is_decided_exactly(case: str, tmp_path: Path) -> None:
    problem = sv.load_problem(CASES / case / "problem_last.toml")
    results = list(sv.certify(problem, out=tmp_path, settings=sv.Pgd()))
    assert {"certified", "refuted"} == {r.verdict.name for r in results}
    for result in results:
        # The sandwich, relative to the worst-case change: both ends are statements the checker accepted.
        assert result.lower <= result.upper
        assert result.upper - result.lower <= 1e-5 * (result.upper - result.readout_defended)
        assert result.certificate is not None
        report = checker.check(result.certificate)
        assert report.verdict == result.verdict.name
        if result.radius.certified is not None and result.radius.attacked is not None:
            assert 0.999 * result.radius.attacked <= result.radius.certified <= result.radius.attacked
        if isinstance(result.verdict, Refuted):
            assert result.verdict.replay.value > 0
            assert result.verdict.replay.held
        else:
            assert result.upper <= 0


def test_early_layer_is_bracketed_from_both_sides(early: Problem, tmp_path: Path) -> None:
    """At the problem's radius the attack wins; a certified radius lies below the attacked one, and not far."""
    for result in sv.certify(some(early, 2), out=tmp_path, settings=QUICK, effort=2):
        assert result.verdict.name in ("refuted", "undecided")
        assert result.lower <= result.upper
        assert result.certificate is not None
        report = checker.check(result.certificate)
        assert report.verdict in ("refuted by replay", "undecided")
        assert "through-blocks" in {bound.method for bound in report.bounds}
        assert result.radius.certified == report.certified_radius
        assert result.radius.certified is not None
        assert result.radius.attacked is not None
        assert 0.2 * result.radius.attacked < result.radius.certified < result.radius.attacked


def test_early_layer_is_certified_within_the_certified_radius(early: Problem, tmp_path: Path) -> None:
    threat = dataclasses.replace(early.threat, radius=0.005)
    (result,) = sv.certify(some(early, 1, threat=threat), out=tmp_path, settings=QUICK, effort=1)
    assert isinstance(result.verdict, Certified)
    assert result.certificate is not None
    replayed = replay_certificate(result.certificate)
    assert replayed.residual < 1e-5
    assert replayed.positions == len(json.loads(result.certificate.read_text())["problem"]["tokens"])


def test_replay_notices_residuals_of_earlier_positions(early: Problem, tmp_path: Path) -> None:
    """The checker cannot tell that a context is not the model's; the replay says where it is not."""
    threat = dataclasses.replace(early.threat, radius=0.005)
    (result,) = sv.certify(some(early, 1, threat=threat), out=tmp_path, settings=QUICK, effort=1)
    assert result.certificate is not None
    content = json.loads(result.certificate.read_text())
    content["context"][2] = [1.01 * v for v in content["context"][2]]
    identity = {key: content[key] for key in ("problem", "x", "context")}
    weights = content["weights"]
    identity |= {"sae": weights["sae"]["sha256"], "input_scale": weights["sae"]["input_scale"]}
    content["digest"] = digest_json(identity | {"model": weights["model"]["sha256"]})
    content["sha256"] = digest_json({key: value for key, value in content.items() if key != "sha256"})
    result.certificate.write_text(json.dumps(content))
    with pytest.raises(checker.Rejected, match="position 2 is not what the model computes"):
        replay_certificate(result.certificate)


def test_a_control_that_pins_everything_is_trivially_certified() -> None:
    (path,) = CASES.glob("*/problem_control.toml")
    problem = sv.load_problem(path)
    for result in sv.certify(some(problem, 2), settings=QUICK):
        assert isinstance(result.verdict, Certified)
        assert result.trivial
        assert result.radius.certified == np.inf


@pytest.mark.parametrize("held", ["free", "preactivations", "defended", "code", "unreachable"])
@pytest.mark.parametrize("at", ["x", "h", "both"])
def test_every_threat_model_ends_in_an_accepted_certificate(last: Problem, held: str, at: str) -> None:
    threat = sv.ErrorBall(0.05, held=held, at=at)  # type: ignore[arg-type]
    (result,) = sv.certify(some(last, 1, threat=threat), settings=QUICK)
    assert result.verdict.name in ("certified", "refuted")


@pytest.mark.parametrize(
    "clamp",
    [
        sv.Clamp.set({3: 0.5}),
        sv.Clamp.scale({120: 2.0}),
        sv.Clamp.set_if_active({120: -1.0, 7: 1.0}),
        sv.Clamp.add({3: 1.0}),
        sv.Clamp.set({3: 0.5}, positions="last"),
        sv.Clamp.set({3: 0.5}, positions=[0, 1]),
    ],
    ids=lambda clamp: f"{clamp.kind}-{clamp.positions}",
)
def test_every_clamp(last: Problem, clamp: sv.Clamp) -> None:
    (result,) = sv.certify(some(last, 1, clamp=clamp), settings=QUICK)
    assert result.lower <= result.upper
    assert result.verdict.name in ("certified", "refuted")


def test_drop_error_is_held_at_h_only(last: Problem) -> None:
    threat = sv.ErrorBall(0.05, held="defended", at="h", features=(3,))
    (result,) = sv.certify(some(last, 1, clamp=sv.Clamp.drop_error({3: 0.5}), threat=threat), settings=QUICK)
    assert result.verdict.name in ("certified", "refuted")


@pytest.mark.parametrize("unit", ["absolute", "h", "e"])
def test_radius_units(last: Problem, unit: str) -> None:
    (result,) = sv.certify(some(last, 1, threat=sv.ErrorBall(0.01, relative_to=unit)), settings=QUICK)  # type: ignore[arg-type]
    assert isinstance(result.verdict, (Certified, Refuted))
    scale = {"absolute": 1.0, "h": result.radius.norm_h, "e": result.radius.norm_e}[unit]
    assert result.verdict.report.radius == pytest.approx(0.01 * scale, rel=1e-9)


def test_one_token_against_all_others(last: Problem, early: Problem) -> None:
    for problem in (last, early):
        token = problem.readouts[0].positive  # type: ignore[union-attr]
        question = dataclasses.replace(problem, prompts=list(problem.prompts)[:1], readout=sv.TokenAgainstAll(token))
        (result,) = sv.certify(question, settings=QUICK, effort=1)
        assert result.lower <= result.upper
        assert result.verdict.name != "unsupported"


def test_certified_radius_is_sound_against_the_attack(last: Problem) -> None:
    found = search(prepare(some(last, 4)), QUICK)
    for one in found:
        largest = max((b.radius for b in one.bounds if b.radius and b.value <= 0), default=0.0)
        for delta, replayed in one.witnesses:
            if replayed.value > 1e-4:
                assert np.linalg.norm(delta) > largest


def test_an_attack_above_a_bound_raises(last: Problem) -> None:
    batch = prepare(some(last, 1))
    (found,) = search(batch, QUICK)
    check_sandwich(found.instance, found.upper(found.instance.radius), found.bounds)
    with pytest.raises(SoundnessError, match="above the"):
        check_sandwich(found.instance, found.upper(found.instance.radius) + 1e-4, found.bounds)


def test_verdicts_cannot_be_forged() -> None:
    undecided = checker.Report("undecided", "", 1.0, 0.0, (), ())
    with pytest.raises(SoundnessError):
        Certified(undecided)
    with pytest.raises(SoundnessError):
        Certified(checker.Report("certified", "", 1.0, 0.0, (), ()))  # no bound meets the claim
    with pytest.raises(SoundnessError):
        Refuted(undecided, Replay(1.0, "float32", 0.0, 0.0, held=True))
    with pytest.raises(SoundnessError):
        Refuted(checker.Report("refuted", "", 1.0, 0.0, (), ()), Replay(1.0, "float32", 1.0, 0.0, held=False))


def test_weights_in_memory_cannot_be_certified(last: Problem) -> None:
    memory = dataclasses.replace(last.sae, source=dataclasses.replace(last.sae.source, path=None))
    with pytest.raises(InputError, match="no files on disk"):
        list(sv.certify(some(last, 1, sae=memory), settings=QUICK))


def test_what_is_not_polyhedral_is_unsupported(last: Problem) -> None:
    from sae_verify.sae import LayerNorm

    curved = dataclasses.replace(last.sae, normalization=LayerNorm())
    (result,) = sv.certify(some(last, 1, sae=curved), settings=QUICK)
    assert isinstance(result.verdict, Unsupported)
    assert "layer_norm" in result.verdict.reason


def test_undecided_says_why(early: Problem) -> None:
    """Between the certified and the attacked radius: how far it is proved, what loses most there, what would help."""
    second = dataclasses.replace(early, prompts=list(early.prompts)[1:2], readout=list(early.readouts)[1:2])
    threat = dataclasses.replace(early.threat, radius=0.07)
    (result,) = sv.certify(dataclasses.replace(second, threat=threat), settings=QUICK, effort=1)
    assert isinstance(result.verdict, Undecided)
    found = re.search(r"proved up to ([0-9.]+) ‖h‖.*the linear part takes ([0-9.]+)", result.verdict.reason)
    assert found is not None, result.verdict.reason
    assert 0 < float(found[1]) < 0.07
    assert re.search(r"2 blocks follow the hook.*attention.*What would help \(effort was 1\)", result.verdict.reason)


def test_a_diagnosis_adds_up_and_ranks(early: Problem) -> None:
    """The bound proves the claim exactly where the linear part and all losses together stay below the margin."""
    instance = prepare(some(early, 1)).instances[0]
    setting = open_problem(early, instance, locate_weights(early))
    proved = []
    for radius in instance.norm_h * np.array([0.002, 0.005, 0.01, 0.02, 0.04]):
        found = diagnose(setting.relaxation, setting.functional(None), radius, 0.0)
        assert found is not None
        sizes = [size for _, size in found.losses]
        assert sizes == sorted(sizes, reverse=True)
        frame = (region := setting.relaxation.ball(radius * found.fraction)).frame()
        assert frame is not None
        top = setting.relaxation.bound(region, frame, setting.functional(None), 0.0).top
        assert (found.linear + found.lost <= 1) == (top <= 0)
        proved.append(top <= 0)
    assert True in proved
    assert False in proved
    assert diagnose(setting.relaxation, setting.functional(None), 0.1, -100.0) is None  # the claim fails at the centre


def test_only_some_prompts(last: Problem, tmp_path: Path) -> None:
    """What is decided of them does not depend on the others."""
    everything = list(sv.certify(some(last, 3), settings=QUICK))
    found = list(sv.certify(some(last, 3), settings=QUICK, only=(2, 0), out=tmp_path))
    assert sorted(path.stem[-3:] for path in tmp_path.iterdir()) == ["000", "002"]
    for result, same in zip(found, (everything[2], everything[0]), strict=True):
        assert (result.prompt, result.verdict.name) == (same.prompt, same.verdict.name)
        assert result.upper == pytest.approx(same.upper, rel=1e-6)
        assert result.lower == pytest.approx(same.lower, rel=1e-6)
    for bad in ((), (3,), (-1,), (0, 0), (True,), (0.5,)):
        with pytest.raises(PromptError, match="only is"):
            list(sv.certify(some(last, 3), only=bad))  # type: ignore[arg-type]


def test_effort_is_at_least_one(early: Problem) -> None:
    with pytest.raises(InputError, match="effort is 0"):
        list(sv.certify(early, effort=0))


def test_radius_zero(last: Problem) -> None:
    (result,) = sv.certify(some(last, 1, threat=sv.ErrorBall(0.0)), settings=QUICK)
    assert isinstance(result.verdict, Certified)
    assert result.upper == pytest.approx(result.readout_defended, abs=1e-4)


def test_the_problem_digest_covers_everything(last: Problem) -> None:
    from sae_verify.certificates import locate_weights, problem_digest

    weights = locate_weights(last)
    variants = [
        last,
        dataclasses.replace(last, clamp=sv.Clamp.set({3: 0.5})),
        dataclasses.replace(last, claim=sv.AtMost(0.5)),
        dataclasses.replace(last, threat=dataclasses.replace(last.threat, radius=0.06)),
        dataclasses.replace(last, threat=dataclasses.replace(last.threat, at="h")),
        dataclasses.replace(last, readout=[sv.LogitDifference(3, 4)] * len(last.prompts)),
        some(last, 2),
    ]
    digests = [problem_digest(p, weights) for p in variants]
    digests.append(problem_digest(last, dataclasses.replace(weights, sae_digest="0" * 64)))
    digests.append(problem_digest(last, dataclasses.replace(weights, model_digest="0" * 64)))
    assert len(set(digests)) == len(digests)
    assert problem_digest(last, locate_weights(last)) == digests[0]


def test_a_claim_that_fails_without_perturbation_is_refuted_by_zero(last: Problem) -> None:
    claim = sv.AtMost(last_readout := -50.0)
    for radius in (0.0, 0.05):
        (result,) = sv.certify(some(last, 1, claim=claim, threat=sv.ErrorBall(radius)), settings=QUICK)
        assert isinstance(result.verdict, Refuted)
        assert result.radius.attacked == 0.0
        assert result.lower > last_readout
        assert result.lower <= result.upper


@pytest.mark.parametrize("case", ["refusal", "unlearning"])
def test_radius_in_units_of_the_error_keeps_its_bound(case: str) -> None:
    problem = sv.load_problem(CASES / case / "problem_last.toml")
    threat = dataclasses.replace(problem.threat, relative_to="e", radius=1.0)
    for result in sv.certify(some(problem, 3, threat=threat), settings=QUICK):
        assert result.upper - result.lower <= 1e-4 * (result.upper - result.readout_defended)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_where_nothing_is_free_to_move_the_only_value_is_proved(family: str, tmp_path: Path) -> None:
    """More held features than dimensions, and a block after the hook: one admissible perturbation, none."""
    model = sv.load_model(tiny_model(tmp_path / "model", family, layers=2, seed=1))
    sae = sv.load_sae(tiny_sae(tmp_path / "sae", "relu", m=60, bias=-0.1, seed=1))
    threat = sv.ErrorBall(0.05, held="preactivations", at="h", features=tuple(range(40)))
    readout = sv.LogitDifference(1, 2)
    problem = sv.Problem(model, sae, [[3, 5, 7, 2]], sv.Clamp.set({1: 1.0, 2: 0.0}), threat, readout)
    value = prepare(problem).instances[0].defended
    problem = dataclasses.replace(problem, claim=sv.AtMost(value + 0.3))
    (result,) = sv.certify(problem, out=tmp_path / "out", effort=1)
    assert isinstance(result.verdict, Certified)
    assert value <= result.upper <= value + 1e-5
    (broken,) = sv.certify(dataclasses.replace(problem, claim=sv.AtMost(value - 0.3)), out=tmp_path / "no", effort=1)
    assert isinstance(broken.verdict, Refuted)
