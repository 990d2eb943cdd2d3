"""Claim: a decoder's whole spectrum, small end included, is at least 3 times cheaper than numpy's SVD.

At (d, m) = (2304, 16384), against `numpy.linalg.svd(compute_uv=False)` of the same rows in float64 (numpy widens
float32 itself, and takes as long). Claimed too: at the small end it is more accurate than the Gram matrix alone, and
the peak of memory, weights included, is below 3 times the float32 weights. Shown, not claimed: the time of the
certified statements about rank and spectrum, and of their check. Smaller d saves less: fewer of the SVD's operations
are slow.

The weights are synthetic: rows of length 1 in clusters, without the directions that the last three numbers of `PLANTED`
leave out, up to the rounding to float32. Smaller: `python -m benchmarks.subspace_report 768 4096`.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

T = TypeVar("T")
SIZE = (2304, 16384)
PLANTED = (1e-5, 1e-8, 0.0)
"""Factors of the three weakest directions; the last two drown in the rounding to float32."""
CLUSTERS = 256
REPEATS = 3
"""Each time is the best of so many."""


def main(arguments: Sequence[str] = ()) -> None:
    """Print times, errors and memory, from a process of its own with one thread."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, "1"), "HF_HUB_OFFLINE": "1"}
    d, m = map(int, arguments) if arguments else SIZE
    with tempfile.TemporaryDirectory() as directory:
        for part in ("weights", "compare", "memory", "certify"):
            command = [sys.executable, "-m", "benchmarks.subspace_report", part, directory, str(d), str(m)]
            subprocess.run(command, check=True, env=environment)


def weights(directory: Path, d: int, m: int) -> None:
    """Write clustered rows, (m, d) float32, and an SAE that has them."""
    import torch

    from sae_verify.sae import ReLUSAE, save_sae

    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLUSTERS, d))
    rows = centres[rng.integers(CLUSTERS, size=m)] + 0.7 * rng.normal(size=(m, d))
    weak = np.linalg.qr(rng.normal(size=(d, len(PLANTED))))[0]
    rows -= ((rows @ weak) * (1.0 - np.array(PLANTED))) @ weak.T
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    stored = rows.astype(np.float32)
    np.save(directory / "rows.npy", stored)
    decoder = torch.from_numpy(stored)
    zeros = {"b_enc": torch.zeros(m), "b_dec": torch.zeros(d)}
    sae = ReLUSAE(W_enc=decoder.T.contiguous(), W_dec=decoder, subtract_b_dec=False, **zeros)
    save_sae(sae, directory / "sae")


def compare(directory: Path, d: int, m: int) -> None:
    """Time and accuracy."""
    from sae_verify.geometry.spectrum import gram, spectrum

    rows = np.load(directory / "rows.npy")
    found, ours = timed(lambda: spectrum(rows))
    wide = rows.astype(np.float64)
    exact, theirs = timed(lambda: np.linalg.svd(wide, compute_uv=False))
    alone = np.sqrt(np.maximum(np.linalg.eigvalsh(gram(rows))[::-1], 0.0))
    few = found.vectors.shape[1]
    print(f"({d}, {m}): spectrum {ours:.2f} s; numpy's svd {theirs:.2f} s, {theirs / ours:.1f} times as long")
    print(f"  {few} values up to 1e-6 of the largest, {exact[0]:.4g}; the four smallest by svd: {exact[-4:]}")
    print(f"  largest error there, of the largest value: ours {error(found.values, exact):.1e}, ", end="")
    print(f"Gram matrix alone {error(alone, exact):.1e}; over all values ours {error(found.values, exact, 0):.1e}")


def error(values: np.ndarray, exact: np.ndarray, last: int = 4) -> float:
    """Largest distance among the last few values (0: all of them), relative to the largest value."""
    return float(np.abs(values - exact)[-last:].max() / exact[0])


def memory(directory: Path, d: int, m: int) -> None:
    """Peak of memory, of the process and of numpy's arrays."""
    import tracemalloc

    from sae_verify.geometry.spectrum import spectrum

    before = peak()
    rows = np.load(directory / "rows.npy")
    spectrum(rows)
    process = peak() - before
    tracemalloc.start()
    spectrum(rows)
    arrays = tracemalloc.get_traced_memory()[1] + rows.nbytes
    print(
        f"  memory with the weights: process {process / rows.nbytes:.2f}, numpy's arrays {arrays / rows.nbytes:.2f} "
        f"times the weights of {rows.nbytes / 2**20:.0f} MiB"
    )


def certify(directory: Path, d: int, m: int) -> None:
    """Certified statements, and their check."""
    from sae_verify.certificates.statements import write_statements
    from sae_verify.checker.statements import check_statements
    from sae_verify.geometry.rank import rank_step
    from sae_verify.geometry.spectral_gap import singular_values_step
    from sae_verify.sae import load_sae

    sae = load_sae(directory / "sae")
    # All planted directions count as small: the first lies below what a lower side can prove.
    for make in (lambda: rank_step(sae), lambda: singular_values_step(sae, relative=1e-4)):
        step, finding = timed(make, 1)
        path = write_statements(sae, [step], directory / "facts.json")
        accepted, checking = timed(lambda path=path: check_statements(path), 1)
        size = path.stat().st_size / 2**10
        print(f"  {accepted.statements[0].text}: found in {finding:.2f} s, {size:.0f} KiB, ", end="")
        print(f"checked in {checking:.2f} s, reading and hashing the weights included")


def timed(work: Callable[[], T], repeats: int = REPEATS) -> tuple[T, float]:
    """The result, and the best process time, seconds."""
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        best = min(best, time.process_time() - start)
    return result, best  # type: ignore[possibly-undefined]


def peak() -> int:
    """Largest resident size of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


PARTS = {"weights": weights, "compare": compare, "memory": memory, "certify": certify}

if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in PARTS:
        PARTS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    else:
        main(sys.argv[1:])
