"""Which periods statistics are for: what a person has asked for, held against what there is."""

from __future__ import annotations

import re
from typing import Final

from ubcp_p2p.errors import ConfigError, UbcpError
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.ledger.stats import Span

_PERIODS: Final = re.compile(r"([0-9]{1,10})(?:\.\.([0-9]{1,10}))?")  # a period is below 2^32


def periods(text: str) -> Span:
    """N or FROM..TO. Raises ConfigError."""
    match = _PERIODS.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"--period {text!r:.80} is no period", hint="a period is a number from 0 on: --period 3, or --period 3..5"
        )
    span = Span(int(match[1]), int(match[2] or match[1]))
    if span.first > span.last:
        raise ConfigError(f"--period {text} ends before it begins", hint=f"--period {span.last}..{span.first}")
    return span


def span_of(wanted: Span | None, ledger: Ledger, place: object, left_out: int = 0) -> Span:
    """All periods of the ledger, or the ones that are wanted. Raises ConfigError, UbcpError.

    place: what the ledger is called in errors. left_out: entries in it that are not valid.
    """
    if not ledger.entries:
        what = f"no valid entry among its {left_out}" if left_out else "no entry yet"
        hint = "`ubcp audit` says what is wrong with them" if left_out else "`ubcp status` says how far the ledger is"
        raise UbcpError(f"nothing to count: the ledger {place} has {what}", hint=hint)
    newest = ledger.period(ledger.slice)
    if wanted is not None and wanted.last > newest:
        raise ConfigError(
            f"period {wanted.last} is later than all entries of {place}; the newest is in period {newest}",
            hint=f"--period {newest} is the last there is; `ubcp stats` alone takes all",
        )
    return wanted if wanted is not None else Span(0, newest)
