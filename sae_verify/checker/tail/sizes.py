"""Upper bounds of norms of float64 arrays, in floats, never below the exact value.

A size is a non-negative float. What is computed from sizes by additions, multiplications, divisions and roots is off by
a relative rounding only, which `grow` covers; so every function here, and every formula that combines them, ends in it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..arithmetic import TINY, Array, gamma

GROW = 1.0 + 2.0**-28
"""Covers the relative rounding of 2^23 operations on sizes, one after the other."""
LEAST_SQUARE, LARGEST_SQUARE = 2.0**-600, 2.0**900
"""Sums of squares between them are as exact as floats are; others are made anew from scaled entries."""


def grow(size: Any) -> Any:
    """Round a quantity computed from sizes up; what is no number becomes infinite."""
    raised = size * GROW + TINY
    if type(raised) is float:
        return raised if raised == raised else math.inf
    if isinstance(raised, np.ndarray):
        if not np.add.reduce(raised, axis=None) < np.inf:
            raised[np.isnan(raised)] = np.inf
        return raised
    return raised if raised == raised else np.inf


def length(x: Array) -> float:
    """||x||_2 over all entries."""
    if x.size == 0:
        return 0.0
    flat = x.ravel()
    square = float(flat @ flat)
    if LEAST_SQUARE < square < LARGEST_SQUARE:
        return math.sqrt(square) * GROW + TINY
    return float(lengths(flat[None])[0])


def lengths(x: Array) -> Array:
    """||x_i||_2 of the rows of (n, ...): (n,)."""
    if x.size == 0:
        return np.zeros(len(x))
    flat = x.reshape(len(x), -1)
    squares = np.einsum("ij,ij->i", flat, flat)
    result = np.sqrt(squares)
    if np.minimum.reduce(squares) > LEAST_SQUARE and np.maximum.reduce(squares) < LARGEST_SQUARE:
        result *= GROW
        result += TINY
        return result
    extreme = ~((squares > LEAST_SQUARE) & (squares < LARGEST_SQUARE))  # squares may have vanished or overflowed
    rows = np.abs(flat[extreme])
    largest = rows.max(axis=1)
    scale = np.where((largest > 0) & np.isfinite(largest), largest, 1.0)
    result[extreme] = np.sqrt(np.square(rows / scale[:, None]).sum(axis=1)) * scale
    return grow(result)


def _frobenius(x: Array) -> float:
    flat = x.ravel()
    return math.sqrt(float(flat @ flat)) * GROW + 2.0**-400


SQUARINGS = 6
"""Of a Gram matrix of order k: the bound exceeds the spectral norm by a factor k^(1/256) at most."""


def spectral(x: Array) -> float:
    """The largest singular value of (n, k), from above.

    ||X||^2 = ||G||, G = X X^T (or X^T X, whichever is smaller), and ||G|| <= ||G^p||_F^(1/p). G^p is made by squarings
    of matrices of Frobenius norm 1, each of which is off by at most gamma_n in norm.
    """
    if x.size == 0:
        return 0.0
    if x.shape[0] > x.shape[1]:
        x = x.T
    whole = length(x)
    if not 0.0 < whole < math.inf or len(x) == 1:
        return whole
    unit = x / whole
    gram = unit @ unit.T
    # Norms of at most 1, so that their squares neither overflow nor, but for what TINY covers, vanish.
    scales = []
    for _ in range(SQUARINGS):
        scale = _frobenius(gram)
        if not scale > 2.0**-200:
            break
        scales.append(scale)
        gram = gram * (1.0 / scale)
        gram = gram @ gram.T  # ||A A^T|| = ||A||^2, also if rounding made A a little asymmetric
    size, lost = _frobenius(gram), 2 * gamma(len(gram)) + 4 * TINY
    for scale in reversed(scales):
        size = scale * math.sqrt(grow(size + lost))
    return min(grow(whole * math.sqrt(grow(size + gamma(x.shape[1]) + 4 * TINY))), whole)


EACH_SQUARINGS = 4
"""Of symmetric matrices of order k: the bound exceeds the spectral norm by a factor k^(1/64) at most."""


def spectral_each(forms: Array) -> Array:
    """The spectral norm of each symmetric matrix of (n, k, k), from above: ||A||^p = ||A^p|| <= ||A^p||_F, p even."""
    count, order = forms.shape[:2]
    if forms.size == 0:
        return np.zeros(count)
    if not forms.any():
        return np.zeros(count)
    whole = lengths(forms)
    safe = np.where((whole > 0) & np.isfinite(whole), whole, 1.0)
    power = forms / safe[:, None, None]
    power = power @ power.transpose(0, 2, 1)  # of norm ||A||^2, also if rounding made A a little asymmetric
    scales = []
    for _ in range(EACH_SQUARINGS):
        scale = np.maximum(lengths(power), TINY)
        scales.append(scale)
        power = power / scale[:, None, None]
        power = power @ power
    lost = 2 * gamma(order) + 4 * TINY
    size = lengths(power)
    for scale in reversed(scales):
        size = scale * np.sqrt(grow(size + lost))
    return np.minimum(grow(whole * np.sqrt(grow(size + lost))), whole)


def largest_eigenvalue(form: Array) -> float:
    """max(0, largest eigenvalue) of a symmetric (k, k), from above.

    With floats Q near the eigenvectors, x = Q z gives x.Ax / x.x = z.Dz / z.Ez, D = Q^T A Q, E = Q^T Q; Gershgorin's
    discs enclose D's form, and E's is at least 1 - ||E - I||_F.
    """
    order = len(form)
    if order == 0:
        return 0.0
    if not np.isfinite(form).all():
        return np.inf
    form = 0.5 * form + 0.5 * form.T  # rounding may have made it a little asymmetric; x.Ax is the same
    vectors = np.linalg.eigh(form)[1]
    lost = gamma(order)
    turned = vectors.T @ (form @ vectors)
    rounding = 4 * lost * length(form) * (1 + length(vectors)) ** 2
    off = np.abs(turned).sum(axis=1) - np.abs(np.diag(turned))
    disc = float(np.max(np.diag(turned) + np.abs(off) * GROW)) + rounding
    away = length(vectors.T @ vectors - np.eye(order)) + lost * length(vectors) ** 2
    if not away < 0.5:
        return length(form)
    return float(grow(max(disc, 0.0) / (1.0 - away) * (1 + 2.0**-40)))
