"""Sparse autoencoders: what they compute, and reading, writing and training them."""

from sae_verify.sae.abs_topk import AbsTopKSAE
from sae_verify.sae.base import SAE, Source
from sae_verify.sae.describe import Description, describe
from sae_verify.sae.formats.load import load_sae, load_transcoder
from sae_verify.sae.formats.save import save_sae
from sae_verify.sae.gated import GatedSAE
from sae_verify.sae.groupmax import GroupMaxSAE
from sae_verify.sae.jumprelu import JumpReLUSAE
from sae_verify.sae.matching_pursuit import MatchingPursuitSAE
from sae_verify.sae.matryoshka import nested
from sae_verify.sae.normalization import ConstantNormRescale, Identity, InputScale, LayerNorm, Normalization
from sae_verify.sae.relu import ReLUSAE
from sae_verify.sae.self_test import SelfTest, self_test
from sae_verify.sae.support import support
from sae_verify.sae.topk import TopKSAE
from sae_verify.sae.train import TrainReport, train_sae
from sae_verify.sae.transcoder import Transcoder
from sae_verify.sae.unit_decoder import unit_decoder

__all__ = [
    "SAE",
    "AbsTopKSAE",
    "ConstantNormRescale",
    "Description",
    "GatedSAE",
    "GroupMaxSAE",
    "Identity",
    "InputScale",
    "JumpReLUSAE",
    "LayerNorm",
    "MatchingPursuitSAE",
    "Normalization",
    "ReLUSAE",
    "SelfTest",
    "Source",
    "TopKSAE",
    "TrainReport",
    "Transcoder",
    "describe",
    "load_sae",
    "load_transcoder",
    "nested",
    "save_sae",
    "self_test",
    "support",
    "train_sae",
    "unit_decoder",
]
