"""What a Taylor model claims, attacked: gradient ascent on the residual over the domain and over the shared errors.

Operations are written once, for torch (batched, float64) and for mpmath (object arrays, fifty digits).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import mpmath
import numpy as np
import torch

from sae_verify.checker.arithmetic import Array, Ball
from sae_verify.checker.tail.curves import Forms
from sae_verify.checker.tail.domain import Domain
from sae_verify.checker.tail.taylor import Source, Taylor
from sae_verify.checker.tail.weights import AttentionWeights, BlockWeights, MlpWeights, NormWeights

DIGITS = 50
FLOAT = 1e-11
"""More than the rounding of torch's evaluation, relative to the sizes at play."""

Exact = Callable[[Any, Any], Any]
"""(numbers, z (..., n)) -> the operation's value (..., r); `numbers` is TORCH or MP."""


def _mp(name: str) -> Callable[[Any], Any]:
    return np.frompyfunc(getattr(mpmath, name), 1, 1)


def _mp_array(x: Any) -> Any:
    return np.frompyfunc(lambda v: mpmath.mpf(float(v)), 1, 1)(np.asarray(x))


TORCH = SimpleNamespace(
    array=lambda x: torch.tensor(np.asarray(x)),
    exp=torch.exp,
    sqrt=torch.sqrt,
    tanh=torch.tanh,
    erfc=torch.special.erfc,
    top=lambda x: x.detach().amax(-1)[..., None],
    join=lambda xs: torch.cat(xs, -1),
)
MP = SimpleNamespace(
    array=_mp_array,
    exp=_mp("exp"),
    sqrt=_mp("sqrt"),
    tanh=_mp("tanh"),
    erfc=np.frompyfunc(lambda v: mpmath.erfc(v) if abs(v) < 1e4 else mpmath.mpf(2 * (v < 0)), 1, 1),  # exp(-1e8) off
    top=lambda x: x.max(-1)[..., None],
    join=lambda xs: np.concatenate(xs, -1),
)


def norm_of(m: Any, x: Any, norm: NormWeights) -> Any:
    d = x.shape[-1]
    z = x - x.sum(-1)[..., None] / d if norm.centred else x
    rho = m.sqrt((z * z).sum(-1)[..., None] / d + m.array(norm.epsilon))
    return m.array(norm.gain.mid) * z / rho + m.array(norm.shift)


def activation_of(m: Any, x: Any, kind: str) -> Any:
    if kind == "tanh":
        return m.tanh(x)
    if kind == "silu":
        return x / (1 + m.exp(-x))
    if kind == "gelu":
        return x * m.erfc(-x / m.sqrt(m.array(2.0))) / 2
    pi = torch.pi if m is TORCH else mpmath.pi
    return x / (1 + m.exp(-2 * m.sqrt(2 / (pi * m.array(1.0))) * (x + m.array(44715.0) / 1000000 * x * x * x)))


def turned(m: Any, x: Any, base: float, position: int) -> Any:
    """Halves paired, (..., d_head)."""
    half = x.shape[-1] // 2
    with mpmath.workdps(DIGITS):
        angles = [position * mpmath.mpf(base) ** (-mpmath.mpf(2 * i) / (2 * half)) for i in range(half)]
        cos, sin = np.array([mpmath.cos(a) for a in angles] * 2), np.array([mpmath.sin(a) for a in angles] * 2)
    if m is TORCH:
        cos, sin = m.array(cos.astype(float)), m.array(sin.astype(float))
    return x * cos + m.join([-x[..., half:], x[..., :half]]) * sin


def attention_of(m: Any, y: Any, w: AttentionWeights, keys: Array, values: Array, position: int) -> Any:
    """Of the normed input y (..., d); keys and values (n_kv, P, d_head) of the earlier positions."""
    out = m.array(w.output_bias)
    for h in range(w.n_heads):
        kv = h // (w.n_heads // w.n_kv_heads)
        rows, kv_rows = slice(h * w.d_head, (h + 1) * w.d_head), slice(kv * w.d_head, (kv + 1) * w.d_head)
        q = y @ m.array(w.query[rows].T) + m.array(w.query_bias[rows])
        k = y @ m.array(w.key[kv_rows].T) + m.array(w.key_bias[kv_rows])
        v = y @ m.array(w.value[kv_rows].T) + m.array(w.value_bias[kv_rows])
        q, k = (x if norm is None else norm_of(m, x, norm) for x, norm in ((q, w.query_norm), (k, w.key_norm)))
        if w.rotary_base is not None:
            q, k = (turned(m, x, w.rotary_base, position) for x in (q, k))
        own = (q * k).sum(-1)[..., None]
        past = [q @ m.array(keys[kv].T)] if keys.shape[1] else []
        scores = m.join([*past, own]) * m.array(w.scale.mid)
        if w.softcap is not None:
            scores = m.tanh(scores / m.array(w.softcap)) * m.array(w.softcap)
        raised = m.exp(scores - m.top(scores))
        p = raised / raised.sum(-1)[..., None]
        mixed = p[..., -1:] * v
        if keys.shape[1]:
            mixed = mixed + p[..., :-1] @ m.array(values[kv])
        out = out + mixed @ m.array(w.output[:, rows].T)
    return out


def mlp_of(m: Any, y: Any, w: MlpWeights) -> Any:
    up = y @ m.array(w.up.T) + m.array(w.up_bias)
    if w.gate is None or w.gate_bias is None:
        hidden = activation_of(m, up, w.kind)
    else:
        hidden = activation_of(m, y @ m.array(w.gate.T) + m.array(w.gate_bias), w.kind) * up
    return hidden @ m.array(w.down.T) + m.array(w.down_bias)


def block_of(m: Any, x: Any, b: BlockWeights, keys: Array, values: Array, position: int) -> Any:
    change = attention_of(m, norm_of(m, x, b.attention_norm), b.attention, keys, values, position)
    if b.attention_post_norm is not None:
        change = norm_of(m, change, b.attention_post_norm)
    written = mlp_of(m, norm_of(m, x if b.parallel else x + change, b.mlp_norm), b.mlp)
    x = x + change
    if b.mlp_post_norm is not None:
        written = norm_of(m, written, b.mlp_post_norm)
    return x + written


def model(
    rng: np.random.Generator,
    n: int,
    k: int,
    box: int = 0,
    *,
    centre: float = 1.0,
    linear: float = 0.3,
    quadratic: float = 0.0,
    errors: float = 0.0,
    loose: float = 0.0,
) -> Taylor:
    """A random model with two sources, the sizes of its parts as given."""
    hessians = rng.normal(size=(n, k, k))
    sources = tuple(
        (Source(f"s{i}", errors * rng.random(3), errors * rng.uniform(0.3, 1.5)), rng.normal(size=(n, 3)))
        for i in range(2 if errors else 0)
    )
    return Taylor(
        Domain(box),
        centre * rng.normal(size=n),
        linear * rng.normal(size=(n, k)),
        ((Forms(quadratic * (hessians + hessians.transpose(0, 2, 1)) / 4), np.eye(n)),) if quadratic else (),
        sources,
        loose * rng.random(n),
    )


def scaled_to(x: Taylor, size: float) -> Taylor:
    """The model of the same family over a domain smaller by a factor: order t, t^2 and t^3."""
    return Taylor(
        x.domain,
        x.centre,
        size * x.jacobian,
        tuple((curve, size**2 * gain) for curve, gain in x.curves),
        tuple((Source(s.site, size**3 * s.box, size**3 * s.norm), g) for s, g in x.errors),
        size**3 * x.loose,
    )


def project(y: torch.Tensor, box: int) -> torch.Tensor:
    """Onto [-1, 1]^m times the unit ball."""
    ball = y[:, box:]
    length = ball.norm(dim=1, keepdim=True).clamp(min=1.0)
    return torch.cat([y[:, :box].clamp(-1, 1), ball / length], 1)


def starts(rng: np.random.Generator, domain: Domain, k: int, count: int) -> torch.Tensor:
    """Corners, points of the sphere, and some inside."""
    m = domain.box
    y = rng.normal(size=(count, k))
    y[:, m:] /= np.maximum(np.linalg.norm(y[:, m:], axis=1, keepdims=True), 1e-9)
    y[:, :m] = np.where(rng.random((count, m)) < 0.7, np.sign(y[:, :m]), rng.uniform(-1, 1, (count, m)))
    y[: k - m] = 0.0
    y[np.arange(min(k - m, count)), m + np.arange(min(k - m, count))] = rng.choice([-1, 1], min(k - m, count))
    y[: k - m, :m] = rng.choice([-1, 1], y[: k - m, :m].shape)
    y[-1] *= 1e-3
    return torch.tensor(y)


def values_of(x: Taylor, y: torch.Tensor, errors: list[torch.Tensor], loose: torch.Tensor) -> torch.Tensor:
    """What the model stands for, (B, n)."""
    z = polynomial(x, y)
    for (_, gain), e in zip(x.errors, errors, strict=True):
        z = z + e @ torch.tensor(gain).T
    return z + loose


def polynomial(x: Taylor, y: torch.Tensor) -> torch.Tensor:
    """c + J y + y.H y / 2, (B, n)."""
    quadratic = torch.einsum("nab,Ba,Bb->Bn", torch.tensor(x.hessians), y, y)
    return torch.tensor(x.centre) + y @ torch.tensor(x.jacobian).T + 0.5 * quadratic


def admissible(x: Taylor, raw: list[torch.Tensor]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Errors within box and norm, and what is loose, from raw numbers."""
    errors = []
    for (source, _), r in zip(x.errors, raw[:-1], strict=True):
        e = r.clamp(-1, 1) * torch.tensor(source.box)
        size = e.norm(dim=1, keepdim=True).clamp(min=1e-300)
        errors.append(e * (source.norm / size).clamp(max=1.0))
    return errors, raw[-1].clamp(-1, 1) * torch.tensor(x.loose)


def attack(
    x: Taylor, out: Taylor, exact: Exact, rng: np.random.Generator, *, steps: int = 40, count: int = 24
) -> tuple[float, float]:
    """The largest residuals found, relative to what `out` allows: entry by entry, and in norm. Above 1: unsound.

    `out` is made from `x`. The errors of x are chosen and stand in both; those that arose on the way are bounded.
    """
    shared = [(i, gain) for source, gain in out.errors for i, (s, _) in enumerate(x.errors) if s is source]
    fresh = [(source, gain) for source, gain in out.errors if all(s is not source for s, _ in x.errors)]
    entries = sum((source.rows(gain) for source, gain in fresh), out.loose)
    norm = sum(source.size(gain) for source, gain in fresh) + float(np.linalg.norm(out.loose))
    if not (np.isfinite(entries).all() and np.isfinite(norm)):
        return 0.0, 0.0  # nothing is claimed
    k = x.jacobian.shape[1]
    raw = [starts(rng, x.domain, k, count)]
    raw += [torch.tensor(rng.choice([-1.0, 1.0], (count, len(s.box)))) for s, _ in x.errors]
    raw += [torch.tensor(rng.choice([-1.0, 0.0, 1.0], (count, x.width)))]
    for r in raw:
        r.requires_grad_(True)
    optimiser = torch.optim.Adam(raw, lr=0.05)
    worst = [0.0, 0.0]
    for _ in range(steps):
        y = project(raw[0], x.domain.box)
        errors, loose = admissible(x, raw[1:])
        z = values_of(x, y, errors, loose)
        value = exact(TORCH, z)
        residual = value - polynomial(out, y)
        for i, gain in shared:
            residual = residual - errors[i] @ torch.tensor(gain).T
        slack = FLOAT * (1e-3 + float(value.detach().abs().max()) + float(z.detach().abs().max()))
        by_entry = (residual.abs() / (torch.tensor(entries) + slack)).amax(1)
        by_norm = residual.norm(dim=1) / (norm + slack)
        worst[0] = max(worst[0], float(by_entry.detach().nan_to_num(nan=9e9).max()))
        worst[1] = max(worst[1], float(by_norm.detach().nan_to_num(nan=9e9).max()))
        half = count // 2
        optimiser.zero_grad()
        (-(by_entry[:half].sum() + by_norm[half:].sum())).backward()
        for r in raw:
            if r.grad is not None:
                r.grad.nan_to_num_(0.0)
        optimiser.step()
        with torch.no_grad():
            raw[0].copy_(project(raw[0], x.domain.box))
            for r in raw[1:]:
                r.clamp_(-1, 1)
    return worst[0], worst[1]


def holds(x: Taylor, out: Taylor, exact: Exact, rng: np.random.Generator, **options: int) -> tuple[float, float]:
    """Assert that no residual exceeds what the model allows."""
    by_entry, by_norm = attack(x, out, exact, rng, **options)
    assert by_entry <= 1.0, by_entry
    assert by_norm <= 1.0, by_norm
    return by_entry, by_norm


def exact_curves(x: Taylor, y: Any) -> Any:
    """The quadratic part at y (k,), as numbers of mpmath, (n,)."""
    total = MP.array(np.zeros(x.width))
    for curve, gain in x.curves:
        if isinstance(curve, Forms):
            q = (MP.array(curve.forms) @ y) @ y
        else:
            q = (MP.array(curve.left) @ y) * (MP.array(curve.right) @ y)
        total = total + MP.array(gain) @ q
    return total


def holds_exactly(x: Taylor, out: Taylor, exact: Exact, rng: np.random.Generator, count: int = 2) -> None:
    """The same at the centre and at a few points of the domain, in fifty digits, without errors but loose ones."""
    with mpmath.workdps(DIGITS):
        for number in range(count + 1):
            y = starts(rng, x.domain, x.jacobian.shape[1], 20)[int(rng.integers(20))].numpy() * (number > 0)
            y = y * (1 - 2.0**-40)
            at = MP.array(y)
            z = MP.array(x.centre) + MP.array(x.jacobian) @ at
            z = z + exact_curves(x, at)
            sign = rng.choice([-1, 0, 1], x.width) if number else np.zeros(x.width)
            z = z + MP.array(x.loose) * MP.array(sign)
            value = exact(MP, z[None])[0]
            residual = value - MP.array(out.centre) - MP.array(out.jacobian) @ at - exact_curves(out, at)
            allowed = out.error
            assert all(abs(r) <= a for r, a in zip(residual, allowed, strict=True)), (residual, allowed)
            assert mpmath.sqrt(sum(r * r for r in residual)) <= out.error_norm


def random_norm(rng: np.random.Generator, d: int, *, centred: bool, epsilon: float = 1e-5) -> NormWeights:
    return NormWeights(
        centred, Ball.exact(rng.normal(size=d) + 1), rng.normal(size=d) if centred else np.zeros(d), epsilon
    )


def random_attention(
    rng: np.random.Generator,
    d: int,
    *,
    heads: int = 2,
    kv: int = 2,
    d_head: int = 2,
    scale: float = 1.0,
    softcap: float | None = None,
    rotary: float | None = None,
    size: float = 0.6,
) -> AttentionWeights:
    def normal(*shape: int) -> Array:
        return size * rng.normal(size=shape)

    return AttentionWeights(
        normal(heads * d_head, d),
        normal(heads * d_head),
        normal(kv * d_head, d),
        normal(kv * d_head),
        normal(kv * d_head, d),
        normal(kv * d_head),
        normal(d, heads * d_head),
        normal(d),
        heads,
        kv,
        Ball(np.asarray(scale), np.asarray(abs(scale) * 2.0**-52)),
        softcap,
        None,
        rotary,
    )


def random_mlp(rng: np.random.Generator, d: int, n: int, kind: str, *, gated: bool, size: float = 0.6) -> MlpWeights:
    def normal(*shape: int) -> Array:
        return size * rng.normal(size=shape)

    gate, gate_bias = (normal(n, d), normal(n)) if gated else (None, None)
    return MlpWeights(kind, gate, gate_bias, normal(n, d), normal(n), normal(d, n), normal(d))


FAMILIES = ("gpt2", "llama", "gemma2", "qwen3", "gpt_neox")


def random_block(rng: np.random.Generator, d: int, family: str, size: float = 0.6) -> BlockWeights:
    """A block of one family: LayerNorm and GELU; grouped, rotary, gated; soft-capped with post norms; with norms of
    heads; parallel.
    """
    if family in ("gpt2", "gpt_neox"):
        parallel = family == "gpt_neox"
        attention = random_attention(rng, d, size=size, scale=0.7, rotary=100.0 if parallel else None)
        norms = [random_norm(rng, d, centred=True) for _ in range(2)]
        kind = str(rng.choice(["gelu", "gelu_tanh"]))
        return BlockWeights(
            norms[0], attention, None, norms[1], random_mlp(rng, d, 7, kind, gated=False, size=size), None, parallel
        )
    capped = family == "gemma2"
    attention = random_attention(
        rng, d, heads=4, kv=2, size=size, scale=0.7, rotary=100.0, softcap=3.0 if capped else None
    )
    if family == "qwen3":
        heads = [random_norm(rng, attention.d_head, centred=False, epsilon=0.1) for _ in range(2)]
        attention = replace(attention, query_norm=heads[0], key_norm=heads[1])
    norms = [random_norm(rng, d, centred=False) for _ in range(4)]
    mlp = random_mlp(rng, d, 6, "gelu_tanh" if capped else "silu", gated=True, size=size)
    return BlockWeights(norms[0], attention, norms[2] if capped else None, norms[1], mlp, norms[3] if capped else None)
