"""Taylor models through a transformer block at the last position; of a lower degree if asked, after every site."""

from __future__ import annotations

from .attention import attended
from .context import Context
from .lowered import lowered
from .normed import normed
from .pointwise import activated, product
from .taylor import Taylor
from .weights import BlockWeights, MlpWeights, NormWeights


def through_block(resid: Taylor, block: BlockWeights, context: Context, position: int, degree: int = 2) -> Taylor:
    """The model of the residual stream after the block, from the one before it, at `position`."""
    y = lowered(normed(resid, block.attention_norm), degree)
    return completed(resid, lowered(attended(y, block.attention, context, position, degree), degree), block, degree)


def completed(resid: Taylor, change: Taylor, block: BlockWeights, degree: int = 2) -> Taylor:
    """The same from the residual stream before the block and what the attention gives, before any norm after it."""

    def norm(x: Taylor, weights: NormWeights) -> Taylor:
        return lowered(normed(x, weights), degree)

    if block.attention_post_norm is not None:
        change = norm(change, block.attention_post_norm)
    middle = resid + change
    written = _mlp(norm(resid if block.parallel else middle, block.mlp_norm), block.mlp, degree)
    if block.mlp_post_norm is not None:
        written = norm(written, block.mlp_post_norm)
    return middle + written


def _mlp(y: Taylor, mlp: MlpWeights, degree: int) -> Taylor:
    up = y.mapped(mlp.up, mlp.up_bias)
    if mlp.gate is None:
        hidden = lowered(activated(up, mlp.kind), degree)
    else:
        gate = lowered(activated(y.mapped(mlp.gate, mlp.gate_bias), mlp.kind), degree)
        hidden = lowered(product(gate, up), degree)
    return hidden.mapped(mlp.down, mlp.down_bias)
