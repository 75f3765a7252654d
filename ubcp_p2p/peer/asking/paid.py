"""The runs that REQUESTs pay for: who earns with each, until when, how much of its time and credits is left. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from ubcp_p2p.ledger.activity import Activity, Asked
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.peer.asking.values import begins_s

HALVINGS_MAX: Final = 16  # seconds of a day


class PaidRun(NamedTuple):
    """A run of one name and recipe, and the REQUESTs for it. began_s, end_s: Unix seconds. Amounts are µcredits.

    earners: the nodes that have an ALLOT of any of them.
    """

    name: str
    recipe: bytes
    requests: tuple[bytes, ...]
    earners: frozenset[bytes]
    began_s: int
    end_s: int
    credits: int
    paid: int


def paid_runs(ledger: Ledger, activity: Activity, chosen: Iterable[Asked]) -> list[PaidRun]:
    """Those of the `chosen` REQUESTs, in the order of the first that was asked."""
    groups: dict[tuple[str, bytes], list[Asked]] = {}
    for asked in sorted(chosen, key=lambda asked: (asked.slice, asked.id)):
        groups.setdefault((asked.body.run, asked.body.recipe), []).append(asked)
    found: dict[tuple[str, bytes], set[bytes]] = {key: set() for key in groups}
    for allot in ledger.allots.values() if groups else ():
        other = activity.requests.get(allot.request)
        earners = found.get((other.body.run, other.body.recipe)) if other is not None else None
        if earners is not None and allot.contributor in ledger.openings:
            earners.add(ledger.openings[allot.contributor].author)
    charter = ledger.charters.first
    return [
        PaidRun(
            name, recipe, tuple(asked.id for asked in rows), frozenset(found[name, recipe]),
            begins_s(charter, rows[0].slice), begins_s(charter, max(asked.body.deadline for asked in rows) + 1),
            sum(asked.body.credits for asked in rows),
            sum(sum(ledger.paid.get(asked.id, {}).values()) for asked in rows),
        )
        for (name, recipe), rows in groups.items()
    ]  # fmt: skip


def halvings(run: PaidRun, now_s: float, promised: int) -> int:
    """How often what is left of a run's time or credits, whichever is less, has halved.

    Whoever fetches its model at each halving has, whenever those who train it go, the work of half of what was spent
    at the least, and all but a 2^-16th at the end, for 17 downloads.
    """
    spent = max(run.paid, promised)
    return max(_halved(int(run.end_s - now_s), run.end_s - run.began_s), _halved(run.credits - spent, run.credits))


def _halved(left: int, total: int) -> int:
    if left <= 0:
        return HALVINGS_MAX
    return min(HALVINGS_MAX, max(0, (max(left, total) // left).bit_length() - 1))
