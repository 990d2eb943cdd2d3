"""Material for tests and benchmarks of this package, and of whoever builds on it."""

from sae_verify.testing.synthetic import Synthetic, synthetic

__all__ = ["Synthetic", "synthetic"]
