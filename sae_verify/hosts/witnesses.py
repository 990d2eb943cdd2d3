"""The perturbations that a certificate file holds."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from sae_verify.checker.format import read_certificate


def load_witnesses(certificate: Path | str) -> tuple[Tensor, ...]:
    """Read the witnesses of a certificate file, float64: the strongest at the radius, then the shortest.

    Each is (d,), or (p d,) where p positions are perturbed, the last one last: what `clamped` takes.

    They are what the file says; whether they are admissible is for `sae-verify check` to say.

    Raises:
        checker.Rejected: the file is no well-formed certificate.
    """
    return tuple(torch.from_numpy(step.delta.copy()) for step in read_certificate(Path(certificate)).witnesses)
