"""Instances from plain arrays, and an independent reading of what a bound's evidence proves."""

from __future__ import annotations

import numpy as np

from sae_verify.bounds import Bound
from sae_verify.geometry.held_cell import Array, HeldCell
from sae_verify.geometry.instance import FinalNorm, Instance, TokenReadout

NORMS = ("rms", "rms unit offset", "layer", "layer plain")


def final_norm_of(kind: str, d: int, rng: np.random.Generator, epsilon: float = 1e-5) -> FinalNorm:
    """RMSNorm, RMSNorm whose stored weight is gain - 1, LayerNorm with gain and bias, LayerNorm without."""
    if kind == "layer plain":
        return FinalNorm(True, np.ones(d), np.zeros(d), epsilon)
    if kind == "layer":
        return FinalNorm(True, 1.0 + 0.3 * rng.normal(size=d), rng.normal(size=d), epsilon)
    gain = 0.3 * rng.normal(size=d) if kind == "rms" else 1.0 + 0.3 * rng.normal(size=d)
    return FinalNorm(False, gain, np.zeros(d), epsilon)


def instance_of(
    h: Array,
    unembedding: Array,
    norm: FinalNorm,
    cell: HeldCell,
    *,
    radius: float = 1.0,
    tau: float = 0.0,
    readout: TokenReadout | None = None,
    blocks_after: int = 0,
) -> Instance:
    """An instance with these numbers; x is h, and inner and outer cell are the same."""
    readout = readout or TokenReadout(0, 1)
    result = Instance(
        index=0,
        tokens=(0,),
        x=h,
        h=h,
        norm_h=float(np.linalg.norm(h)),
        norm_e=1.0,
        radius=radius,
        outer=cell,
        inner=cell,
        readout=readout,
        tau=tau,
        base=0.0,
        defended=0.0,
        blocks_after=blocks_after,
        final_norm=norm,
        unembedding=unembedding,
        ranking=tuple(range(len(unembedding))),
    )
    logits = unembedding @ hidden(result, np.zeros_like(h))
    ranking = tuple(int(i) for i in np.argsort(-logits))
    return Instance(**{**result.__dict__, "ranking": ranking})


def hidden(instance: Instance, delta: Array) -> Array:
    """Output of the final norm at h + delta, (..., d), as torch and the papers define it."""
    norm, y = instance.final_norm, instance.h + delta
    if norm.centred:
        y = y - y.mean(axis=-1, keepdims=True)
    return norm.gain * y / np.sqrt((y**2).mean(axis=-1, keepdims=True) + norm.epsilon) + norm.shift


def readout_at(instance: Instance, delta: Array) -> Array:
    """The readout at h + delta, (...), from logits."""
    logits = hidden(instance, delta) @ instance.unembedding.T
    positive = instance.readout.positive
    if instance.readout.negative is not None:
        return logits[..., positive] - logits[..., instance.readout.negative]
    return logits[..., positive] - np.delete(logits, positive, axis=-1).max(axis=-1)


def excess(instance: Instance, bound: Bound) -> float:
    """By how much the evidence misses theorem final-norm at level value - constant; at most 0 where it proves it.

    Floats, and the side (a) or (b) is chosen from the recorded value alone, as a reader of the certificate must.
    """
    assert bound.multipliers is not None
    assert bound.radius is not None
    d = len(instance.h)
    against = instance.readout.negative if bound.against is None else bound.against
    assert against is not None
    row = instance.unembedding[instance.readout.positive] - instance.unembedding[against]
    norm = instance.final_norm

    def centre(v: Array) -> Array:
        return v - v.mean() if norm.centred else v

    w, t = centre(np.sqrt(d) * norm.gain * row), bound.value - float(row @ norm.shift)
    zh, de = centre(instance.h), d * norm.epsilon
    held, cost = bound.multipliers.equal @ instance.outer.equal, 0.0
    for half, (features, values) in zip(instance.outer.half_spaces, bound.multipliers.upper, strict=True):
        assert (values >= 0).all()
        held = held + half.sign * values @ half.normals[features]
        cost += float(values @ half.slack[features])
    if t >= 0:
        assert bound.tangent is not None, "a level of at least 0 needs a tangent"
        assert (bound.secant, bound.mean) == (None, None)
        q = bound.tangent
        assert q @ q <= 1.0
        slope = centre(w - t * q)
        at_centre = float(slope @ zh) - t * np.sqrt(1.0 - q @ q) * np.sqrt(de)
    else:
        assert bound.secant is not None, "a negative level needs a secant"
        assert bound.secant > 0
        assert bound.tangent is None
        assert (bound.mean is not None) == norm.centred
        s, m = bound.secant, bound.mean or 0.0
        slope = w - (t / s) * (zh - m)
        at_centre = float(w @ zh) - t / (2 * s) * (float(zh @ zh) + bound.radius**2 + d * m**2 + de + s**2)
    return float(at_centre + cost + bound.radius * np.linalg.norm(slope - held))
