"""What a certificate claims, decided without the checker: 60-digit arithmetic, its own readers, and a strong attack.

Two judges. `evidence_holds` evaluates a bound's evidence in 60 digits, so that an acceptance that rests on rounding is
found. `attack` looks for an admissible perturbation that breaks the claim, so that wrong algebra is found; it knows the
encoder, and the theorems only as far as the outer cell. `kept` asks the encoder itself whether a perturbation moves
anything that is held. A tree of regions has only the second judge: the tail through its blocks in float64.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import torch
from safetensors.numpy import load_file
from scipy.optimize import minimize

from .oracle_tail import OracleTail, oracle_tail

mpmath.mp.dps = 60
SAME = mpmath.mpf(10) ** -40
mpf = mpmath.mpf


def exact(values: Any) -> np.ndarray:
    """Floats as an object array of 60-digit numbers."""
    array = np.asarray(values, dtype=np.float64)
    return np.array([mpf(float(v)) for v in array.ravel()], dtype=object).reshape(array.shape)


def length(v: np.ndarray) -> Any:
    """Return ||v||_2 of an object array."""
    return mpmath.sqrt(sum((x * x for x in v), mpf(0)))


@lru_cache(maxsize=64)
def model_of(directory: Path) -> dict[str, Any]:
    """Final norm and unembedding of a Hugging Face directory."""
    config = json.loads((directory / "config.json").read_text())
    tensors = {name.removeprefix("transformer."): t for name, t in load_file(directory / "model.safetensors").items()}
    if config["model_type"] == "gpt2":
        return {
            "centred": True,
            "gain": exact(tensors["ln_f.weight"]),
            "shift": exact(tensors["ln_f.bias"]),
            "epsilon": mpf(config["layer_norm_epsilon"]),
            "rows": exact(tensors.get("lm_head.weight", tensors["wte.weight"])),
            "blocks": config["n_layer"],
        }
    gain = exact(tensors["model.norm.weight"])
    return {
        "centred": False,
        "gain": gain + 1 if config["model_type"] == "gemma2" else gain,
        "shift": exact(np.zeros(len(gain))),
        "epsilon": mpf(config["rms_norm_eps"]),
        "rows": exact(tensors.get("lm_head.weight", tensors["model.embed_tokens.weight"])),
        "blocks": config["num_hidden_layers"],
    }


@lru_cache(maxsize=64)
def sae_of(directory: Path) -> dict[str, Any]:
    """Tensors and settings of a SAELens directory."""
    tensors = {name: exact(t) for name, t in load_file(directory / "sae_weights.safetensors").items()}
    return {**json.loads((directory / "cfg.json").read_text()), **tensors}


@dataclass(frozen=True, eq=False)
class Claim:
    """One certificate's problem in 60 digits."""

    content: dict[str, Any]
    sae: dict[str, Any]
    model: dict[str, Any]
    tail: OracleTail

    @classmethod
    def of(cls, content: dict[str, Any], sae: Path, model: Path) -> Claim:
        """Read the weights; nothing derived is taken from the certificate."""
        return cls(content, sae_of(sae), model_of(model), oracle_tail(model))

    @property
    def problem(self) -> dict[str, Any]:
        return self.content["problem"]

    @cached_property
    def scale(self) -> Any:
        given = self.content["weights"]["sae"]["input_scale"]
        return mpf(1) if given is None else mpf(given)

    @cached_property
    def x(self) -> np.ndarray:
        return exact(self.content["x"])

    @cached_property
    def norms(self) -> np.ndarray:
        """Norms of the decoder rows where the format rescales by them, else ones."""
        if not self.sae.get("rescale_acts_by_decoder_norm", False):
            return exact(np.ones(len(self.sae["W_dec"])))
        return np.array([length(row) for row in self.sae["W_dec"]], dtype=object)

    def pre(self, y: np.ndarray) -> np.ndarray:
        """Encoder's linear part, before the bias, (m,)."""
        inputs = y * self.scale
        if self.sae["apply_b_dec_to_input"]:
            inputs = inputs - self.sae["b_dec"]
        return inputs @ self.sae["W_enc"]

    def encode(self, y: np.ndarray) -> np.ndarray:
        """The code, straight from the format's definition."""
        sae, zero = self.sae, mpf(0)
        product = self.pre(y)
        if sae["architecture"] == "gated":
            gate = product + sae["b_gate"]
            size = product * np.array([mpmath.exp(r) for r in sae["r_mag"]], dtype=object) + sae["b_mag"]
            return np.array([max(s, zero) if g > 0 else zero for g, s in zip(gate, size, strict=True)], dtype=object)
        a = product + sae["b_enc"]
        if sae["architecture"] == "standard":
            return np.array([max(v, zero) for v in a], dtype=object)
        if sae["architecture"] == "jumprelu":
            pairs = zip(a, sae["threshold"], strict=True)
            return np.array([max(v, zero) if v > t else zero for v, t in pairs], dtype=object)
        score = a * self.norms
        order = sorted(range(len(score)), key=lambda j: (-score[j], j))[: sae["k"]]
        code = exact(np.zeros(len(score)))
        for j in order:
            code[j] = max(score[j], zero)
        return code

    def room(self, y: np.ndarray) -> np.ndarray:
        """How far w_j . delta may rise before feature j, if off, turns on (the others being kept), (m,)."""
        sae, zero = self.sae, mpf(0)
        product = self.pre(y)
        if sae["architecture"] == "gated":
            gain = np.array([mpmath.exp(r) for r in sae["r_mag"]], dtype=object)
            size = product + sae["b_mag"] / gain
            room = [max(-g, -s) for g, s in zip(product + sae["b_gate"], size, strict=True)]
        elif sae["architecture"] == "topk":
            score = (product + sae["b_enc"]) * self.norms
            level = max(zero, sorted(score)[-sae["k"]])
            room = list((level - score) / self.norms)
        elif sae["architecture"] == "jumprelu":
            thresholds = np.array([max(t, zero) for t in sae["threshold"]], dtype=object)
            room = list(thresholds - product - sae["b_enc"])
        else:
            room = list(-product - sae["b_enc"])
        return np.array(room, dtype=object) / self.scale

    def decode(self, code: np.ndarray) -> np.ndarray:
        return ((code / self.norms) @ self.sae["W_dec"] + self.sae["b_dec"]) / self.scale

    @cached_property
    def h(self) -> np.ndarray:
        return self.defended_at(self.x, len(self.problem["tokens"]) - 1)

    @cached_property
    def earlier(self) -> np.ndarray:
        """Defended states of the earlier positions, (T - 1, d)."""
        rows = [self.defended_at(exact(row), i) for i, row in enumerate(self.content["context"])]
        return np.array(rows, dtype=object).reshape(-1, len(self.x))

    def defended_at(self, y: np.ndarray, position: int) -> np.ndarray:
        """A residual with the clamp applied, if it acts at this position."""
        clamp, last = self.problem["clamp"], len(self.problem["tokens"]) - 1
        where = clamp["positions"]
        if not (where == "all" or (position == last if where == "last" else position in where)):
            return y
        z = self.encode(y)
        new = z.copy()
        for j, value in zip(clamp["features"], clamp["values"], strict=True):
            v = mpf(value)
            kind = clamp["kind"]
            if kind == "add":
                new[j] = z[j] + v
            elif kind == "scale":
                new[j] = z[j] * v
            elif kind != "set-if-active" or z[j] != 0:
                new[j] = v
        if clamp["kind"] == "drop-error":
            return self.decode(new)
        return y + (((new - z) / self.norms) @ self.sae["W_dec"]) / self.scale

    @cached_property
    def radius(self) -> Any:
        threat = self.problem["threat"]
        e = self.x - self.decode(self.encode(self.x))
        unit = {"absolute": mpf(1), "h": length(self.h), "e": length(e)}[threat["relative_to"]]
        return mpf(threat["radius"]) * unit

    def centre(self, v: np.ndarray) -> np.ndarray:
        return v - sum(v, mpf(0)) / len(v) if self.model["centred"] else v

    def functional(self, against: int | None) -> tuple[np.ndarray, Any]:
        readout = self.problem["readout"]
        other = readout["negative"] if against is None else against
        row = self.model["rows"][readout["positive"]] - self.model["rows"][other]
        w = self.centre(row * self.model["gain"]) * mpmath.sqrt(len(row))
        return w, sum(row * self.model["shift"], mpf(0))

    @property
    def d_epsilon(self) -> Any:
        return len(self.x) * self.model["epsilon"]

    def value(self, delta: np.ndarray, against: int | None) -> Any:
        """One member of the readout at h + delta."""
        w, constant = self.functional(against)
        z = self.centre(self.h + delta)
        return sum(w * z, mpf(0)) / mpmath.sqrt(sum(z * z, mpf(0)) + self.d_epsilon) + constant

    @property
    def first_after(self) -> int:
        """The first block after the hook."""
        _, layer, site = self.problem["hook"].split(".")
        return int(layer) + (site == "hook_resid_post")

    @property
    def blocks_after(self) -> int:
        return self.model["blocks"] - self.first_after

    @property
    def members(self) -> list[int | None]:
        readout = self.problem["readout"]
        if readout["kind"] == "logit-difference":
            return [None]
        return [t for t in range(len(self.model["rows"])) if t != readout["positive"]]

    def readout(self, delta: np.ndarray) -> Any:
        return min(self.value(delta, member) for member in self.members)

    @property
    def points(self) -> list[tuple[str, np.ndarray]]:
        at = self.problem["threat"]["at"]
        return [(p, self.x if p == "x" else self.h) for p in ("x", "h") if at in (p, "both")]

    @property
    def defended(self) -> list[int]:
        chosen = self.problem["threat"]["features"]
        return self.problem["clamp"]["features"] if chosen is None else chosen

    @cached_property
    def cell(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(A, B, s): every admissible delta has A delta = 0 and B delta <= s."""
        sae, threat = self.sae, self.problem["threat"]
        equal, upper, room = [], [], []
        for _, y in self.points:
            z = self.encode(y)
            if threat["held"] == "preactivations":
                equal += [sae["W_enc"][:, j] for j in self.defended]
            elif threat["held"] == "unreachable":
                chosen = threat["features"]
                rows = [j for j in range(len(z)) if z[j] != 0] if chosen is None else chosen
                equal += [sae["W_dec"][j] for j in rows]
            elif threat["held"] in ("defended", "code"):
                t = self.room(y)
                for j in self.defended if threat["held"] == "defended" else range(len(z)):
                    if z[j] != 0:
                        equal.append(sae["W_enc"][:, j])
                    elif threat["held"] == "code" or sae["architecture"] != "topk":
                        upper.append(sae["W_enc"][:, j])
                        room.append(t[j])
        d = len(self.x)
        shape = exact(np.zeros((0, d)))
        return (
            np.array(equal, dtype=object) if equal else shape,
            np.array(upper, dtype=object) if upper else shape,
            np.array(room, dtype=object),
        )

    def kept(self, delta: np.ndarray) -> bool:
        """Whether delta moves nothing that is held, asked of the encoder itself."""
        threat, sae = self.problem["threat"], self.sae
        same = SAME * (1 + length(delta))
        if threat["held"] == "preactivations":
            return all(abs(sum(sae["W_enc"][:, j] * delta)) < same for j in self.defended)
        if threat["held"] == "unreachable":
            return all(abs(sum(row * delta)) < same for row in self.cell[0])
        if threat["held"] == "free":
            return True
        which = self.defended if threat["held"] == "defended" else list(range(len(sae["W_dec"])))
        pairs = [(self.encode(y), self.encode(y + delta)) for _, y in self.points]
        return all(abs(a[j] - b[j]) < same for a, b in pairs for j in which)


def evidence_holds(claim: Claim, step: dict[str, Any]) -> bool:
    """Whether the inequality that a bound step stands for is true, in 60 digits and without any rounding outward."""
    w, constant = claim.functional(step["against"])
    value = mpf(step["value"])
    if step["method"] == "cap":
        return length(w) + constant <= value
    if step["method"] in ("through-blocks", "linear-relaxation", "interval"):
        return claim.blocks_after > 0 and step["radius"] is not None
    if claim.blocks_after != 0:
        return False
    rows, cost = exact(np.zeros(len(w))), mpf(0)
    named = []
    for point, roles in step["multipliers"].items():
        y = dict(claim.points)[point]
        z, t = claim.encode(y), claim.room(y)
        for role, entry in roles.items():
            for j, multiplier in zip(entry["features"], entry["values"], strict=True):
                column = claim.sae["W_dec"][j] if role == "decoder" else claim.sae["W_enc"][:, j]
                if not _permitted(claim, role, j, z[j] != 0, multiplier):
                    return False
                rows = rows + mpf(multiplier) * column
                cost += mpf(multiplier) * max(t[j], mpf(0)) if role == "upper" else 0
                named.append(column)
    if step["method"] == "pinned":
        spans = np.linalg.matrix_rank(np.array(named, dtype=np.float64)) == len(w)
        return bool(spans) and claim.value(exact(np.zeros(len(w))), step["against"]) <= value
    t, zh, r = value - constant, claim.centre(claim.h), mpf(step["radius"])
    if step["tangent"] is not None:
        q = exact(step["tangent"])
        spare = 1 - sum(q * q)
        if t < 0 or spare < 0 or step["secant"] is not None or step["mean"] is not None:
            return False
        slope = claim.centre(w - t * q)
        centre = sum(slope * zh) - t * mpmath.sqrt(spare) * mpmath.sqrt(claim.d_epsilon)
    else:
        s = mpf(step["secant"])
        if t > 0 or s <= 0 or claim.model["centred"] != (step["mean"] is not None):
            return False
        mean = mpf(step["mean"] or 0)
        slope = w + (zh - mean) * (-t / s)
        centre = sum(w * zh) + (-t / s) / 2 * (sum(zh * zh) + r * r + len(w) * mean**2 + claim.d_epsilon + s * s)
    return centre + cost + r * length(slope - rows) <= 0


def _permitted(claim: Claim, role: str, j: int, on: bool, multiplier: float) -> bool:
    threat = claim.problem["threat"]
    if role == "decoder":
        return threat["held"] == "unreachable" and (on if threat["features"] is None else j in threat["features"])
    if threat["held"] not in ("preactivations", "defended", "code"):
        return False
    if threat["held"] != "code" and j not in claim.defended:
        return False
    if role == "equal":
        return on or threat["held"] == "preactivations"
    topk = claim.sae["architecture"] == "topk" and threat["held"] == "defended"
    return multiplier >= 0 and threat["held"] != "preactivations" and not topk


def attack(claim: Claim, radius: float, against: int | None, seed: int = 0) -> float:
    """The largest value of one member that a local search finds over the outer cell and the ball."""
    equal, upper, room = (np.array(part, dtype=np.float64) for part in claim.cell)
    basis = np.eye(len(claim.x))
    if len(equal):
        _, sigma, right = np.linalg.svd(equal)
        rank = int((sigma > 1e-10 * max(float(sigma[0]), 1e-300)).sum())
        basis = right[rank:].T
    room = np.maximum(room, 0.0)

    at_delta = in_floats(claim, against)

    def value(u: np.ndarray) -> tuple[float, np.ndarray]:
        found, gradient = at_delta(basis @ u)
        return found, basis.T @ gradient

    best = value(np.zeros(basis.shape[1]))[0]
    if basis.shape[1] == 0 or radius == 0:
        return best
    slopes = upper @ basis
    rules = [{"type": "ineq", "fun": lambda u: 1 - u @ u / radius**2, "jac": lambda u: -2 * u / radius**2}]
    if len(slopes):
        rules.append({"type": "ineq", "fun": lambda u: room - slopes @ u, "jac": lambda u: -slopes})
    random = np.random.default_rng(seed)
    gradient = value(np.zeros(basis.shape[1]))[1]
    starts = [gradient, -gradient, *random.standard_normal((4, basis.shape[1]))]
    for start in starts:
        at = start * (0.5 * radius / max(float(np.linalg.norm(start)), 1e-300))
        found = minimize(
            lambda u: (-value(u)[0], -value(u)[1]),
            at,
            jac=True,
            constraints=rules,
            method="SLSQP",
            options={"maxiter": 200, "ftol": 1e-14},
        ).x
        if not np.isfinite(found).all():
            continue
        # Zero is admissible and the set is convex: pull the point in until every inequality holds.
        pull = min(1.0, radius / max(float(np.linalg.norm(found)), 1e-300))
        moved = slopes @ found
        over = moved > room
        pull = min([pull, *(room[over] / moved[over])])
        best = max(best, value(found * pull)[0])
    return best


def in_floats(claim: Claim, against: int | None) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """One member of the readout at h + delta, and its gradient, in float64."""
    w, constant = claim.functional(against)
    w64, h64, c64, eps = w.astype(np.float64), claim.h.astype(np.float64), float(constant), float(claim.d_epsilon)
    earlier = torch.from_numpy(claim.earlier.astype(np.float64))

    def at_the_norm(delta: np.ndarray) -> tuple[float, np.ndarray]:
        z = h64 + delta
        z = z - z.mean() if claim.model["centred"] else z
        rho = np.sqrt(z @ z + eps)
        return float(w64 @ z / rho) + c64, w64 / rho - (w64 @ z) * z / rho**3

    def through_blocks(delta: np.ndarray) -> tuple[float, np.ndarray]:
        push = torch.from_numpy(delta).requires_grad_()
        z = claim.tail.final(torch.cat([earlier, (torch.from_numpy(h64) + push)[None]]), claim.first_after)
        z = z - z.mean() if claim.model["centred"] else z
        found = torch.from_numpy(w64) @ z / (z @ z + eps).sqrt()
        (gradient,) = torch.autograd.grad(found, push)
        return found.item() + c64, gradient.numpy()

    return through_blocks if claim.blocks_after else at_the_norm


def exactly_admissible(claim: Claim, delta: list[float]) -> np.ndarray:
    """The nearest point to a float vector on which the equalities hold to 60 digits."""
    v = exact(delta)
    rows: list[np.ndarray] = []
    for row in _all_equalities(claim):  # an orthonormal basis, by Gram-Schmidt
        rest = row
        for _ in range(2):
            for q in rows:
                rest = rest - sum(q * rest) * q
        size = length(rest)
        if size > mpf(10) ** -25 * length(row):
            rows.append(rest / size)
    for q in rows:
        v = v - sum(q * v) * q
    return v


def _all_equalities(claim: Claim) -> list[np.ndarray]:
    return [row for row in claim.cell[0] if any(row)]
