from __future__ import annotations

import pytest
import torch

from sae_verify.problem import Clamp
from sae_verify.sae.clamp import apply_clamp, clamp_positions, clamped

from .helpers import ARCHITECTURES, NORMALIZATIONS, inputs, make

f64 = torch.float64
FEATURES = {2: 1.5, 9: 0.0, 17: -2.0}
RULES = {
    "set": lambda z, v: v.expand_as(z),
    "scale": lambda z, v: z * v,
    "set_if_active": lambda z, v: torch.where(z != 0, v, z),
    "add": lambda z, v: z + v,
}


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("normalization", NORMALIZATIONS, ids=lambda n: type(n).__name__)
def test_a_clamp_swaps_the_code_and_keeps_the_error_term(kind, architecture, normalization):
    sae, x = make(architecture, normalization, dtype=f64), inputs(dtype=f64)
    clamp = getattr(Clamp, kind)(FEATURES)
    index, values = list(FEATURES), torch.tensor(list(FEATURES.values()), dtype=f64)
    z = sae.encode(x)
    new = z.clone()
    new[:, index] = RULES[kind](z[:, index], values)
    torch.testing.assert_close(clamped(sae, clamp, x), sae.decode(new, x) + sae.error(x))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_drop_error_is_the_reconstruction_of_the_clamped_code(architecture):
    sae, x = make(architecture, dtype=f64), inputs(dtype=f64)
    z = sae.encode(x)
    z[:, list(FEATURES)] = torch.tensor(list(FEATURES.values()), dtype=f64)
    torch.testing.assert_close(clamped(sae, Clamp.drop_error(FEATURES), x), sae.decode(z, x))
    torch.testing.assert_close(clamped(sae, Clamp.drop_error(), x), sae.reconstruct(x))


def test_adding_writes_decoder_rows_and_scaling_by_one_changes_nothing():
    sae, x = make("standard", dtype=f64), inputs(dtype=f64)
    moved = clamped(sae, Clamp.add({3: 2.0}), x)
    torch.testing.assert_close(moved, x + 2 * sae.W_dec[3])
    assert torch.equal(clamped(sae, Clamp.scale({3: 1.0}), x), x)


def test_positions():
    lengths = torch.tensor([3, 1])
    assert clamp_positions(Clamp.set({0: 0.0}), lengths, 3).all()
    last = clamp_positions(Clamp.set({0: 0.0}, "last"), lengths, 3)
    assert last.tolist() == [[False, False, True], [True, False, False]]
    chosen = clamp_positions(Clamp.set({0: 0.0}, (0, 2)), lengths, 3)
    assert chosen.tolist() == [[True, False, True]] * 2


def test_apply_clamp_acts_only_at_its_positions_and_keeps_the_dtype():
    sae = make("standard").to(f64)
    x = inputs(6).reshape(2, 3, 8)
    clamp = Clamp.add({1: 1.0}, "last")
    h = apply_clamp(sae, clamp, x, torch.tensor([3, 2]))
    assert h.dtype == torch.float32
    changed = (h != x).any(dim=-1)
    assert changed.tolist() == [[False, False, True], [False, True, False]]
