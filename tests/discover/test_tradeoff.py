"""The trade-off: a selective clamp costs nothing on benign prompts, a blunt one does, and a condition helps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sae_verify.discover import Condition, Subject, calibrate_condition, clamp_edit, sweep, tradeoff
from sae_verify.discover.subject import logits
from sae_verify.errors import InputError
from sae_verify.problem import Clamp, LogitDifference

from .test_triggers import READOUT, TRIGGER, backdoored, prompts

__all__ = ["backdoored"]

SHOWING, BENIGN = prompts(20, TRIGGER, 0), prompts(60, None, 1)


def test_a_selective_clamp(backdoored: Subject) -> None:
    """Planted: feature 3 causes the behaviour and never fires on benign prompts."""
    clamps = sweep(Clamp.scale({3: 1.0}), (1.0, 0.5, -1.0))
    found = tradeoff(backdoored, clamps, SHOWING, READOUT, BENIGN)
    assert found.plain.behaviour == 1.0
    assert found.plain.capability == 1.0
    assert [p.strength for p in found.points] == [1.0, 0.5, -1.0]
    none, _, full = found.points
    assert none.behaviour == 1.0
    assert full.behaviour == 0.0
    assert full.behaviour_interval[1] < 0.2
    for point in found.points:
        assert point.capability == 1.0
        assert point.divergence == pytest.approx(0.0, abs=1e-9)
        assert point.acted == 1.0


def test_a_blunt_clamp_costs_and_a_condition_saves_it(backdoored: Subject) -> None:
    blunt = [(1.0, Clamp.add({1: 30.0, 3: -30.0}))]
    always = tradeoff(backdoored, blunt, SHOWING, READOUT, BENIGN).points[0]
    assert always.behaviour == 0.0
    assert always.capability < 0.9
    assert always.divergence > 0.1
    condition = calibrate_condition(backdoored, [3], BENIGN)
    assert condition.threshold == 0.0
    needed = tradeoff(backdoored, blunt, SHOWING, READOUT, BENIGN, condition=condition).points[0]
    assert needed.behaviour == 0.0
    assert needed.capability == 1.0
    assert (needed.acted, needed.divergence) == (0.0, 0.0)


def test_a_condition_acts_from_where_it_holds(backdoored: Subject) -> None:
    clamp, condition = Clamp.add({0: 1.0}), Condition((3,), 1.0)
    encoded = backdoored.prompts([[1, TRIGGER, 2], [1, 2, 4], [TRIGGER]])
    change = clamp_edit(backdoored, clamp, condition)(encoded)
    embedding = backdoored.model.module.get_input_embeddings()  # type: ignore[operator]
    x = embedding(encoded.tokens).detach()
    moved = (change(x) - x)[..., 0]
    assert moved[0].tolist() == pytest.approx([0.0, 1.0, 1.0])
    assert moved[1].abs().max() == 0
    assert float(moved[2, 0]) == pytest.approx(1.0)


def test_calibration_keeps_the_rate(backdoored: Subject) -> None:
    condition = calibrate_condition(backdoored, [0, 1], BENIGN, rate=0.2)
    encoded = backdoored.prompts(BENIGN)
    embedding = backdoored.model.module.get_input_embeddings()  # type: ignore[operator]
    code = backdoored.sae.encode(embedding(encoded.tokens).detach())
    peaks = code[..., [0, 1]].sum(-1).amax(dim=1)
    assert float((peaks > condition.threshold).double().mean()) <= 0.2
    assert float((peaks > condition.threshold - 1e-9).double().mean()) > 0.2  # no lower threshold would do
    with pytest.raises(InputError, match="takes 99 prompts"):
        calibrate_condition(backdoored, [0], BENIGN, rate=0.01)
    with pytest.raises(InputError, match="rate"):
        calibrate_condition(backdoored, [0], BENIGN, rate=0.0)


def test_answers_and_their_number(backdoored: Subject) -> None:
    clamps = sweep(Clamp.scale({3: 1.0}), (1.0,))
    right = logits(backdoored, backdoored.prompts(BENIGN)).argmax(dim=1)
    wrong = ((right + 1) % 20).tolist()
    half = [int(r) if i % 2 else int(w) for i, (r, w) in enumerate(zip(right, wrong, strict=True))]
    assert tradeoff(backdoored, clamps, SHOWING, READOUT, BENIGN, answers=half).plain.capability == 0.5
    with pytest.raises(InputError, match="answers"):
        tradeoff(backdoored, clamps, SHOWING, READOUT, BENIGN, answers=half[:3])
    assert np.isfinite(tradeoff(backdoored, clamps, SHOWING, LogitDifference(3, 9), BENIGN).plain.divergence)


def test_divergence_is_that_of_the_capped_distribution(tmp_path) -> None:
    """Gemma-2 caps its logits at the end: compare with the distribution that transformers itself gives."""
    from . import planted

    subject = planted.subject(tmp_path, "gemma2")
    some = [[1, 2, 3], [4, 5, 6]]
    clamp = Clamp.add({0: 3.0}, positions="last")
    found = tradeoff(subject, [(1.0, clamp)], some, READOUT, some).points[0]
    module = subject.model.module
    tokens = torch.tensor(some)
    block = subject.model.adapter.blocks(module)[0]
    plain = module(input_ids=tokens).logits[:, -1].log_softmax(-1)

    def hook(_m, _a, output):
        x = output if isinstance(output, torch.Tensor) else output[0]
        x = x.clone()
        x[:, -1, 0] += 3.0
        return x if isinstance(output, torch.Tensor) else (x, *output[1:])

    handle = block.register_forward_hook(hook)
    try:
        moved = module(input_ids=tokens).logits[:, -1].log_softmax(-1)
    finally:
        handle.remove()
    expected = (plain.exp() * (plain - moved)).sum(-1).mean()
    assert found.divergence == pytest.approx(float(expected), rel=1e-4)
