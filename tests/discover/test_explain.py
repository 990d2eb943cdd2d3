"""Jailbreak explanations: the planted feature carries the difference, or the error term does where no feature can."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny import random_sae

from sae_verify.discover import Subject, explain, recurring
from sae_verify.errors import InputError
from sae_verify.model import Model
from sae_verify.problem import LogitDifference
from sae_verify.sae import LayerNorm

from . import planted
from .planted import D, f64

HOOK = "blocks.1.hook_resid_post"
BASE, BROKEN = [1, 2, 3], [9, 8, 2, 3]
READOUT = LogitDifference(3, 7)


def one_axis(tmp_path: Path) -> Model:
    """After the last block, the readout is axis 0 alone, over the norm."""
    model = planted.model(tmp_path, layers=2)
    rows = torch.zeros(20, D, dtype=f64)
    rows[3, 0], rows[7, 0] = 2.0, -2.0
    with torch.no_grad():
        model.adapter.lm_head(model.module).weight.copy_(rows)  # type: ignore[operator]
    return model


def test_the_feature_that_the_readout_reads_has_the_effect(tmp_path: Path) -> None:
    found = explain(Subject(one_axis(tmp_path), planted.sae(HOOK)), BASE, BROKEN, READOUT, count=8)
    assert found.positions == 2
    assert found.everything == pytest.approx(1.0, abs=1e-9)  # after the last block the last position is all there is
    assert found.all_features == pytest.approx(1.0, abs=1e-9)  # these features explain everything
    assert found.error == pytest.approx(0.0, abs=1e-9)
    effects = {c.feature: c.effect for c in (*found.suppressed, *found.activated)}
    axis = {f: e for f, e in effects.items() if f in (0, D)}
    assert axis
    assert max(abs(e) for e in axis.values()) == max(abs(e) for e in effects.values())
    for changed in found.suppressed:
        assert changed.base > changed.jailbroken
    for changed in found.activated:
        assert changed.base < changed.jailbroken
    written = [c.written for c in found.suppressed]
    assert written == sorted(written, reverse=True)


def test_without_a_feature_for_it_the_error_term_carries_it(tmp_path: Path) -> None:
    """Planted: no feature for axis 0, so that what the readout reads is in the error term."""
    axes = torch.eye(D, dtype=f64)[1:]
    subject = Subject(one_axis(tmp_path), planted.sae(HOOK, axes))
    found = explain(subject, BASE, BROKEN, READOUT)
    with_all = explain(Subject(subject.model, planted.sae(HOOK)), BASE, BROKEN, READOUT)
    zero = next(c for c in (*with_all.suppressed, *with_all.activated) if c.feature in (0, D))
    assert found.error == pytest.approx(zero.effect if zero.base * zero.jailbroken == 0 else found.error)
    assert abs(found.error) > 0.1
    assert found.everything == pytest.approx(1.0, abs=1e-9)


def test_sides_together_are_the_change_of_all_features(tmp_path: Path) -> None:
    """By hand: the last position's code patched back, error term kept, read out on the real model."""
    from sae_verify.discover.subject import readout
    from sae_verify.model import run

    sae = random_sae(
        "topk", d=D, m=16, k=4, hook=HOOK, seed=0, normalization=LayerNorm(), subtract=True, bias=0.0, dtype=f64
    )
    subject = Subject(planted.model(tmp_path, "gpt2"), sae)
    found = explain(subject, BASE, BROKEN, READOUT, positions=1)
    good, bad = subject.prompts([BASE]), subject.prompts([BROKEN])
    x, y = run(subject.model, bad, subject.point).resid[0, -1], run(subject.model, good, subject.point).resid[0, -1]
    state = x + sae.write(sae.encode(y) - sae.encode(x), x)

    def edit(_):
        def change(resid: torch.Tensor) -> torch.Tensor:
            resid = resid.clone()
            resid[0, -1] = state
            return resid

        return change

    value = float(readout(subject, bad, subject.readouts(READOUT, 1), edit)[0])
    expected = (value - found.jailbroken) / (found.base - found.jailbroken)
    assert found.all_features == pytest.approx(expected, abs=1e-9)
    for changed in found.suppressed[:1]:
        row = sae.write(torch.eye(16, dtype=f64)[changed.feature], x)
        assert changed.written == pytest.approx(float(row.norm()) * (changed.base - changed.jailbroken))


def test_recurring_features(tmp_path: Path) -> None:
    subject = Subject(one_axis(tmp_path), planted.sae(HOOK))
    found = [explain(subject, BASE, bad, READOUT) for bad in (BROKEN, [5, 2, 3], [6, 6, 2, 3])]
    rows = recurring(found)
    counts = [r.suppressed + r.activated for r in rows]
    assert counts == sorted(counts, reverse=True)
    first = rows[0]
    named = [c.effect for one in found for c in (*one.suppressed, *one.activated) if c.feature == first.feature]
    assert first.effect == pytest.approx(np.mean(named))
    assert len(named) == first.suppressed + first.activated


def test_what_is_refused(tmp_path: Path) -> None:
    subject = Subject(one_axis(tmp_path), planted.sae(HOOK))
    with pytest.raises(InputError, match="nothing to explain"):
        explain(subject, BASE, BASE, READOUT)
    for positions in (0, 4, True):
        with pytest.raises(InputError, match="positions"):
            explain(subject, BASE, BROKEN, READOUT, positions=positions)
