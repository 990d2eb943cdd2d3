"""Material for tests and benchmarks of this package, and of whoever builds on it.

- `falsify`: search for counter-examples to every theorem on one SAE; `properties` holds the theorems.
- `hard_case`, `residuals`, `readout`, `clamp`: SAEs and inputs that break code, from numpy generators;
  `prompt_residuals`: from a model's prompts. `tiny_model`: random transformers of every architecture.
- `strategies`: the same for hypothesis. `plugin`: for pytest. Both are imported by name, since they need more packages.
- `synthetic`: SAEs of any size whose cells bind, for benchmarks.
"""

from sae_verify.testing.falsify import Finding, falsify, reproduce
from sae_verify.testing.from_model import prompt_residuals
from sae_verify.testing.hard import ARCHITECTURES, TRAITS, HardCase, hard_case
from sae_verify.testing.inputs import clamp, readout, residual, residuals
from sae_verify.testing.models import FAMILIES, tiny_model, write_model
from sae_verify.testing.properties import PROPERTIES, Attempt, Property
from sae_verify.testing.synthetic import Synthetic, synthetic

__all__ = [
    "ARCHITECTURES",
    "FAMILIES",
    "PROPERTIES",
    "TRAITS",
    "Attempt",
    "Finding",
    "HardCase",
    "Property",
    "Synthetic",
    "clamp",
    "falsify",
    "hard_case",
    "prompt_residuals",
    "readout",
    "reproduce",
    "residual",
    "residuals",
    "synthetic",
    "tiny_model",
    "write_model",
]
