"""Writing evidence in the checker's format."""

from sae_verify.certificates.write import Weights, Witness, certificate, locate_weights, write_certificate

__all__ = ["Weights", "Witness", "certificate", "locate_weights", "write_certificate"]
