"""Claim: the cost of one pass through blocks grows with that of its dominant products, d^3 operations a block.

One pass is one affine bound of the readout over a ball (`Relaxation.bound`), for random weights of GPT-2's shape with
n = 4d, nothing held. The floor of a block, measured side by side: the Jacobian through the two feed-forward maps, and,
for the m = 3d quadratic forms that norms and attention leave behind, their inner products, (m, d) by (d, m) four times,
and those with the gains of n and of d entries, (n, m) by (m, m). Below d of about 128 forms are made as they are, and
calls on small arrays dominate. Beside it a whole search: the largest radius that one pass proves, for a claim that the
linear model breaks at about 0.02 ||h||; it makes several passes. Each size runs in a process of its own, for its peak
memory. Recorded figures of larger sizes: benchmarks/recorded/scaling.md.
"""

from __future__ import annotations

import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import cast

import numpy as np

from sae_verify.bounds import ThroughBlocks
from sae_verify.bounds.over_ball import of_degree, over_ball
from sae_verify.bounds.through_blocks import CENTRE, linear_radius, slope_at
from sae_verify.checker.arithmetic import Ball
from sae_verify.checker.tail.context import contexts
from sae_verify.checker.tail.readout import Functional
from sae_verify.checker.tail.relaxation import Relaxation
from sae_verify.checker.tail.weights import AttentionWeights, BlockWeights, MlpWeights, NormWeights
from sae_verify.geometry.instance import Instance

SIZES = ((64, 1, 16), (64, 4, 16), (64, 1, 64), (128, 1, 16), (256, 1, 16))
"""(d, blocks, positions). `python -m benchmarks.scaling 768 1 64` measures another one: GPT-2 small's shape."""
GIB = 2**30
LIMIT = 12 * GIB
"""Of address space: a pass that needs more fails rather than taking the machine's memory."""
LEVEL = 0.01
"""Radius in units of ||h||."""
BREAKS = 0.02
"""Radius in units of ||h|| at which the linear model breaks the claim of the search, about."""


@dataclass(frozen=True)
class Cost:
    """Process time in seconds of the pass, of a linear one and of the floor, of all blocks; peak memory in bytes.

    Of a search: the process time, and the radius that is certified, in units of that where the linear model breaks.
    """

    seconds: float
    linear: float
    floor: float
    peak: int
    search: float
    certified: float


@dataclass(frozen=True)
class Claim:
    """What a search reads of an `Instance`."""

    tau: float

    def members(self, _: int) -> tuple[None]:
        """Of a readout that is no family."""
        return (None,)


def block(d: int, rng: np.random.Generator) -> BlockWeights:
    """Weights as GPT-2's at initialisation, but with a norm gain of one and an attention that looks somewhere."""
    n, heads = 4 * d, 12 if d % 192 == 0 else max(1, d // 16)

    def weight(rows: int, columns: int, size: float = 1.0) -> np.ndarray:
        return rng.normal(size=(rows, columns)) * size / np.sqrt(columns)

    norm = NormWeights(True, Ball.exact(np.ones(d)), np.zeros(d), 1e-5)
    zero = np.zeros(d)
    return BlockWeights(
        attention_norm=norm,
        attention=AttentionWeights(
            query=weight(d, d),
            query_bias=zero,
            key=weight(d, d),
            key_bias=zero,
            value=weight(d, d),
            value_bias=zero,
            output=weight(d, d, 0.5),
            output_bias=zero,
            n_heads=heads,
            n_kv_heads=heads,
            scale=Ball.exact(1.0 / np.sqrt(d / heads)),
            softcap=None,
            window=None,
            rotary_base=None,
        ),
        attention_post_norm=None,
        mlp_norm=norm,
        mlp=MlpWeights("gelu_tanh", None, None, weight(n, d), np.zeros(n), weight(d, n, 0.5), zero),
        mlp_post_norm=None,
    )


def relaxation(d: int, blocks: int, positions: int, rng: np.random.Generator) -> Relaxation:
    """Of one prompt, nothing held."""
    made = tuple(block(d, rng) for _ in range(blocks))
    earlier = Ball.exact(rng.normal(size=(positions - 1, d)))
    shown = contexts(made, earlier, positions)
    return Relaxation(Ball.exact(rng.normal(size=d)), np.eye(d), 0.0, 1.0, made, shown, positions - 1)


def floor(d: int) -> float:
    """Process time of the dominant products of one block."""
    rng = np.random.default_rng(1)
    n, m = 4 * d, 3 * d
    up, down, jacobian = rng.normal(size=(n, d)), rng.normal(size=(d, n)), rng.normal(size=(d, d))
    factors, gains = rng.normal(size=(m, d)), rng.normal(size=(n, m))
    best = np.inf
    for _ in range(2):
        begun = time.process_time()
        np.matmul(down, up @ jacobian)
        gram = factors @ factors.T
        for _ in range(3):
            gram = gram + factors @ factors.T
        np.matmul(gains, gram)
        np.matmul(gains[:d], gram)
        best = min(best, time.process_time() - begun)
    return best


def measure(d: int, blocks: int, positions: int) -> Cost:
    """One pass, in this process."""
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    rng = np.random.default_rng(0)
    tail = relaxation(d, blocks, positions, rng)
    weight = rng.normal(size=d)
    functional = Functional(Ball.exact(weight - weight.mean()), Ball.exact(0.0), True, Ball.exact(d * 1e-5))
    region = tail.ball(LEVEL * float(np.linalg.norm(tail.start.mid)))
    frame = region.frame()
    assert frame is not None
    seconds = []
    for degree in (1, 2):
        begun = time.process_time()
        replace(tail, degree=degree).bound(region, frame, functional, 0.0)
        seconds.append(time.process_time() - begun)
    begun = time.process_time()
    # Any claim that holds at the centre, first: its slope says which one breaks at BREAKS.
    norm = float(np.linalg.norm(tail.start.mid))
    value, slope = slope_at(tail, functional, 0.0)
    rho = norm_of_end(tail, functional)
    claim = Claim((value + BREAKS * norm * float(np.linalg.norm(slope))) / rho)
    found = ThroughBlocks(tail, lambda _: functional, effort=1).certified(cast(Instance, claim))
    search = time.process_time() - begun
    breaks = linear_radius(tail, functional, claim.tau)
    radius = 0.0 if found is None or found.radius is None or breaks is None else found.radius / breaks
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Cost(seconds[1], seconds[0], blocks * floor(d), peak, search, radius)


def norm_of_end(tail: Relaxation, functional: Functional) -> float:
    """rho of the final norm at the centre, nearly."""
    linear = of_degree(tail, 1)
    end = over_ball(linear, CENTRE * float(np.linalg.norm(tail.start.mid))).resid.centre
    return float(np.sqrt(np.square(end - end.mean()).sum() + functional.d_epsilon.mid))


def main(sizes: tuple[tuple[int, int, int], ...] = SIZES) -> None:
    """Print process time, its ratio to the floor and the peak memory of each size."""
    for d, blocks, positions in sizes:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            try:
                cost = pool.submit(measure, d, blocks, positions).result()
            except MemoryError as error:
                print(f"d = {d}, {blocks} blocks, {positions} positions: more than {LIMIT // GIB} GiB: {error}")
                continue
        rate = (16 + 72 + 90) * d**3 * blocks / cost.floor
        print(
            f"d = {d}, {blocks} blocks, {positions} positions: {cost.seconds:.2f} s,"
            f" {cost.seconds / cost.floor:.1f} times the products' {cost.floor:.3f} s ({rate / 1e9:.0f} GFLOP/s);"
            f" linear {cost.linear:.2f} s; a search {cost.search:.1f} s,"
            f" to {cost.certified:.3f} of where the linear model breaks; peak {cost.peak / GIB:.2f} GiB"
        )


if __name__ == "__main__":
    main((tuple(int(size) for size in sys.argv[1:4]),) if len(sys.argv) > 3 else SIZES)  # type: ignore[arg-type]
