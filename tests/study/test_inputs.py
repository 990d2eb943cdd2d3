"""Suffixes, soft prompts and generation, against loops written out here."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from sae_verify.errors import PromptError
from sae_verify.geometry.instance import readout_values
from sae_verify.model import encode_prompts, run
from sae_verify.sae.clamp import apply_clamp
from sae_verify.study.generation import Continuation, continuations
from sae_verify.study.suffix import ProbeReadout, Target, cut, hard_suffixes, input_rows, soft_suffix


@pytest.fixture(scope="module")
def target(indirect_object):
    _, setup, _ = indirect_object
    subject, item = setup.subject, setup.flips[0]
    before, after = cut(subject.model, item.text, item.closing)
    readout = subject.readouts(item.readout, 1)[0]
    return Target(subject.model, subject.sae, subject.point, setup.clamp, before, after, readout)


def test_one_token_suffixes_are_tried_exhaustively(target):
    """Every token, one prompt at a time."""
    model, found = target.model, []
    for token in range(model.d_vocab):
        prompts = encode_prompts(model, [[*target.before, token, *target.after]])

        def clamp(x, prompts=prompts):
            return apply_clamp(target.sae, target.clamp, x, prompts.lengths)

        with torch.no_grad():
            logits = run(model, prompts, target.hook, clamp).logits.double()
        found.append(float(readout_values(logits, (target.readout,))[0]))
    (one,) = hard_suffixes(target, 1, seed=0)
    assert one.decided
    assert one.tried == model.d_vocab
    assert one.value == pytest.approx(max(found), abs=1e-4)
    assert one.tokens == (int(np.argmax(found)),)
    assert one.recovering == sum(value > 0 for value in found)


def test_longer_suffixes_are_searches_that_say_so(target):
    one, two = hard_suffixes(target, 2, seed=0)
    assert not two.decided
    assert two.tokens is not None
    assert one.tokens is not None
    assert two.tokens[:1] == one.tokens
    assert float(target.values(torch.tensor([two.tokens]))[0]) == pytest.approx(two.value, abs=1e-4)


def test_a_soft_prompt_is_no_worse_than_the_tokens_it_starts_from(target):
    (one,) = hard_suffixes(target, 1, seed=0)
    soft = soft_suffix(target, 1, one, steps=10)
    assert soft.value >= one.value - 1e-4
    assert soft.tokens is None
    again = float(target.values(torch.tensor([one.tokens]))[0])
    assert again == pytest.approx(one.value, abs=1e-4)  # no hook was left behind


def test_a_long_suffix_stops_at_the_model_s_longest_prompt(target):
    long = dataclasses.replace(target, before=target.before * 10)
    room = target.model.max_length - len(long.before) - len(long.after)
    assert len(hard_suffixes(long, 3, seed=0)) == max(0, min(3, room))


def test_probes_are_read_after_the_clamp_and_searched_by_the_same_suffixes(target):
    """A probe along one direction: every one-token suffix by hand, two tokens greedily, vectors by gradient."""
    weight, bias = np.random.default_rng(3).normal(size=target.model.d_model), -0.3
    probed = dataclasses.replace(target, readout=ProbeReadout(weight, bias))
    prompts = probed.prompts(torch.arange(probed.model.d_vocab)[:, None])
    seen = []

    def clamp(x):
        seen.append(apply_clamp(target.sae, target.clamp, x, prompts.lengths))
        return seen[-1]

    with torch.no_grad():
        run(probed.model, prompts, probed.hook, clamp)
    scores = seen[0][:, -1].double().numpy() @ weight + bias
    one, two = hard_suffixes(probed, 2, seed=0)
    assert one.value == pytest.approx(scores.max(), abs=1e-4)
    assert one.tokens == (int(scores.argmax()),)
    assert one.decided
    assert not two.decided
    rows = input_rows(probed, 2, 1, 0, 0.0, {"config": "base"})
    assert [row["threat"] for row in rows] == ["suffix 1", "suffix 2", "soft prompt 1"]
    assert rows[2]["readout"] >= one.value - 1e-4
    assert [row["recovered"] for row in rows] == [row["readout"] > 0 for row in rows]


def test_a_closing_ends_the_prompt_in_tokens(indirect_object):
    model = indirect_object[1].subject.model
    with pytest.raises(PromptError, match="not the end"):
        cut(model, "when jack and leon went to", "and")
    before, after = cut(model, "when jack and leon went to", "")
    assert len(before) == 6
    assert after == ()


@pytest.mark.parametrize("generated", [False, True])
def test_generation_has_the_clamp_at_every_step(indirect_object, generated):
    """Against whole passes without a cache, clamped at all positions, perturbed where it should be."""
    _, setup, _ = indirect_object
    subject, text = setup.subject, setup.flips[0].text
    generator = np.random.default_rng(0)
    deltas = [generator.normal(size=subject.model.d_model) for _ in range(2)]
    found = continuations(
        subject.model, subject.sae, subject.point, setup.clamp, text, most=5, deltas=deltas, generated=generated
    )
    for delta, mine in zip(deltas, found, strict=True):
        tokens = encode_prompts(subject.model, [text]).tokens[0].tolist()
        start, said = len(tokens) - 1, []
        for _ in range(5):
            prompts = encode_prompts(subject.model, [tokens])

            def edit(x, prompts=prompts, delta=delta, start=start):
                h = apply_clamp(subject.sae, setup.clamp, x, prompts.lengths).clone()
                end = h.shape[1] if generated else start + 1
                h[0, start:end] += torch.from_numpy(delta).float()
                return h

            with torch.no_grad():
                said.append(int(run(subject.model, prompts, subject.point, edit).logits[0].argmax()))
            tokens.append(said[-1])
        assert mine.tokens == tuple(said)


def test_what_counts_as_base_like():
    base = Continuation((1, 2, 3, 4), ("sure", "here", ".", "more"))
    assert base.until(".").tokens == (1, 2, 3)
    assert base.until("!") == base
    assert not base.until(".").like(base)
    assert base.until(".").agreement(base) == 0.75
    assert Continuation((9,), ("I cannot do",)).refuses
    assert not base.refuses
