"""The problem of one certificate, computed afresh from the user's weights: h, the radius, and what may be held.

Nothing derived is read from the certificate: the defended state, its norm, the error term, which features are on and
how much room the others have are all recomputed with outward rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .arithmetic import Ball, combine, dot, hull, norm, sqrt, total
from .errors import Rejected
from .format import Certificate, Multipliers
from .model import Head
from .sae import Sae, State, decode, state, write


@dataclass(frozen=True, eq=False)
class Setting:
    """One problem instance in exact reals, enclosed."""

    certificate: Certificate
    sae: Sae
    head: Head

    def __post_init__(self) -> None:
        problem, d = self.certificate.problem, self.head.d_model
        if self.certificate.x.shape != (d,) or self.sae.W_enc.shape[0] != d:
            raise Rejected(f"x, SAE and model do not have the same width ({d})")
        features = (*problem.clamp.features, *(problem.threat.features or ()))
        if any(f >= self.sae.W_enc.shape[1] for f in features):
            raise Rejected(f"a feature of {sorted(features)} is out of range")
        if problem.layer >= self.head.n_blocks:
            raise Rejected(f"hook {problem.hook} does not exist in a model of {self.head.n_blocks} blocks")
        if problem.clamp.kind == "drop-error" and problem.threat.at != "h" and problem.threat.held != "free":
            raise Rejected("a clamp that drops the error term leaves nothing at x to perturb")

    @property
    def blocks_after(self) -> int:
        """Transformer blocks between the hook and the final norm."""
        problem = self.certificate.problem
        first = problem.layer + (1 if problem.site == "resid_post" else 0)
        return self.head.n_blocks - first

    @cached_property
    def x(self) -> Ball:
        """The stored residual, exactly."""
        return Ball.exact(self.certificate.x)

    @cached_property
    def h(self) -> Ball:
        """The defended state: x with the clamp applied at this position."""
        clamp = self.certificate.problem.clamp
        if not clamp.here(len(self.certificate.problem.tokens)):
            return self.x
        features = np.array(clamp.features, dtype=np.intp)
        values = Ball.exact(np.array(clamp.values))
        everything = clamp.kind == "drop-error"
        now = self.full_state("x") if everything else state(self.sae, self.x, features)
        if everything:
            code = Ball(now.value.mid.copy(), now.value.rad.copy())
            code.mid[features], code.rad[features] = values.mid, 0.0
            return decode(self.sae, code, self.x)
        z = now.value
        if clamp.kind == "set":
            change = values - z
        elif clamp.kind == "scale":
            change = (values - Ball.exact(np.ones(len(features)))) * z
        elif clamp.kind == "add":
            change = values
        else:  # set-if-active
            jump, zero = values - z, Ball.exact(np.zeros(len(features)))
            unsure = hull(jump, zero)
            mid = np.where(now.on, jump.mid, np.where(now.off, 0.0, unsure.mid))
            change = Ball(mid, np.where(now.on, jump.rad, np.where(now.off, 0.0, unsure.rad)))
        return self.x + write(self.sae, change, features, self.x)

    @cached_property
    def centred_h(self) -> Ball:
        """P h: what the final norm sees of h."""
        return self.centre(self.h)

    @cached_property
    def error_term(self) -> Ball:
        """E = x - D(E(x)), (d,)."""
        return self.x - decode(self.sae, self.full_state("x").value, self.x)

    @cached_property
    def norm_h(self) -> Ball:
        """||h||_2."""
        return norm(self.h)

    @cached_property
    def norm_e(self) -> Ball:
        """||e||_2."""
        return norm(self.error_term)

    @cached_property
    def radius(self) -> Ball:
        """The problem's radius in absolute units."""
        threat = self.certificate.problem.threat
        if threat.radius == 0.0:
            return Ball.exact(0.0)  # rounding the product up would make it positive
        unit = {"absolute": Ball.exact(1.0), "h": self.norm_h, "e": self.norm_e}[threat.relative_to]
        return Ball.exact(threat.radius) * unit

    def point(self, name: str) -> Ball:
        """The residual at which something is held: `x` or `h`."""
        return self.x if name == "x" else self.h

    @property
    def points(self) -> tuple[str, ...]:
        """Where the threat model holds features."""
        at = self.certificate.problem.threat.at
        return ("x", "h") if at == "both" else (at,)

    def full_state(self, point: str) -> State:
        """The whole code at x or h."""
        cache = self.__dict__.setdefault("_states", {})
        if point not in cache:
            cache[point] = state(self.sae, self.point(point))
        return cache[point]

    def state_of(self, point: str, features: np.ndarray) -> State:
        """Part of the code at x or h; TopK compares all features anyway."""
        if self.sae.architecture == "topk":
            every = self.full_state(point)
            room = None if every.room is None else every.room[features]
            return State(features, every.value[features], every.on[features], every.off[features], room)
        return state(self.sae, self.point(point), features)

    def readout(self, against: int | None) -> tuple[Ball, Ball]:
        """(w, constant): readout = w . z / rho + constant, with z the (centred) final residual; w is (d,), centred.

        For one token against all others, `against` names the member of the family; it bounds the minimum.
        """
        cache = self.__dict__.setdefault("_readouts", {})
        if against not in cache:
            cache[against] = self._readout(against)
        return cache[against]

    def _readout(self, against: int | None) -> tuple[Ball, Ball]:
        readout = self.certificate.problem.readout
        if readout.kind == "logit-difference":
            if against is not None:
                raise Rejected("a logit difference has no family to choose from")
            assert readout.negative is not None  # by the format
            row = self.head.row_difference(readout.positive, readout.negative)
        else:
            if against is None or against == readout.positive:
                raise Rejected(f"{against!r} is no other token to compare with")
            row = self.head.row_difference(readout.positive, against)
        d = Ball.exact(float(self.head.d_model))
        w = self.centre(row * self.head.gain) * sqrt(d)
        return w, dot(row, Ball.exact(self.head.shift))

    def centre(self, v: Ball) -> Ball:
        """V without its mean where the final norm is a LayerNorm; v itself for an RMSNorm."""
        if not self.head.centred:
            return v
        return v - total(v) / Ball.exact(float(self.head.d_model))

    @cached_property
    def d_epsilon(self) -> Ball:
        """D * epsilon of the final norm: rho^2 = ||z||^2 + d epsilon."""
        return Ball.exact(float(self.head.d_model)) * Ball.exact(self.head.epsilon)

    def held(self, multipliers: Multipliers) -> tuple[Ball, Ball]:
        """(v, c) with v . delta <= c for every admissible delta, from multipliers of the held constraints.

        Theorem: held-cell. An equality's multiplier may have any sign and costs nothing; a half-space's must not be
        negative and costs its room. A feature that rounding cannot place is used as the weaker half-space only.
        """
        threat = self.certificate.problem.threat
        v, cost = Ball.exact(np.zeros(self.head.d_model)), Ball.exact(0.0)
        for point, equal, upper, decoder in multipliers:
            if point not in self.points:
                raise Rejected(f"nothing is held at {point}")
            if equal.features.size:
                self._allowed(equal.features, "equal")
                if threat.held != "preactivations" and not self.state_of(point, equal.features).on.all():
                    raise Rejected(f"an equality is used for a feature that may be off at {point}")
                v = v + combine(Ball.exact(equal.values), Ball.exact(self.sae.W_enc[:, equal.features].T))
            if upper.features.size:
                self._allowed(upper.features, "upper")
                if (upper.values < 0).any():
                    raise Rejected("a half-space has a negative multiplier")
                now = self.state_of(point, upper.features)
                assert now.room is not None  # _allowed has refused normalisations that are not affine
                room = Ball.between(np.maximum(now.room.high, 0.0), np.maximum(now.room.high, 0.0))
                v = v + combine(Ball.exact(upper.values), Ball.exact(self.sae.W_enc[:, upper.features].T))
                cost = cost + dot(Ball.exact(upper.values), room)
            if decoder.features.size:
                self._allowed(decoder.features, "decoder")
                if threat.features is None and not self.state_of(point, decoder.features).on.all():
                    raise Rejected(f"a decoder row is used for a feature that may be off at {point}")
                v = v + combine(Ball.exact(decoder.values), Ball.exact(self.sae.W_dec[decoder.features]))
        return v, cost

    def _allowed(self, features: np.ndarray, role: str) -> None:
        """Whether the threat model holds these features in this role; otherwise a rejection."""
        problem = self.certificate.problem
        threat = problem.threat
        if features.min() < 0 or features.max() >= self.sae.W_enc.shape[1]:
            raise Rejected("a multiplier's feature is out of range")
        roles = {
            "free": (),
            "preactivations": ("equal",),
            "defended": ("equal", "upper"),
            "code": ("equal", "upper"),
            "unreachable": ("decoder",),
        }[threat.held]
        if role not in roles:
            raise Rejected(f"held={threat.held!r} gives no {role!r} constraint")
        if role != "decoder" and not self.sae.affine:
            raise Rejected(f"with normalisation {self.sae.normalization!r} the held cell is no polyhedron")
        if threat.held == "code" or (threat.held == "unreachable" and threat.features is None):
            return
        defended = problem.clamp.features if threat.features is None else threat.features
        if not set(features.tolist()) <= set(defended):
            raise Rejected("a multiplier is given for a feature that is not held")
        if role == "upper" and self.sae.architecture == "topk":
            # Other features may push a defended one out of the top k, so being off is no half-space.
            raise Rejected("for TopK the defended set has no half-spaces")
