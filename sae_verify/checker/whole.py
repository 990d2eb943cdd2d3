"""Arrays of floats as integers over one power of two, and exact arithmetic with them.

Nothing is rounded here: sums, products and comparisons are those of the numbers that the floats stand for.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arithmetic import Array
from .errors import Rejected

MANTISSA = 53
LIMB = 20
"""Bits of a limb: sums of up to 2^12 products of two stay below 2^53, so that floats hold them exactly."""
MAX_TERMS = 2**12
MAX_BITS = 60
"""Of the integers that `gram_rows` multiplies, three limbs each."""


def exponent(values: Any) -> int:
    """The least e, perhaps negative, with every value an integer over 2^e; 0 where all are zero.

    Raises:
        Rejected: a value is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise Rejected("exact arithmetic takes finite numbers only")
    array = array[array != 0]
    if not array.size:
        return 0
    fraction, power = np.frexp(array)
    mantissa = np.ldexp(fraction, MANTISSA).astype(np.int64)
    trailing = np.frexp((mantissa & -mantissa).astype(np.float64))[1] - 1  # zero bits at the end of each
    return int((MANTISSA - power - trailing).max())


@dataclass(frozen=True, eq=False)
class Whole:
    """The array `integers` / 2^`exponent`; the integers are Python's, of any size."""

    integers: NDArray[np.object_]
    exponent: int

    @classmethod
    def of(cls, values: Any) -> Whole:
        """These floats, exactly."""
        array, e = np.asarray(values, dtype=np.float64), exponent(values)
        fraction, power = np.frexp(array)
        mantissa = np.ldexp(fraction, MANTISSA).astype(np.int64)
        shift = np.where(array == 0, 0, power - MANTISSA + e)
        mantissa >>= np.maximum(-shift, 0)  # zeros alone are shifted out
        return cls(np.asarray(mantissa.astype(object) << np.maximum(shift, 0).astype(object), dtype=object), e)

    def at(self, e: int) -> NDArray[np.object_]:
        """The integers over 2^e, for e no less than the exponent."""
        return self.integers if e == self.exponent else np.asarray(self.integers * (1 << (e - self.exponent)))

    def __getitem__(self, index: Any) -> Whole:
        return Whole(self.integers[index], self.exponent)

    def __add__(self, other: Whole) -> Whole:
        e = max(self.exponent, other.exponent)
        return Whole(np.asarray(self.at(e) + other.at(e), dtype=object), e)

    def __sub__(self, other: Whole) -> Whole:
        e = max(self.exponent, other.exponent)
        return Whole(np.asarray(self.at(e) - other.at(e), dtype=object), e)

    def __mul__(self, other: Whole) -> Whole:
        return Whole(np.asarray(self.integers * other.integers, dtype=object), self.exponent + other.exponent)

    def __matmul__(self, other: Whole) -> Whole:
        return Whole(np.asarray(self.integers.dot(other.integers), dtype=object), self.exponent + other.exponent)

    def __abs__(self) -> Whole:
        return Whole(np.asarray(np.abs(self.integers), dtype=object), self.exponent)

    def sum(self, axis: int) -> Whole:
        """Sums along an axis."""
        return Whole(np.asarray(self.integers.sum(axis=axis), dtype=object), self.exponent)

    def fraction(self) -> Fraction:
        """The number that an array of shape () is."""
        return Fraction(int(self.integers.item())) / Fraction(2) ** self.exponent


@dataclass(frozen=True, eq=False)
class Factor:
    """A matrix of floats, (n, k), cut into limbs: sum_j 2^(LIMB j - exponent) limbs[j], every limb an exact float."""

    limbs: tuple[Array, ...]
    exponent: int

    @classmethod
    def of(cls, matrix: Array) -> Factor:
        """These floats, exactly.

        Raises:
            Rejected: they are no integers below 2^MAX_BITS over one power of two, or rows are longer than MAX_TERMS.
        """
        e = exponent(matrix)
        with np.errstate(over="ignore"):
            scaled = np.ldexp(matrix, e) if abs(e) < 1000 else np.full(matrix.shape, np.inf)
        if not (np.abs(scaled) < 2.0**MAX_BITS).all():
            raise Rejected(f"the factor's entries are not integers below 2^{MAX_BITS} over one power of two; round it")
        if matrix.shape[1] > MAX_TERMS:
            raise Rejected(f"more than the {MAX_TERMS} columns that a factor may have")
        rest, sign, limbs = np.abs(scaled).astype(np.int64), np.sign(scaled), []
        while not limbs or rest.any():
            limbs.append(sign * (rest & (2**LIMB - 1)))
            rest = rest >> LIMB
        return cls(tuple(limbs), e)

    def gram_rows(self, rows: slice) -> Whole:
        """Some rows of L L^T."""
        total: Any = 0
        for i, left in enumerate(self.limbs):
            for j, right in enumerate(self.limbs):
                # Every product and every partial sum is an integer below 2^53, whatever the order of summation.
                product = (left[rows] @ right.T).astype(np.int64).astype(object)
                total = total + (product << (LIMB * (i + j)))
        return Whole(np.asarray(total, dtype=object), 2 * self.exponent)
