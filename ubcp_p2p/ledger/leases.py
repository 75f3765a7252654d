"""Which leases hold: decisions of many peers, each made alone, become one group by a rule that all compute alike. Pure.

A REQUEST asks for peers min to max. Once the decisions on a slice have had their minute, fewer leases than the least
free each other, and of more than the most those with the lowest hash hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from ubcp_p2p.ledger.activity import Asked, Lease

SETTLE_S: Final = 60  # how long after its beginning a slice's decisions may come


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
