"""Upper bounds on the readout: one method a file, all sound, combined by intersection."""

from sae_verify.bounds.bound import Bound, Method, Multipliers
from sae_verify.bounds.cap import Cap
from sae_verify.bounds.every_radius import EveryRadius
from sae_verify.bounds.final_norm import FinalNormBound
from sae_verify.bounds.interval import Interval
from sae_verify.bounds.linear_relaxation import LinearRelaxation
from sae_verify.bounds.pinned import Pinned
from sae_verify.bounds.through_blocks import ThroughBlocks

METHODS: tuple[Method, ...] = (Cap(), Pinned(), FinalNormBound())
"""From cheap to costly; after them `Interval`, `LinearRelaxation` and `ThroughBlocks`, which need the checker's view of
a prompt."""

__all__ = [
    "METHODS",
    "Bound",
    "Cap",
    "EveryRadius",
    "FinalNormBound",
    "Interval",
    "LinearRelaxation",
    "Method",
    "Multipliers",
    "Pinned",
    "ThroughBlocks",
]
