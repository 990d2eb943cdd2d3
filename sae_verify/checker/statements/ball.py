"""The sets that bound a perturbation's size, in exact reals: l2 ball, l-infinity ball, ellipsoid.

An ellipsoid is {L y : ||y||_2 <= radius} for a factor L stored beside the file, pinned by its digest.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..arithmetic import Array, Ball, combine, norm, total
from ..errors import Rejected
from ..files import regular
from ..independence import approximate_inverse, defect
from ..reader import Reader
from .subject import Subject

HEADER = 4096
"""Bytes that a .npy file may have beside its numbers."""


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

    def point(self, vector: Array) -> Ball:
        """The perturbation that a step gives as `delta`: the vector itself, or L y of an ellipsoid, enclosed."""
        if self.factor is None:
            return Ball.exact(vector)
        return combine(Ball.exact(vector), Ball.exact(self.factor.T))

    def holds(self, vector: Array, slack: float) -> bool:
        """Whether every point within l2 distance `slack` of the step's perturbation lies in the set.

        For an ellipsoid, ||L^-1 (L y + v)|| <= ||y|| + ||L^-1|| ||v||; with R an approximate inverse, E = L R - I and
        ||E|| <= c < 1, L^-1 = R (I + E)^-1 has norm at most ||R|| / (1 - c).
        """
        given, near = Ball.exact(vector), Ball.exact(slack)
        if self.norm == "linf":
            return bool((Ball.exact(np.abs(vector)) + near).high.max() <= self.radius)
        if self.factor is not None and slack > 0.0:
            inverse = approximate_inverse(self.factor)
            c = defect(self.factor, inverse)
            if not c < 0.5:
                return False
            near = near * norm(Ball.exact(inverse.ravel())) / (Ball.exact(1.0) - Ball.exact(c))
        return bool((norm(given) + near).high <= self.radius)


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
    file = named.text("path")
    if Path(file).name != file:
        raise named.fail("path", "must be the plain name of a file beside the statement file")
    most = 8 * subject.d**2 + HEADER
    with regular(subject.directory / file).open("rb") as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise Rejected(f"{file}: more than the {most} bytes that a factor may have")
    if hashlib.sha256(data).hexdigest() != named.text("sha256"):
        raise Rejected(f"{file}: the factor is not the one that the statement speaks of")
    stored = np.load(io.BytesIO(data), allow_pickle=False)
    if not isinstance(stored, np.ndarray) or stored.dtype.str not in ("<f8", "<f4", "<f2"):
        raise Rejected(f"{file}: a factor is a little-endian float array")
    factor = np.asarray(stored, dtype=np.float64)
    if factor.shape != (subject.d, subject.d) or not np.isfinite(factor).all():
        raise Rejected(f"{file}: the factor has shape {factor.shape}, or values that are not finite")
    return Region(name, radius, factor)
