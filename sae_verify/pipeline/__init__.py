"""The pipeline: bounds from cheap to costly, attacks replayed on the real model, evidence written and re-read."""

from sae_verify.pipeline.decide import certify
from sae_verify.pipeline.deep import EFFORT
from sae_verify.pipeline.search import search

__all__ = ["EFFORT", "certify", "search"]
