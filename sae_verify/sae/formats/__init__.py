"""File formats of SAEs."""

from sae_verify.sae.formats.load import load_sae
from sae_verify.sae.formats.saelens import save_sae

__all__ = ["load_sae", "save_sae"]
