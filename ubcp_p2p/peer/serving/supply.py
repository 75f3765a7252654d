"""Who serves of late and with how much, by the DECISIONs that were told. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from ubcp_p2p.charter.values import Charter
from ubcp_p2p.ledger.activity import Activity
from ubcp_p2p.ledger.leases import Leases
from ubcp_p2p.ledger.state import Ledger

RECENT_SLICES: Final = 4  # a node that decided in the last so many slices counts as part of the network's capacity


class Supply(NamedTuple):
    """budgets: units of a slice, by node. recent: whether they are of the last slices, and who is missing is not there.

    A node decides only where somebody asks: where nobody has asked lately, nobody knows who would serve. Then the
    budgets are those of the last period, and say who did.
    """

    budgets: Mapping[bytes, int]
    recent: bool


def recent_leases(ledger: Ledger, activity: Activity, slice_: int) -> Leases:
    """Those of the last period: what `supply` goes by."""
    return Leases(activity, ledger, since=max(0, slice_ - ledger.charter_at(slice_).period_slices))


def supply(ledger: Ledger, activity: Activity, leases: Leases, slice_: int, author: bytes) -> Supply:
    """Who could serve a REQUEST of `author`, written in `slice_`: own nodes do not, for they could not be paid."""
    own = {node for node, owner in activity.owners.items() if owner == author}
    left_out, charter = {*own, *ledger.frozen()}, ledger.charter_at(slice_)
    found = budgets(leases, charter, slice_, left_out)
    if found or _was_asked(activity, slice_, author):
        return Supply(found, True)
    return Supply(budgets(leases, charter, slice_, left_out, charter.period_slices), False)


def budgets(
    leases: Leases, charter: Charter, slice_: int, left_out: Collection[bytes], span: int = RECENT_SLICES
) -> dict[bytes, int]:
    """What nodes offered of late: the newest budget of each that decided in the last `span` slices.

    No device does more in a slice than the fastest class of the charter.
    """
    most = max(device.peak for device in charter.devices) * charter.slice_s
    newest: dict[bytes, tuple[int, int]] = {}
    for decided in leases.decided:
        if slice_ - span <= decided.body.slice <= slice_ and decided.node not in left_out:
            row = (decided.body.slice, min(decided.body.budget, most))
            newest[decided.node] = max(newest.get(decided.node, row), row)
    return {node: budget for node, (_, budget) in newest.items()}


def _was_asked(activity: Activity, slice_: int, author: bytes) -> bool:
    """Whether every node that could serve `author` had something to decide on in the slice before this one.

    A node passes over what its own owner asks for: one author's requests are silence of that author's nodes.
    """
    asking = {
        asked.author
        for asked in activity.requests.values()
        if asked.slice < slice_ - 1 <= asked.body.deadline
        and activity.closed.get(asked.id, slice_) >= slice_
        and activity.done(asked.id) < asked.body.credits
    }
    return author in asking or len(asking) > 1
