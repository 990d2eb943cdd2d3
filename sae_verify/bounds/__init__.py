"""Upper bounds on the readout: one method a file, all sound, combined by intersection."""

from sae_verify.bounds.bound import Bound, Method, Multipliers
from sae_verify.bounds.cap import Cap
from sae_verify.bounds.final_norm import FinalNormBound
from sae_verify.bounds.pinned import Pinned
from sae_verify.bounds.through_blocks import ThroughBlocks

METHODS: tuple[Method, ...] = (Cap(), Pinned(), FinalNormBound())
"""From cheap to costly; `ThroughBlocks`, which needs the checker's view of a prompt, comes after them."""

__all__ = ["METHODS", "Bound", "Cap", "FinalNormBound", "Method", "Multipliers", "Pinned", "ThroughBlocks"]
