"""Taylor models through a transformer block at the last position."""

from __future__ import annotations

from .attention import attended
from .context import Context
from .normed import normed
from .pointwise import activated, product
from .taylor import Taylor
from .weights import BlockWeights, MlpWeights


def through_block(resid: Taylor, block: BlockWeights, context: Context, position: int) -> Taylor:
    """The model of the residual stream after the block, from the one before it, at `position`."""
    change = attended(normed(resid, block.attention_norm), block.attention, context, position)
    if block.attention_post_norm is not None:
        change = normed(change, block.attention_post_norm)
    middle = resid + change
    written = _mlp(normed(resid if block.parallel else middle, block.mlp_norm), block.mlp)
    if block.mlp_post_norm is not None:
        written = normed(written, block.mlp_post_norm)
    return middle + written


def _mlp(y: Taylor, mlp: MlpWeights) -> Taylor:
    up = y.mapped(mlp.up, mlp.up_bias)
    if mlp.gate is None:
        hidden = activated(up, mlp.kind)
    else:
        hidden = product(activated(y.mapped(mlp.gate, mlp.gate_bias), mlp.kind), up)
    return hidden.mapped(mlp.down, mlp.down_bias)
