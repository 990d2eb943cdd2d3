"""What an SAE is tested at: residuals, readout directions and clamps, from any SAE and a numpy generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
import torch

from sae_verify.geometry.held_cell import Array
from sae_verify.problem import Clamp, ClampKind
from sae_verify.sae.base import SAE
from sae_verify.sae.topk import TopKSAE
from sae_verify.testing.rounding import lengths, norm, span, wide

RESIDUALS = ("rows", "threshold", "corner", "rows", "zero", "huge", "tiny")
"""Kinds of synthetic residuals, in the order in which they are made; see `residual`."""
READOUTS = ("random", "in the span", "orthogonal", "along the family", "zero")
"""Kinds of readout directions, see `readout`."""
ACTIVE = 30
"""Decoder rows of which a synthetic residual is the sum, at most."""
FAR = 1e6
"""Factor of the huge and the tiny residuals."""


def residuals(sae: SAE, count: int, rng: np.random.Generator) -> Array:
    """Synthetic residuals of every kind in turn, (count, d) float64."""
    return np.stack([residual(sae, RESIDUALS[i % len(RESIDUALS)], rng) for i in range(count)])


def residual(sae: SAE, kind: str, rng: np.random.Generator) -> Array:
    """One residual, (d,) float64.

    `rows`: a positive combination of a few decoder rows, b_dec and noise. `threshold`: the same, moved until one
    feature's pre-activation is where it switches; `corner`: several features'. `zero`, and `rows` times a million or a
    millionth.

    Args:
        sae: any dtype and normalisation.
        kind: one of RESIDUALS.
        rng: of everything.
    """
    sae = wide(sae)
    if kind == "zero":
        return np.zeros(sae.d_in)
    x = _rows(sae, rng)
    if kind in ("threshold", "corner"):
        count = 1 if kind == "threshold" else int(rng.integers(2, 5))
        return _at_thresholds(sae, x, count, rng)
    return x * {"huge": FAR, "tiny": 1.0 / FAR}.get(kind, 1.0)


def _rows(sae: SAE, rng: np.random.Generator) -> Array:
    some = rng.choice(sae.d_sae, min(sae.d_sae, int(rng.integers(1, ACTIVE + 1))), replace=False)
    rows = sae.W_dec.numpy()[some]
    size = lengths(sae).decoder
    typical = float(np.median(size[size > 0])) if size.any() else 1.0
    unit = rows * (typical / np.where(size[some] > 0, size[some], 1.0))[:, None]  # rows of any length count alike
    x = rng.uniform(1, 3, len(some)) @ unit
    noise = rng.standard_normal(sae.d_in) / np.sqrt(sae.d_in)
    x = x + sae.b_dec.numpy() + 0.3 * (norm(x) or 1.0) * noise
    scale = getattr(sae.normalization, "scale", 1.0)
    return x / float(scale)


def _at_thresholds(sae: SAE, x: Array, count: int, rng: np.random.Generator) -> Array:
    """X moved the least so that some features sit where they switch, as exactly as floats go."""
    columns = sae.W_enc.numpy()
    size = lengths(sae).encoder
    usable = np.flatnonzero(size > 0)
    if not usable.size:
        return x
    some = rng.choice(usable, min(count, len(usable)), replace=False)
    unit = columns[:, some].T / size[some, None]  # (n, d)
    for _ in range(3):
        gap = _gap(sae, x)[some] / size[some]
        if not np.isfinite(gap).all():
            return x
        x = x + np.linalg.lstsq(unit, gap, rcond=1e-9)[0] / float(getattr(sae.normalization, "scale", 1.0))
    return x


def _gap(sae: SAE, x: Array) -> Array:
    """How far each pre-activation is below the place where its feature switches, (m,)."""
    y = torch.from_numpy(x)
    a = sae.pre_activations(y)
    if isinstance(sae, TopKSAE):
        norms = torch.from_numpy(lengths(sae).decoder) if sae.rescale_by_decoder_norm else torch.ones_like(a)
        return (sae.cutoff(y) / norms - a).numpy()
    threshold = getattr(sae, "threshold", None)
    return ((torch.zeros_like(a) if threshold is None else threshold.clamp(min=0)) - a).numpy()


def readout(sae: SAE, x: Array, rng: np.random.Generator, kind: str | None = None) -> Array:
    """A direction g of a linear readout, (d,) float64.

    `random`; `in the span` of the active encoder columns; `orthogonal` to them; `along the family` of features that are
    nearly on, which makes their half-spaces bind; `zero`.

    Args:
        sae: any dtype.
        x: (d,) residual.
        rng: of everything.
        kind: one of READOUTS; None draws one, zero rarely.
    """
    sae = wide(sae)
    kind = kind or str(rng.choice(READOUTS, p=[0.3, 0.1, 0.2, 0.35, 0.05]))
    g = rng.standard_normal(sae.d_in)
    if kind == "zero":
        return np.zeros(sae.d_in)
    if kind == "random":
        return g
    columns = sae.W_enc.numpy().T
    active = np.flatnonzero(sae.active(torch.from_numpy(x)).numpy())
    if kind == "in the span":
        return rng.standard_normal(len(active)) @ columns[active] if active.size else g
    if kind == "orthogonal":
        return span(columns[active]).rest(g)
    gap = _gap(sae, x) / np.where(lengths(sae).encoder > 0, lengths(sae).encoder, np.inf)
    near = np.argsort(np.where(gap > 0, gap, np.inf), kind="stable")[:100]
    some = rng.choice(near, min(len(near), 20), replace=False)
    unit = columns[some] / np.where(lengths(sae).encoder[some] > 0, lengths(sae).encoder[some], 1.0)[:, None]
    pull = unit.sum(axis=0)
    return g / np.sqrt(len(g)) + pull / (norm(pull) or 1.0)


def clamp(sae: SAE, x: Array, rng: np.random.Generator, kinds: Sequence[ClampKind] = get_args(ClampKind)) -> Clamp:
    """A clamp of some kind on a few features, active ones first.

    Args:
        sae: any dtype.
        x: (d,) residual, whose active features are preferred.
        rng: of everything.
        kinds: that are drawn from.
    """
    sae = wide(sae)
    kind = kinds[int(rng.integers(len(kinds)))]
    code = np.nan_to_num(sae.encode(torch.from_numpy(x)).numpy())  # some normalisations have no value at zero
    active, count = np.flatnonzero(code), int(rng.integers(1, min(sae.d_sae, 4) + 1))
    pool = active if len(active) >= count and rng.random() < 0.8 else np.arange(sae.d_sae)
    chosen = rng.choice(pool, count, replace=False)
    size = min(float(code.max(initial=0.0)) or 1.0, 1e9)
    values = rng.choice([0.0, 1.0, -0.2, 3.0, float(rng.normal())], count)
    factor = 1.0 if kind == "scale" else size
    return Clamp(kind, tuple(int(j) for j in chosen), tuple(float(v * factor) for v in values))
