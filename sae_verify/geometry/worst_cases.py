"""Linear worst cases of many tokens at once: all rows are priced together, and each token keeps few of them.

Constraint generation over a batch. A round asks the screen (`screen.Screen`) which half-spaces each unfinished token's
point violates, adds them to the token's working set and moves the token to the optimum of that set (`gram.face`). A
token is finished when nothing is violated, so the answer is that of `worst_case`, which also takes the tokens that this
one gives up: dependent equalities, vertices, ties. Floor: every row is priced once at every point, 2 B d m operations.

This is a search in floats. What it returns are multipliers for the dual certificate (theorem: linear-dual) and a point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sae_verify.errors import InputError, ShapeError
from sae_verify.geometry.dictionary import Dictionary
from sae_verify.geometry.gram import Equalities, Working, equalities, face
from sae_verify.geometry.held_cell import Array, HalfSpaces, HeldCell, Indices
from sae_verify.geometry.screen import Found, Screen
from sae_verify.geometry.worst_case import NOTHING, LinearOptimum, worst_case

VIOLATED = 1e-12
"""Relative to the row's length and the radius: what counts as violated. A search tolerance, no part of a proof."""
ENTERING = 64
"""Rows of a family that enter a token's working set in one round, the most violated first."""
ROUNDS = 40
"""Rounds before the rest is left to the solver that goes row by row."""
SMALLEST, LARGEST = 1e-30, 1e30
"""Radii that float32 pricing can handle with room to spare."""
STUCK = 1e-13
"""Relative length of the free part of g from which on the equalities leave no direction; the row solver decides."""


def _none() -> Indices:
    return np.zeros(0, dtype=np.intp)


@dataclass(eq=False)
class _Token:
    """One token's state; k working rows."""

    cell: HeldCell
    g: Array
    radius: float
    held: Equalities
    work: Working
    delta: Array
    family: Indices = field(default_factory=_none)  # (k,) family of half-spaces
    feature: Indices = field(default_factory=_none)  # (k,)
    length: Array = field(default_factory=lambda: np.zeros(0))  # (k,) of the rows as stored
    weight: Array = field(default_factory=lambda: np.zeros(0))  # (k,) lambda
    theta: float = 0.0

    def move(self) -> bool:
        """To the optimum of the working set; False when it is given up."""
        free, new = self.held.free, len(self.work.slack) - len(self.weight)
        start = np.concatenate([self.weight > 0, np.ones(new, dtype=bool)])
        found = face(self.work, float(free @ free), self.radius, start)
        if found is None:
            return False
        self.theta, self.weight = found
        delta = self.theta * free - self.held.off(self.weight @ self.work.rows)
        self.delta = delta * min(1.0, self.radius / float(np.linalg.norm(delta)))
        return True

    def take_in(self, found: Sequence[Found], rows: Dictionary) -> bool:
        """Add violated half-spaces to the working set; False when none of them is new, or they are too many."""
        before = len(self.feature)
        for f, features, exact, excess in found:
            new = ~np.isin(features, self.feature[self.family == f])
            features, exact, excess = features[new], exact[new], excess[new]
            length = rows.length[features]
            worst = np.argsort(-excess / length)[:ENTERING]
            length, features = length[worst], features[worst]
            slack = self.cell.half_spaces[f].slack[features] / length
            self.work = self.work.add(exact[worst] / length[:, None], slack, self.held)
            self.family = np.concatenate([self.family, np.full(len(worst), f, dtype=np.intp)])
            self.feature = np.concatenate([self.feature, features])
            self.length = np.concatenate([self.length, length])
        return before < len(self.feature) <= 2 * len(self.g)

    def binding(self) -> list[Indices]:
        """Features that have multipliers now, by family."""
        on = np.pad(self.weight, (0, len(self.feature) - len(self.weight))) > 0
        return [self.feature[on & (self.family == f)] for f in range(len(self.cell.half_spaces))]

    def optimum(self) -> LinearOptimum:
        """The answer, its dual value computed from the multipliers as they are."""
        share = self.weight / self.theta
        upper, cost = [], 0.0
        for f, half in enumerate(self.cell.half_spaces):
            mine = np.flatnonzero((self.family == f) & (share > 0))
            features, weights = self.feature[mine], share[mine] / self.length[mine]
            upper.append((features, weights))
            cost += float(weights @ half.slack[features])
        rest = self.g - share @ self.work.rows
        mu = self.held.coefficients(rest)
        rest = rest - mu @ self.held.rows
        equal = np.zeros(len(self.cell.equal))
        equal[self.held.kept] = mu / self.held.length
        dual = cost + self.radius * float(np.linalg.norm(rest))
        return LinearOptimum(self.delta, float(self.g @ self.delta), dual, equal, tuple(upper))


def worst_cases(rows: Dictionary, cells: Sequence[HeldCell], g: Array, radii: Array) -> list[LinearOptimum]:
    """max g . delta over each token's cell and ball.

    Args:
        rows: the dictionary that every family of half-spaces has its normals from: row j is feature j.
        cells: one a token, with all half-spaces (not reduced by `within`).
        g: (B, d) directions.
        radii: (B,) zero, or from 1e-30 to 1e30.

    Raises:
        InputError: a radius is out of range.
        ShapeError: shapes differ, or a family has not one half-space a row of the dictionary.
    """
    g, radii = np.asarray(g, dtype=np.float64), np.asarray(radii, dtype=np.float64)
    check_batch(rows, cells, g, radii)
    screen = Screen(rows, cells)
    tokens = {i: token for i, cell in enumerate(cells) if (token := _start(cell, g[i], float(radii[i]))) is not None}
    answers: dict[int, LinearOptimum] = {}
    given_up: dict[int, list[Indices]] = {}
    for _ in range(ROUNDS):
        if not tokens:
            break
        points = np.stack([token.delta for token in tokens.values()])
        violated = screen.violated(list(tokens), points, VIOLATED * radii[list(tokens)])
        for (i, token), found in zip(list(tokens.items()), violated, strict=True):
            if not found:
                answers[i] = token.optimum()
                del tokens[i]
            elif not (token.take_in(found, rows) and token.move()):
                given_up[i] = token.binding()
                del tokens[i]
    for i, cell in enumerate(cells):
        if i not in answers:
            start = given_up.get(i, [_none()] * len(cell.half_spaces))
            answers[i] = row_by_row(screen, i, g[i], float(radii[i]), worst_case, VIOLATED, start)
    return [answers[i] for i in range(len(cells))]


def check_batch(rows: Dictionary, cells: Sequence[HeldCell], g: Array, radii: Array) -> None:
    """Raise ShapeError or InputError unless directions, radii and half-spaces fit the dictionary."""
    if g.shape != (len(cells), rows.width) or radii.shape != (len(cells),):
        raise ShapeError(
            f"{len(cells)} cells, directions {g.shape} and radii {radii.shape}",
            rule=f"one direction of {rows.width} numbers and one radius a cell",
        )
    odd = radii[~((radii == 0) | ((radii >= SMALLEST) & (radii <= LARGEST)))]
    if odd.size:
        raise InputError(f"a radius is {odd[0]!r}", rule=f"zero, or from {SMALLEST:g} to {LARGEST:g}")
    for half in (half for cell in cells for half in cell.half_spaces):
        if half.features is not None or half.slack.shape != (len(rows),):
            raise ShapeError(
                f"a family of {len(half.slack)} half-spaces and a dictionary of {len(rows)} rows",
                rule="row j of the dictionary is half-space j",
                remedy="give cells that were not reduced",
            )


def _start(cell: HeldCell, g: Array, radius: float) -> _Token | None:
    """The token at the optimum without half-spaces; None when it is given up."""
    held = equalities(cell.equal, g) if radius > NOTHING else None
    if held is None or np.linalg.norm(held.free) <= STUCK * np.linalg.norm(g):
        return None
    token = _Token(cell, g, radius, held, Working.empty(cell.width, len(held.rows)), np.zeros(cell.width))
    return token if token.move() else None


Solve = Callable[[HeldCell, Array, float], LinearOptimum]


def row_by_row(
    screen: Screen, i: int, g: Array, radius: float, solve: Solve, violated: float, start: Sequence[Indices] = ()
) -> LinearOptimum:
    """One token's worst case by a solver that is given only the half-spaces that its own answers violate.

    Args:
        screen: of the batch.
        i: the token.
        g: (d,) direction.
        radius: not negative.
        solve: for few half-spaces.
        violated: times the row's length and the radius: an excess that does not count.
        start: features to begin with, by family.
    """
    cell = screen.cells[i]
    chosen = list(start) or [_none() for _ in cell.half_spaces]
    while True:
        families = tuple(
            HalfSpaces(half.point, half.sign, screen.rows.gather(features), half.slack[features], features)
            for half, features in zip(cell.half_spaces, chosen, strict=True)
        )
        optimum = solve(HeldCell(cell.width, cell.equal, cell.rows, families), g, radius)
        (found,) = screen.violated([i], optimum.delta[None], np.array([violated * radius]))
        grown = False
        for f, features, _, excess in found:
            new = ~np.isin(features, chosen[f])
            added = features[new][np.argsort(-excess[new] / screen.rows.length[features[new]])][:ENTERING]
            chosen[f], grown = np.concatenate([chosen[f], added]), grown or bool(added.size)
        if not grown:
            break
    upper = tuple((half.named(local), weight) for half, (local, weight) in zip(families, optimum.upper, strict=True))
    return LinearOptimum(optimum.delta, optimum.value, optimum.dual, optimum.equal, upper)
