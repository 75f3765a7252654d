"""Credits as checked integers: 1 credit = 1 PFLOP of training compute; the integer unit is 1 GFLOP = 1 µcredit."""

from __future__ import annotations

from typing import Final

MICROCREDITS: Final = 1_000_000  # of one credit
AMOUNT_MAX: Final = 2**53 - 1  # the largest amount in one field: exact in every JSON reader and in SQLite
_DIGITS_MAX: Final = 64  # of the whole part: Python refuses to read some thousands, in words of its own
_PLACES: Final = {3: "three", 6: "six"}


def credits_text(amount: int) -> str:
    """`amount` µcredits for people: "1,234.5", with no trailing zeros and at most six decimals."""
    return decimal_text(amount, 6)


def decimal_text(amount: int, places: int) -> str:
    """`amount` units of 10^−places for people, with no trailing zeros."""
    sign = "-" if amount < 0 else ""
    whole, rest = divmod(abs(amount), 10**places)
    decimals = f"{rest:0{places}d}".rstrip("0")
    return f"{sign}{whole:,}.{decimals}" if decimals else f"{sign}{whole:,}"


def parse_credits(text: str) -> int:
    """The inverse, for what people type: "12", "0.5", "1,000.25" credits in µcredits. Raises ValueError."""
    return parse_decimal(text, 6, "credits")


def parse_decimal(text: str, places: int, what: str) -> int:
    """The inverse of `decimal_text`; `what` is counted, for the message. Raises ValueError."""
    whole, point, decimals = text.strip().replace(",", "").replace("_", "").partition(".")
    digits_ok = (whole or decimals) and all(
        part.isascii() and part.isdigit() for part in (whole or "0", decimals or "0")
    )
    if not digits_ok or (point and not decimals) or len(decimals) > places or len(whole) > _DIGITS_MAX:
        raise ValueError(f"{text!r:.80} is not a number of {what} with at most {_PLACES[places]} decimals")
    scale: int = 10**places
    amount = int(whole or "0") * scale + int((decimals or "0").ljust(places, "0"))
    if amount > AMOUNT_MAX:
        raise ValueError(f"{text!r:.80} {what} are more than a ledger field can hold")
    return amount
