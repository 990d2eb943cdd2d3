"""Earlier positions in balls against torch in float64, and their parts against exact numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model.tiny_models import save
from support.tiny import FAMILIES, tiny_model
from torch import Tensor, nn

from sae_verify.checker import Rejected
from sae_verify.checker.arithmetic import Ball, U
from sae_verify.checker.tail.context import Context, contexts, normalise, softmax
from sae_verify.checker.tail.matrix import matmul
from sae_verify.checker.tail.rotary import MAX_POSITION, rotate, tables
from sae_verify.checker.tail.weights import NormWeights, load_blocks
from sae_verify.model import HookPoint, Model, Tail, encode_prompts, load_model, make_tail
from sae_verify.model.operations.attention import rotate as torch_rotate

CASES = Path(__file__).parents[3] / "examples" / "cases"
START = HookPoint(0, "hook_resid_pre")
PROMPT = [7, 3, 11, 19, 4, 4, 17, 9, 2, 13, 6]
"""Longer than the sliding window of four."""
NAMES = ("gpt2", "gpt2-erf-scaled", "gpt2-unscaled", "llama", "llama-bias", "gemma2", "gemma2-uncapped")
FLOAT64 = 1e-12
"""More than torch's own rounding; balls that start exact are wider than that by themselves."""


class ExactRotary(nn.Module):
    """The tables in float64; models compute theirs in float32."""

    def __init__(self, base: float, d_head: int) -> None:
        super().__init__()
        self.frequencies = base ** (-torch.arange(0, d_head, 2, dtype=torch.float64) / d_head)

    def forward(self, x: Tensor, position_ids: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        angles = position_ids[..., None].double() * self.frequencies  # (1, T, d_head / 2)
        doubled = torch.cat([angles, angles], -1)
        return doubled.cos(), doubled.sin()


def load(directory: Path) -> Model:
    """In float64 throughout."""
    model = load_model(directory, dtype=torch.float64)
    module: Any = model.module
    if hasattr(module, "model"):
        config = module.config
        d_head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        module.model.rotary_emb = ExactRotary(10000.0, d_head)
    return model


def run(model: Model, edit: Callable[[Tensor], Tensor] | None = None) -> tuple[Tail, np.ndarray]:
    """The tail from the start on, and the residuals of the earlier positions, (T - 1, d)."""
    tail, shown = make_tail(model, encode_prompts(model, [PROMPT]), START, edit)
    return tail, shown.edited[0, :-1].double().numpy()


def inside(tail: Tail, shown: tuple[Context, ...], slack: float = 0.0) -> None:
    """Torch's keys and values of the positions that are seen lie in the balls, and no others are shown."""
    assert len(shown) == len(tail.blocks)
    for block, context in zip(tail.blocks, shown, strict=True):
        seen = block.attention.visible[0]
        for stored, ball in ((block.attention.keys, context.keys), (block.attention.values, context.values)):
            expected = stored[0][:, seen].numpy()
            assert expected.shape == ball.mid.shape == ball.rad.shape
            assert (np.abs(expected - ball.mid) <= ball.rad + slack).all()


def widest(context: Context) -> float:
    return float(max(context.keys.rad.max(), context.values.rad.max()))


@pytest.mark.parametrize("name", NAMES)
def test_torch_lies_inside(name: str, tmp_path: Path) -> None:
    directory = save(name, tmp_path / "model")
    tail, residuals = run(load(directory))
    shown = contexts(load_blocks(directory, 0), Ball.exact(residuals), len(PROMPT))
    inside(tail, shown)
    assert widest(shown[0]) < 1e-12
    assert widest(shown[1]) < 1e-7
    if "gemma2" in name:
        assert [context.keys.mid.shape[1] for context in shown] == [3, 10, 3, 10]


@pytest.mark.parametrize("name", NAMES)
def test_every_state_in_a_ball_stays_inside(name: str, tmp_path: Path) -> None:
    """The radii carry what they must: other residuals of the same ball, corners among them, end in the same balls."""
    directory = save(name, tmp_path / "model")
    model, blocks = load(directory), load_blocks(directory, 0)[:2]
    _, residuals = run(model)
    generator = torch.Generator().manual_seed(1)
    for size in (1e-8, 1e-4):
        radius = size * torch.rand(residuals.shape, generator=generator, dtype=torch.float64)
        shown = contexts(blocks, Ball(residuals, 1.0001 * radius.numpy()), len(PROMPT))
        assert widest(shown[0]) > 0.1 * size
        for corner in (True, True, False):
            moved = 2 * torch.rand(residuals.shape, generator=generator, dtype=torch.float64) - 1
            change = radius * (moved.sign() if corner else moved)
            tail, _ = run(model, lambda resid, change=change: resid + torch.cat([change, 0 * change[:1]])[None])
            inside(Tail(tail.blocks[:2], tail.final_norm, tail.unembed, None, tail.base), shown, FLOAT64)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(3))
def test_tiny_models_inside(family: str, seed: int, tmp_path: Path) -> None:
    directory = tiny_model(tmp_path / "model", family, layers=3, seed=seed)
    tail, residuals = run(load(directory))
    inside(tail, contexts(load_blocks(directory, 0), Ball.exact(residuals), len(PROMPT)))


@pytest.mark.parametrize("case", ["indirect_object", "refusal", "unlearning"])
def test_bundled_models_inside(case: str) -> None:
    tail, residuals = run(load(CASES / case))
    shown = contexts(load_blocks(CASES / case, 0), Ball.exact(residuals), len(PROMPT))
    inside(tail, shown)
    assert widest(shown[0]) < 1e-12
    assert widest(shown[1]) < 1e-7


def test_the_run_of_the_bundled_model_itself_is_close() -> None:
    """With its own float32 rotary tables; they are off by half an ulp of float32 a radian."""
    model = load_model(CASES / "refusal", dtype=torch.float64)
    tail, residuals = run(model)
    inside(tail, contexts(load_blocks(CASES / "refusal", 0), Ball.exact(residuals), len(PROMPT)), 2e-6)


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_a_prompt_of_one_token_shows_nothing(name: str, tmp_path: Path) -> None:
    blocks = load_blocks(save(name, tmp_path / "model"), 1)
    shown = contexts(blocks, Ball.exact(np.zeros((0, 32))), 1)
    attention = blocks[0].attention
    assert [context.keys.mid.shape for context in shown] == [(attention.n_kv_heads, 0, attention.d_head)] * len(blocks)
    assert [context.values.rad.shape for context in shown] == [context.keys.mid.shape for context in shown]


def test_what_is_refused(tmp_path: Path) -> None:
    blocks = load_blocks(save("llama", tmp_path / "model"), 0)
    for shape, length in (((3, 32), 3), ((2, 31), 3), ((2, 3, 32), 3), ((32,), 2), ((0, 32), 0)):
        with pytest.raises(Rejected, match=r"shape|width"):
            contexts(blocks, Ball.exact(np.ones(shape)), length)


def test_large_balls_stay_sound(tmp_path: Path) -> None:
    """Nothing overflows into a finite, wrong radius: the balls of a huge ball contain those of a point of it."""
    for name in ("gpt2", "llama", "gemma2"):
        blocks = load_blocks(save(name, tmp_path / name), 0)
        point = np.random.default_rng(0).normal(size=(6, 32))
        exact = contexts(blocks, Ball.exact(point), 7)
        for mid, rad in (
            (0.5e-3, 1e-3),
            (0.5, 1.0),
            (5e2, 1e3),
            (5e99, 1e100),
            (0.0, 1e300),
            (0.0, np.inf),
            (np.nan, 0),
        ):
            shown = contexts(blocks, Ball(point + mid, np.full(point.shape, rad)), 7)
            for wide, narrow in zip(shown, exact, strict=True):
                for a, b in ((wide.keys, narrow.keys), (wide.values, narrow.values)):
                    assert (np.abs(a.mid - b.mid) <= a.rad + b.rad).all()
                    assert (a.rad < 1e3).all()


def test_weights_beyond_the_range_of_floats_are_refused(tmp_path: Path) -> None:
    blocks = load_blocks(save("llama", tmp_path / "model"), 0)
    attention = replace(blocks[0].attention, key=1e308 * np.ones_like(blocks[0].attention.key))
    with pytest.raises(Rejected, match="cannot be enclosed"):
        contexts([replace(blocks[0], attention=attention)], Ball.exact(np.ones((2, 32))), 3)


def norm_exactly(x: np.ndarray, norm: NormWeights) -> np.ndarray:
    """One row in fifty digits."""
    with mpmath.workdps(50):
        row = [mpmath.mpf(float(v)) for v in x]
        mean = sum(row) / len(row) if norm.centred else 0
        z = [v - mean for v in row]
        rho = mpmath.sqrt(sum(v * v for v in z) / len(row) + mpmath.mpf(norm.epsilon))
        return np.array([
            mpmath.mpf(float(g)) * v / rho + mpmath.mpf(float(s))
            for g, v, s in zip(norm.gain.mid, z, norm.shift, strict=True)
        ])  # fmt: skip


def contains(ball: Ball, exact: np.ndarray) -> bool:
    """Whether numbers of mpmath or fractions lie inside."""
    rows = zip(np.ravel(ball.mid), np.ravel(ball.rad), np.ravel(exact), strict=True)
    return all(abs(v - type(v)(float(m))) <= type(v)(float(r)) for m, r, v in rows)


@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([1e-9, 1e-3, 1.0, 1e6]), st.sampled_from([0.0, 1e-6, 2.0]))
def test_norms_of_balls(seed: int, centred: bool, size: float, relative: float) -> None:
    """Radii of twice the entries' size reach beyond zero, where only epsilon holds the root up."""
    generator = np.random.default_rng(seed)
    d = int(generator.integers(1, 7))
    gain, shift = generator.normal(size=(2, d))
    norm = NormWeights(centred, Ball.exact(gain), shift, float(generator.choice([1e-6, 0.1])))
    mid = size * generator.normal(size=(3, d))
    rad = relative * size * generator.random(size=mid.shape)
    with np.errstate(all="ignore"):
        result = normalise(Ball(mid, rad), norm)
    assert np.isfinite(result.rad).all()
    for share in (-1.0, 0.0, 1.0, generator.uniform(-1, 1, size=mid.shape), generator.choice([-1, 1], size=mid.shape)):
        point = np.clip(mid + 0.999 * share * rad, mid - rad, mid + rad)
        assert contains(result, np.array([norm_exactly(row, norm) for row in point]))


@given(st.integers(0, 10**6), st.sampled_from([0.0, 1e-10, 1e-3, 0.3, 0.6, 5.0]), st.sampled_from([1.0, 30.0, 900.0]))
def test_softmax_of_balls(seed: int, radius: float, size: float) -> None:
    generator = np.random.default_rng(seed)
    n = int(generator.integers(1, 6))
    visible = np.tril(np.ones((n, n), bool))
    mid, rad = size * generator.normal(size=(2, n, n)), radius * generator.random(size=(2, n, n))
    result = softmax(Ball(mid, rad), visible)
    assert (result.mid[:, ~visible] == 0).all()
    assert (result.rad[:, ~visible] == 0).all()
    assert (result.rad <= 0.5).all()
    for share in (0.0, generator.choice([-1, 1], size=mid.shape), generator.uniform(-1, 1, size=mid.shape)):
        point = mid + 0.999 * share * rad
        exact = np.zeros(mid.shape, dtype=object)
        with mpmath.workdps(50):
            for h, i in np.ndindex(2, n):
                weights = [mpmath.exp(mpmath.mpf(v)) for v in point[h, i, : i + 1]]
                exact[h, i] = [w / sum(weights) for w in weights] + [mpmath.mpf(0)] * (n - i - 1)
            assert contains(result, exact)
    if radius == 0.0:
        assert float(np.max(result.rad)) < U * (4 * np.ptp(mid) + 50)  # what taking off the largest score rounds


def test_softmax_of_unknown_scores_is_a_probability() -> None:
    visible = np.ones((2, 2), bool)
    with np.errstate(all="ignore"):
        for mid, rad in ((np.nan, 0.0), (np.inf, np.inf), (0.0, np.inf), (1e308, 1e308)):
            result = softmax(Ball(np.full((1, 2, 2), mid), np.full((1, 2, 2), rad)), visible)
            assert (result.mid == 0.5).all()
            assert (result.rad == 0.5).all()


@given(st.integers(0, 10**6), st.sampled_from([0.0, 1e-12, 1.0]), st.sampled_from([1.0, 1e-170, 1e150]))
def test_products_of_balls(seed: int, radius: float, size: float) -> None:
    """Batched, at the corners, in fractions."""
    generator = np.random.default_rng(seed)
    n, k, m = generator.integers(1, 5, size=3)
    x = Ball(size * generator.normal(size=(2, 1, n, k)), size * radius * generator.random(size=(2, 1, n, k)))
    y = Ball(size * generator.normal(size=(3, k, m)), size * radius * generator.random(size=(3, k, m)))
    result = matmul(x, y)
    assert result.mid.shape == (2, 3, n, m)
    exactly = np.vectorize(Fraction, otypes=[object])
    for _ in range(3):
        ends = [
            exactly(ball.mid) + exactly(ball.rad) * generator.choice([-1, 0, 1], size=ball.mid.shape) for ball in (x, y)
        ]
        assert contains(result, np.matmul(ends[0], ends[1]))


@given(
    st.sampled_from([1.0, 10.0, 10000.0, 500000.0, 1e7]),
    st.sampled_from([2, 8, 64]),
    st.lists(st.one_of(st.integers(0, 40), st.integers(0, MAX_POSITION - 1)), min_size=1, max_size=3),
)
def test_rotary_tables(base: float, d_head: int, positions: list[int]) -> None:
    cos, sin = tables(base, d_head, positions)
    assert cos.mid.shape == sin.rad.shape == (len(positions), d_head)
    assert max(cos.rad.max(), sin.rad.max()) < 2e-16
    with mpmath.workdps(60):
        angles = [[p * mpmath.mpf(base) ** (-mpmath.mpf(2 * (i % (d_head // 2))) / d_head) for i in range(d_head)]
                  for p in positions]  # fmt: skip
        assert contains(cos, np.array([[mpmath.cos(a) for a in row] for row in angles]))
        assert contains(sin, np.array([[mpmath.sin(a) for a in row] for row in angles]))


def test_rotations_pair_the_halves_as_the_adapters_do() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 5, 3, 8, generator=generator, dtype=torch.float64)  # (B, n, heads, d_head)
    cos, sin = tables(100.0, 8, range(5))
    expected = torch_rotate(x, torch.tensor(cos.mid), torch.tensor(sin.mid))[0].transpose(0, 1).numpy()
    turned = rotate(Ball.exact(x[0].transpose(0, 1).numpy()), cos, sin)
    assert (np.abs(expected - turned.mid) <= turned.rad).all()
    assert turned.rad.max() < 1e-14


@pytest.mark.parametrize(
    ("base", "d_head", "positions"), [(1e4, 7, [0]), (0.5, 8, [0]), (float("nan"), 8, [0]), (1e4, 8, [-1])]
)
def test_tables_that_do_not_exist(base: float, d_head: int, positions: list[int]) -> None:
    with pytest.raises(Rejected, match="no rotary table"):
        tables(base, d_head, positions)
