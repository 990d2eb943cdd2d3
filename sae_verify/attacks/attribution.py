"""What carries a recovery: parts of its perturbation replayed alone and knocked out, on the real model.

With z = E(h) and z' = E(h + delta), `delta = write(z' - z on S) + write(z' - z elsewhere) + residual`, S the clamped
features: the residual is what the reconstruction does not see, `delta - (D(E(h + delta)) - D(E(h)))`. Orthogonal
splits by subspace stand beside it. Components of the first kind can be longer than delta and cancel; then a part alone
says little, which `warning` says. A description of one perturbation: nothing here bounds others.
Source: arXiv 2606.18322 (replay of parts); the norm-matched variants and the subspaces are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from sae_verify.attacks.variants import replay_variants
from sae_verify.errors import InputError, ShapeError, UnsupportedError, WeightsError
from sae_verify.geometry.held_cell import Array, Indices
from sae_verify.geometry.instance import Batch
from sae_verify.geometry.rows import active_features, checked_features
from sae_verify.geometry.subspace import Subspace, complement, span

NEGLIGIBLE = 1e-6
"""Parts shorter than this share of delta count as zero: scaled up, they would be rounding."""
CANCELS = 1.5
"""Parts longer than this times delta are said to cancel."""

PartName = Literal["clamped", "other", "top-k", "residual", "reachable", "unreachable", "invisible", "unseen"]
PARTITION: tuple[PartName, ...] = ("clamped", "other", "residual")
"""Parts that add up to delta."""


@dataclass(frozen=True)
class Outcome:
    """A replay: the readout of the real model, and whether it breaks the claim."""

    value: float
    recovered: bool


@dataclass(frozen=True)
class Part:
    """One part p of delta.

    Attributes:
        name: clamped, other and residual add up to delta; top-k are the k longest of `other`; reachable is the span of
            the decoder rows of active features, unreachable its complement, invisible what no active feature's encoder
            column sees, unseen what no encoder column sees at all.
        norm: ||p||. share: ||p|| / ||delta||.
        along: p . delta / ||delta||^2; over a partition these add up to 1.
        dimension: of the subspace; None for the parts by feature.
        alone: replay of p. alone_matched: of p scaled to ||delta||; None where p is negligible.
        without: replay of delta - p. without_matched: the same scaled to ||delta||; None where nothing is left.
    """

    name: PartName
    norm: float
    share: float
    along: float
    dimension: int | None
    alone: Outcome
    alone_matched: Outcome | None
    without: Outcome
    without_matched: Outcome | None


@dataclass(frozen=True)
class Moved:
    """A feature that delta moves: its change in the SAE's units, and the length of what that writes."""

    feature: int
    change: float
    written: float


@dataclass(frozen=True)
class Attribution:
    """One prompt's recovery, taken apart.

    Attributes:
        prompt: index in the problem.
        norm: ||delta||.
        defended: replay of nothing. full: replay of delta.
        parts: see `Part`.
        top: the k other features that move most, longest first.
        cancellation: sum of the lengths of clamped, other and residual part, over ||delta||; 1 at least, unless delta
            is zero.
        warning: why the parts alone should not be trusted here; None if nothing speaks against it.
    """

    prompt: int
    norm: float
    defended: Outcome
    full: Outcome
    parts: tuple[Part, ...]
    top: tuple[Moved, ...]
    cancellation: float
    warning: str | None

    def part(self, name: PartName) -> Part:
        """The part of that name."""
        return next(part for part in self.parts if part.name == name)

    def effect(self, outcome: Outcome | None) -> float | None:
        """Share of the recovery's gain in the readout that an outcome has; None where there is no gain or outcome."""
        gain = self.full.value - self.defended.value
        return None if outcome is None or gain == 0.0 else (outcome.value - self.defended.value) / gain


@dataclass(frozen=True)
class Share:
    """How often a part carries recoveries: counts among the `of` prompts that delta recovers.

    `*_of` of the matched variants leave out the prompts where nothing was there to scale.
    """

    name: PartName
    of: int
    alone: int
    alone_matched: int
    alone_matched_of: int
    without: int
    without_matched: int
    without_matched_of: int


def attribute(
    batch: Batch,
    delta: Array,
    *,
    k: int = 10,
    features: Sequence[int] | None = None,
    at: Literal["h", "x"] = "h",
    on: Literal["model", "tail"] = "model",
) -> tuple[Attribution, ...]:
    """Take the perturbation of each prompt apart and replay its parts.

    Args:
        batch: B prompts.
        delta: (B, d) perturbations of the defended states, e.g. `Attack.delta`.
        k: how many other features make up the part `top-k`.
        features: S; None takes the clamped ones.
        at: the state whose code is compared: the defended one, as published, or x before the clamp, where a held code
            leaves only the residual.
        on: replay on the real model, or on its float64 tail (much cheaper; for sweeps).

    Cost: 34 forward passes a prompt at most.

    Raises:
        ShapeError, WeightsError, InputError, FeatureError: delta, k or features are not usable.
        UnsupportedError: the SAE's normalisation is not linear in x, so that parts by feature do not add up.

    """
    _check(batch, delta, k)
    sae = batch.sae
    sae.normalization.linear_scale("attribution by feature")
    chosen = batch.problem.clamp.features if features is None else tuple(features)
    defended = checked_features(np.array(chosen, dtype=np.intp), sae.d_sae)
    unseen = complement(sae, matrix="encoder")
    splits = [_split(batch, b, delta[b], defended, k, at, unseen) for b in range(len(delta))]
    vectors = [_variants(delta[b], [part for _, part, _ in splits[b].parts]) for b in range(len(delta))]
    stacked = np.stack([np.stack([v if v is not None else np.zeros_like(delta[0]) for v in row]) for row in vectors])
    if on == "model":
        values = replay_variants(batch, stacked)  # (B, V)
    else:
        with torch.no_grad():
            values = batch.readout(batch.h[:, None] + torch.from_numpy(stacked)).numpy()
    found = []
    for b, instance in enumerate(batch.instances):
        outcomes = [
            None if vector is None else Outcome(float(value), bool(value > instance.tau))
            for vector, value in zip(vectors[b], values[b], strict=True)
        ]
        found.append(_attribution(instance.index, delta[b], splits[b], outcomes))
    return tuple(found)


def shares(attributions: Sequence[Attribution]) -> tuple[Share, ...]:
    """Count, over the prompts whose full perturbation recovers, which parts recover alone and which are not needed."""
    recovered = [one for one in attributions if one.full.recovered]
    names: list[PartName] = [part.name for part in attributions[0].parts] if attributions else []
    counted = []
    for name in names:
        parts = [one.part(name) for one in recovered]
        alone, without = [p.alone_matched for p in parts], [p.without_matched for p in parts]
        counted.append(
            Share(
                name=name,
                of=len(parts),
                alone=sum(p.alone.recovered for p in parts),
                alone_matched=sum(o.recovered for o in alone if o is not None),
                alone_matched_of=sum(o is not None for o in alone),
                without=sum(p.without.recovered for p in parts),
                without_matched=sum(o.recovered for o in without if o is not None),
                without_matched_of=sum(o is not None for o in without),
            )
        )
    return tuple(counted)


@dataclass(frozen=True, eq=False)
class _Split:
    """Parts as (name, vector, dimension), and the features behind `top-k`."""

    parts: tuple[tuple[PartName, Array, int | None], ...]
    top: tuple[Moved, ...]


def _check(batch: Batch, delta: Array, k: int) -> None:
    if batch.problem.threat.positions > 1:
        raise UnsupportedError(
            f"attribution of a perturbation of {batch.problem.threat.positions} positions",
            rule="it is taken apart by the code of one position",
            remedy="use a threat model with positions=1",
        )
    shape = (len(batch.instances), batch.h.shape[1])
    if delta.shape != shape:
        raise ShapeError(f"delta has shape {delta.shape}", rule=f"it must be {shape}: one perturbation a prompt")
    if not np.isfinite(delta).all():
        raise WeightsError("delta is NaN or infinite somewhere", rule="perturbations are finite")
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise InputError(f"k is {k!r}", rule="it must be an integer from 1")


def _split(batch: Batch, b: int, delta: Array, defended: Indices, k: int, at: str, unseen: Subspace) -> _Split:
    sae, instance = batch.sae, batch.instances[b]
    if at not in ("h", "x"):
        raise InputError(f"at is {at!r}", rule="it must be 'h' or 'x'")
    state = instance.h if at == "h" else instance.x
    here = torch.from_numpy(np.stack([state, state + delta]))  # (2, d)
    before, after = sae.encode(here)  # (d_sae,) each
    change = after - before
    moved = torch.nonzero(change).flatten()
    rows = sae.feature_rows(moved.tolist()).numpy() if len(moved) else np.zeros((0, sae.d_in))  # (n, d)
    written = change[moved].numpy()[:, None] * rows  # (n, d)
    lengths = np.linalg.norm(written, axis=1)
    clamped = np.isin(moved.numpy(), defended)
    others = np.flatnonzero(~clamped)
    longest = others[np.argsort(-lengths[others], kind="stable")[:k]]
    top = longest[lengths[longest] > NEGLIGIBLE * np.linalg.norm(delta)]
    active = active_features(sae, state)
    reachable = span(sae, active)
    invisible = complement(sae, active, matrix="encoder")
    parts: tuple[tuple[PartName, Array, int | None], ...] = (
        ("clamped", written[clamped].sum(axis=0), None),
        ("other", written[others].sum(axis=0), None),
        ("top-k", written[top].sum(axis=0), None),
        ("residual", delta - written.sum(axis=0), None),
        ("reachable", reachable.part(delta), reachable.dimension),
        ("unreachable", reachable.rest(delta), reachable.width - reachable.dimension),
        ("invisible", invisible.part(delta), invisible.dimension),
        ("unseen", unseen.part(delta), unseen.dimension),
    )
    named = tuple(Moved(int(moved[i]), float(change[moved[i]]), float(lengths[i])) for i in top)
    return _Split(parts, named)


def _variants(delta: Array, parts: list[Array]) -> list[Array | None]:
    """Nothing, delta, then four vectors a part; None where there is nothing to scale."""
    result: list[Array | None] = [np.zeros_like(delta), delta]
    for part in parts:
        for vector in (part, delta - part):
            result += [vector, _scaled(vector, float(np.linalg.norm(delta)))]
    return result


def _scaled(vector: Array, length: float) -> Array | None:
    size = float(np.linalg.norm(vector))
    return None if size <= NEGLIGIBLE * length else vector * (length / size)


def _attribution(prompt: int, delta: Array, split: _Split, outcomes: list[Outcome | None]) -> Attribution:
    size = float(np.linalg.norm(delta))
    unit = size if size > 0 else 1.0
    parts = []
    for i, (name, vector, dimension) in enumerate(split.parts):
        alone, alone_matched, without, without_matched = outcomes[2 + 4 * i : 6 + 4 * i]
        assert alone is not None
        assert without is not None
        norm = float(np.linalg.norm(vector))
        along = float(vector @ delta) / unit**2
        parts.append(Part(name, norm, norm / unit, along, dimension, alone, alone_matched, without, without_matched))
    shares_ = {part.name: part.share for part in parts if part.name in PARTITION}
    longest = max(shares_, key=shares_.__getitem__)
    warning = None
    if shares_[longest] > CANCELS:
        warning = (
            f"the {longest} part is {shares_[longest]:.2g} times as long as delta, and parts cancel: alone, each "
            "replays another perturbation; read the norm-matched and the knock-out columns"
        )
    defended, full = outcomes[0], outcomes[1]
    assert defended is not None
    assert full is not None
    return Attribution(prompt, size, defended, full, tuple(parts), split.top, sum(shares_.values()), warning)
