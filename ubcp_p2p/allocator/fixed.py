"""Powers of two in integers: 2^−x and its logarithm, the same bits on every machine (docs/allocator.md §Numbers).

Exponents are Q96 (the integer x stands for x ∕ 2^96), values Q128. The fraction of an exponent is cut into 12 bytes,
and each byte has a table of 2^(−byte ∕ 2^(8·place)); the tables come from integer square roots. A product of 12
entries, truncated after each, is less than 2^−123 off: an entry is at most 2^−129 off by rounding, each truncation at
most 2^−128.
"""

from __future__ import annotations

from math import isqrt
from typing import Final

EXPONENT_BITS: Final = 96
VALUE_BITS: Final = 128
ONE: Final = 1 << VALUE_BITS
LOG2_E: Final = 26613026195688644983  # 1 ∕ ln 2 in Q64

_FRACTION: Final = (1 << EXPONENT_BITS) - 1
_GUARD_BITS: Final = 32  # of the tables while they are made: their errors stay far below half of 2^−128
_LOG_BITS: Final = 8


def _tables() -> tuple[tuple[int, ...], ...]:
    """12 × 256 values in Q128; the first is for the most significant byte of the fraction."""
    bits = VALUE_BITS + _GUARD_BITS
    root = 1 << bits - 1  # 2^−1; each square root halves the exponent
    tables = []
    for _ in range(EXPONENT_BITS // 8):
        table = [1 << bits]
        for _ in range(8):
            root = isqrt(root << bits)
            table = [entry for old in table for entry in (old, old * root >> bits)]
        tables.append(tuple((entry + (1 << _GUARD_BITS - 1)) >> _GUARD_BITS for entry in table))
    return tuple(tables)


_TABLES: Final = _tables()


def exponent(numerator: int, denominator: int) -> int:
    """numerator ∕ denominator in Q96, rounded down. Both are at least 0, the denominator at least 1."""
    return (numerator << EXPONENT_BITS) // denominator


def exp2_neg(x: int) -> int:
    """2^−x in Q128 for x ≥ 0 in Q96; less than 2^−123 off."""
    return times_exp2_neg(ONE, x)


def times_exp2_neg(value: int, x: int) -> int:
    """value · 2^−x, rounded down, for an integer value ≥ 0 and x ≥ 0 in Q96."""
    return value * _mantissa(x & _FRACTION) >> VALUE_BITS + (x >> EXPONENT_BITS)


def _mantissa(fraction: int) -> int:
    product = ONE
    for byte, table in zip(fraction.to_bytes(EXPONENT_BITS // 8, "big"), _TABLES, strict=True):
        if byte:
            product = product * table[byte] >> VALUE_BITS
    return product


def log2_ceil(numerator: int, denominator: int, scale: int) -> int:
    """scale · log2(numerator ∕ denominator), at most scale ∕ 256 + 1 too large, never too small; 0 for a ratio below 1.

    Binary digits of a logarithm by squaring: an estimate for people, so eight digits are enough.
    """
    if numerator <= denominator:
        return 0
    whole = (numerator // denominator).bit_length() - 1
    mantissa = (numerator << 32) // (denominator << whole)  # Q32, from 1 to below 2
    digits = 0
    for _ in range(_LOG_BITS):
        mantissa = mantissa * mantissa >> 32
        digits <<= 1
        if mantissa >> 33:
            mantissa >>= 1
            digits |= 1
    return -(-scale * ((whole << _LOG_BITS) + digits + 1) >> _LOG_BITS)
