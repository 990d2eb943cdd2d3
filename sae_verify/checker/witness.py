"""Admissibility of a witness in exact reals, and its readout where the tail is only the final norm.

Floats can hardly satisfy `w . delta = 0`, so the statement is: some exactly admissible point lies within a proven
distance of the recorded one (theorem: witness-nearby), and everything else is checked for all points that near.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .admissible import admissible_within
from .arithmetic import Ball, combine, norm, row_lengths, sqrt, total, up
from .bounds import final_state, value_at
from .errors import Rejected
from .format import WitnessStep
from .setting import Setting

BLOCK = 4096
"""Tokens that are compared at a time."""


@dataclass(frozen=True)
class AcceptedWitness:
    """What is proven of a witness.

    Attributes:
        norm: an upper bound of the l2 norm of the exactly admissible point, of all positions together.
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


def check_witness(setting: Setting, step: WitnessStep) -> AcceptedWitness:
    """Accept the witness or say why not."""
    d, places = setting.head.d_model, setting.places
    if step.delta.shape != (len(places) * d,):
        raise Rejected(f"a witness has shape {step.delta.shape}, not ({len(places) * d},)")
    rows = step.delta.reshape(len(places), d)
    delta = Ball.exact(rows[-1])  # what the readout sees where no block follows
    if not step.delta.any():  # zero moves nothing: it is admissible in every threat model
        readout = _readout(setting, delta, 0.0) if setting.blocks_after == 0 else None
        return AcceptedWitness(0.0, within=True, readout=readout, replay=step.replay, dtype=step.dtype)
    slacks = [
        admissible_within(place.cell, Ball.exact(row)) if row.any() else 0.0
        for place, row in zip(places, rows, strict=True)
    ]
    # The admissible points of all positions are together at most this far away.
    length = float((norm(Ball.exact(step.delta)) + total(Ball.exact(np.array(slacks)))).high)
    readout = None
    if setting.blocks_after == 0:
        readout = _readout(setting, delta, slacks[-1])
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
