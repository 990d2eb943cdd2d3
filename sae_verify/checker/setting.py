"""The problem of one certificate, computed afresh from the user's weights: h, the radius, and what may be held.

Nothing derived is read from the certificate: the defended state, its norm, the error term, which features are on and
how much room the others have are all recomputed with outward rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from .arithmetic import Ball, dot, hull, norm, sqrt, total
from .cell import Cell
from .drift import confined
from .errors import Rejected
from .format import Certificate
from .model import Head
from .sae import Sae, State, decode, state, write
from .tail.context import contexts
from .tail.readout import Functional
from .tail.relaxation import Relaxation, free_basis, side_by_side
from .tail.weights import BlockWeights


@dataclass(frozen=True, eq=False)
class Place:
    """A perturbed position: its defended state, and what is held there."""

    h: Ball
    cell: Cell


@dataclass(frozen=True, eq=False)
class Setting:
    """One problem instance in exact reals, enclosed."""

    certificate: Certificate
    sae: Sae
    head: Head
    blocks: Callable[[int], tuple[BlockWeights, ...]] | None = None
    """Reads the blocks from the given one on."""

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
        if problem.threat.positions > 1 and problem.threat.held == "drift":
            raise Rejected("a code that may drift is followed at one perturbed position alone")
        if problem.threat.positions > 1 and len(self.certificate.context) != len(problem.tokens) - 1:
            raise Rejected(f"{problem.threat.positions} perturbed positions need the residuals of all earlier ones")

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
    def state_x(self) -> State:
        """The whole code at x."""
        return state(self.sae, self.x)

    @cached_property
    def h(self) -> Ball:
        """The defended state: x with the clamp applied at this position."""
        problem = self.certificate.problem
        return self._clamped(self.x) if problem.clamp.here(len(problem.tokens)) else self.x

    def _clamped(self, x: Ball) -> Ball:
        """A residual with the clamp applied to it."""
        clamp = self.certificate.problem.clamp
        features = np.array(clamp.features, dtype=np.intp)
        values = Ball.exact(np.array(clamp.values))
        everything = clamp.kind == "drop-error"
        now = state(self.sae, x, *([] if everything else [features]))
        if everything:
            code = Ball(now.value.mid.copy(), now.value.rad.copy())
            code.mid[features], code.rad[features] = values.mid, 0.0
            return decode(self.sae, code, x)
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
        return x + write(self.sae, change, features, x)

    @cached_property
    def relaxation(self) -> Relaxation:
        """The tail through its blocks, for bounds over regions."""
        count, moving = len(self.certificate.problem.tokens), len(self.places)
        if self.blocks is None or len(self.certificate.context) != count - 1:
            raise Rejected(f"a bound through blocks needs the residuals of {count - 1} earlier positions")
        blocks, width = self.blocks(self.head.n_blocks - self.blocks_after), self.head.d_model
        rows = [self._earlier(position) for position in range(count - moving)]
        shown = contexts(blocks, _stacked(rows, (-1, width)), count - moving + 1)
        start = _stacked([place.h for place in self.places], (-1,))
        basis, slip, stretch = side_by_side([free_basis(place.cell.fixed_rows(), width) for place in self.places])
        halves = self.cell.halves() if moving == 1 else None
        return Relaxation(start, basis, slip, stretch, blocks, shown, count - 1, places=moving, halves=halves)

    def confined(self, weight: float) -> Relaxation:
        """The same over the ellipsoid that a drift leaves, for a weight of it. Theorem: drift (features)."""
        if not self.cell.moves:
            raise Rejected("nothing may drift, so a weight says nothing")
        basis, slip, stretch, spread = confined(self.cell, weight, self.head.d_model)
        bent = {"upright": True, "spread": spread, "weight": weight}
        return replace(self.relaxation, basis=basis, slip=slip, stretch=stretch, **bent)

    def _earlier(self, position: int) -> Ball:
        """The defended state at a position before the last."""
        x, positions = Ball.exact(self.certificate.context[position]), self.certificate.problem.clamp.positions
        acts = positions == "all" or (isinstance(positions, tuple) and position in positions)
        return self._clamped(x) if acts else x

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """The perturbed positions, in order; what is held is held at each."""
        problem = self.certificate.problem
        last = len(problem.tokens) - 1
        earlier = []
        for position in range(last + 1 - problem.threat.positions, last):
            x, h = Ball.exact(self.certificate.context[position]), self._earlier(position)
            earlier.append(Place(h, self._cell(x, h, {})))
        return *earlier, Place(self.h, self.cell)

    def functional(self, against: int | None) -> Functional:
        """The readout as a functional of the final residual."""
        return Functional(*self.readout(against), self.head.centred, self.d_epsilon)

    @cached_property
    def centred_h(self) -> Ball:
        """P h: what the final norm sees of h."""
        return self.centre(self.h)

    @cached_property
    def error_term(self) -> Ball:
        """E = x - D(E(x)), (d,)."""
        return self.x - decode(self.sae, self.state_x.value, self.x)

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

    @cached_property
    def cell(self) -> Cell:
        """What the threat model holds at the last position, and where."""
        return self._cell(self.x, self.h, {"x": self.state_x} if "state_x" in self.__dict__ else {})

    def _cell(self, x: Ball, h: Ball, known: dict[str, State]) -> Cell:
        """What is held at one position; `known` codes of it."""
        problem = self.certificate.problem
        threat = problem.threat
        names = ("x", "h") if threat.at == "both" else (threat.at,)
        points = {name: x if name == "x" else h for name in names}
        drift = threat.drift or 0.0
        return Cell(self.sae, points, threat.held, threat.features, problem.clamp.features, known, drift)

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


def _stacked(rows: Sequence[Ball], shape: tuple[int, ...]) -> Ball:
    return Ball(np.array([r.mid for r in rows]).reshape(shape), np.array([r.rad for r in rows]).reshape(shape))
