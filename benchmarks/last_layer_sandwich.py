"""Claim: on the last layer attack and bound meet within 1e-5, and certified and attacked radius within 0.1%.

Both ends are exact-real statements that the checker accepted: the attack's end is its lower bound of the witness's
readout.
"""

from __future__ import annotations

from pathlib import Path

from sae_verify.pipeline import certify
from sae_verify.problem_file import load_problem

CASES = Path(__file__).parent.parent / "examples" / "cases"


def main() -> None:
    """Print the widest sandwich and the smallest radius ratio of each last-layer problem."""
    for path in sorted(CASES.glob("*/problem_last.toml")):
        results = list(certify(load_problem(path)))
        gap = max((r.upper - r.lower) / (r.upper - r.readout_defended) for r in results if not r.trivial)
        ratios = [
            r.radius.certified / r.radius.attacked
            for r in results
            if r.radius.certified is not None and r.radius.attacked is not None
        ]
        found = f"smallest certified/attacked radius {min(ratios):.6f}" if ratios else "no radius bracket"
        verdicts = ", ".join(sorted({r.verdict.name for r in results}))
        print(f"{path.parent.name}: {len(results)} prompts ({verdicts}); widest relative sandwich {gap:.2e}; {found}")


if __name__ == "__main__":
    main()
