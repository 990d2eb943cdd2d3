"""Features by what their decoder rows write towards the unembedding: read off the weights, no prompt needed.

After the last block a row d_j changes logit t in the direction of d_j . w_t, w_t the unembedding row seen through the
final norm's gain and centring. At earlier layers the blocks in between bend that: a hint where to look, no more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sae_verify.discover.subject import Subject
from sae_verify.errors import InputError
from sae_verify.geometry.held_cell import Array
from sae_verify.model.operations import LayerNorm
from sae_verify.problem import Readout


@dataclass(frozen=True)
class Aligned:
    """One feature: the cosine of its decoder row with a readout's direction, and its standard score among all."""

    feature: int
    cosine: float
    standard: float


@dataclass(frozen=True)
class Promoted:
    """A token and how far a unit step along a feature's row raises its logit above the mean of all logits.

    The step is taken where the final norm's denominator is 1; `standard` is the standard score among all tokens.
    """

    token: int
    word: str
    logit: float
    standard: float


def direction(subject: Subject, readout: Readout) -> Array:
    """The direction of a logit difference, or of one logit less the mean of all, through the final norm; (d,)."""
    (asked,) = subject.readouts(readout, 1)
    rows = _directions(subject)
    return rows[asked.positive] - (rows.mean(axis=0) if asked.negative is None else rows[asked.negative])


def aligned(subject: Subject, readout: Readout, count: int = 10, *, both: bool = False) -> tuple[Aligned, ...]:
    """Features whose decoder rows point along a readout's direction, the best aligned first.

    Args:
        subject: model and SAE.
        readout: the direction.
        count: how many at most.
        both: also those that point against it, ranked by size.

    Raises:
        TokenError, InputError: the readout is not usable.
    """
    w = direction(subject, readout)
    cosines = _cosines(subject.sae.W_dec.double().numpy(), w[None])[:, 0]  # (d_sae,)
    spread = float(cosines.std()) or 1.0
    order = np.argsort(-np.abs(cosines) if both else -cosines, kind="stable")[:count]
    return tuple(Aligned(int(f), float(cosines[f]), float((cosines[f] - cosines.mean()) / spread)) for f in order)


def promoted(subject: Subject, feature: int, count: int = 10, *, suppressed: bool = False) -> tuple[Promoted, ...]:
    """Tokens that a feature's decoder row promotes most, or suppresses most.

    Raises:
        FeatureError: there is no such feature.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InputError(f"count is {count!r}", rule="it must be an integer from 1")
    index = subject.sae.feature_rows([feature])  # refuses what is no feature
    rows = _directions(subject)
    row = index[0].double().numpy()
    effect = (rows - rows.mean(axis=0)) @ (row / (np.linalg.norm(row) or 1.0))  # (V,)
    spread = float(effect.std()) or 1.0
    order = np.argsort(effect if suppressed else -effect, kind="stable")[:count]
    return tuple(Promoted(int(t), subject.word(int(t)), float(effect[t]), float(effect[t] / spread)) for t in order)


def _directions(subject: Subject) -> Array:
    """Unembedding rows through the final norm's gain and centring, (V, d)."""
    adapter, module = subject.model.adapter, subject.model.module
    norm = adapter.final_norm(module)
    rows = adapter.unembed(module).weight.numpy() * norm.gain.numpy()
    return rows - rows.mean(axis=1, keepdims=True) if isinstance(norm, LayerNorm) else rows


def _cosines(rows: Array, others: Array) -> Array:
    """Cosines of (n, d) rows with (k, d) others, (n, k); 0 for a zero row."""
    length = np.linalg.norm(rows, axis=1)[:, None] * np.linalg.norm(others, axis=1)[None]
    return (rows @ others.T) / np.where(length > 0, length, 1.0)
