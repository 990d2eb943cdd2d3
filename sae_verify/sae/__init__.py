"""Sparse autoencoders: what they compute, and reading, writing and training them."""

from sae_verify.sae.base import SAE, Source
from sae_verify.sae.formats.load import load_sae
from sae_verify.sae.formats.saelens import save_sae
from sae_verify.sae.gated import GatedSAE
from sae_verify.sae.jumprelu import JumpReLUSAE
from sae_verify.sae.normalization import ConstantNormRescale, Identity, InputScale, LayerNorm, Normalization
from sae_verify.sae.relu import ReLUSAE
from sae_verify.sae.topk import TopKSAE
from sae_verify.sae.train import TrainReport, train_sae

__all__ = [
    "SAE",
    "ConstantNormRescale",
    "GatedSAE",
    "Identity",
    "InputScale",
    "JumpReLUSAE",
    "LayerNorm",
    "Normalization",
    "ReLUSAE",
    "Source",
    "TopKSAE",
    "TrainReport",
    "load_sae",
    "save_sae",
    "train_sae",
]
