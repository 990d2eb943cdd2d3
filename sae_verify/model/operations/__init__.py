"""The operations a tail is made of, in float64 and explicit torch; one file an operation."""

from sae_verify.model.operations.activation import Activation
from sae_verify.model.operations.attention import Attention, AttentionWeights, Shown
from sae_verify.model.operations.linear import Linear
from sae_verify.model.operations.mlp import GatedMlp, Mlp
from sae_verify.model.operations.norm import LayerNorm, Norm, RMSNorm

__all__ = [
    "Activation",
    "Attention",
    "AttentionWeights",
    "GatedMlp",
    "LayerNorm",
    "Linear",
    "Mlp",
    "Norm",
    "RMSNorm",
    "Shown",
]
