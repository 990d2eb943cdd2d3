"""BatchTopK SAEs at run time: JumpReLU with the one threshold that training estimated.

While training, the k largest of a whole batch survive (arXiv 2412.06410); that is no map of one position and is not
modelled. The estimate that stands in for it afterwards is, and a file without one is refused.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from sae_verify.errors import MetadataError, ShapeError


def run_time_threshold(stored: Tensor, d_sae: int, path: Path) -> Tensor:
    """Return the threshold of every feature, (d_sae,), from the one number that a file stores.

    Raises:
        ShapeError: it is not one number.
        MetadataError: it is negative, which is how a threshold looks that training never set.

    """
    if stored.ndim != 0:
        raise ShapeError(f"the threshold in {path} has shape {tuple(stored.shape)}", rule="it is one number")
    if float(stored) < 0:
        raise MetadataError(
            f"the threshold in {path} is {float(stored)!r}",
            rule="a BatchTopK SAE runs with a threshold of at least 0, and training starts from -1",
            remedy="take a later checkpoint, or estimate the threshold on activations and store it",
        )
    return stored.expand(d_sae)
