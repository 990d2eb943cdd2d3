"""Readers and the writer for SAE files: one module per source."""

from sae_verify.sae.formats.load import load_sae as load_sae
from sae_verify.sae.formats.saelens import save_sae as save_sae

__all__ = ["load_sae", "save_sae"]
