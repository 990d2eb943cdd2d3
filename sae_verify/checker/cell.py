"""What is held of an SAE's code, and where: the constraints that admissible perturbations obey, in exact reals.

Theorem: held-cell. Nothing derived is read from a certificate: which features are on and how much room the others have
is recomputed with outward rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from .arithmetic import Array, Ball, combine, combine_rows, dot
from .drift import limit, price, rise_of
from .errors import Rejected
from .multipliers import Multipliers, Sparse
from .sae import Sae, State, state
from .tail.halves import Halves

HELD = ("free", "preactivations", "defended", "code", "unreachable")


@dataclass(frozen=True, eq=False)
class Cell:
    """The held cell of one prompt.

    Attributes:
        sae: decoded weights.
        points: where something is held, by name.
        held: one of `HELD`.
        features: S of the threat model; None takes the clamp's (or, for `unreachable`, the active ones).
        clamped: the clamp's features.
        states: whole codes that are already known, by point; filled as they are asked for.
        drift: t of `drift`, for which nothing is held but the length of the change. Theorem: drift.
    """

    sae: Sae
    points: Mapping[str, Ball]
    held: str
    features: tuple[int, ...] | None
    clamped: tuple[int, ...]
    states: dict[str, State] = field(default_factory=dict)
    drift: float = 0.0

    @property
    def chosen(self) -> tuple[int, ...]:
        """S, the features that `preactivations`, `defended` and `drift` speak of."""
        return self.clamped if self.features is None else self.features

    @property
    def moves(self) -> bool:
        """Whether features that are held may move, so that no equality holds."""
        return self.held == "drift" and any(bool(limit(self, point).high > 0) for point in self.points)

    def full_state(self, point: str) -> State:
        """The whole code at x or h."""
        if point not in self.states:
            self.states[point] = state(self.sae, self.points[point])
        return self.states[point]

    def state_of(self, point: str, features: np.ndarray) -> State:
        """Part of the code at x or h; TopK compares all features anyway."""
        if self.sae.architecture == "topk":
            every = self.full_state(point)
            room = None if every.room is None else every.room[features]
            return State(features, every.value[features], every.on[features], every.off[features], room)
        return state(self.sae, self.points[point], features)

    def span(self, multipliers: Multipliers) -> tuple[Ball, Ball]:
        """(v, c) with v . delta <= c for every admissible delta, from multipliers of the held constraints.

        Theorem: held-cell. An equality's multiplier may have any sign and costs nothing; a half-space's must not be
        negative and costs its room. A feature that rounding cannot place is used as the weaker half-space only.
        """
        v, cost = Ball.exact(np.zeros(self.sae.W_enc.shape[0])), Ball.exact(0.0)
        for point, equal, upper, decoder in multipliers:
            if point not in self.points:
                raise Rejected(f"nothing is held at {point}")
            if equal.features.size:
                self._allowed(equal.features, "equal")
            if upper.features.size:
                self._allowed(upper.features, "upper")
            if (upper.values < 0).any():
                raise Rejected("a half-space has a negative multiplier")
            cost = cost + self._cost(point, equal, upper)
            every = np.concatenate([equal.features, upper.features])
            if every.size:
                values = np.concatenate([equal.values, upper.values])
                v = v + combine_rows(values, self.sae.W_enc.T[every], self.sae.column_lengths[every])
            if decoder.features.size:
                self._allowed(decoder.features, "decoder")
                if self.features is None and not self.state_of(point, decoder.features).on.all():
                    raise Rejected(f"a decoder row is used for a feature that may be off at {point}")
                v = v + combine(Ball.exact(decoder.values), Ball.exact(self.sae.W_dec[decoder.features]))
        return v, cost

    def _cost(self, point: str, equal: Sparse, upper: Sparse) -> Ball:
        """What the multipliers of encoder columns cost at one point."""
        if self.held == "drift":
            return price(self, point, equal, upper)
        fixed = 0 if self.held == "preactivations" else len(equal.features)  # whose being on is to be proven
        known = np.concatenate([equal.features[:fixed], upper.features])
        if not known.size:
            return Ball.exact(0.0)
        now = self.state_of(point, known)
        if not now.on[:fixed].all():
            raise Rejected(f"an equality is used for a feature that may be off at {point}")
        assert now.room is not None  # _allowed has refused normalisations that are not affine
        return dot(Ball.exact(upper.values), Ball.exact(np.maximum(now.room.high[fixed:], 0.0)))

    def fixed_rows(self) -> Array:
        """Rows v, (n, d) floats, with v . delta = 0 for every admissible delta.

        Theorem: held-cell. Only features that rounding places surely are used; leaving rows out is sound.
        """
        rows = [np.zeros((0, self.sae.W_enc.shape[0]))]
        every = np.arange(self.sae.W_enc.shape[1])
        chosen = np.array(self.chosen, dtype=np.intp)
        for point in self.points:
            if self.held == "unreachable":
                picked = every[self.full_state(point).on] if self.features is None else chosen
                rows.append(self.sae.W_dec[picked])
            elif self.held != "free" and self.sae.affine:
                if self.held == "code":
                    picked = every[self.full_state(point).on]
                elif self.moves:
                    picked = chosen[:0]  # none is held exactly
                elif self.held in ("defended", "drift"):
                    picked = chosen[self.state_of(point, chosen).on] if chosen.size else chosen
                else:
                    picked = chosen
                rows.append(self.sae.W_enc[:, picked].T)
        return np.concatenate(rows)

    def halves(self) -> Halves:
        """All half-spaces that may be used, with their rooms rounded up. Theorem: held-cell, drift."""
        points, rows, rooms = {}, [np.zeros((0, self.sae.W_enc.shape[0]))], [np.zeros(0)]
        for point in self.points if self.held in ("defended", "code", "drift") and self.sae.affine else ():
            if self.sae.architecture == "topk" and self.held != "code":
                continue  # other features may push a held one out
            now = self.full_state(point)
            if self.held != "code":
                now = self.state_of(point, np.array(self.chosen, dtype=np.intp))
            assert now.room is not None
            room, kept = np.maximum(now.room.high, 0.0), ~now.on | self.moves
            if self.moves:
                room = room + rise_of(self, point, now)
            points[point] = now.features[kept]
            rows.append(self.sae.W_enc.T[now.features[kept]])
            rooms.append(room[kept])
        return Halves(points, np.concatenate(rows), np.concatenate(rooms))

    def _allowed(self, features: np.ndarray, role: str) -> None:
        """Whether the threat model holds these features in this role; otherwise a rejection."""
        if features.min() < 0 or features.max() >= self.sae.W_enc.shape[1]:
            raise Rejected("a multiplier's feature is out of range")
        roles = {
            "free": (),
            "preactivations": ("equal",),
            "defended": ("equal", "upper"),
            "code": ("equal", "upper"),
            "drift": ("equal", "upper"),
            "unreachable": ("decoder",),
        }[self.held]
        if role not in roles:
            raise Rejected(f"held={self.held!r} gives no {role!r} constraint")
        if role != "decoder" and not self.sae.affine:
            raise Rejected(f"with normalisation {self.sae.normalization!r} the held cell is no polyhedron")
        if self.held == "code" or (self.held == "unreachable" and self.features is None):
            return
        if not set(features.tolist()) <= set(self.chosen):
            raise Rejected("a multiplier is given for a feature that is not held")
        if role == "upper" and self.sae.architecture == "topk":
            # Other features may push a defended one out of the top k, so being off is no half-space.
            raise Rejected("for TopK the defended set has no half-spaces")
