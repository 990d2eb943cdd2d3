"""What an SAE is: architecture, conventions, what its decoder reaches and what its encoder sees. Nothing is certified.

`certificates.inspection` turns the same answers into statements that the checker proves.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sae_verify.geometry.rows import Matrix
from sae_verify.geometry.spectrum import RELATIVE, Spectrum, spectrum
from sae_verify.geometry.subspace import Subspace, principal_angles
from sae_verify.geometry.whole_cone import whole_cone
from sae_verify.sae.base import SAE
from sae_verify.sae.topk import TopKSAE


def inspect_sae(sae: SAE) -> dict[str, Any]:
    """Facts about an SAE, JSON-ready.

    Dimensions are counted in floats, at `spectrum.RELATIVE` of the largest singular value. Cost: two Gram matrices of
    the weights, and the nearest code of one vector for the cone.
    """
    decoder, encoder = spectrum(sae, matrix="decoder"), spectrum(sae, matrix="encoder")
    lengths = sae.W_dec.double().norm(dim=1)
    cone = whole_cone(sae)
    facts: dict[str, Any] = {
        "architecture": type(sae).__name__.removesuffix("SAE"),
        "format": sae.source.format,
        "path": None if sae.source.path is None else str(sae.source.path),
        "hook": sae.source.hook_name,
        "model": sae.source.model_name,
        "width": sae.d_in,
        "features": sae.d_sae,
        "normalisation": type(sae.normalization).__name__,
        "subtracts_decoder_bias": sae.subtract_b_dec,
    }
    if isinstance(sae, TopKSAE):
        facts["k"] = sae.k
    facts |= {
        "decoder_row_norms": [float(lengths.min()), float(lengths.max())],
        "zero_features": int((lengths == 0).sum()),
        "decoder": _matrix(decoder, "decoder"),
        "encoder": _matrix(encoder, "encoder"),
        "non_negative_codes_reach_everything": cone.whole,
        "code_sum_a_unit_length": cone.total,
    }
    unreachable, unseen = Subspace(decoder.vectors), Subspace(encoder.vectors)
    if unreachable.dimension and unseen.dimension:
        angles = principal_angles(unreachable, unseen)
        facts["angles_unreachable_to_unseen"] = [float(np.degrees(angles[0])), float(np.degrees(angles[-1]))]
    return facts


def _matrix(found: Spectrum, matrix: Matrix) -> dict[str, Any]:
    small = found.vectors.shape[1]
    large = len(found.values) - small
    missing = "unreachable_dimensions" if matrix == "decoder" else "unseen_dimensions"
    return {
        "rank": large,
        missing: small,
        "effective_rank": found.effective_rank,
        "largest_singular_value": float(found.values[0]),
        "smallest_singular_value_kept": float(found.values[large - 1]) if large else None,
        "largest_singular_value_dropped": float(found.values[large]) if small else None,
        "dropped_below": RELATIVE,
    }
