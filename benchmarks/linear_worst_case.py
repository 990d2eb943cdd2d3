"""Claim: exact linear worst cases of a batch cost little more than one float32 product of the batch with the encoder.

The floor is that product: every row must be priced once. Side by side in one run, one thread, process time:
the product, the solver with float32 and with bfloat16 pricing (codes and slacks given, as a forward pass of the SAE
leaves them), and, for the smallest size, cvxpy with Clarabel on the same tokens. Then how the cost grows with the
radius, and what verifying a dual certificate costs.

`python -m benchmarks.linear_worst_case [d m ...]` runs other sizes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sae_verify.checker.arithmetic import Ball
from sae_verify.checker.cell import Cell
from sae_verify.checker.multipliers import Multipliers, Sparse
from sae_verify.checker.sae import Sae
from sae_verify.checker.statements.ball import Region
from sae_verify.checker.statements.linear import Question
from sae_verify.geometry.dictionary import dictionary, multiplies_bfloat16
from sae_verify.geometry.held_cell import HalfSpaces, HeldCell, held_cells
from sae_verify.geometry.reference import worst_case_reference
from sae_verify.geometry.worst_case import LinearOptimum
from sae_verify.geometry.worst_cases import worst_cases
from sae_verify.problem import ErrorBall
from sae_verify.testing import Synthetic, synthetic

TOKENS = 64
SHARES = (0.05, 0.1, 0.3)
"""Radii, in units of ||x||."""
SIZES = ((256, 4096), (768, 24576), (2304, 16384), (2304, 65536))
REFERENCE_TOKENS = 3


def seconds(work: Callable[[], Any], times: int = 3) -> tuple[float, Any]:
    """The least process time of a few runs, and the last result."""
    best, result = np.inf, None
    for _ in range(times):
        start = time.process_time()
        result = work()
        best = min(best, time.process_time() - start)
    return best, result


def main() -> None:
    """Print a line a size and radius."""
    given = [int(v) for v in sys.argv[1:] if v.isdigit()]
    for d, m in zip(given[::2], given[1::2], strict=True) if given else SIZES:
        measure(d, m)
    if not given:
        growth()


def growth() -> None:
    """How the cost of one token grows, float32 pricing: with d, m and the number of active features."""
    for name, sizes in (
        ("d", [(256, 8192, 50), (512, 8192, 50), (1024, 8192, 50), (2048, 8192, 50)]),
        ("m", [(768, 4096, 50), (768, 8192, 50), (768, 16384, 50), (768, 32768, 50)]),
        ("active features", [(768, 8192, 10), (768, 8192, 50), (768, 8192, 100), (768, 8192, 200)]),
    ):
        print(f"growth with {name}, radius {SHARES[1]:.2f} ||x||:")
        for d, m, active in sizes:
            made = synthetic(d, m, TOKENS, active=active)
            cells, _ = cells_of(made)
            rows = dictionary(made.sae.W_enc.T, narrow=torch.float32)
            radii = SHARES[1] * np.linalg.norm(made.x, axis=1)
            spent, found = seconds(lambda: worst_cases(rows, cells, made.g, radii))  # noqa: B023
            binding = np.mean([sum(len(f) for f, _ in o.upper) for o in found])
            each = spent / TOKENS * 1e3
            print(f"  ({d}, {m}), {active} active: {each:.3f} ms a token, {binding:.0f} thresholds bind")


def measure(d: int, m: int) -> None:
    """One size."""
    made = synthetic(d, m, TOKENS)
    cells, cost = cells_of(made)
    size = np.linalg.norm(made.x, axis=1)
    rows32 = np.ascontiguousarray(made.sae.W_enc.T.numpy())
    narrow = made.x.astype(np.float32)
    floor, _ = seconds(lambda: narrow @ rows32.T, 5)
    active = np.mean([len(cell.equal) for cell in cells])
    print(f"({d}, {m}): {TOKENS} tokens, {active:.0f} active features each")
    print(f"  floor, one float32 product: {floor / TOKENS * 1e3:.3f} ms a token")
    print(f"  codes and slacks in float64 (given to the solver): {cost / floor:.1f} times the floor")
    spent, found = np.inf, []
    for kind in (torch.float32, torch.bfloat16) if multiplies_bfloat16() else (torch.float32,):
        rows = dictionary(made.sae.W_enc.T, narrow=kind)
        for share in SHARES:
            spent, found = seconds(lambda: worst_cases(rows, cells, made.g, share * size))  # noqa: B023
            gap = max(o.dual / o.value - 1.0 for o in found)
            binding = np.mean([sum(len(f) for f, _ in o.upper) for o in found])
            print(
                f"  priced in {str(kind).removeprefix('torch.'):8}, radius {share:.2f} ||x||: "
                f"{spent / TOKENS * 1e3:6.3f} ms a token, {spent / floor:5.2f} times the floor, gap {gap:.0e}, "
                f"{binding:.0f} thresholds bind"
            )
    verify(made, cells, found, SHARES[-1] * size, spent / TOKENS)
    if (d, m) == SIZES[0]:
        against_cvxpy(cells, made, SHARES[1] * size)


def cells_of(made: Synthetic) -> tuple[list[HeldCell], float]:
    """Held cells of the whole code, and the time of computing them."""
    wide = made.sae.to(torch.float64)
    threat = ErrorBall(1.0, "absolute", "code", "x")
    start = time.process_time()
    cells = held_cells(wide, threat, (), made.x, made.x, "outer")
    return cells, time.process_time() - start


def verify(
    made: Synthetic, cells: list[HeldCell], found: list[LinearOptimum], radii: np.ndarray, solving: float
) -> None:
    """What the checker spends on one dual value, weights decoded; and what one token costs from its residual on."""
    sae = checker_sae(made)
    pairs = []
    for i, (cell, optimum) in enumerate(zip(cells, found, strict=True)):
        held = Cell(sae, {"x": Ball.exact(made.x[i])}, "code", None, ())
        question = Question(held, Region("l2", float(radii[i]), None), Ball.exact(made.g[i]))
        equal = Sparse(np.array([row.feature for row in cell.rows]), optimum.equal)
        ((features, values),) = optimum.upper
        nothing = Sparse(np.zeros(0, dtype=np.intp), np.zeros(0))
        pairs.append((question, Multipliers({"x": (equal, Sparse(features, values), nothing)})))
    spent, uppers = seconds(lambda: [question.upper(weights) for question, weights in pairs])
    loss = max(upper / optimum.value - 1.0 for upper, optimum in zip(uppers, found, strict=True))
    each = spent / len(found)
    wide, rows = made.sae.to(torch.float64), dictionary(made.sae.W_enc.T)
    threat, x = ErrorBall(1.0, "absolute", "code", "x"), made.x[:1]
    alone, _ = seconds(lambda: worst_cases(rows, held_cells(wide, threat, (), x, x, "outer"), made.g[:1], radii[:1]))
    print(
        f"  verifying a dual value in exact reals: {each * 1e3:.2f} ms; finding it in the batch, codes given, takes "
        f"{solving / each:.1f} times as long, alone from its residual {alone / each:.0f} times; loss {loss:.0e}"
    )


def checker_sae(made: Synthetic) -> Sae:
    """The SAE as the checker decodes it."""
    columns = np.ascontiguousarray(made.sae.W_enc.T.double().numpy())
    parameters = {"b_enc": made.sae.b_enc.double().numpy(), "threshold": made.sae.threshold.double().numpy()}
    return Sae("jumprelu", columns.T, columns, np.zeros(made.sae.d_in), parameters, False, "none", 1.0, "")


def against_cvxpy(cells: list[HeldCell], made: Synthetic, radii: np.ndarray) -> None:
    """The same tokens by an interior-point solver."""
    rows = dictionary(made.sae.W_enc.T)
    ours, found = seconds(lambda: worst_cases(rows, cells, made.g, radii))
    wide = np.ascontiguousarray(made.sae.W_enc.T.double().numpy())
    theirs, off = [], []
    for i in range(REFERENCE_TOKENS):
        cell = HeldCell(
            cells[i].width,
            cells[i].equal,
            cells[i].rows,
            tuple(HalfSpaces(half.point, half.sign, wide, half.slack) for half in cells[i].half_spaces),
        )
        spent, reference = seconds(lambda: worst_case_reference(cell, made.g[i], float(radii[i])), 1)  # noqa: B023
        theirs.append(spent)
        off.append(abs(reference.value / found[i].value - 1.0))
    ratio = float(np.mean(theirs)) / (ours / len(cells))
    worst = max(off)
    print(
        f"  cvxpy + Clarabel: {np.mean(theirs):.2f} s a token, {ratio:.0f} times as long; values differ by {worst:.0e}"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
