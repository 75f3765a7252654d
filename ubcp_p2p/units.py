"""Credits as checked integers: 1 credit = 1 PFLOP of training compute; the integer unit is 1 GFLOP = 1 µcredit."""

from __future__ import annotations

from typing import Final

MICROCREDITS: Final = 1_000_000  # of one credit
AMOUNT_MAX: Final = 2**53 - 1  # the largest amount in one field: exact in every JSON reader and in SQLite


def credits_text(amount: int) -> str:
    """`amount` µcredits for people: "1,234.5", with no trailing zeros and at most six decimals."""
    sign = "-" if amount < 0 else ""
    whole, rest = divmod(abs(amount), MICROCREDITS)
    decimals = f"{rest:06d}".rstrip("0")
    return f"{sign}{whole:,}.{decimals}" if decimals else f"{sign}{whole:,}"


def parse_credits(text: str) -> int:
    """The inverse, for what people type: "12", "0.5", "1,000.25" credits in µcredits. Raises ValueError."""
    whole, point, decimals = text.strip().replace(",", "").replace("_", "").partition(".")
    digits_ok = (whole or decimals) and all(
        part.isascii() and part.isdigit() for part in (whole or "0", decimals or "0")
    )
    if not digits_ok or (point and not decimals) or len(decimals) > 6:
        raise ValueError(f"{text!r} is not a number of credits with at most six decimals")
    amount = int(whole or "0") * MICROCREDITS + int((decimals or "0").ljust(6, "0"))
    if amount > AMOUNT_MAX:
        raise ValueError(f"{text!r} credits are more than a ledger field can hold")
    return amount
