"""Which REQUESTs of the community are open: not closed, not paid out, and before their deadline. Pure."""

from __future__ import annotations

from ubcp_p2p.ledger.activity import Activity, Asked
from ubcp_p2p.ledger.state import Ledger


def open_requests(ledger: Ledger, activity: Activity, now: int) -> tuple[tuple[Asked, int], ...]:
    """Those at slice `now`, with the units done of each."""
    found = []
    for asked in activity.requests.values():
        if asked.body.deadline >= now and asked.id in ledger.requests and asked.id not in activity.closed:
            done = activity.done(asked.id)
            if done < asked.body.credits:
                found.append((asked, done))
    return tuple(found)
