"""Whether what was loaded is what was trained: a test on activations, against silent mismatches of conventions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sae_verify.errors import MetadataError, ShapeError
from sae_verify.sae.base import SAE

MOST_UNEXPLAINED = 0.75
"""An SAE on its own activations leaves far less of the variance; a wrong scale, hook or bias far more."""
CLOSE = 1e-3
"""Relative. What the release's own code may differ by, in float32 and with other orders of summation."""


@dataclass(frozen=True)
class SelfTest:
    """What the test measured.

    Attributes:
        unexplained: fraction of variance that the reconstruction leaves, about the mean of the activations.
        l0: mean number of active features.
        difference: largest difference to the given reconstruction, relative to its largest row norm; None without one.
        ties: how many activations have features that share a place at the cut-off.

    """

    unexplained: float
    l0: float
    difference: float | None
    ties: int


def self_test(sae: SAE, activations: Tensor, reconstruction: Tensor | None = None) -> SelfTest:
    """Reconstruct activations and compare.

    Args:
        sae: what was loaded.
        activations: (n, d_in), n at least 2, at the SAE's hook point and in the model's own units.
        reconstruction: (n, d_in), what the release's own code gives for them, if known.

    Raises:
        MetadataError: it does not reconstruct them, or not to what is given.
        ShapeError: the activations or the reconstruction have another shape.

    """
    if activations.ndim != 2 or len(activations) < 2:
        raise ShapeError(f"the activations have shape {tuple(activations.shape)}", rule="they are (n, d_in), n > 1")
    x = activations.to(sae.dtype)
    code = sae.encode(x)  # (n, d_sae)
    found = sae.decode(code, x)  # (n, d_in)
    spread = float((x - x.mean(dim=0)).square().sum())
    unexplained = float((x - found).square().sum()) / spread if spread else torch.inf
    remedy = (
        "check the hook point, input_scale, and whether the model's weights were processed (folded, centred) when the "
        f"SAE was trained; conventions taken: {'; '.join(sae.source.notes) or 'as the format says'}"
    )
    difference = None
    if reconstruction is not None:
        if reconstruction.shape != x.shape:
            raise ShapeError(f"the reconstruction has shape {tuple(reconstruction.shape)}", rule=f"{tuple(x.shape)}")
        given = reconstruction.to(sae.dtype)
        size = float(torch.linalg.vector_norm(given, dim=1).max())
        difference = float(torch.linalg.vector_norm(found - given, dim=1).max()) / size if size else torch.inf
        if not difference <= CLOSE:
            raise MetadataError(
                f"the reconstruction differs by {difference:.3g} from the one given",
                rule=f"they agree within {CLOSE:g}, relative",
                remedy=remedy,
            )
    elif not unexplained <= MOST_UNEXPLAINED:
        raise MetadataError(
            f"the SAE leaves {unexplained:.3g} of the activations' variance unexplained",
            rule=f"on what it was trained on, an SAE leaves less than {MOST_UNEXPLAINED}",
            remedy=remedy,
        )
    l0 = float((code != 0).sum(dim=1).double().mean())
    return SelfTest(unexplained, l0, difference, int((sae.ties(x) > 0).sum()))
