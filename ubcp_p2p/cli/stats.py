"""`ubcp stats`: how long people wait, who is served and what it costs in carbon, from ledger entries alone."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ubcp_p2p.cli.output import JsonOption, ProfileOption, emit_json, profile_at, say
from ubcp_p2p.errors import ConfigError, UbcpError
from ubcp_p2p.log import printable

if TYPE_CHECKING:
    from ubcp_p2p.ledger.reading import Read
    from ubcp_p2p.ledger.stats import Span

_PERIODS: Final = re.compile(r"([0-9]{1,10})(?:\.\.([0-9]{1,10}))?")  # a period is below 2^32


def stats(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="PATH", help="An export file, or a ledger.sqlite3 [default: the profile's store]."),
    ] = None,
    period: Annotated[
        str | None,
        typer.Option("--period", metavar="N|FROM..TO", help="These periods, both included [default: all]."),
    ] = None,
    network: Annotated[
        str | None, typer.Option("--network", metavar="HEX", help="Refuse another community's ledger.")
    ] = None,
    profile: ProfileOption = None,
    json: JsonOption = False,
) -> None:
    """Show how a community fares: waits, acceptance, reasons of refusal, newcomers, work and carbon.

    All of it is computed from ledger entries, so anybody who has the same entries gets the same figures. Entries that
    break a rule are left out. The node may be running. Figures by purpose or community that rest on fewer than 5
    accounts are not shown on their own.
    """
    from ubcp_p2p.ledger.activity import Activity
    from ubcp_p2p.ledger.reading import read
    from ubcp_p2p.ledger.sources import StoreSource, open_source
    from ubcp_p2p.ledger.stats import statistics
    from ubcp_p2p.ledger.stats_document import document, lines

    place = path if path is not None else profile_at(profile).ledger_store
    activity = Activity()
    wanted = _periods(period) if period is not None else None
    with open_source(place) if path is not None else StoreSource(place) as source:
        charters = source.charters
        if network is not None and network.lower() != charters.network.hex():
            raise ConfigError(
                f"{place} is the ledger of the network {charters.network.hex()}, not of {network:.80}",
                hint="`ubcp charter check` and `ubcp status` print a community's network id",
            )
        found = read(source, charters.first.slice_at(time.time()), activity.add)
    span = _span(wanted, found, place)
    result = statistics(activity, found.ledger, span)
    is_own = path is None
    if json:
        emit_json({**document(result, charters), "source": _source(found, is_own)})
        return
    for line in lines(result, charters):
        print(printable(line))
    _tell(place, found, is_own)


def _periods(text: str) -> Span:
    """Raises ConfigError."""
    from ubcp_p2p.ledger.stats import Span

    match = _PERIODS.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"--period {text!r:.80} is no period", hint="a period is a number from 0 on: --period 3, or --period 3..5"
        )
    span = Span(int(match[1]), int(match[2] or match[1]))
    if span.first > span.last:
        raise ConfigError(f"--period {text} ends before it begins", hint=f"--period {span.last}..{span.first}")
    return span


def _span(wanted: Span | None, found: Read, place: Path) -> Span:
    """All periods of the ledger, or the ones that are wanted. Raises ConfigError, UbcpError."""
    from ubcp_p2p.ledger.stats import Span

    ledger = found.ledger
    if not ledger.entries:
        left_out = found.refused + found.pending + found.early
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


def _source(found: Read, is_own: bool) -> dict[str, Any]:
    """Not where it lies: two who have the same entries get the same document."""
    return {
        "signatures_verified": is_own, "entries": found.ledger.entries,
        "refused": found.refused, "pending": found.pending, "early": found.early,
    }  # fmt: skip


def _tell(place: Path, found: Read, is_own: bool) -> None:
    """What whoever reads the figures should know of where they are from: on stderr."""
    for number, why in (
        (found.refused, "malformed or against a rule"),
        (found.pending, "referring to entries that are not before them or were left out"),
        (found.early, "ahead of this machine's clock"),
    ):
        if number:
            say(f"left out: {number:,} {'entry' if number == 1 else 'entries'} {why}")
    if not is_own:
        say(printable(f"not audited: no signature in {place} was verified here; `ubcp audit {place}` does that"))
