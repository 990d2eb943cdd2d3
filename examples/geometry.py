"""Geometry of an SAE: what it reaches, the held cell of a token, its worst case at every radius, and proofs."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

import sae_verify as sv
from sae_verify.certificates.inspection import certify_inspection
from sae_verify.geometry.cone import reach
from sae_verify.geometry.curve import curve
from sae_verify.geometry.dictionary import encoder
from sae_verify.geometry.inspect_tokens import inspect_tokens
from sae_verify.geometry.rows import active_features
from sae_verify.geometry.subspace import complement, span

CASE = Path(__file__).parent / "cases" / "indirect_object"


def main() -> None:
    """Print a tour; takes a few seconds."""
    model, sae = sv.load_model(CASE), sv.load_sae(CASE / "sae_last")
    prompt = "while myra and kate were working at the hotel myra offered the coat to"
    readout = sv.LogitDifference("kate", "myra")
    (token,) = inspect_tokens(sae, model, [prompt], readout=readout)

    # What can the features that are on reach, and how much of the readout's gradient is out of their reach?
    active = active_features(sae, token.x)
    reached = span(sae, active)
    print(f"{len(active)} features are on and reach {reached.dimension} of {sae.d_in} dimensions")
    print(f"nothing in the decoder reaches {complement(sae).dimension} dimensions")
    print(f"share of the gradient beyond the active features: {float(reached.complement.share(token.g)):.2f}")

    # Is the error term reachable with a non-negative code?
    error = sae.error(torch.from_numpy(token.x).float()).double().numpy()
    found = reach(sae, error)
    print(f"the error term is within {found.residual / np.linalg.norm(error):.1e} of a non-negative code")

    # The largest first-order change of the readout at every radius, from both sides.
    size = float(np.linalg.norm(token.x))
    swept = curve(encoder(sae), token.cell, token.g, size)
    for share in (0.01, 0.1, 0.5, 1.0):
        radius = np.array([share * size])
        print(f"  radius {share:4.2f} ‖x‖: {swept.lower(radius)[0]:.4f} <= p* <= {swept.upper(radius)[0]:.4f}")

    # Evidence that the independent checker accepts.
    with tempfile.TemporaryDirectory() as directory:
        proven = certify_inspection(sae, [token], Path(directory) / "facts.cert")
        for statement in proven.accepted.statements:
            print(statement.text)


if __name__ == "__main__":
    main()
