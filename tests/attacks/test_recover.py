"""The quick search finds the recoveries of the full attack, and costs the full attack only where prompts resist."""

from __future__ import annotations

import numpy as np
import pytest

from sae_verify.attacks import Pgd, attack, project_batch
from sae_verify.attacks.closed_form import values
from sae_verify.attacks.recover import recover

from .batches import with_tau


@pytest.mark.parametrize("held", ["free", "preactivations", "code"])
def test_the_same_recoveries_as_the_full_attack(make, held):
    batch = make(held=held, layers=2)
    radii = 0.3 * np.linalg.norm(batch.h.numpy(), axis=1)
    full = attack(batch, radii, Pgd(steps=8))
    # Claims that the full attack breaks easily, barely, and not at all.
    gap = full.value - values(batch, np.zeros((4, 1, batch.h.shape[1])))[:, 0]
    batch = with_tau(batch, full.value + np.array([-0.9, -0.02, 0.02, 0.5]) * (gap + 1e-3))
    found = recover(batch, radii, Pgd(steps=8))
    tau = np.array([one.tau for one in batch.instances])
    assert ((found.value > tau) == (full.value > tau)).all()
    assert found.value == pytest.approx(values(batch, found.delta[:, None])[:, 0], abs=1e-12)
    assert (np.linalg.norm(found.delta, axis=1) <= radii * (1 + 1e-12)).all()
    assert np.allclose(project_batch(batch, found.delta[:, None], radii)[:, 0], found.delta, atol=1e-9)
