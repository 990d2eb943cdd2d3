"""Models that users already hold: the clamp as hooks on them, and the same models taken for certification."""

from sae_verify.hosts.clamped import clamped
from sae_verify.hosts.witnesses import load_witnesses
from sae_verify.hosts.wrap import HOSTS, wrap_model

__all__ = ["HOSTS", "clamped", "load_witnesses", "wrap_model"]
