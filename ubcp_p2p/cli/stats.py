"""`ubcp stats`: how long people wait, who is served and what it costs in carbon, from ledger entries alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ubcp_p2p.cli.output import JsonOption, ProfileOption, emit_json, profile_at, say
from ubcp_p2p.errors import ConfigError
from ubcp_p2p.log import printable

if TYPE_CHECKING:
    from ubcp_p2p.ledger.reading import Read


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
    from ubcp_p2p.ledger.spans import periods, span_of
    from ubcp_p2p.ledger.stats import statistics
    from ubcp_p2p.ledger.stats_document import document, lines

    place = path if path is not None else profile_at(profile).ledger_store
    activity = Activity()
    wanted = periods(period) if period is not None else None
    with open_source(place) if path is not None else StoreSource(place) as source:
        charters = source.charters
        if network is not None and network.lower() != charters.network.hex():
            raise ConfigError(
                f"{place} is the ledger of the network {charters.network.hex()}, not of {network:.80}",
                hint="`ubcp charter check` and `ubcp status` print a community's network id",
            )
        found = read(source, charters.first.slice_at(time.time()), activity.add)
    span = span_of(wanted, found.ledger, place, found.refused + found.pending + found.early)
    result = statistics(activity, found.ledger, span)
    is_own = path is None
    if json:
        emit_json({**document(result, charters), "source": _source(found, is_own)})
        return
    for line in lines(result, charters):
        print(printable(line))
    _tell(place, found, is_own)


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
