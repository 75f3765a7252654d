"""Statistics as a JSON document and as lines of text; here, and only here, figures are rounded. Pure.

In the document all numbers are integers: times in slices, amounts in GFLOP and µcredits, carbon in whole milligrams,
rounded down. Moments are ISO 8601 in UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Final

from ubcp_p2p.charter.values import Charter, Charters
from ubcp_p2p.charter.words import figure, span
from ubcp_p2p.ledger.stats import ACCOUNTS_MIN, Figures, Nodes, Statistics, Table, Waits
from ubcp_p2p.units import credits_text, decimal_text

MILLI: Final = 1000
_WIDTH: Final = 17  # of the column of headings


def document(stats: Statistics, charters: Charters) -> dict[str, Any]:
    """The same for the same set of entries, whoever asks."""
    charter = charters.at(stats.span.last)
    slices = stats.span.slices(charter.period_slices)
    return {
        "network": charters.network.hex(), "name": charter.name,
        "periods": {
            "first": stats.span.first, "last": stats.span.last, "begins": _begins(charter, slices.start),
            "ends": _begins(charter, slices.stop),
        },
        "slice": stats.slice, "slice_seconds": charter.slice_s, "accounts_min": ACCOUNTS_MIN,
        "total": _figures(stats.total), "by_purpose": _table(stats.by_purpose),
        "by_community": _table(stats.by_community), "nodes": stats.nodes._asdict(),
        "refusals": [row._asdict() for row in stats.refusals], "other_refusals": stats.other_refusals,
    }  # fmt: skip


def lines(stats: Statistics, charters: Charters) -> list[str]:
    """The same for people. What charters and entries name may be any text: whoever prints it makes it printable."""
    charter = charters.at(stats.span.last)
    slices = stats.span.slices(charter.period_slices)
    first, last = stats.span
    periods = f"period {first}" if first == last else f"periods {first} to {last}"
    from_, until, known = (_minute(charter, slice_) for slice_ in (slices.start, slices.stop, stats.slice))
    said = [
        f"{charter.name}, {periods}: from {from_} until {until}",
        f"by the entries up to slice {stats.slice} ({known})",
        *_total(stats.total, charter),
        _line("decisions", _decisions(stats.nodes)),
    ]
    refused = [f"{row.reason} {row.times:,}" for row in stats.refusals]
    refused += [f"other reasons {stats.other_refusals:,}"] if stats.other_refusals else []
    said.append(_line("refused", ", ".join(refused) or "nothing, by what the decisions say"))
    for title, table in (("by purpose", stats.by_purpose), ("by community", stats.by_community)):
        said += _rows(title, table, charter)
    return said


# -- JSON -------------------------------------------------------------------------------------------------------------


def _figures(figures: Figures) -> dict[str, Any]:
    return {
        "accounts": figures.accounts, "requests": figures.requests,
        "served": figures.served.requests, "wait_slices": _waits(figures.served),
        "waiting": figures.waiting.requests, "waiting_slices": _waits(figures.waiting), "overdue": figures.overdue,
        "unserved": figures.unserved, "accepted_of": figures.accepted_of, "leases": figures.leases,
        "units": figures.units, "credits": figures.units, "newcomers": figures.newcomers._asdict(),
        "gco2_mg": None if _carbon_is_unknown(figures) else int(figures.gco2 * MILLI),
        "gco2_units_unknown": figures.units_unknown,
    }  # fmt: skip


def _waits(waits: Waits) -> dict[str, int] | None:
    if not waits.requests:
        return None
    return {"p50": waits.p50, "p90": waits.p90, "p99": waits.p99, "max": waits.longest}


def _table(table: Table) -> dict[str, Any]:
    rows = [{"name": name, **_figures(figures)} for name, figures in table.rows]
    others = table.others
    if others is None:
        return {"rows": rows, "others": None}
    figures = _figures(others.figures) if others.figures is not None else None
    return {"rows": rows, "others": {"rows": others.rows, "accounts": others.accounts, "figures": figures}}


def _carbon_is_unknown(figures: Figures) -> bool:
    """Nothing done is no carbon; of what was done, all is of device classes without costs."""
    return 0 < figures.units == figures.units_unknown


def _begins(charter: Charter, slice_: int) -> str | None:
    """None beyond the last year of calendars."""
    try:
        return datetime.fromtimestamp(charter.epoch + slice_ * charter.slice_s, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return None


# -- words ------------------------------------------------------------------------------------------------------------


def _total(figures: Figures, charter: Charter) -> list[str]:
    asked, new = figures.requests, figures.newcomers
    said = [
        _line(
            "requests",
            f"{asked:,} asked for; {figures.served.requests:,} served, {figures.unserved:,} ended without, "
            f"{figures.waiting.requests:,} waiting; of {_count(figures.accounts, 'account')}",
        ),
        _line("accepted", _acceptance(figures, charter)),
        _line("waited", _waited(figures.served, charter, "until served") or "nobody was served"),
    ]
    still = _waited(figures.waiting, charter, "so far")
    said += [_line("still waiting", still)] if still else []
    said += [
        _line("work", f"{credits_text(figures.units)} credits, by {_count(figures.leases, 'lease')}"),
        _line("carbon", _carbon(figures)),
    ]
    newcomers = (
        f"{part:,} of {whole:,} {what}{_share(part, whole)}"
        for part, whole, what in (
            (new.requests, asked, _plural(asked, "request")),
            (new.leases, figures.leases, _plural(figures.leases, "lease")),
        )
    )
    work = f"{credits_text(new.units)} credits of work{_share(new.units, figures.units)}"
    return [*said, _line("newcomers", ", ".join((*newcomers, work)))]


def _acceptance(figures: Figures, charter: Charter) -> str:
    served, of = figures.served.requests, figures.accepted_of
    if not of:
        return "nothing to tell yet"
    bound = span(charter.ageing_slices * charter.slice_s)
    return f"{served:,} of {of:,}{_share(served, of)}: served, of these and all that ended or wait for over {bound}"


def _waited(waits: Waits, charter: Charter, what: str) -> str:
    if not waits.requests:
        return ""
    half, ninety, ninety_nine, longest = (_time(charter, slices) for slices in waits[1:])
    return f"{what}: half at most {half}, 90 % {ninety}, 99 % {ninety_nine}, the longest {longest}"


def _carbon(figures: Figures) -> str:
    if _carbon_is_unknown(figures):
        return "unknown: the charter has no costs of these device classes"
    grams = f"about {figure(figures.gco2)} g CO2, by the charter's figures"
    if not figures.units_unknown:
        return grams
    return f"{grams}; unknown for {credits_text(figures.units_unknown)} credits of the work"


def _decisions(nodes: Nodes) -> str:
    offered, leased = credits_text(nodes.budget_offered), credits_text(nodes.budget_leased)
    return (
        f"{nodes.decisions:,} by {_count(nodes.nodes, 'node')} of {_count(nodes.owners, 'account')}; {offered} credits "
        f"of computing offered, at most {leased} leased{_share(nodes.budget_leased, nodes.budget_offered)}"
    )


def _rows(title: str, table: Table, charter: Charter) -> list[str]:
    said = [_line(f"  {name}", _row(figures, charter)) for name, figures in table.rows]
    others = table.others
    if others is not None:
        what = _row(others.figures, charter) if others.figures is not None else "too few to tell of"
        said.append(
            _line("  (others)", f"{_count(others.rows, 'row')} of {_count(others.accounts, 'account')}: {what}")
        )
    return [title, *said] if said else []


def _row(figures: Figures, charter: Charter) -> str:
    parts = [f"{_count(figures.requests, 'request')} of {_count(figures.accounts, 'account')}"]
    if figures.accepted_of:
        parts.append(f"{figures.served.requests:,} of {figures.accepted_of:,} accepted")
    if figures.served.requests:
        parts.append(f"half within {_time(charter, figures.served.p50)}, 99 % {_time(charter, figures.served.p99)}")
    parts.append(f"{credits_text(figures.units)} credits of work")
    if figures.units:
        parts.append("carbon unknown" if _carbon_is_unknown(figures) else f"{figure(figures.gco2)} g CO2")
        parts += ["of some work unknown"] if 0 < figures.units_unknown < figures.units else []
    return "; ".join(parts)


def _line(heading: str, text: str) -> str:
    return f"{heading:<{_WIDTH}}{text}" if len(heading) < _WIDTH else f"{heading} {text}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {_plural(number, what)}"


def _plural(number: int, what: str) -> str:
    return what if number == 1 else f"{what}s"


def _share(part: int, whole: int) -> str:
    """In tenths of a per cent, rounded to the nearest, a half up."""
    if not whole:
        return ""
    tenths = int(Fraction(1000 * part, whole) + Fraction(1, 2))
    return f" ({decimal_text(tenths, 1)} %)"


def _time(charter: Charter, slices: int) -> str:
    return span(slices * charter.slice_s) if slices else "no time"


def _minute(charter: Charter, slice_: int) -> str:
    begins = _begins(charter, slice_)
    return begins[:16].replace("T", " ") + " UTC" if begins else f"the start of slice {slice_}"
