"""Linear worst cases and quadratic bounds decided by a program that is proved sound in Coq (`proofs/checker`).

This file turns a step into exact integers and asks the program; theory/verified_checker.md says what is proved, what is
trusted, and how the text looks. No number is rounded on the way: floats are integers over powers of two.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .arithmetic import Array
from .errors import Rejected
from .multipliers import read_multipliers
from .reader import Reader
from .sae import Sae
from .statements.check import read_statements
from .statements.linear import KIND, Question, read_question
from .statements.quadratic import KIND as QUADRATIC
from .statements.quadratic import Evidence, Quadratic, read_quadratic
from .statements.subject import Subject
from .whole import exponent

BINARY = Path(__file__).resolve().parents[2] / "proofs" / "checker" / "_build" / "verified-checker"
"""Where `make -C proofs/checker` leaves the program."""
ACCEPTED, REJECTED = 0, 4
"""Its exit codes."""
TIMEOUT = 600
"""Seconds; its input is bounded, and so is its time."""
HELD = {"free": "free", "preactivations": "preactivations", "defended": "code", "code": "code"}
"""What the program calls them: a defended set keeps its code, and all of its features are listed by index here."""
INT64_LIMIT = 2.0**63
MAX_ENTRIES = 2**25
"""Entries of all listed columns together, as in proofs/checker/text.ml."""

Side = Literal["upper", "lower"]


def check_verified(subject: Subject, step: Any, binary: Path | None = None, side: Side = "upper") -> None:
    """Have one side of a `linear-worst-case` step decided by the verified program.

    Args:
        subject: the weights and residuals that the step speaks of.
        step: as in a statement file; l2 or l-infinity ball, ReLU or JumpReLU, held free, preactivations, defended or
            code.
        binary: the program; None takes the one built in the repository.
        side: the lower side is accepted only when `delta` itself keeps everything exactly, which floats rarely do.

    Raises:
        Rejected: the side is not proved, the step is not of a supported kind, or the program is not there.
    """
    _ask(exact_text(subject, step, side), binary)


def check_verified_quadratic(question: Quadratic, evidence: Evidence, upper: float, binary: Path | None = None) -> None:
    """Have the bound of a `quadratic` step decided by the verified program; errors as `check_verified`."""
    _ask(quadratic_text(question, evidence, upper), binary)


def _ask(text: bytes, binary: Path | None) -> None:
    """Run the program on its input; anything but its acceptance is a rejection."""
    program = BINARY if binary is None else binary
    if not program.is_file():
        raise Rejected(f"the verified checker is not built at {program}; make -C proofs/checker builds it")
    try:
        done = subprocess.run([str(program)], input=text, capture_output=True, timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Rejected(f"the verified checker gives no answer ({type(error).__name__})") from error
    if done.returncode == ACCEPTED and done.stdout == b"accepted\n":
        return
    said = done.stderr.decode("ascii", "replace").strip()[:200]
    if done.returncode == REJECTED:
        raise Rejected(f"the verified checker: {said}")
    raise Rejected(f"the verified checker ended with {done.returncode}: {said}")


def verify_file(path: Path, sae: Path | None = None, binary: Path | None = None) -> tuple[int, int]:
    """Have the upper sides of a statement file's linear worst cases, and its quadratic bounds, decided by the program.

    Returns:
        how many were verified, and how many steps there are in all (the others are for the Python checker alone).

    Raises:
        Rejected: one of them is not verified.
    """
    _, subject, steps = read_statements(path, sae)
    count = 0
    for i, step in enumerate(steps):
        kind = step.get("kind") if isinstance(step, dict) else None
        if kind == "linear-worst-case" and step.get("upper") is not None:
            check_verified(subject, step, binary)
        elif kind == "quadratic":
            reader = Reader(step, f"steps[{i}]", ("kind", "theorem", *QUADRATIC.keys))
            reader.text("theorem", (QUADRATIC.theorem,))
            question, evidence = read_quadratic(subject, reader)
            check_verified_quadratic(question, evidence, reader.number("upper"), binary)
        else:
            continue
        count += 1
    return count, len(steps)


@dataclass(frozen=True, eq=False)
class Listed:
    """The features that the program is told of, aligned: how each is used, its multiplier."""

    features: np.ndarray
    equal: np.ndarray
    multipliers: Array


def exact_text(subject: Subject, step: Any, side: Side = "upper") -> bytes:
    """The program's input for one side of a step.

    Raises:
        Rejected: the step is malformed, or not of a supported kind.
    """
    reader = Reader(step, "step", ("kind", "theorem", *KIND.keys))
    reader.text("kind", ("linear-worst-case",))
    reader.text("theorem", (KIND.theorem,))
    question = read_question(subject, reader)
    sae, shape = subject.sae, question.region.norm
    if sae.architecture not in ("relu", "jumprelu"):
        raise Rejected(f"the verified checker takes ReLU and JumpReLU, not {sae.architecture}")
    if not sae.affine:
        raise Rejected(f"the verified checker does not take normalisation {sae.normalization!r}")
    if shape not in ("l2", "linf"):
        raise Rejected(f"the verified checker takes the l2 and l-infinity balls, not {shape}")
    if question.cell.held not in HELD:
        raise Rejected(f"the verified checker does not take held={question.cell.held!r}")
    if reader.raw("upper" if side == "upper" else "lower") is None:
        raise Rejected(f"the step has no {side} side")
    listed = _used(question, reader) if side == "upper" else _all_held(question)
    if len(listed.features) * subject.d > MAX_ENTRIES:
        raise Rejected(f"more than the {MAX_ENTRIES} entries of columns that the verified checker takes")
    delta = subject.vector(reader, "delta") if side == "lower" else None
    return _write(question, listed, reader.number(side), delta)


def _used(question: Question, reader: Reader) -> Listed:
    """The features with multipliers, each one that the threat model holds."""
    multipliers = read_multipliers(reader.raw("multipliers"), "multipliers").points
    if not set(multipliers) <= {"x"}:
        raise Rejected("nothing is held at h")
    if not multipliers:
        return Listed(np.zeros(0, dtype=np.intp), np.zeros(0, dtype=bool), np.zeros(0))
    equal, upper, decoder = multipliers["x"]
    if decoder.features.size:
        raise Rejected(f"held={question.cell.held!r} gives no 'decoder' constraint")
    features = np.concatenate([equal.features, upper.features])
    if features.size and features.max() >= question.cell.sae.W_enc.shape[1]:
        raise Rejected("a multiplier's feature is out of range")
    if question.cell.held in ("preactivations", "defended") and not set(features.tolist()) <= set(question.cell.chosen):
        raise Rejected("a multiplier is given for a feature that is not held")
    is_equal = np.arange(features.size) < equal.features.size
    return Listed(features, is_equal, np.concatenate([equal.values, upper.values]))


def _all_held(question: Question) -> Listed:
    """Every feature that is held; the lower side has to keep them all."""
    every = np.arange(question.cell.sae.W_enc.shape[1])
    chosen = np.array(question.cell.chosen, dtype=np.intp)
    features = {"free": every[:0], "code": every}.get(question.cell.held, chosen)
    return Listed(features, np.ones(features.size, dtype=bool), np.zeros(features.size))


def _write(question: Question, listed: Listed, bound: float, delta: Array | None) -> bytes:
    """The lines of the format, with the least exponents that make every number an integer."""
    sae, chosen = question.cell.sae, listed.features
    x, g, radius = question.cell.points["x"].mid, question.direction.mid, question.region.radius
    columns, bias, threshold = sae.W_enc.T[chosen], sae.parameters["b_enc"][chosen], _threshold(sae, chosen)
    shift = sae.b_dec if sae.subtract_b_dec else np.zeros_like(sae.b_dec)
    moved = np.zeros(0) if delta is None else delta
    k, w = _exponent(sae.input_scale), _exponent(columns)
    near, far = (x, radius, moved), (bias, threshold)
    p = max(0, *map(_exponent, near), _exponent(shift) - k, *(_exponent(v) - k - w for v in far))
    n = max(0, _exponent(listed.multipliers), _exponent(g) - w, _exponent(bound) - p - w)
    lines = [
        "sae-verified 1",
        f"side {'upper' if delta is None else 'lower'}",
        f"architecture {sae.architecture}",
        f"held {HELD[question.cell.held]}",
        f"norm {question.region.norm}",
        f"exponents {p} {k} {w} {n}",
        f"width {x.size}",
        f"columns {chosen.size}",
        "scale " + _line(sae.input_scale, k),
        "radius " + _line(radius, p),
        "point " + _line(x, p),
        "shift " + _line(shift, p + k),
        "direction " + _line(g, n + w),
        "bound " + _line(bound, n + w + p),
    ]
    if delta is not None:
        lines.append("delta " + _line(delta, p))
    jumping = sae.architecture == "jumprelu"
    for i, equal in enumerate(listed.equal.tolist()):
        numbers = [_line(bias[i], p + k + w), *([_line(threshold[i], p + k + w)] if jumping else [])]
        lines.append(" ".join(["equal" if equal else "upper", *numbers, _line(listed.multipliers[i], n)]))
        lines.append(_line(columns[i], w))
    return "\n".join([*lines, "end", ""]).encode("ascii")


def quadratic_text(question: Quadratic, evidence: Evidence, upper: float) -> bytes:
    """The program's input for a quadratic bound.

    Raises:
        Rejected: the matrix is not symmetric, the factor not lower triangular, or a number is not finite.
    """
    q, e, order = question, evidence, len(question.linear)
    if not np.array_equal(q.matrix, q.matrix.T):
        raise Rejected("the matrix is not symmetric")
    if np.triu(e.factor, 1).any():
        raise Rejected("the factor is not lower triangular")
    if q.normals.size > MAX_ENTRIES:
        raise Rejected(f"more than the {MAX_ENTRIES} entries of constraints that the verified checker takes")
    square = max(map(_exponent, (q.matrix, e.shift)))  # of b + c
    length = max(map(_exponent, (q.radius, e.vector)))
    rest, room = exponent(e.factor), max(map(_exponent, (q.constant, upper)))
    # 2^-2l L L^T has the unit of the matrix times a whole gain; all exponents as in theory/verified_checker.md.
    p, c = length, _exponent(e.multipliers)
    b = max(0, _exponent(q.normals) - p, _exponent(q.levels) - 2 * p)
    c = max(c, square - b, 2 * rest - b, _exponent(q.linear) - b - p, room - b - 2 * p)
    lines = [
        "sae-verified 1",
        "kind quadratic",
        f"exponents {p} {b} {c}",
        f"order {order}",
        f"constraints {len(q.levels)}",
        "radius " + _line(q.radius, p),
        "constant " + _line(q.constant, b + c + 2 * p),
        "bound " + _line(upper, b + c + 2 * p),
        "linear " + _line(q.linear, b + c + p),
        "shift " + _line(e.shift, b + c),
        f"gain {1 << (b + c - 2 * rest):x}",
        "centre " + _line(e.vector, p),
    ]
    for equal, level, price, normal in zip(q.equal.tolist(), q.levels, e.multipliers, q.normals, strict=True):
        lines.append(f"{'equal' if equal else 'upper'} {_line(level, b + 2 * p)} {_line(price, c)}")
        lines.append(_line(normal, b + p))
    lines += ["matrix", *(_line(q.matrix[i, i:], b + c) for i in range(order))]
    lines += ["factor", *(_line(e.factor[i, : i + 1], rest) for i in range(order))]
    return "\n".join([*lines, "end", ""]).encode("ascii")


def _threshold(sae: Sae, chosen: np.ndarray) -> Array:
    return sae.parameters["threshold"][chosen] if sae.architecture == "jumprelu" else np.zeros(chosen.size)


def _exponent(values: Any) -> int:
    """The least e >= 0 with every value an integer over 2^e."""
    return max(0, exponent(values))


def _line(values: Any, power: int) -> str:
    """Values as integers over 2^power, in hexadecimal, one space between them."""
    array = np.atleast_1d(np.asarray(values, dtype=np.float64))
    with np.errstate(over="ignore"):
        scaled = np.ldexp(array, power)
    if np.abs(scaled).max() < INT64_LIMIT:
        numbers = scaled.astype(np.int64).tolist()
    elif np.isfinite(scaled).all():
        numbers = list(map(int, scaled.tolist()))  # exact: scaling by a power of two loses nothing
    else:
        numbers = [top * 2**power // bottom for top, bottom in map(float.as_integer_ratio, array.tolist())]
    return ("%x " * len(numbers) % tuple(numbers))[:-1]
