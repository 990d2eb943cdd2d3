"""Admissibility of a witness in exact reals, and its readout where the tail is only the final norm.

Floats can hardly satisfy `w . delta = 0`, so the statement is: some exactly admissible point lies within a proven
distance of the recorded one (theorem: witness-nearby), and everything else is checked for all points that near.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .arithmetic import Array, Ball, combine, norm, row_lengths, sqrt, up
from .bounds import final_state, value_at
from .errors import Rejected
from .format import WitnessStep
from .independence import reach, rescaled
from .sae import State, decoder_norms
from .setting import Setting

BLOCK = 4096
"""Tokens that are compared at a time."""


@dataclass(frozen=True)
class AcceptedWitness:
    """What is proven of a witness.

    Attributes:
        norm: an upper bound of the l2 norm of the exactly admissible point.
        within: whether that is within the problem's radius.
        readout: a lower bound of the readout there, in exact reals; None when blocks follow the hook.
        replay: the readout that the real model gave when the witness was made, as recorded.
        dtype: of that run.

    """

    norm: float
    within: bool
    readout: float | None
    replay: float
    dtype: str


@dataclass(frozen=True, eq=False)
class Constraints:
    """What must hold exactly: `equal @ delta = 0` and `upper @ delta <= room`, or `<` if strict."""

    equal: Array
    upper: Array
    room: Array
    strict: bool


@dataclass(frozen=True, eq=False)
class HeldSet:
    """Everything that a witness must keep, at all points, prepared once for all witnesses of a certificate.

    Attributes:
        equal: (n, d) rows, rescaled and distinct.
        reach: every r has a c with `equal @ c = r` and ||c|| <= reach ||r||.
        parts: constraint sets with half-spaces. lengths: upper bounds of their rows' norms.
    """

    equal: Array
    reach: float
    parts: tuple[Constraints, ...]
    lengths: tuple[Array, ...]


def held_set(setting: Setting) -> HeldSet:
    """The held set of a problem, computed once."""
    cache = setting.__dict__.setdefault("_held_set", {})
    if not cache:
        parts = [part for point in setting.points for part in constraints_at(setting, point)]
        equal = rescaled(np.concatenate([np.zeros((0, setting.head.d_model)), *(part.equal for part in parts)]))
        bounded = tuple(part for part in parts if part.upper.size)
        cache["held"] = HeldSet(equal, reach(equal), bounded, tuple(row_lengths(part.upper) for part in bounded))
    return cache["held"]


def check_witness(setting: Setting, step: WitnessStep) -> AcceptedWitness:
    """Accept the witness or say why not."""
    d = setting.head.d_model
    if step.delta.shape != (d,):
        raise Rejected(f"a witness has shape {step.delta.shape}, not ({d},)")
    delta = Ball.exact(step.delta)
    if not step.delta.any():  # zero moves nothing: it is admissible in every threat model
        readout = _readout(setting, delta, 0.0) if setting.blocks_after == 0 else None
        return AcceptedWitness(0.0, within=True, readout=readout, replay=step.replay, dtype=step.dtype)
    held = held_set(setting)
    slack = 0.0
    if held.equal.size:
        slack = float((Ball.exact(held.reach) * norm(combine(delta, Ball.exact(held.equal.T)))).high)
    for part, length in zip(held.parts, held.lengths, strict=True):
        moved = combine(delta, Ball.exact(part.upper.T)).high
        margin = part.room - np.nextafter(moved + np.nextafter(length * slack, np.inf), np.inf)
        good = margin > 0 if part.strict else margin >= 0
        # A zero row moves nothing, however little room there is.
        if not (good | ~part.upper.any(axis=1)).all():
            raise Rejected(f"the witness leaves the held cell: a half-space is violated by {-float(margin.min()):.3g}")
    length = float((norm(delta) + Ball.exact(slack)).high)
    readout = None
    if setting.blocks_after == 0:
        readout = _readout(setting, delta, slack)
    return AcceptedWitness(length, bool(length <= setting.radius.low), readout, step.replay, step.dtype)


def _readout(setting: Setting, delta: Ball, slack: float) -> float:
    """A lower bound of the readout at every point within `slack` of delta."""
    if setting.certificate.problem.readout.kind == "token-against-all":
        return _against_all(setting, delta, slack)
    w, constant = setting.readout(None)
    return float((value_at(setting, w, delta, slack) + constant).low)


def _against_all(setting: Setting, delta: Ball, slack: float) -> float:
    """The same for the least difference to any other token, a block of the vocabulary at a time."""
    head, positive = setting.head, setting.certificate.problem.readout.positive
    z, rho = final_state(setting, delta, slack)
    vocabulary, d = head.unembedding.shape
    if vocabulary < 2:
        raise Rejected("there is no other token to compare with")
    if not 0 <= positive < vocabulary:
        raise Rejected(f"token {positive} is outside a vocabulary of {vocabulary}")
    chosen = head.unembedding.float64([positive])
    root = sqrt(Ball.exact(float(d)))
    least = np.inf
    for start in range(0, vocabulary, BLOCK):
        rows = Ball.exact(chosen) - Ball.exact(head.unembedding.float64(slice(start, start + BLOCK)))  # (n, d)
        gained = rows * head.gain  # (n, d); the projection in w is left to z, which is centred, and shortens w
        nearby = up(row_lengths(gained.magnitude) * slack)
        numerator = (combine(z, Ball(gained.mid.T, gained.rad.T)) + Ball(np.zeros(nearby.shape), nearby)) * root
        constant = combine(Ball.exact(head.shift), Ball(rows.mid.T, rows.rad.T))
        low = (numerator / rho + constant).low
        if start <= positive < start + BLOCK:
            low[positive - start] = np.inf
        least = min(least, float(low.min()))
    return least


def constraints_at(setting: Setting, point: str) -> tuple[Constraints, ...]:
    """Convex sets on which all that is held at `point` certainly keeps its value; for TopK with S held, parts of it."""
    threat, sae = setting.certificate.problem.threat, setting.sae
    d, m = sae.W_enc.shape
    nothing = Constraints(np.zeros((0, d)), np.zeros((0, d)), np.zeros(0), strict=False)
    if threat.held == "free":
        return (nothing,)
    defended = setting.certificate.problem.clamp.features if threat.features is None else threat.features
    if threat.held == "unreachable":
        rows = (
            np.array(threat.features) if threat.features is not None else np.flatnonzero(~setting.full_state(point).off)
        )
        return (Constraints(sae.W_dec[rows], nothing.upper, nothing.room, strict=False),)
    if not sae.affine:
        raise Rejected(f"with normalisation {sae.normalization!r} the held cell is no polyhedron")
    if threat.held == "preactivations":
        columns = sae.W_enc[:, np.array(defended, dtype=np.intp)]
        return (Constraints(columns.T, nothing.upper, nothing.room, strict=False),)
    now = setting.full_state(point)
    assert now.room is not None
    held = np.ones(m, dtype=bool)
    if threat.held == "defended":
        held[:] = False
        held[np.array(defended, dtype=np.intp)] = True
    topk = sae.architecture == "topk"
    unsure = ~now.on & ~now.off
    # For TopK every feature that may be selected matters: the others must stay below, the selected above.
    equal = (held & ~now.off) | (unsure & topk)
    below = now.off & (held | topk)
    above = now.on & ~held & topk
    shift = _shift(setting, now) if topk and not held.all() else Ball.exact(np.zeros(m))
    return (
        Constraints(sae.W_enc[:, equal].T, sae.W_enc[:, below].T, (now.room - shift).low[below], strict=topk),
        Constraints(nothing.equal, -sae.W_enc[:, above].T, (shift - now.room).low[above], strict=True),
    )


def _shift(setting: Setting, now: State) -> Ball:
    """How far the level that separates on from off may lie below the least score on, in each feature's units, (m,)."""
    sae, every = setting.sae, np.arange(now.on.shape[0])
    norms = decoder_norms(sae, every) if sae.parameters["rescale"] else Ball.exact(np.ones(every.shape))
    assert now.room is not None
    gap = (now.room * norms).low[now.off]
    half = 0.5 * max(0.0, float(gap.min(initial=np.inf))) if (now.on | now.off).all() and gap.size else 0.0
    return Ball.exact(np.full(every.shape, half)) / norms
