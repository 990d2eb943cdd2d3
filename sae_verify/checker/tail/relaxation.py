"""One prompt's tail with everything that a bound through blocks needs: from a region to an affine bound of the claim.

The perturbation is delta = B y up to a slip: B has near-orthonormal columns that span what the held equalities leave
free. Theorem: through-blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..arithmetic import Array, Ball, gamma
from ..errors import Rejected
from ..multipliers import Sparse
from .block import through_block
from .context import Context
from .domain import Domain
from .halves import Halves, weighed, within
from .lowered import lowered
from .moving import Places, through_blocks
from .readout import Affine, Functional, affine
from .region import Frame, Region
from .sizes import grow, length, lengths
from .taylor import Taylor
from .weights import BlockWeights


@dataclass(frozen=True, eq=False)
class Relaxation:
    """The tail of one prompt.

    Attributes:
        start: the defended state h, (d,).
        basis: B (d, k). slip: ||delta - B B^T delta|| <= slip ||delta||. stretch: an upper bound of ||B||.
        blocks: between the hook and the final norm. contexts: what earlier positions show to each of them.
        position: of the perturbation, the prompt's last.
        degree: of the models after every site: 2 quadratic, 1 linear, 0 interval. Less is cheaper and looser.
        places: how many positions, up to `position`, are perturbed; start and basis then have d rows for each of them,
            one position after another, and the contexts are what the first of them sees.
        upright: whether y has the coordinates of R^d itself, B being symmetric (theorem: drift).
        spread: ||y||^2 <= stretch^2 ||delta||^2 + spread^2. weight: the number that B was made from, zero for none.
        halves: half-spaces that every admissible delta obeys, or None.
    """

    start: Ball
    basis: Array
    slip: float
    stretch: float
    blocks: tuple[BlockWeights, ...]
    contexts: tuple[Context, ...]
    position: int
    degree: int = 2
    places: int = 1
    upright: bool = False
    spread: float = 0.0
    weight: float = 0.0
    halves: Halves | None = None

    @property
    def width(self) -> int:
        """k, the dimensions that are free."""
        return self.basis.shape[1]

    def free(self, normal: Array) -> Array:
        """A direction (d,) in the coordinates y, (k,). Evidence has it in R^d: elsewhere the basis is another."""
        return normal if self.upright else self.basis.T @ normal

    def named(self, normal: Array) -> Array:
        """The other way round: from (k,) to (d,)."""
        return normal if self.upright else self.basis @ normal

    def ball(self, radius: float) -> Region:
        """All y of admissible delta with ||delta|| <= radius."""
        return Region.whole(self.width, float(grow(np.hypot(radius * self.stretch, self.spread))))

    def entry(self, region: Region, frame: Frame) -> Taylor:
        """The model of the residual at the hook over the region."""
        k = self.width
        centre = self.start.mid + self.basis @ frame.centre
        columns = self.basis @ frame.columns
        size = lengths(self.basis)
        reach = region.radius * 2
        columns_size = length(frame.columns) * Domain(frame.box.shape[1]).reach
        loose = self.start.rad + size * frame.slip + 8 * gamma(k) * size * (reach + columns_size) + self.slip * reach
        loose = loose + 2.0**-52 * (np.abs(self.start.mid) + size * reach)
        return Taylor(Domain(frame.box.shape[1]), centre, columns, (), (), grow(loose))

    def resid(self, region: Region, frame: Frame) -> Taylor:
        """The model of the final residual over the region."""
        x = lowered(self.entry(region, frame), self.degree)
        if self.places > 1:
            places = Places(self.places, self.position + 1)
            return through_blocks(x, self.blocks, self.contexts, places, self.degree)
        for block, context in zip(self.blocks, self.contexts, strict=True):
            x = through_block(x, block, context, self.position, self.degree)
        return x

    def bound(self, region: Region, frame: Frame, readout: Functional, tau: float) -> Affine:
        """An affine bound of (readout - tau) rho over the region."""
        with np.errstate(all="ignore"):
            return affine(self.resid(region, frame), readout, tau)

    def weighed(self, bound: Affine, region: Region, frame: Frame, named: Mapping[str, Sparse]) -> Affine:
        """The bound, lowered by multipliers of half-spaces; Rejected where there are none."""
        if self.halves is None:
            raise Rejected("no half-spaces are held here")
        rows, values = self.halves.find(named)
        normals, room = self.halves.rows[rows], self.halves.room[rows]
        return weighed(bound, *within(normals, room, self.basis, self.slip, region, frame), values)


def free_basis(rows: Array, width: int) -> tuple[Array, float, float]:
    """(B, slip, stretch) of the space that the rows (n, d) leave free: rows @ delta = 0 for every admissible delta.

    (I - B B^T) delta = (I - B B^T - M rows) delta for any M, and some M makes that matrix small. Dependent or nearly
    dependent rows: directions that are not clearly held stay free.
    """
    everything = np.eye(width), 0.0, 1.0
    if not rows.size:
        return everything
    # A power of two scales a row exactly.
    scale = np.exp2(-np.round(np.log2(np.maximum(lengths(rows), 2.0**-1000))))
    scaled = rows * scale[:, None]
    left, sigma, right = np.linalg.svd(scaled, full_matrices=True)
    for floor in (1e-9, 1e-6, 1e-3):
        rank = int((sigma > floor * sigma[0]).sum())
        basis = np.ascontiguousarray(right[rank:].T)  # (d, k)
        held = right[:rank].T
        inverse = (held / sigma[:rank]) @ left[:, :rank].T  # (d, n)
        off = np.eye(width) - basis @ basis.T - inverse @ scaled
        lost = gamma(width + len(rows)) * (1 + length(basis) ** 2 + length(inverse) * length(scaled))
        slip = float(grow(length(off) + 4 * lost))
        if slip < 1e-7:
            skew = length(basis.T @ basis - np.eye(basis.shape[1])) + gamma(width) * length(basis) ** 2
            return basis, slip, float(grow(1 + skew))
    return everything


def side_by_side(parts: Sequence[tuple[Array, float, float]]) -> tuple[Array, float, float]:
    """(B, slip, stretch) for several positions, from `free_basis` of each: B is block diagonal.

    sum of slip_i^2 ||delta_i||^2 is at most the largest slip^2 times ||delta||^2, and so for the stretch.
    """
    width = sum(len(basis) for basis, _, _ in parts)
    columns, row = [], 0
    for basis, _, _ in parts:
        columns.append(np.pad(basis, ((row, width - row - len(basis)), (0, 0))))
        row += len(basis)
    joint = np.ascontiguousarray(np.concatenate(columns, axis=1))
    return joint, max(slip for _, slip, _ in parts), max(stretch for _, _, stretch in parts)
