"""Sparse autoencoders: their exact algebra, the files they come in, and a small trainer."""

from sae_verify.sae.base import SAE as SAE
from sae_verify.sae.base import Source as Source
from sae_verify.sae.formats import load_sae as load_sae
from sae_verify.sae.formats import save_sae as save_sae
from sae_verify.sae.gated import GatedSAE as GatedSAE
from sae_verify.sae.jumprelu import JumpReLUSAE as JumpReLUSAE
from sae_verify.sae.normalization import ConstantNormRescale as ConstantNormRescale
from sae_verify.sae.normalization import Identity as Identity
from sae_verify.sae.normalization import InputScale as InputScale
from sae_verify.sae.normalization import LayerNorm as LayerNorm
from sae_verify.sae.normalization import Normalization as Normalization
from sae_verify.sae.relu import ReLUSAE as ReLUSAE
from sae_verify.sae.topk import TopKSAE as TopKSAE
from sae_verify.sae.train import TrainReport as TrainReport
from sae_verify.sae.train import train_sae as train_sae

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
