"""A tree of regions that proves readout <= tau over a ball.

At every region the affine bound U of (readout - tau) rho is computed. Where U <= 0 the region is done. Otherwise a cut
keeps only the part of the region where U can be positive, and the claim is proved there; or the region is split and
the claim is proved on each part. Nothing is read from the tree but directions and where to split.

Theorem: through-blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arithmetic import Array
from ..errors import Rejected
from ..multipliers import Sparse, read_sparse
from ..reader import Reader
from .readout import Affine, Functional
from .region import Frame, Region
from .relaxation import Relaxation
from .sizes import lengths

MAX_NODES = 4096
"""Of one tree; each costs one pass through the blocks."""
MAX_DEPTH = 64
"""Of splits within splits; cuts do not count."""


@dataclass(frozen=True)
class Done:
    """The bound is met on the whole region, or the region is empty."""


@dataclass(frozen=True, eq=False)
class Cut:
    """Only what lies beyond a plane with this normal, (d,), can break the claim; `then` proves the rest."""

    normal: Array
    then: Node


@dataclass(frozen=True, eq=False)
class Weighed:
    """The region's bound is lowered by half-spaces, multipliers by point, before `then` makes use of it."""

    upper: Mapping[str, Sparse]
    then: Done | Cut


@dataclass(frozen=True, eq=False)
class Split:
    """Split along an axis, or along a new one, `normal` (d,), at one or more points."""

    axis: int | None
    normal: Array | None
    at: tuple[float, ...]
    parts: tuple[Node, ...]


Node = Done | Cut | Weighed | Split


def verify(relaxation: Relaxation, readout: Functional, radius: float, tau: float, root: Node) -> int:
    """Accept the tree as a proof that readout <= tau for every admissible delta with ||delta|| <= radius.

    Returns:
        The number of regions whose bound was computed.

    Raises:
        Rejected: it proves no such thing.
    """
    todo: list[tuple[Region, Node]] = [(relaxation.ball(radius), root)]
    count = 0
    while todo:
        region, node = todo.pop()
        if isinstance(node, Split):
            todo += list(zip(parted(relaxation, region, node), node.parts, strict=True))
            continue
        frame = region.frame()
        if frame is None:
            continue
        count += 1
        if count > MAX_NODES:
            raise Rejected(f"the proof has more than {MAX_NODES} regions")
        bound = relaxation.bound(region, frame, readout, tau)
        if isinstance(node, Weighed):
            bound, node = relaxation.weighed(bound, region, frame, node.upper), node.then
        if bound.top <= 0:
            continue
        if isinstance(node, Done):
            raise Rejected(f"a region's bound is {bound.top:.3g}, which is not below the claim")
        rest = beyond(region, frame, bound, relaxation.free(node.normal))
        if rest is not None:
            todo.append((rest, node.then))
    return count


def beyond(region: Region, frame: Frame, bound: Affine, normal: Array) -> Region | None:
    """The part of the region where the bound can be positive, as a cut with this normal; None when there is none.

    With g = alpha n' + r, n' = normal read in the frame: U > 0 gives alpha (n.y - n.centre) > -constant - |r.s|.
    """
    read = normal @ frame.columns
    square = float(read @ read)
    if not (square > 0 and np.isfinite(bound.constant)):
        raise Rejected("a cut says nothing here")
    alpha = float(bound.gradient @ read) / square
    if not alpha > 0:
        raise Rejected("a cut keeps the wrong side")
    left = bound.domain.row(bound.gradient - alpha * read)
    size = abs(bound.constant) + left + alpha * bound.domain.row(np.abs(read)) + float(np.abs(bound.gradient).sum())
    above = -bound.constant - left - 2.0**-36 * size
    least = float(normal @ frame.centre) + above / alpha
    least -= 2.0**-36 * (abs(least) + region.radius) + 2 * frame.slip
    if least > region.radius * float(lengths(normal[None])[0]):
        return None
    return region.cut(normal, max(least, -region.radius))


def parted(relaxation: Relaxation, region: Region, node: Split) -> tuple[Region, ...]:
    """The parts of a split, which cover the region."""
    axis = node.axis
    if node.normal is not None:
        region, axis = region.with_axis(relaxation.free(node.normal)), region.axes.shape[1]
    if axis is None or not 0 <= axis < region.axes.shape[1]:
        raise Rejected(f"axis {axis} of {region.axes.shape[1]}")
    if sorted(node.at) != list(node.at) or len(node.parts) != len(node.at) + 1:
        raise Rejected("a split's points are not in order, or do not fit its parts")
    return region.split(axis, node.at)


def read_node(value: Any, where: str, width: int, budget: list[int], depth: int = 0) -> Node:
    """A node from JSON. `budget` holds how many may still come, `depth` the splits around it."""
    budget[0] -= 1
    if budget[0] < 0:
        raise Rejected(f"the proof has more than {MAX_NODES} nodes")
    if value == "done":
        return Done()
    if isinstance(value, dict) and ("cut" in value or "half_spaces" in value):
        chain: list[Array | dict[str, Sparse]] = []
        # A long chain of cuts is read without recursion.
        while isinstance(value, dict) and ("cut" in value or "half_spaces" in value):
            if "cut" in value:
                link = Reader(value, where, ("cut", "then"))
                chain.append(_normal(link.numbers("cut"), width, where))
            else:
                link = Reader(value, where, ("half_spaces", "then"))
                chain.append(_upper(link.raw("half_spaces"), where))
            value = link.raw("then")
            budget[0] -= 1
            if budget[0] < 0:
                raise Rejected(f"the proof has more than {MAX_NODES} nodes")
        node = read_node(value, f"{where}.then", width, budget, depth)
        for part in reversed(chain):
            if not isinstance(part, dict):
                node = Cut(part, node)
            elif isinstance(node, Done | Cut):
                node = Weighed(part, node)
            else:
                raise Rejected(f"{where[:80]}: half-spaces lower the bound of a region that is done or cut")
        return node
    if depth >= MAX_DEPTH:
        raise Rejected(f"{where[:80]}: more than {MAX_DEPTH} splits within each other")
    split = Reader(value, where[:80], ("axis", "normal", "at", "parts"))
    parts = split.raw("parts")
    if not isinstance(parts, list) or not parts or len(parts) > 16:
        raise Rejected(f"{where[:80]}.parts: must be a list of 1 to 16 nodes")
    return Split(
        axis=None if split.raw("axis") is None else split.integer("axis"),
        normal=None if split.raw("normal") is None else _normal(split.numbers("normal"), width, where),
        at=tuple(split.numbers("at").tolist()),
        parts=tuple(read_node(part, f"{where}.parts[{i}]", width, budget, depth + 1) for i, part in enumerate(parts)),
    )


def _normal(normal: Array, width: int, where: str) -> Array:
    if normal.shape != (width,) or not 0.99 < float(np.linalg.norm(normal)) < 1.01:
        raise Rejected(f"{where}: a direction must be a unit vector of {width} numbers")
    return normal


def _upper(value: Any, where: str) -> dict[str, Sparse]:
    if not isinstance(value, dict) or not value or not set(value) <= {"x", "h"}:
        raise Rejected(f"{where[:80]}: multipliers of half-spaces are given by point, x or h")
    return {point: read_sparse(part, f"{where[:80]}.{point}") for point, part in value.items()}


def write_node(node: Node) -> Any:
    """The node as JSON data."""
    if isinstance(node, Done):
        return "done"
    if isinstance(node, Cut):
        return {"cut": node.normal.tolist(), "then": write_node(node.then)}
    if isinstance(node, Weighed):
        upper = {
            point: {"features": part.features.tolist(), "values": part.values.tolist()}
            for point, part in node.upper.items()
        }
        return {"half_spaces": upper, "then": write_node(node.then)}
    return {
        "axis": node.axis,
        "normal": None if node.normal is None else node.normal.tolist(),
        "at": list(node.at),
        "parts": [write_node(part) for part in node.parts],
    }
