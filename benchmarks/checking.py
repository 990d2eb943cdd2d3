"""Claim: checking a certificate is at least 20 times cheaper than finding it.

Finding is the pipeline after loading (running the model, bounds, attacks, radii, replays); checking is everything the
checker does: reading the file,
hashing and decoding the weights, and every step. The second ratio leaves out the weights, which are decoded once for
any number of certificates.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from sae_verify import checker
from sae_verify.attacks import Pgd
from sae_verify.geometry.instance import prepare
from sae_verify.pipeline import certify, search
from sae_verify.problem_file import load_problem

CASES = Path(__file__).parent.parent / "examples" / "cases"


def main() -> None:
    """Print process times and ratios for each last-layer problem."""
    for path in sorted(CASES.glob("*/problem_last.toml")):
        problem = load_problem(path)
        search(prepare(problem), Pgd())  # warm up
        start = time.process_time()
        search(prepare(problem), Pgd())
        finding = time.process_time() - start
        with tempfile.TemporaryDirectory() as directory:
            files = [r.certificate for r in certify(problem, out=directory)]
            checker.forget_weights()
            start = time.process_time()
            for file in files:
                assert file is not None
                checker.check(file)
            cold = time.process_time() - start
            start = time.process_time()
            for file in files:
                assert file is not None
                checker.check(file)
            warm = time.process_time() - start
        count = len(files)
        print(
            f"{path.parent.name}: {count} certificates; finding {finding / count * 1e3:.1f} ms each, "
            f"checking {cold / count * 1e3:.2f} ms with the weights ({finding / cold:.0f} times cheaper), "
            f"{warm / count * 1e3:.2f} ms without ({finding / warm:.0f} times)"
        )


if __name__ == "__main__":
    main()
