"""What an SAE's encoder says at some points, and how far rounding may be behind it.

This is the side that the theorems are judged by: it asks `encode` for codes and knows nothing of cells or slacks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sae_verify.geometry.held_cell import Array
from sae_verify.sae.base import SAE
from sae_verify.sae.gated import GatedSAE
from sae_verify.sae.topk import TopKSAE
from sae_verify.testing.rounding import TINY, gamma, lengths, norms


@dataclass(frozen=True, eq=False)
class Observed:
    """The encoder at n points.

    Attributes:
        code: (n, m). affine: (n, m) pre-activations.
        band: (n, m) bound on the rounding of each pre-activation.
        level: (n, m) for a TopK SAE, how far the level that it is compared with may be off, in the same units; else 0.
        edge: (n, m) how far the pre-activation is above the place where the code jumps to zero, inf where it does not.
        unit: (m,) change of the code for each unit of the pre-activation, while the feature is on.
        scale: s of the input scale: w_j . delta moves pre-activation j by s w_j . delta.
    """

    code: Array
    affine: Array
    band: Array
    level: Array
    edge: Array
    unit: Array
    scale: float

    @property
    def on(self) -> np.ndarray:
        """(n, m) bool."""
        return self.code != 0


def observe(sae: SAE, points: Array) -> Observed:
    """Ask the encoder.

    Args:
        sae: in float64.
        points: (n, d).

    Raises:
        UnsupportedError: the normalisation is not linear, so that no cell is a polyhedron.
    """
    scale = sae.normalization.linear_scale("the held cell")
    y = torch.from_numpy(points)
    with torch.no_grad():
        code, a = sae.encode(y).numpy(), sae.pre_activations(y).numpy()
    size = (scale * norms(points) + lengths(sae).bias)[:, None]  # (n, 1)
    bias = np.abs(_bias(sae, "b_enc")) + np.abs(_bias(sae, "b_gate"))
    unit = np.ones(sae.d_sae)
    if isinstance(sae, GatedSAE):
        unit = sae.r_mag.exp().numpy()
        bias = bias + np.abs(_bias(sae, "b_mag")) / unit
    elif isinstance(sae, TopKSAE) and sae.rescale_by_decoder_norm:
        unit = lengths(sae).decoder
    threshold = np.maximum(_bias(sae, "threshold"), 0.0)
    band = gamma(sae.d_in) * (size * lengths(sae).encoder + bias + threshold) + TINY
    edge, level = np.full_like(a, np.inf), np.zeros_like(a)
    if isinstance(sae, TopKSAE):
        level = _level_width(sae, a * unit, KEPT * band * unit)[:, None] / np.where(unit > 0, unit, 1.0)
    elif isinstance(sae, GatedSAE):
        edge = np.abs(a)
    else:
        edge = np.where(threshold > 0, np.abs(a - threshold), np.inf)
    return Observed(code, a, band, level, edge, unit, scale)


def _bias(sae: SAE, name: str) -> Array:
    """A tensor of the architecture's own, (m,); zeros where it has none of that name."""
    value = getattr(sae, name, None)
    return np.zeros(sae.d_sae) if value is None else value.numpy()


def _level_width(sae: TopKSAE, scores: Array, error: Array) -> Array:
    """How far rounding may move max(0, k-th largest score), (n,): order statistics are monotone in every score."""
    place = sae.d_sae - sae.k
    low, high = (np.partition(scores + sign * error, place, axis=1)[:, place] for sign in (-1.0, 1.0))
    return np.maximum(high, 0.0) - np.maximum(low, 0.0)


CHANGED = 3.0
"""Bands beyond which a value has changed: one for each of the two codes, and one for a perturbation that was meant to
leave the pre-activation alone and moved it within rounding."""
KEPT = CHANGED + 1.0
"""Bands by which a feature may have moved whose value has not `changed`: its two codes are off by one band together."""


def changed(before: Observed, after: Observed) -> np.ndarray:
    """Which features change by more than rounding, (n, m) bool.

    With b both bands: if not, then |s w_j . delta| <= KEPT b_j for a feature that is on by more than KEPT b_j, and
    s w_j . delta <= slack_j + KEPT b_j, plus both levels' widths, for one that is off.
    """
    return np.abs(after.code - before.code) > CHANGED * before.unit * (before.band + after.band)


def kept(before: Observed, after: Observed) -> np.ndarray:
    """Whether every feature keeps its value at each of the points, up to rounding: (n,) bool. False may be rounding.

    A value near zero could vanish within rounding, so the pre-activations of features that are on must not move either.
    """
    moved = np.abs(after.affine - before.affine) > CHANGED * (before.band + after.band)
    return np.asarray(~(changed(before, after) | (before.on & moved)).any(axis=1))


def surely_on(before: Observed, after: Observed) -> np.ndarray:
    """Features whose value is more than what `changed` ignores, (n, m) bool."""
    return before.code > KEPT * before.unit * (before.band + after.band)
