"""One prompt's tail with everything that a bound through blocks needs: from a region to an affine bound of the claim.

The perturbation is delta = B y up to a slip: B has near-orthonormal columns that span what the held equalities leave
free. Theorem: through-blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arithmetic import Array, Ball, gamma
from .block import through_block
from .context import Context
from .domain import Domain
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
    """

    start: Ball
    basis: Array
    slip: float
    stretch: float
    blocks: tuple[BlockWeights, ...]
    contexts: tuple[Context, ...]
    position: int

    @property
    def width(self) -> int:
        """k, the dimensions that are free."""
        return self.basis.shape[1]

    def free(self, normal: Array) -> Array:
        """A direction (d,) in the coordinates y, (k,). Evidence has it in R^d: elsewhere the basis is another."""
        return self.basis.T @ normal

    def ball(self, radius: float) -> Region:
        """All y of admissible delta with ||delta|| <= radius."""
        return Region.whole(self.width, float(grow(radius * self.stretch)))

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
        x = self.entry(region, frame)
        for block, context in zip(self.blocks, self.contexts, strict=True):
            x = through_block(x, block, context, self.position)
        return x

    def bound(self, region: Region, frame: Frame, readout: Functional, tau: float) -> Affine:
        """An affine bound of (readout - tau) rho over the region."""
        with np.errstate(all="ignore"):
            return affine(self.resid(region, frame), readout, tau)


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
