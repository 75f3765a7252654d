"""Which leases there are and which hold: many peers' decisions become groups by a rule that all compute alike. Pure.

Not every DECISION counts (SPEC §6.4). A REQUEST asks for peers min to max: once the decisions on a slice have had their
minute, fewer leases than the least free each other, and of more than the most those with the lowest hash hold.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple

from ubcp_p2p.ledger.activity import Activity, Asked
from ubcp_p2p.ledger.chain import NodeChain
from ubcp_p2p.ledger.decisions import Decided, again, by_slice
from ubcp_p2p.ledger.state import Ledger

SETTLE_S: Final = 60  # how long after its beginning a slice's decisions may come
RECENT_SLICES: Final = 1  # before this one; a slice's leases are known a minute after it began


class Lease(NamedTuple):
    """One REQUEST accepted by one node for one slice."""

    request: bytes
    node: bytes
    slice: int


class Leases:
    """The decisions that count, and the leases that they give: the same for the same set of entries.

    decided: by node and slice, and as they follow on the node's chain; each part of a decision by itself.
    """

    def __init__(self, activity: Activity, ledger: Ledger, *, since: int = 0) -> None:
        """since: of decisions on this slice and later ones alone."""
        self.decided: list[Decided] = []
        self._of: dict[bytes, set[Lease]] = defaultdict(set)
        enrolled: dict[tuple[bytes, int], bool] = {}  # by node and period
        for rows in by_slice(one for one in activity.decisions.values() if one.body.slice >= since):
            node, slice_ = rows[0].node, rows[0].body.slice
            place = node, ledger.period(slice_)
            if place not in enrolled:
                enrolled[place] = counts(node, slice_, ledger)
            if enrolled[place]:
                left_out = {one.id for one in again(rows, ledger)}
                self.decided += [one for one in rows if one.id not in left_out]
        for one in self.decided:
            for request in one.body.accepted:
                self._of[request].add(Lease(request, one.node, one.body.slice))

    def of(self, request: bytes) -> list[Lease]:
        """Those of one REQUEST, by (slice, node)."""
        return sorted(self._of.get(request, ()), key=lambda lease: (lease.slice, lease.node))


def counts(node: bytes, slice_: int, ledger: Ledger) -> bool:
    """Whether decisions of this node on this slice count: whoever owns it, on any branch, is enrolled then.

    Keys cost nothing: without this, nodes of strangers could take up all places of a REQUEST.
    """
    owners = {chain.owner for chain in ledger.chains.get(node, ()) if isinstance(chain, NodeChain)}
    return any(ledger.is_enrolled(owner, ledger.period(slice_)) for owner in owners)


def rank(request: bytes, slice_: int, node: bytes) -> bytes:
    """SHA-256(`"ubcp/lease/1\\0"` ‖ request ‖ slice, 4 bytes big-endian ‖ node): nobody can choose to be early."""
    return hashlib.sha256(b"ubcp/lease/1\0" + request + slice_.to_bytes(4, "big") + node).digest()


def turn_permille(slice_: int, node: bytes) -> int:
    """When in the time for decisions this node decides, 0 to 999 per mille of it, drawn anew for each slice.

    Peers that all decided at once, on the same facts, would all choose the same requests. One after the other, each
    knows what those before it have taken.
    """
    digest = hashlib.sha256(b"ubcp/turn/1\0" + slice_.to_bytes(4, "big") + node).digest()
    return int.from_bytes(digest[:8], "big") * 1000 >> 64


def holders(asked: Asked, slice_: int, leases: Iterable[Lease]) -> tuple[bytes, ...]:
    """The nodes whose leases on this slice hold, by rank; none when fewer than peers min have one."""
    nodes = {lease.node for lease in leases if lease.slice == slice_ and lease.request == asked.id}
    if len(nodes) < asked.body.peers_min:
        return ()
    return tuple(sorted(nodes, key=lambda node: rank(asked.id, slice_, node))[: asked.body.peers_max])


def recent_holders(
    ledger: Ledger, activity: Activity, asked: Iterable[Asked], slice_: int
) -> dict[bytes, frozenset[bytes]]:
    """By REQUEST: the nodes whose leases hold in this slice or the one before. Frozen nodes and owners have none."""
    since, frozen = slice_ - RECENT_SLICES, frozenset(ledger.frozen())
    out = frozen | {node for node, owner in activity.owners.items() if owner in frozen}
    leases = Leases(activity, ledger, since=since)
    held = {}
    for one in asked:
        rows = [lease for lease in leases.of(one.id) if lease.node not in out]
        held[one.id] = frozenset(node for each in range(since, slice_ + 1) for node in holders(one, each, rows))
    return held
