"""Powers of two against 60 digits of decimal arithmetic."""

from __future__ import annotations

import random
from decimal import Decimal, localcontext

import pytest

from ubcp_p2p.allocator.fixed import (
    EXPONENT_BITS,
    LOG2_E,
    ONE,
    VALUE_BITS,
    exp2_neg,
    exponent,
    log2_ceil,
    times_exp2_neg,
)

RNG = random.Random(1)
FRACTIONS = [
    0,
    1,
    2**95,
    2**96 - 1,
    *(1 << place for place in range(0, 96, 7)),
    *(RNG.getrandbits(96) for _ in range(200)),
]
UNITS_MAX = 2**53 - 1


@pytest.mark.parametrize("whole", [0, 1, 63, 127])
def test_powers_are_less_than_their_bound_off(whole: int) -> None:
    with localcontext(prec=60):
        for fraction in FRACTIONS:
            x = (whole << EXPONENT_BITS) + fraction
            true = Decimal(2) ** -(Decimal(x) / 2**EXPONENT_BITS)
            assert abs(Decimal(exp2_neg(x)) / ONE - true) < Decimal(2) ** -123, x


def test_whole_exponents_are_shifts() -> None:
    for whole in (0, 1, 52, 128):
        assert exp2_neg(whole << EXPONENT_BITS) == ONE >> whole
    assert exp2_neg(129 << EXPONENT_BITS) == 0
    assert times_exp2_neg(7, UNITS_MAX << EXPONENT_BITS) == 0  # the largest exponent there is: a shift by 2^53 bits


def test_the_constant() -> None:
    with localcontext(prec=60):
        assert round(2**64 / Decimal(2).ln()) == LOG2_E


def test_exponents_are_rounded_down() -> None:
    assert exponent(0, 5) == 0
    assert exponent(1, 3) == 2**EXPONENT_BITS // 3
    assert exponent(UNITS_MAX, 1) == UNITS_MAX << EXPONENT_BITS


def test_a_small_difference_keeps_its_digits() -> None:
    """1 − 2^−d for d = 2^−53: what a quantum of one unit is of the largest part."""
    with localcontext(prec=60):
        d = Decimal(1) / UNITS_MAX
        true = 1 - Decimal(2) ** -d
        found = Decimal(ONE - exp2_neg(exponent(1, UNITS_MAX))) / ONE
        assert abs(found / true - 1) < Decimal(2) ** -40


@pytest.mark.parametrize("scale", [1, 96, 2**20])
def test_logarithms_are_never_too_small_and_little_too_large(scale: int) -> None:
    with localcontext(prec=60):
        for numerator, denominator in [
            (2, 1),
            (3, 1),
            (1025, 1024),
            (2**60, 3),
            (7, 5),
            (10**18, 999),
            (2**50 - 1, 2**49),
        ]:
            true = scale * (Decimal(numerator) / denominator).ln() / Decimal(2).ln()
            found = log2_ceil(numerator, denominator, scale)
            assert true <= found <= true + Decimal(scale) / 256 + 1, (numerator, denominator)


def test_a_ratio_of_one_or_less_has_no_logarithm() -> None:
    assert log2_ceil(5, 5, 96) == log2_ceil(4, 5, 96) == 0


def test_the_formats() -> None:
    assert (EXPONENT_BITS, VALUE_BITS) == (96, 128)  # docs/allocator.md has them
