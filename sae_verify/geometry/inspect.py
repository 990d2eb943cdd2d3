"""What an SAE is, in one screen: architecture, conventions, and what its decoder reaches and its encoder sees."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sae_verify.sae.base import SAE
from sae_verify.sae.topk import TopKSAE


def inspect_sae(sae: SAE) -> dict[str, Any]:
    """Facts about an SAE, JSON-ready.

    Ranks are numerical, at 1e-6 of the largest singular value; nothing here is certified.
    """
    wide = sae.to(torch.float64)
    encoder, decoder = _spectrum(wide.W_enc.numpy().T), _spectrum(wide.W_dec.numpy())
    lengths = np.linalg.norm(wide.W_dec.numpy(), axis=1)
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
    return facts | {
        "decoder_row_norms": [float(lengths.min()), float(lengths.max())],
        "decoder_rank": _rank(decoder),
        "unreachable_dimensions": sae.d_in - _rank(decoder),
        "decoder_singular_values": [float(decoder[-1]), float(decoder[0])],
        "encoder_rank": _rank(encoder),
        "unseen_dimensions": sae.d_in - _rank(encoder),
        "zero_features": int((lengths == 0).sum()),
    }


def _spectrum(rows: np.ndarray) -> np.ndarray:
    """Singular values of (m, d) rows, d of them, falling, from the triangular factor: nothing of size m x m."""
    values = np.linalg.svd(np.linalg.qr(rows, mode="r"), compute_uv=False)
    return np.concatenate([values, np.zeros(rows.shape[1] - len(values))])  # fewer rows than dimensions


def _rank(values: np.ndarray) -> int:
    return int((values > 1e-6 * values[0]).sum()) if values[0] > 0 else 0
