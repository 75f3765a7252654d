"""Seats in a run's averaging group are the allocator's to give: by verified work, else by the round's lot. Pure.

Nothing is verified yet, so that all are worth the same and the lot decides. What is given here must be the same on
every member, or they would look for different groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ubcp_p2p.allocator.problem import Reason
from ubcp_p2p.allocator.seats import Candidate, decide_seats
from ubcp_p2p.allocator.words import explain_seat
from ubcp_p2p.swarm.seating import Seating, lot


def allocated(
    round_: int,
    peers: Sequence[bytes],
    seats: int,
    *,
    verified: Mapping[bytes, int] | None = None,
    standing: Mapping[bytes, Reason] | None = None,
) -> Seating:
    """A swarm.seating.ChooseSeats. verified: units of each peer in the last rounds; standing: who is out, and why.

    The allocator breaks ties by id: a peer's id is its lot, so they are broken otherwise in every round.
    """
    work, out = verified or {}, standing or {}
    by_lot = {lot(round_, peer): peer for peer in peers}
    found = decide_seats((Candidate(id_, work.get(peer, 0), out.get(peer)) for id_, peer in by_lot.items()), seats)
    seated = sorted((one for one in found if one.accepted), key=lambda one: (-one.value, one.id))
    return Seating(
        tuple(by_lot[one.id] for one in seated),
        {by_lot[one.id]: explain_seat(one, len(peers), seats) for one in found if not one.accepted},
    )
