"""Writing evidence in the checker's format."""

from sae_verify.certificates.opened import open_problem
from sae_verify.certificates.question import problem_digest
from sae_verify.certificates.weights import Weights, locate_weights
from sae_verify.certificates.write import Witness, certificate, write_certificate

__all__ = ["Weights", "Witness", "certificate", "locate_weights", "open_problem", "problem_digest", "write_certificate"]
