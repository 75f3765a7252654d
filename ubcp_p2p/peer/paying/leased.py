"""Whose leases hold for a run that REQUESTs pay for: who may bill one of them, and whose signatures count. Pure.

Who trains a run is let in by a lease of any REQUEST for it (peer/admission.py), so a group's majority is counted over
all of them: else the members that the smaller part of the leases seats would be paid by nobody.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ubcp_p2p.ledger.activity import Activity, Asked
from ubcp_p2p.ledger.leases import Leases, holders
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.models.recipe import run_id

LEASED_SLICES: Final = 1  # before this one: a slice's leases are known a minute after it began


class Leased(NamedTuple):
    """Nodes, none of them frozen. own: those with leases of the REQUEST itself; run: of any that pays for its run."""

    own: frozenset[bytes]
    run: frozenset[bytes]


def leased_of(ledger: Ledger, activity: Activity, request: bytes, slice_: int) -> Leased:
    """By the leases of this slice and the one before; `request` is known.

    The other REQUESTs are open ones, of authors that were enrolled when they asked, and are not frozen.
    """
    asked, since = activity.requests[request], slice_ - LEASED_SLICES
    frozen = frozenset(ledger.frozen())
    out = frozen | {node for node, owner in activity.owners.items() if owner in frozen}
    leases = Leases(activity, ledger, since=since)
    run = run_id(asked.body.run, asked.body.recipe)

    def held(one: Asked) -> frozenset[bytes]:
        rows = [lease for lease in leases.of(one.id) if lease.node not in out]
        return frozenset(node for each in range(since, slice_ + 1) for node in holders(one, each, rows))

    own = held(asked)
    others = [
        held(one)
        for one in activity.requests.values()
        if one.id != request
        and one.body.expiry >= slice_
        and one.id not in activity.closed
        and one.author not in frozen
        and ledger.is_enrolled(one.author, ledger.period(one.slice))
        and run_id(one.body.run, one.body.recipe) == run
    ]
    return Leased(own, own.union(*others))
