"""Whose leases hold for a run that REQUESTs pay for: who may bill one of them, and whose signatures count. Pure.

Who trains a run is let in by a lease of any REQUEST for it (peer/admission.py), so a group's majority is counted over
all of them: else the members that the smaller part of the leases seats would be paid by nobody.
"""

from __future__ import annotations

from typing import NamedTuple

from ubcp_p2p.ledger.activity import Activity
from ubcp_p2p.ledger.leases import recent_holders
from ubcp_p2p.ledger.state import Ledger
from ubcp_p2p.models.recipe import run_id


class Leased(NamedTuple):
    """Nodes, none of them frozen. own: those with leases of the REQUEST itself; run: of any that pays for its run."""

    own: frozenset[bytes]
    run: frozenset[bytes]


def leased_of(ledger: Ledger, activity: Activity, request: bytes, slice_: int) -> Leased:
    """By the leases of this slice and the one before; `request` is known.

    The other REQUESTs are open ones, of authors that were enrolled when they asked, and are not frozen.
    """
    asked, frozen = activity.requests[request], frozenset(ledger.frozen())
    run = run_id(asked.body.run, asked.body.recipe)
    others = [
        one
        for one in activity.requests.values()
        if one.id != request
        and one.body.expiry >= slice_
        and one.id not in activity.closed
        and one.author not in frozen
        and ledger.is_enrolled(one.author, ledger.period(one.slice))
        and run_id(one.body.run, one.body.recipe) == run
    ]
    held = recent_holders(ledger, activity, [asked, *others], slice_)
    return Leased(held[request], frozenset[bytes]().union(*held.values()))
