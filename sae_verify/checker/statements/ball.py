"""The sets that bound a perturbation's size, in exact reals: l2 ball, l-infinity ball, ellipsoid.

An ellipsoid is {L y : ||y||_2 <= radius} for a factor L stored beside the file, pinned by its digest.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from ..arithmetic import Array, Ball, combine, norm, total
from ..errors import Rejected
from ..files import regular
from ..independence import approximate_inverse, defect
from ..reader import Reader
from .subject import Subject


@dataclass(frozen=True, eq=False)
class Region:
    """One of the three; `factor` is L, (d, d), of an ellipsoid."""

    norm: str
    radius: float
    factor: Array | None

    def dual(self, v: Ball) -> Ball:
        """An enclosure of the largest v . delta over the set."""
        r = Ball.exact(self.radius)
        if self.norm == "l2":
            return r * norm(v)
        if self.norm == "linf":
            return r * total(Ball(np.abs(v.mid), v.rad))
        assert self.factor is not None
        return r * norm(combine(v, Ball.exact(self.factor)))

    def holds(self, delta: Ball, slack: float) -> bool:
        """Whether every point within l2 distance `slack` of delta lies in the set."""
        near = Ball.exact(slack)
        if self.norm == "l2":
            return bool((norm(delta) + near).high <= self.radius)
        if self.norm == "linf":
            return bool((Ball(np.abs(delta.mid), delta.rad) + near).high.max() <= self.radius)
        return self._holds_ellipsoid(delta, slack)

    def _holds_ellipsoid(self, delta: Ball, slack: float) -> bool:
        """Whether ||L^-1 v|| <= radius for every v that near.

        With R an approximate inverse, L R = I + E and ||E|| <= c < 1: L^-1 v = R (I + E)^-1 v, whose length is at most
        ||R v|| + ||R|| ||v|| c / (1 - c).
        """
        assert self.factor is not None
        inverse = approximate_inverse(self.factor)
        c = defect(self.factor, inverse)
        if not c < 0.5:
            return False
        size = norm(Ball.exact(inverse.ravel()))
        tail = Ball.exact(c) / (Ball.exact(1.0) - Ball.exact(c))
        length = norm(combine(delta, Ball.exact(inverse.T))) + size * norm(delta) * tail
        moved = size * Ball.exact(slack) * (Ball.exact(1.0) + tail)
        return bool((length + moved).high <= self.radius)


def read_region(subject: Subject, step: Reader, key: str = "ball") -> Region:
    """`{norm: l2 | linf | ellipsoid, radius, factor}`; factor is null or `{path, sha256}` of a .npy file of L."""
    reader = Reader(step.raw(key), key, ("norm", "radius", "factor"))
    name, radius = reader.text("norm", ("l2", "linf", "ellipsoid")), reader.number("radius")
    if radius < 0:
        raise reader.fail("radius", "must not be negative")
    if name != "ellipsoid":
        if reader.raw("factor") is not None:
            raise reader.fail("factor", "must be null")
        return Region(name, radius, None)
    named = Reader(reader.raw("factor"), f"{key}.factor", ("path", "sha256"))
    path = regular(subject.directory / named.text("path"))
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != named.text("sha256"):
        raise Rejected(f"{path.name}: the factor is not the one that the statement speaks of")
    factor = np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
    if factor.shape != (subject.d, subject.d) or not np.isfinite(factor).all():
        raise Rejected(f"{path.name}: the factor has shape {factor.shape}, or values that are not finite")
    return Region(name, radius, factor)
