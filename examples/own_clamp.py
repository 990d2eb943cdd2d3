"""A problem built in Python: reverse the features that are on, and ask whether the error term can undo it.

Run from the repository's root: `.venv/bin/python -m examples.own_clamp`.
"""

from __future__ import annotations

from pathlib import Path

import sae_verify as sv
from sae_verify.model import encode_prompts, run

CASE = Path(__file__).parent / "cases" / "indirect_object"
PROMPT = "when leon and vera went to the theatre leon gave a lamp to"


def main() -> None:
    model, sae = sv.load_model(CASE), sv.load_sae(CASE / "sae_last")
    hook = model.hook_point("blocks.3.hook_resid_post")
    # Features that are on at the last position, strongest first: candidates for a clamp.
    prompts = encode_prompts(model, [PROMPT])
    code = sae.encode(run(model, prompts, hook).resid[0, int(prompts.lengths[0]) - 1])
    strongest = code.topk(4).indices.tolist()
    print("strongest features:", {f: round(float(code[f]), 2) for f in strongest})
    for held in ("free", "defended", "code"):
        problem = sv.Problem(
            model,
            sae,
            [PROMPT],
            clamp=sv.Clamp.scale(dict.fromkeys(strongest, -0.2)),
            threat=sv.ErrorBall(radius=0.3, relative_to="h", held=held),
            readout=sv.LogitDifference("vera", "leon"),
            hook=hook,
            title=f"four strongest features reversed, {held}",
        )
        for result in sv.certify(problem):
            print(
                f"{held:>9}: base {result.readout_base:.2f}, clamped {result.readout_defended:.2f}, "
                f"worst case in [{result.lower:.4f}, {result.upper:.4f}]: {result.verdict.name}"
            )


if __name__ == "__main__":
    main()
