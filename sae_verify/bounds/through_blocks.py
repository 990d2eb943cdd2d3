"""Bounds through transformer blocks: a search for a tree of regions that the checker accepts as a proof.

The relaxation is the checker's own, so that what is found here is what it will find again. The search only chooses:
where to cut, along what to split, which radius to try. Theorem: through-blocks.

A cut is what makes it work. At a region with an affine bound U of the claim, points that break the claim have U > 0,
so they lie in a cap of the ball, and a cap is much smaller than the ball: over it the second-order model is far closer,
which makes the next cap smaller still. Splitting is for regions where U says too little to begin.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sae_verify.bounds.bound import Bound
from sae_verify.bounds.half_spaces import least_weighed, weigh
from sae_verify.bounds.least_level import least, likely
from sae_verify.bounds.over_ball import Over, is_kept, of_degree, over_ball, over_region
from sae_verify.bounds.single_passes import NOTHING, SHORTER, Passes
from sae_verify.checker import Rejected
from sae_verify.checker.multipliers import Sparse
from sae_verify.checker.tail import moving
from sae_verify.checker.tail.normed import normed
from sae_verify.checker.tail.proof import MAX_NODES, Cut, Done, Node, Split, Weighed, beyond
from sae_verify.checker.tail.readout import Affine, Functional
from sae_verify.checker.tail.region import Frame, Region
from sae_verify.checker.tail.relaxation import Relaxation
from sae_verify.geometry.held_cell import Array
from sae_verify.geometry.instance import Instance

PROGRESS = 0.02
"""Of the radius: a cut that moves its plane by less is followed by a split."""
MIDDLE = 0.35
"""Of the radius: the half width of the middle part when a ball is split in three."""
FIRST = 0.9
"""Radius tried first, in units of the shortest known recovery."""
CLOSE = 0.03
"""Relative gap of the bracket of radii at which the search stops."""
MARGIN = 1e-9
"""Relative to the value at the centre: how far below zero a region's bound must be, so that it is on other machines."""
MOST_RADII = 6
ALONE = 8
"""Passes at most that look for the largest radius which one of them proves."""
HOPELESS = 0.85
"""Loss of a first pass, in units of the margin, from which on cuts cannot begin: with a loss of C that grows with the
square of the radius, caps shrink to nothing for 4 C (1 - C) > 1 at a radius near the one that breaks the claim, and
C = 0.85 is the largest such at 0.7 of it."""
LIKELY = 2
"""Members of a readout's family whose least levels are sought; the others' are expected to be higher."""
CENTRE = 1e-6
"""Of the defended state's length: the radius of a ball that is as good as its centre, for a guess where to search."""
LONGER = 1.2
"""Factor to the next radius upwards."""
LARGEST = 4.0
"""Times the radius where the linear model breaks the claim: the largest that is tried."""

HARDER = 4
"""Times as many passes for each radius, from round to round, while there is time."""


@dataclass
class Budget:
    """Passes through the blocks that may still be made, and until when (`time.monotonic`)."""

    passes: int
    until: float = np.inf

    def take(self) -> bool:
        """Whether one more may be made; it is counted."""
        self.passes -= 1
        return self.passes >= 0 and time.monotonic() < self.until


def _nobody(radius: float) -> None:
    del radius


@dataclass(frozen=True)
class ThroughBlocks:
    """Sound for every tail of known operations; complete in no sense. Cost: `effort` passes for each radius.

    The largest radius that one pass proves is found first, in 2 to 8 passes; more effort looks beyond it.

    Attributes:
        relaxation: of this prompt's tail. functional: the readout, by the member of its family.
        effort: passes through the blocks for the bound at a radius, and for each radius that is tried.
        ceiling: radius at which the claim is known to break, or infinity: no proof is sought from there on.
        seconds: instead of one round of this effort, rounds of growing effort for so long; what was proved stands.
        tell: called with each radius that is proved.
    """

    relaxation: Relaxation
    functional: Callable[[int | None], Functional]
    effort: int = 12
    ceiling: float = np.inf
    seconds: float | None = None
    tell: Callable[[float], None] = _nobody

    name = "through-blocks"

    @property
    def radii(self) -> int:
        """Radii that are tried at most with more than one pass."""
        return min(MOST_RADII, 2 + self.effort // 2)

    def applies(self, instance: Instance) -> bool:
        """When there are blocks."""
        return instance.blocks_after > 0

    def bound(self, instance: Instance, radius: float) -> Bound | None:
        """The least value that one pass proves, or the claim's if more passes prove that; None if nothing is proved.

        Of a readout's family, that of its LIKELY most promising members.
        """
        relaxation, over = self.relaxation, over_ball(self.relaxation, radius)
        members = instance.members(8)
        with np.errstate(all="ignore"):
            few = likely(over.resid, [self.functional(member) for member in members], LIKELY)
            value, against = min((least(over.resid, self.functional(members[i])), i) for i in few)
        member = members[against]
        if value > instance.tau and radius < self.ceiling:
            for choice in dict.fromkeys((member, *instance.members(2))):
                proof = prove(relaxation, self.functional(choice), radius, instance.tau, Budget(self.effort))
                if proof is not None:
                    return self._bound(radius, instance.tau, proof, choice)
        if not np.isfinite(value):
            return None
        level, leaf = least_weighed(relaxation, over.region, over.frame, over.resid, self.functional(member), value)
        return self._bound(radius, level, leaf, member)

    def _bound(self, radius: float, value: float, proof: Node, member: int | None) -> Bound:
        weight = self.relaxation.weight
        return Bound(self.name, "through-blocks", radius, value, member, regions=proof, weight=weight)

    def certified(self, instance: Instance) -> Bound | None:
        """The claim at the largest radius for which a proof was found."""
        until = np.inf if self.seconds is None else time.monotonic() + self.seconds
        best, effort = None, self.effort
        while True:
            for member in instance.members(2):
                known = 0.0 if best is None else best.radius or 0.0
                best = self._largest(instance, member, known, effort, until) or best
            if self.seconds is None or time.monotonic() > until or effort > MAX_NODES:
                return best
            if best is not None and (best.radius or 0.0) * (1 + CLOSE) > self.ceiling:
                return best
            effort *= HARDER

    def _largest(self, instance: Instance, member: int | None, least: float, effort: int, until: float) -> Bound | None:
        """The claim at a radius above `least`, with so many passes for each."""
        functional, tau = self.functional(member), instance.tau
        guess = linear_radius(self.relaxation, functional, tau)
        if guess is None:
            return None
        low, high, best = least, min(self.ceiling, LARGEST * guess), None
        if least > 0:
            radius = min(0.5 * (low + high), LONGER * low)
        else:
            alone = self._alone(functional, tau, guess, high, until)
            if not alone.losses:
                return None  # there was no time
            if alone.proof is not None:
                low, best = alone.low, self._bound(alone.low, tau, alone.proof, member)
            radius = min(alone.losing(HOPELESS), FIRST * min(self.ceiling, guess))
            if radius < low * (1 + CLOSE):
                radius = min(0.5 * (low + high), LONGER * low)
        for _ in range(self.radii if effort > 1 else 0):
            if time.monotonic() > until or high < low * (1 + CLOSE):
                break
            proof = prove(self.relaxation, functional, radius, tau, Budget(effort, until))
            if proof is None:
                high = radius
            else:
                low, best = radius, self._bound(radius, tau, proof, member)
                self.tell(radius)
            # Upwards towards the ceiling, but not far at once; downwards by a factor until something is proved.
            radius = min(0.5 * (low + high), LONGER * low) if low > 0 else SHORTER * high
        return best

    def _alone(self, functional: Functional, tau: float, guess: float, ceiling: float, until: float) -> Passes:
        """The largest radius, nearly, at which one pass proves the claim: what passes lose tells where to try next."""
        found = Passes(guess if self.relaxation.width else np.inf, ceiling)
        radius = FIRST * min(ceiling, found.guess)
        for _ in range(ALONE):
            if time.monotonic() > until or radius < found.low * (1 + CLOSE):
                break
            over = over_ball(self.relaxation, radius)
            bound = over.claim(functional, tau)
            lost = (bound.constant - bound.value) / max(abs(bound.value), NOTHING)
            proof = _leaf(self.relaxation, over, bound)[0]
            if proof is not None:
                self.tell(radius)
            found = found.after(radius, lost, proof)
            radius = found.next
        return found


def slope_at(relaxation: Relaxation, functional: Functional, tau: float) -> tuple[float, Array]:
    """Value and gradient, (k,), of (readout - tau) rho at the centre, nearly. A guess, not a bound."""
    over = over_ball(of_degree(relaxation, 1), CENTRE * float(np.linalg.norm(relaxation.start.mid)))
    bound = over.claim(functional, tau)
    return bound.value, bound.gradient / over.region.radius


def linear_radius(relaxation: Relaxation, functional: Functional, tau: float) -> float | None:
    """Where the linear model breaks the claim; None when it is broken at once. A guess, not a bound.

    Where nothing is free to move it breaks nowhere; then it is the length of the defended state.
    """
    value, gradient = slope_at(relaxation, functional, tau)
    if relaxation.width == 0:
        return float(np.linalg.norm(relaxation.start.mid)) if value < 0 else None
    slope = float(np.linalg.norm(gradient))
    if not (value < 0 and slope > 0):
        return None
    square = (value / slope) ** 2 - relaxation.spread**2
    return float(np.sqrt(square)) if square > 0 else None


def prove(
    relaxation: Relaxation, functional: Functional, radius: float, tau: float, budget: Budget, depth: int = 12
) -> Node | None:
    """A tree that proves readout <= tau for every admissible delta with ||delta|| <= radius; None if none was found."""
    if not (is_kept(relaxation, radius) or budget.take()):
        return None
    return _prove(relaxation, functional, over_ball(relaxation, radius), tau, budget, depth)


def _prove(
    relaxation: Relaxation, functional: Functional, over: Over | None, tau: float, budget: Budget, depth: int
) -> Node | None:
    """A tree for a region, from its model; without one the region is empty."""
    cuts: list[tuple[dict[str, Sparse] | None, Array]] = []
    plane = -np.inf
    node: Node | None = None
    while node is None:
        if over is None:
            node = Done()
            break
        region, frame = over.region, over.frame
        bound = over.claim(functional, tau)
        if bound.top > 0 and bound.value > 0:
            return None  # the claim is broken, or nearly so, at the centre
        node, upper, bound = _leaf(relaxation, over, bound)
        if node is not None:
            break
        kept = _cut(relaxation, region, frame, bound)
        if kept is None:
            node = _split(relaxation, functional, region, frame, tau, budget, depth)
            if node is None:
                return None
            break
        normal, rest = kept
        if rest is None:
            cuts.append((upper, normal))
            node = Done()
            break
        reached = float(rest.low[0])
        if reached < plane + PROGRESS * region.radius or reached < PROGRESS * region.radius:
            node = _split(relaxation, functional, region, frame, tau, budget, depth)
            if node is None:
                return None
            break
        cuts.append((upper, normal))
        if _spent(budget, rest):
            return None
        plane, over = reached, over_region(relaxation, rest)
    for upper, normal in reversed(cuts):
        node = Cut(normal, node) if upper is None else Weighed(upper, Cut(normal, node))
    return node


def _spent(budget: Budget, region: Region) -> bool:
    """Whether the region needs a pass, which is counted, and it may not be made. An empty one needs none."""
    return region.frame() is not None and not budget.take()


def _leaf(relaxation: Relaxation, over: Over, bound: Affine) -> tuple[Node | None, dict[str, Sparse] | None, Affine]:
    """A leaf that proves the region, or None; the multipliers of half-spaces that lower its bound, and the lowered one.

    Multipliers are sought only where the bound does not do without them.
    """
    if bound.top <= -MARGIN * abs(bound.value):
        return Done(), None, bound
    upper, bound = weigh(relaxation, over.region, over.frame, bound) or (None, bound)
    if not bound.top <= -MARGIN * abs(bound.value):
        return None, upper, bound
    return (Done() if upper is None else Weighed(upper, Done())), upper, bound


def _cut(relaxation: Relaxation, region: Region, frame: Frame, bound: Affine) -> tuple[Array, Region | None] | None:
    """The cut along the gradient, its normal in R^d, and what it leaves; None when the bound is infinite."""
    if not np.isfinite(bound.constant):
        return None
    lengths = np.linalg.norm(frame.columns, axis=0)
    used = lengths > 0
    normal = frame.columns[:, used] @ (bound.gradient[used] / lengths[used] ** 2)
    size = float(np.linalg.norm(normal))
    if not size > 0:
        return None
    normal = relaxation.named(normal / size)
    try:
        return normal, beyond(region, frame, bound, relaxation.free(normal))
    except Rejected:
        return None


def _split(
    relaxation: Relaxation,
    functional: Functional,
    region: Region,
    frame: Frame,
    tau: float,
    budget: Budget,
    depth: int,
) -> Node | None:
    """Split along the direction in which the first attention's scores move most, and prove each part."""
    if depth == 0 or budget.passes < 2:
        return None
    rows = _moving_scores(relaxation, region, frame)
    m = frame.box.shape[1]
    if not np.isfinite(rows).all():
        return None
    across = rows[:, m:] if m < relaxation.width else np.zeros((1, 1))
    _, sigma, right = np.linalg.svd(across, full_matrices=False)
    along = np.linalg.norm(rows[:, :m], axis=0)
    if m and (m == relaxation.width or along.max() > sigma[0]):
        axis = int(along.argmax())
        low, high = float(region.low[axis]), float(region.high[axis])
        at: tuple[float, ...] = (0.5 * (max(low, -region.radius) + min(high, region.radius)),)
        parts = region.split(axis, at)
        normal = None
    else:
        normal = frame.ball @ right[0]
        normal = normal - region.axes @ (region.axes.T @ normal)
        reach = float(np.linalg.norm(frame.ball[:, 0]))
        normal = relaxation.named(normal / np.linalg.norm(normal))
        at = (-MIDDLE * reach, MIDDLE * reach)
        axis = None
        parts = region.with_axis(relaxation.free(normal)).split(region.axes.shape[1], at)
    nodes = []
    for part in parts:
        if _spent(budget, part):
            return None
        node = _prove(relaxation, functional, over_region(relaxation, part), tau, budget, depth - 1)
        if node is None:
            return None
        nodes.append(node)
    return Split(axis, normal, at, tuple(nodes))


def _moving_scores(relaxation: Relaxation, region: Region, frame: Frame) -> Array:
    """Rows over the frame's coordinates whose size says how the scores of the first attention move, weighted."""
    block, context = relaxation.blocks[0], relaxation.contexts[0]
    with np.errstate(all="ignore"):
        rows = moving.apart(relaxation.entry(region, frame), relaxation.places)
        y = [normed(row, block.attention_norm) for row in rows]
        places = moving.Places(relaxation.places, relaxation.position + 1)
        return moving.score_rows(y, block.attention, context, places)
