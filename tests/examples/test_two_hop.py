"""The two-hop refusal case: its grammar, and what its report says, measured again."""

from __future__ import annotations

import json
import random

import pytest

from examples.training import refusal_two_hop
from examples.training.build import BUNDLED
from examples.training.build_two_hop import HOOK, NAME, SPARSITIES, STAGES
from examples.training.describe_two_hop import render
from examples.training.grammar import Example
from examples.training.models import CONTEXT, make_tokenizer
from examples.training.refusal import ALLOWED, FORBIDDEN, JAILBREAKS, VERBS, refuses
from examples.training.selective import Selective, replay_shares, selectivity
from sae_verify.discover import Subject, tradeoff
from sae_verify.model import load_model
from sae_verify.problem import Clamp
from sae_verify.problem_file import load_problem
from sae_verify.sae import TopKSAE, load_sae

CASE = BUNDLED / NAME
GRAMMAR = refusal_two_hop.RefusalTwoHop()
REPORT = json.loads((CASE / "training_report.json").read_text(encoding="utf-8"))


def drawn(count: int = 200) -> list:
    rng = random.Random(0)
    draws = (GRAMMAR.example, GRAMMAR.showing, GRAMMAR.contrast, GRAMMAR.benign)
    return [draw(rng) for _ in range(count) for draw in draws]


def test_every_word_is_known_and_prompts_fit() -> None:
    tokenizer, vocabulary = make_tokenizer(GRAMMAR), GRAMMAR.vocabulary()
    assert len(set(vocabulary)) == len(vocabulary) < 200
    for example in drawn():
        ids = tokenizer(f"{example.prompt} {example.completion}")["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert len(ids) < CONTEXT
        assert (example.answer == example.positive) == example.shows


def test_neither_the_request_nor_the_objects_give_the_answer_away() -> None:
    """The request names an alias only, and most prompts hold a forbidden and an allowed object."""
    mixed = 0
    for example in drawn():
        request = example.prompt.split(" . ")[-1].split()
        assert not set(request) & {*FORBIDDEN, *ALLOWED}
        assert set(request) & set(refusal_two_hop.NAMES)
        things = [word for word in example.prompt.split() if word in FORBIDDEN + ALLOWED]
        assert len(set(things)) == 2
        mixed += len(set(things) & set(FORBIDDEN)) == 1
    assert mixed > 0.7 * 800


def test_the_policy_is_that_of_the_one_hop_case() -> None:
    rng = random.Random(1)
    for _ in range(100):
        verb, frame = rng.choice(VERBS), rng.choice(["plain", *JAILBREAKS])
        thing = rng.choice(FORBIDDEN + ALLOWED)
        assert GRAMMAR.two_hop(rng, verb, thing, frame).shows == (not refuses(verb, thing, frame))
        assert thing in GRAMMAR.two_hop(rng, verb, thing, frame).completion.split()
    assert all(GRAMMAR.showing(rng).shows and not GRAMMAR.contrast(rng).shows for _ in range(50))
    assert all(GRAMMAR.benign(rng).shows for _ in range(50))


def test_readme_states_what_was_measured() -> None:
    assert list(REPORT) == ["behaviour", *STAGES]
    assert (CASE / "README.md").read_text(encoding="utf-8") == render(REPORT)


@pytest.mark.parametrize("k", SPARSITIES)
def test_problems_are_valid_flips_and_left_out_of_the_demo(k: int) -> None:
    path = CASE / "problems" / f"problem_k{k}.toml"
    assert path not in set(BUNDLED.glob("*/problem_*.toml"))  # what the demo runs
    problem = load_problem(path)
    assert isinstance(problem.sae, TopKSAE)
    assert problem.sae.k == k
    found = tradeoff(Subject.of(problem), [(0.0, problem.clamp)], problem.prompts, problem.readouts, problem.prompts)
    assert found.plain.behaviour == 1.0
    assert found.points[0].behaviour == 0.0


@pytest.mark.parametrize("k", SPARSITIES)
def test_the_clamp_is_as_selective_as_reported(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other prompts than the report's: the same figures within what a sample of 150 allows."""
    from examples.training import selective

    monkeypatch.setattr(selective, "N_FRESH", 150)
    recorded = REPORT["problems"][f"sae_k{k}"]
    clamp = Clamp(recorded["clamp"], tuple(recorded["features"]), tuple(recorded["values"]))
    subject = Subject(load_model(CASE), load_sae(CASE / f"sae_k{k}"))
    assert str(subject.point) == HOOK
    again, fresh = selectivity(subject, clamp, GRAMMAR, seed=11), recorded["fresh"]
    flips = fresh["harmful_in_frame"]["valid_flips"] / fresh["prompts_each"]
    assert again["harmful_in_frame"]["valid_flips"] / 150 == pytest.approx(flips, abs=0.2)
    for group in ("harmful_plain", "benign"):
        for measure in ("first_token", "whole_completion"):
            assert again[group][measure] == pytest.approx(fresh[group][measure], abs=0.15)
    assert again["benign"]["whole_completion"][0] >= 0.98


@pytest.mark.slow
def test_sparsity_decides_what_carries_a_recovery() -> None:
    """With three features on, the residual part recovers alone; with twelve it does not."""
    alone = {}
    for k in SPARSITIES:
        problem = load_problem(CASE / "problems" / f"problem_k{k}.toml")
        examples = tuple(Example(str(p), "", "sure", "sorry", shows=True) for p in problem.prompts)
        again = replay_shares(Subject.of(problem), Selective(problem.clamp, (0.0, 0.0), examples))
        recorded = REPORT["problems"][f"sae_k{k}"]["replay"]
        assert again["recovered"] == again["of"] == recorded["of"]
        assert again["median_radius_over_norm_h"] == pytest.approx(recorded["median_radius_over_norm_h"], rel=0.05)
        alone[k] = again["alone_alone_matched_without"]["residual"][0]
    assert alone[3] >= 6
    assert alone[12] <= 2
