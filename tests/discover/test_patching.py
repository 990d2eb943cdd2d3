"""Activation patching: with one head left in the model, all of the effect is that head's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sae_verify.discover import Component, Subject, patch
from sae_verify.errors import InputError, PromptError
from sae_verify.problem import LogitDifference

from . import planted

HOOK = "blocks.0.hook_resid_post"
CLEAN, CORRUPT = [[1, 2, 3], [4, 5, 6, 7]], [[9, 2, 3], [8, 5, 6, 7]]
READOUT = LogitDifference(3, 7)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("head", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_the_only_head_has_all_of_the_effect(tmp_path: Path, family: str, head: tuple[int, int]) -> None:
    """The prompts of a pair differ before the last position alone: what differs there came through the one head."""
    model = planted.model(tmp_path, family)
    planted.silence(model, except_head=head)
    found = patch(Subject(model, planted.sae(HOOK)), CLEAN, CORRUPT, READOUT, where="last")
    assert found.positions == (1, 1)
    for i, component in enumerate(found.components):
        carries = component in (Component(head[0], "attention"), Component(head[0], "head", head[1]))
        assert found.effects[:, i] == pytest.approx([float(carries)] * 2, abs=1e-9), component
    layer, number = head
    assert found.grid("head").shape == (2, 2)
    assert found.grid("head")[layer, number] == pytest.approx(1.0)
    assert found.grid("attention")[layer] == pytest.approx(1.0)
    assert found.grid("mlp") == pytest.approx(np.zeros(2), abs=1e-9)
    assert {str(c) for c, _ in found.top(2)} == {f"{layer}.attention", f"{layer}.head.{number}"}


def test_a_network_after_the_head_carries_a_part(tmp_path: Path) -> None:
    """With the feed-forward networks on: before the head nothing, the head all, its layer's network some."""
    model = planted.model(tmp_path)
    planted.silence(model, except_head=(1, 0), keep_mlp=True)
    found = patch(Subject(model, planted.sae(HOOK)), CLEAN, CORRUPT, READOUT, where="last")
    assert found.grid("attention") == pytest.approx([0.0, 1.0], abs=1e-9)
    assert found.grid("mlp")[0] == pytest.approx(0.0, abs=1e-9)
    assert abs(found.grid("mlp")[1]) > 1e-3


def test_earlier_positions_are_patched_by_suffix(tmp_path: Path) -> None:
    """Position by position the network of layer 0 differs, and only a patch of the suffix moves it there."""
    model = planted.model(tmp_path)
    planted.silence(model, except_head=(1, 1), keep_mlp=True)
    subject = Subject(model, planted.sae(HOOK))
    last = patch(subject, CLEAN, CORRUPT, READOUT, where="last", heads=False)
    whole = patch(subject, CLEAN, CORRUPT, READOUT, heads=False)
    assert whole.positions == (3, 4)
    mlp = [c.kind == "mlp" and c.layer == 0 for c in whole.components].index(True)
    assert np.abs(last.effects[:, mlp]).max() < 1e-9
    assert np.abs(whole.effects[:, mlp]).min() > 1e-3
    longer = patch(subject, [[11, *CLEAN[0]]], [CORRUPT[0]], READOUT, heads=False)
    assert longer.positions == (3,)


def test_what_is_refused(tmp_path: Path) -> None:
    subject = planted.subject(tmp_path)
    with pytest.raises(PromptError, match="pairs"):
        patch(subject, CLEAN, CORRUPT[:1], READOUT)
    with pytest.raises(InputError, match="must differ by"):
        patch(subject, CLEAN, CLEAN, READOUT)
    with pytest.raises(InputError, match="where"):
        patch(subject, CLEAN, CORRUPT, READOUT, where="first")  # type: ignore[arg-type]
